"""`mvctl diff show`, and how changes are printed.  The work is in `mvvfs.compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import click

from mvvfs.cli import target
from mvvfs.cli.output import note, one_line, say, show
from mvvfs.compare import changeset
from mvvfs.compare.api import History, require_table, resolve
from mvvfs.compare.changes import Difference, RowChange, SchemaChange
from mvvfs.compare.comparison import compare
from mvvfs.compare.records import Value
from mvvfs.compare.script import changed_columns, literal, script
from mvvfs.transfer import appearing
from mvvfs.when import format_time
from pagestore.api import Change, Namespace, NoSuchVersionError, Store, Version, format_version

_LONGEST = 60
"""Characters of a value that are shown to people."""

_STYLES = {
    "insert": ("+", "green"),
    "delete": ("-", "red"),
    "update": ("~", "yellow"),
    "added": ("+", "green"),
    "dropped": ("-", "red"),
    "altered": ("~", "yellow"),
    "renamed": ("~", "yellow"),
}


# ---- how they look ----


def print_changes(differences: Iterator[Difference], *, as_json: bool, version: str | None = None) -> int:
    """Print them, one a line, and how many there were.  `version`: goes into each JSON object."""
    table = None
    count = 0
    for change in differences:
        count += 1
        if as_json:
            say(_as_json(change, version))
        elif isinstance(change, SchemaChange):
            _show_schema(change)
        else:
            if change.table != table:
                table = change.table
                show((f"table {one_line(table)}", "bold"))
            _show_row(change)
    return count


def _as_json(change: Difference, version: str | None) -> str:
    entry: dict[str, object] = {} if version is None else {"version": version}
    if isinstance(change, SchemaChange):
        entry |= {"change": "schema", "op": change.op, "kind": change.kind, "name": change.name}
        entry |= {"table": change.table, "old": change.old, "new": change.new}
    else:
        entry |= {"change": "row", "table": change.table, "op": change.op}
        entry |= {"key": [_plain(value) for value in change.key]}
        entry |= {"old": _plain_row(change.old), "new": _plain_row(change.new)}
    return json.dumps(entry)


def _plain_row(row: Mapping[str, Value] | None) -> dict[str, object] | None:
    return None if row is None else {column: _plain(value) for column, value in row.items()}


def _plain(value: Value) -> object:
    """As JSON has it: blobs as {"blob": hex digits}, infinities as {"real": "Infinity"}."""
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, float) and math.isinf(value):
        return {"real": "Infinity" if value > 0 else "-Infinity"}
    return value


def _show_schema(change: SchemaChange) -> None:
    sign, style = _STYLES[change.op]
    former = f" (was {one_line(change.table)})" if change.op == "renamed" else ""
    sql = change.new if change.new is not None else change.old
    show(
        (f"{sign} {change.kind} {one_line(change.name)} {change.op}{former}", style),
        (f"  {one_line(' '.join((sql or '').split()))}", "dim"),
    )


def _show_row(change: RowChange) -> None:
    sign, style = _STYLES[change.op]
    key = ", ".join(_short(value) for value in change.key)
    if change.old is not None and change.new is not None:
        what = "  ".join(
            f"{one_line(column)}: {_short(change.old.get(column))} -> {_short(change.new[column])}"
            for column in changed_columns(change.old, change.new)
        )
    else:
        row = change.new or change.old or {}
        what = "  ".join(f"{one_line(column)}: {_short(value)}" for column, value in row.items())
    show((f"  {sign} {key}", style), (f"  {what}", ""))


def _short(value: Value) -> str:
    if isinstance(value, str | bytes) and len(value) > _LONGEST:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{one_line(literal(value[: _LONGEST // 2]))}... ({len(value):,} {unit})"
    return one_line(literal(value))


# ---- the commands ----


@click.command()
@click.argument("name")
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", default="now")
@click.option("--table", metavar="TABLE", help="This one only.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option("--sql", "as_sql", is_flag=True, help="An SQL script that makes B of A.")
@click.option("--changeset", "file", metavar="FILE", help="Write an SQLite changeset.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it is there.")
@target.store_option
def diff(
    name: str, a: str, b: str, table: str | None, as_json: bool, as_sql: bool, file: str | None, force: bool
) -> None:
    """Show what differs between two moments.

    A and B are WHENs; B is now, if it is not given.  Schema first, then rows by table.
    """
    context = click.get_current_context()
    if as_json + as_sql + (file is not None) > 1:
        raise click.UsageError("give one of --json, --sql and --changeset", context)
    if table is not None and (as_sql or file is not None):
        raise click.UsageError("--sql and --changeset are of whole databases", context)
    with target.opened_database(target.locate(name)) as (store, namespace):
        old, new = (resolve(moment, store, namespace) for moment in (a, b))
        comparison = compare(store, namespace, old, new)
        if table is not None:
            require_table(comparison, table)
        if as_sql:
            for statement in script(comparison):
                say(statement)
        elif file is not None:
            with appearing(file, force) as temporary, open(temporary, "wb") as out:
                left_out = changeset.write(comparison, out)
            for what in left_out:
                note(f"left out, because a changeset can't hold it: {what}")
        elif not print_changes(comparison.differences(table), as_json=as_json):
            note("no difference")


@click.command("show")
@click.argument("name")
@click.argument("version", metavar="WHEN")
@click.option("--table", metavar="TABLE", help="This one only.")
@click.option("--json", "as_json", is_flag=True, help="One object a line: the commit, then its changes.")
@target.store_option
def show_command(name: str, version: str, table: str | None, as_json: bool) -> None:
    """Show one commit and what it changed.

    The newest one that is not after WHEN: its version, time and message, then schema and rows.
    """
    with target.opened_database(target.locate(name)) as (store, namespace):
        change, before = _commit(store, namespace, resolve(version, store, namespace))
        comparison = History(store, namespace).comparison(before, change)
        if table is not None:
            require_table(comparison, table)
        shown = format_version(change.version)
        if as_json:
            entry = {"version": shown, "time": format_time(change.time_us), "pages": len(change.pages)}
            say(json.dumps(entry | {"message": change.message}))
        else:
            show((shown, "yellow"), (f"  {format_time(change.time_us)}", "dim"))
            if change.message:
                show((one_line(change.message), ""))
        found = print_changes(comparison.differences(table), as_json=as_json, version=shown)
        if not found and not as_json:
            note(
                "no row and nothing of the schema changed" if table is None else f"nothing of {table} changed"
            )


def _commit(store: Store, namespace: Namespace, version: Version) -> tuple[Change, Version]:
    """The commit itself and the version before it."""
    newest = list(store.changelog(namespace.id, until=version, newest_first=True, limit=2))
    change, *earlier = newest
    before = earlier[0].version if earlier else namespace.horizon
    if change.version <= namespace.horizon:
        raise NoSuchVersionError(f"what {format_version(change.version)} changed is no longer kept")
    return change, max(before, namespace.horizon)


COMMANDS = (diff, show_command)
