"""`mvctl log`: the changelog of a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import click

from mvvfs.cli import target
from mvvfs.cli.changes import print_changes
from mvvfs.cli.output import note, one_line, say, show
from mvvfs.compare.api import History, wait_for_commit
from mvvfs.when import format_time
from pagestore.api import MAX_VERSION, ZERO_VERSION, Change, Namespace, Store, Version, before, format_version


@dataclass(frozen=True)
class _Wanted:
    """What to show of each commit."""

    table: str | None
    tables: bool
    rows: bool
    as_json: bool


@click.command()
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(min=0), default=0, help="Show this many.  [default: all]")
@click.option("--table", metavar="TABLE", help="Only commits that wrote a page of it, or of its indexes.")
@click.option("--tables", is_flag=True, help="Name the tables of which pages were written.")
@click.option("--rows", is_flag=True, help="Show what changed: rows and schema.")
@click.option("--follow", "-f", is_flag=True, help="Oldest first, and then each new one until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@target.store_option
def log(
    name: str, limit: int, table: str | None, tables: bool, rows: bool, follow: bool, as_json: bool
) -> None:
    """Show what was committed, newest first.

    Version, time, number of pages, message.
    """
    wanted = _Wanted(table, tables, rows, as_json)
    with target.opened_database(target.locate(name)) as (store, namespace):
        printer = _Printer(store, namespace, wanted)
        if follow:
            _follow(printer, store, namespace, limit)
            return
        shown = 0
        for change, earlier in _newest_first(store, namespace, limit):
            shown += printer.print(change, earlier)
            if shown == limit > 0:
                break
    if not shown:
        note("nothing committed yet" if table is None else f"no commit wrote to a table {table}")


def _newest_first(store: Store, namespace: Namespace, likely: int) -> Iterator[tuple[Change, Version | None]]:
    """Each commit with the version before it; None: that is no longer kept.

    `likely`: how many the caller will look at, unless it passes some over; 0: all."""
    later: Change | None = None
    for change in _fetched(store, namespace, likely + 1 if likely else 0):
        if later is not None:
            yield later, _kept(change.version, later, namespace)
        later = change
    if later is not None:
        yield later, _kept(namespace.horizon, later, namespace)


def _fetched(store: Store, namespace: Namespace, first: int) -> Iterator[Change]:
    """The changelog, newest first: `first` records (0: all), then, for who wants more, ever longer pieces."""
    until, piece = MAX_VERSION, first
    while True:
        oldest, count = ZERO_VERSION, 0
        for change in store.changelog(namespace.id, until=until, newest_first=True, limit=piece):
            yield change
            oldest, count = change.version, count + 1
        if not piece or count < piece:
            return
        until, piece = before(oldest), 2 * piece


def _kept(earlier: Version, change: Change, namespace: Namespace) -> Version | None:
    """Retention may have taken the version before, or what is needed to look at it."""
    return max(earlier, namespace.horizon) if change.version > namespace.horizon else None


def _follow(printer: _Printer, store: Store, namespace: Namespace, limit: int) -> None:
    """The newest `limit` (0: all) commits, and then what comes; for ever."""
    newest = list(store.changelog(namespace.id, newest_first=True, limit=limit + 1)) if limit else []
    last = newest[limit].version if len(newest) > limit > 0 else ZERO_VERSION
    while True:
        for change in store.changelog(namespace.id, after=last):
            printer.print(change, _kept(last, change, namespace))
            last = change.version
        wait_for_commit(store, namespace, last)


class _Printer:
    """Prints commits, and works out for each what is wanted of it."""

    def __init__(self, store: Store, namespace: Namespace, wanted: _Wanted) -> None:
        self._wanted = wanted
        self._history = History(store, namespace)

    def print(self, change: Change, earlier: Version | None) -> bool:
        """Whether the commit was one of those wanted."""
        wanted = self._wanted
        touched: tuple[str, ...] | None = None
        comparison = None
        if earlier is not None and (wanted.tables or wanted.rows or wanted.table is not None):
            comparison = self._history.comparison(earlier, change)
            if wanted.tables or wanted.table is not None:
                touched = tuple(sorted(comparison.touched()))
        table = wanted.table
        if table is not None and not (
            comparison is not None and any(comparison.is_part(one, table) for one in touched or ())
        ):
            return False
        shown = touched if wanted.tables else None
        if wanted.as_json:
            say(change_json(change, shown))
        else:
            show_change(change, shown)
        if wanted.rows and comparison is not None:
            version = format_version(change.version)
            print_changes(comparison.differences(wanted.table), as_json=wanted.as_json, version=version)
        return True


def change_json(change: Change, touched: tuple[str, ...] | None) -> str:
    entry: dict[str, object] = {
        "version": format_version(change.version),
        "time": format_time(change.time_us),
        "pages": len(change.pages),
        "message": change.message,
    }
    if touched is not None:
        entry["tables"] = touched
    return json.dumps(entry, ensure_ascii=False)


def show_change(change: Change, touched: tuple[str, ...] | None) -> None:
    names = () if touched is None else ((f"  {', '.join(map(one_line, touched)) or 'none'}", "magenta"),)
    pages = len(change.pages)
    show(
        (format_version(change.version), "yellow"),
        (f"  {format_time(change.time_us)}", "dim"),
        (f"  {pages:>6,} page{' ' if pages == 1 else 's'}", "cyan"),
        *names,
        (f"  {one_line(change.message)}" if change.message else "", ""),
    )


COMMANDS = (log,)
