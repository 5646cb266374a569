"""`mvctl create list info rename drop shell`: databases and what is in them."""

from __future__ import annotations

import io
import json
import os
import sys

import apsw
import click
from apsw.shell import Shell

from mvvfs import names
from mvvfs.cli import target
from mvvfs.cli.output import columns, note, one_line, say, size
from mvvfs.connect import connect
from mvvfs.errors import DatabaseExistsError, OptionError, UnsupportedError
from mvvfs.names import Location
from mvvfs.options import parse_page_size
from mvvfs.transfer import moment_of, opened
from mvvfs.when import format_time
from pagestore.api import Namespace, NameTakenError, Store, format_version

_STEPS_PER_LOOK = 100_000
"""SQLite's virtual machine stops so often for Python to see a Ctrl-C: every millisecond or so."""


def _page_size(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    try:
        return parse_page_size(text)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}") from None


@click.command()
@click.argument("name")
@click.option(
    "--page-size",
    metavar="BYTES",
    default="0",
    callback=_page_size,
    help="512 to 65536.  [default: SQLite's, 4096]",
)
@target.store_option
def create(name: str, page_size: int) -> None:
    """Make a new, empty database (and its store, if there is none)."""
    location = target.locate(name)
    with opened(location, create=True) as store:
        try:
            store.create(location.namespace, page_size=page_size)
        except NameTakenError:
            raise DatabaseExistsError(f"there is a database {target.describe(location)} already") from None
    say(f"created {target.describe(location)}")


@click.command("list")
@click.argument("store", required=False)
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@target.store_option
def list_(store: str | None, as_json: bool) -> None:
    """Show the databases of a store."""
    location = target.locate_store(store)
    with target.opened_store(location) as opened:
        namespaces = opened.list()
    if as_json:
        for one in namespaces:
            say(
                json.dumps(
                    {"name": one.name, "page_size": one.page_size, "created": format_time(one.created_us)}
                )
            )
        return
    columns(
        [
            (f"{one.page_size or 'undecided'}", format_time(one.created_us), one_line(one.name))
            for one in namespaces
        ],
        ("cyan", "dim", "bold"),
    )
    if not namespaces:
        url = location.store_url
        note(f"no database in {url} yet: mvctl --store {url} create NAME makes one")


