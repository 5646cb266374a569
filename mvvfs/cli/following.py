"""`mvctl ping watch`: is the store there, and what is being committed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing

import click

from mvvfs import names
from mvvfs.cli import target
from mvvfs.cli.history import change_json, show_change
from mvvfs.cli.output import note, say
from pagestore.api import Change, Store

_HEARTBEAT = 5.0


@click.command()
@click.argument("store", required=False)
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, help="Ask so often.  [default: 1]")
@target.store_option
def ping(store: str | None, count: int) -> None:
    """Ask whether a STORE answers, and how long that takes."""
    location = target.locate_store(store)
    with target.opened_store(location) as opened:
        for _ in range(count):
            started = time.perf_counter()
            what = _ask(opened)
            say(f"{location.store_url}: {what}, {(time.perf_counter() - started) * 1000:.2f} ms")


def _ask(store: Store) -> str:
    if names.is_service(store.url):
        from mvvfs.remote import RemoteStore

        assert isinstance(store, RemoteStore)
        answer = store.ping()
        return f"service {answer.release or 'of unknown release'}{', read-only' if answer.read_only else ''}"
    store.list()
    return "answers"


@click.command()
@click.argument("name")
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), default=0, help="End after this many.  [default: never]"
)
@click.option("--json", "in_json", is_flag=True, help="One object a line.")
@target.store_option
def watch(name: str, limit: int, in_json: bool) -> None:
    """Show what is committed, as it happens, until interrupted."""
    location = target.locate(name)
    shown = 0
    with target.opened_database(location) as (store, namespace):
        version = store.begin(namespace.id).version
        note(f"watching {target.describe(location)}; Ctrl-C ends it")
        with closing(store.watch(namespace.id, version, heartbeat=_HEARTBEAT)) as watching:
            for watched in watching:
                changes: Iterable[Change] | None = watched.changes
                if changes is None:  # more than one message holds
                    changes = store.changelog(namespace.id, after=version, until=watched.version)
                for change in changes:
                    if in_json:
                        say(change_json(change, None))
                    else:
                        show_change(change, None)
                    shown += 1
                    if shown == limit:
                        return
                version = max(version, watched.version)


COMMANDS = (ping, watch)
