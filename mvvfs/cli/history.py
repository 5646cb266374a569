"""`mvctl log`: the changelog of a database, newest first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import click

from mvvfs.cli import target
from mvvfs.cli.output import note, one_line, say, show
from mvvfs.connect import connect
from mvvfs.names import Location
from mvvfs.tables import table_map, tables_of
from mvvfs.when import format_time
from pagestore.api import Change, format_version

_PAGE_1 = 1


@click.command()
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(min=0), default=0, help="Show this many.  [default: all]")
@click.option("--tables", is_flag=True, help="Name the tables touched (walks the database once per version).")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@target.store_option
def log(name: str, limit: int, tables: bool, as_json: bool) -> None:
    """Show what was committed: version, time, number of pages, message; newest first."""
    location = target.locate(name)
    shown = False
    with target.opened_database(location) as (store, namespace):
        changes = store.changelog(
            namespace.id, newest_first=True, limit=limit + 1 if limit and tables else limit
        )
        entries = _with_tables(location, changes, limit) if tables else ((change, None) for change in changes)
        for change, touched in entries:
            shown = True
            if as_json:
                say(change_json(change, touched))
            else:
                show_change(change, touched)
    if not shown:
        note("nothing committed yet")


def _pages(change: Change) -> int:
    return len(change.pages)


def change_json(change: Change, touched: tuple[str, ...] | None) -> str:
    entry: dict[str, object] = {
        "version": format_version(change.version),
        "time": format_time(change.time_us),
        "pages": _pages(change),
        "message": change.message,
    }
    if touched is not None:
        entry["tables"] = touched
    return json.dumps(entry, ensure_ascii=False)


def show_change(change: Change, touched: tuple[str, ...] | None) -> None:
    names = () if touched is None else ((f"  {', '.join(map(one_line, touched)) or 'none'}", "magenta"),)
    pages = _pages(change)
    show(
        (format_version(change.version), "yellow"),
        (f"  {format_time(change.time_us)}", "dim"),
        (f"  {pages:>6,} page{' ' if pages == 1 else 's'}", "cyan"),
        *names,
        (f"  {one_line(change.message)}" if change.message else "", ""),
    )


def _with_tables(
    location: Location, changes: Iterable[Change], limit: int
) -> Iterator[tuple[Change, tuple[str, ...] | None]]:
    """Each commit with the tables that it touched; `changes` holds one more than are wanted."""
    later: tuple[Change, dict[int, str]] | None = None
    yielded = 0
    for change in changes:
        known = _tables_at(location, change)
        if later is not None:
            yield later[0], _touched(later[0], later[1], known)
            yielded += 1
        later = (change, known)
    if later is not None and (not limit or yielded < limit):
        yield later[0], _touched(later[0], later[1], {})


def _tables_at(location: Location, change: Change) -> dict[int, str]:
    connection = connect(
        location.namespace,
        store=location.store_url,
        mode="rw",
        at=format_version(change.version),
        slow_ms=0,
    )
    try:
        return table_map(connection)
    finally:
        connection.close()


def _touched(change: Change, after: dict[int, str], before: dict[int, str]) -> tuple[str, ...]:
    return tables_of(change.pages, after, before)


COMMANDS = (log,)