def _facts(location: Location, store: Store, namespace: Namespace) -> dict[str, object]:
    newest = moment_of(store, location, None)
    usage = store.usage(namespace.id)
    return {
        "name": namespace.name,
        "store": location.store_url,
        "why": location.why,
        "page_size": namespace.page_size,
        "created": format_time(namespace.created_us),
        "newest": format_version(newest.version) if newest else None,
        "newest_time": format_time(newest.time_us) if newest else None,
        "horizon": format_version(namespace.horizon),
        "oldest": format_time(namespace.horizon_us or namespace.created_us),
        "versions": usage.commits,
        "live_pages": usage.live_pages,
        "live_bytes": usage.live_bytes,
        "history_pages": usage.history_pages,
        "history_bytes": usage.history_bytes,
    }


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@target.store_option
def info(name: str, as_json: bool) -> None:
    """Show where a database is, its newest version, and its size."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        facts = _facts(location, store, namespace)
    if as_json:
        say(json.dumps(facts))
        return
    newest = (
        f"{facts['newest']} of {facts['newest_time']}" if facts["newest"] else "none: nothing committed yet"
    )
    rows = [
        ("database", one_line(namespace.name)),
        ("store", f"{location.store_url} ({location.why})"),
        (
            "page size",
            f"{namespace.page_size} bytes" if namespace.page_size else "undecided: nothing committed yet",
        ),
        ("created", format_time(namespace.created_us)),
        ("newest", newest),
        ("oldest", f"{facts['horizon']} of {facts['oldest']} (how far back it can be read)"),
        ("versions", f"{facts['versions']:,}"),
        ("live", f"{facts['live_pages']:,} pages, {size(int(str(facts['live_bytes'])))} stored"),
        ("history", f"{facts['history_pages']:,} pages, {size(int(str(facts['history_bytes'])))} stored"),
    ]
    columns(rows, ("cyan", ""))


@click.command()
@click.argument("name")
@click.argument("new_name")
@target.store_option
def rename(name: str, new_name: str) -> None:
    """Give a database of a store another name."""
    location = target.locate(name)
    if target.given_store() is None and location.namespace == names.MAIN and name != names.MAIN:
        raise UnsupportedError(
            f"{name} is a store folder: rename that with mv while nothing has it open "
            f"(or rename the database inside: mvctl --store {name} rename {names.MAIN} NEW_NAME)"
        )
    with target.opened_store(location) as store:
        store.rename(location.namespace, new_name)
    say(f"renamed {location.namespace} to {new_name} in {location.store_url}")


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--now", is_flag=True, help="For good: it can't be brought back.")
@target.store_option
def drop(name: str, yes: bool, now: bool) -> None:
    """Remove a database; mvctl undrop brings it back.

    That is possible for as long as its history is kept.
    """
    location = target.locate(name)
    with target.opened_database(location) as (store, _):
        what = target.describe(location)
        if not yes:
            if not sys.stdin.isatty():
                raise OptionError(f"to drop {what} without being asked, give --yes")
            how = "with all its history? This cannot be undone" if now else "(mvctl undrop brings it back)?"
            click.confirm(f"Drop {what} {how}", abort=True, err=True)
        store.drop(location.namespace, now=now)
        left = store.list()
    say(f"dropped {what}")
    if not now:
        note(f"to bring it back: mvctl {_store_words(name, location)}undrop {name}")
    elif not left and os.path.isdir(location.store_url):
        note(
            f"the store {location.store_url} is empty now; its folder can be removed when nothing has it open"
        )


def _store_words(name: str, location: Location) -> str:
    """The options that make NAME mean the same database again."""
    return "" if location.namespace == names.MAIN and name != names.MAIN else f"--store {location.store_url} "


@click.command()
@click.argument("name")
@click.option("--at", metavar="WHEN", help="As it was then, read-only.")
@click.option(
    "-c",
    "--command",
    "commands",
    multiple=True,
    metavar="SQL",
    help="Run this instead of asking; may be repeated.",
)
@target.store_option
def shell(name: str, at: str | None, commands: tuple[str, ...]) -> None:
    """Open a database in an SQL shell (.help explains it)."""
    location = target.locate(name)
    pinned = target.moment(location, at) if at is not None else None
    if pinned is not None:
        note(f"{target.describe(location)} at {pinned}, read-only")
    run_shell(location, format_version(pinned.version) if pinned else None, commands)


def run_shell(location: Location, at: str | None, commands: tuple[str, ...] = ()) -> None:
    """An interactive shell on the database, at version `at` (as text) if given."""
    with target.opened_database(location):
        # who types SQL sees that it is slow: that need not be logged, unless asked for
        slow_ms = None if "MV_SLOW_MS" in os.environ else 0
        connection = connect(location.namespace, store=location.store_url, mode="rw", at=at, slow_ms=slow_ms)
    connection.set_progress_handler(lambda: False, _STEPS_PER_LOOK)
    try:
        if commands or not sys.stdin.isatty():
            _run_script(connection, commands)
        else:
            Shell(db=connection).cmdloop()  # type: ignore[no-untyped-call]
    finally:
        connection.close(force=True)


def _run_script(connection: apsw.Connection, commands: tuple[str, ...]) -> None:
    """Run commands, or what stdin holds; the first error ends it and is reported as any other."""
    shell = Shell(db=connection, stderr=io.StringIO())
    shell.bail = True
    try:
        for command in commands:
            shell.process_complete_line(command)  # type: ignore[no-untyped-call]
        if not commands:
            shell.cmdloop()  # type: ignore[no-untyped-call]
    except Shell.Error as exc:
        raise UnsupportedError(str(exc)) from None


COMMANDS = (create, list_, info, rename, drop, shell)
