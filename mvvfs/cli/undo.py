"""`mvctl revert branch dropped undrop`: back to what was, and a copy to try things on."""

from __future__ import annotations

import json

import click

from mvvfs.cli import target
from mvvfs.cli.output import columns, counted, note, one_line, say
from mvvfs.compare.comparison import compare
from mvvfs.errors import NoSuchDatabaseError
from mvvfs.names import Location
from mvvfs.when import Moment, format_time, resolve
from pagestore.api import Dropped, Namespace, NamespaceId, RunSet, Store, format_version


@click.command()
@click.argument("name")
@click.option("--to", "when", metavar="WHEN", required=True, help="A version or a time: see mvctl --help.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("-m", "--message", metavar="TEXT", help="For the changelog.  [default: revert to VERSION]")
@target.store_option
def revert(name: str, when: str, dry_run: bool, message: str | None) -> None:
    """Make a database what it was at WHEN, by a new version.

    Which can be undone likewise.
    """
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        moment = resolve(when, store, namespace.id)
        if dry_run:
            _would_change(location, store, namespace, moment)
            return
        newest = store.begin(namespace.id).version
        if message is None:
            message = f"revert to {format_version(moment.version)}"
        done = store.revert(namespace.id, moment.version, message=message)
        store.settle()
    if done.version <= newest:
        say(f"{target.describe(location)} is as it was at {moment} already")
        return
    say(f"reverted {target.describe(location)} to {moment}: now {format_version(done.version)}")
    note(f"to undo this: mvctl revert {name} --to {format_version(newest)}")


def _would_change(location: Location, store: Store, namespace: Namespace, moment: Moment) -> None:
    commits = list(store.changelog(namespace.id, after=moment.version, newest_first=True))
    pages = RunSet()
    for change in commits:
        pages.update(change.pages)
    gaps = moment.version < namespace.horizon
    what = target.describe(location)
    if not commits and not gaps:
        say(f"{what} is as it was at {moment} already")
        return
    versions = f"{'at least ' if gaps else ''}{counted(len(commits), 'version')}"
    say(f"would undo {versions} of {what} after {moment}: {counted(len(pages.numbers()), 'page')}")
    if commits:
        touched = compare(store, namespace, moment.version, commits[0].version).touched()
        say(f"tables touched: {', '.join(map(one_line, sorted(touched))) or 'none'}")


@click.command()
@click.argument("name")
@click.argument("new_name")
@click.option("--at", metavar="WHEN", default="HEAD", help="Begin as it was then.  [default: now]")
@target.store_option
def branch(name: str, new_name: str, at: str) -> None:
    """Make a database that begins as NAME is, and goes its own way.  It copies nothing."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        version = store.begin(namespace.id).version
        moment = None
        if at != "HEAD" or any(True for _ in store.changelog(namespace.id, limit=1)):
            moment = resolve(at, store, namespace.id)
            version = moment.version
        store.branch(namespace.id, new_name, version)
    say(
        f"branched {target.describe(location)}{f' at {moment}' if moment else ''}: "
        f"{new_name} in {location.store_url}"
    )


def _shown(one: Dropped) -> str:
    return format_time(one.until_us) if one.until_us is not None else "for good"


@click.command()
@click.argument("store", required=False)
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@target.store_option
def dropped(store: str | None, as_json: bool) -> None:
    """Show the dropped databases that can be brought back."""
    with target.opened_store(target.locate_store(store)) as opened:
        found = opened.dropped()
    if as_json:
        for one in found:
            until = None if one.until_us is None else format_time(one.until_us)
            entry = {"id": one.id, "name": one.name, "dropped": format_time(one.dropped_us), "until": until}
            say(json.dumps(entry))
        return
    columns(
        [
            (
                f"{one.id}",
                f"dropped {format_time(one.dropped_us)}",
                f"until {_shown(one)}",
                one_line(one.name),
            )
            for one in found
        ],
        ("cyan", "dim", "dim", "bold"),
    )
    if not found:
        note("nothing that was dropped can be brought back")


@click.command()
@click.argument("name")
@click.option("--as", "new_name", metavar="NEW_NAME", help="Under another name.")
@click.option(
    "--id", "id_", type=int, metavar="ID", help="Which one, if several were called so: mvctl dropped."
)
@target.store_option
def undrop(name: str, new_name: str | None, id_: int | None) -> None:
    """Bring a dropped database back, with its history.

    The one dropped last, if several were called NAME.
    """
    location = target.locate(name)
    with target.opened_store(location) as store:
        fits = [
            one
            for one in store.dropped()
            if one.name == location.namespace and (id_ is None or one.id == id_)
        ]
        if not fits:
            raise NoSuchDatabaseError(
                f"no dropped database {location.namespace!r} in {location.store_url}: "
                f"mvctl dropped {location.store_url} shows what there is"
            )
        found = store.undrop(NamespaceId(fits[0].id), new_name or location.namespace)
    say(f"brought back {found.name} in {location.store_url}")


COMMANDS = (revert, branch, dropped, undrop)
"""In the order in which they are listed."""
