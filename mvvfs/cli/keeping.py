"""`mvctl retain gc du tag untag tags`: how much of the past is kept, and what it takes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import click

from mvvfs.cli import target
from mvvfs.cli.output import columns, note, one_line, say, size
from mvvfs.cli.units import parse_size, parse_span, show_span
from mvvfs.errors import OptionError
from mvvfs.when import format_time, resolve
from pagestore.api import Collected, Namespace, Retention, Store, format_version


def _policy(retention: Retention) -> str:
    limit = "" if retention.max_bytes is None else f", at most {size(retention.max_bytes)} of it"
    return f"{show_span(retention.seconds)}{limit}"


@click.command()
@click.argument("name")
@click.option("--for", "span", metavar="TIME", help="Such as 12h, 30d, 1y or forever.")
@click.option("--max-size", "most", metavar="SIZE", help="Such as 20GB or unlimited: the oldest goes first.")
@target.store_option
def retain(name: str, span: str | None, most: str | None) -> None:
    """Say, or show, how much of a database's past is kept."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        policy = store.retention(namespace.id)
        if span is not None:
            policy = replace(policy, seconds=parse_span(span))
        if most is not None:
            policy = replace(policy, max_bytes=parse_size(most))
        if span is not None or most is not None:
            store.set_retention(namespace.id, policy)
    say(f"{target.describe(location)} keeps its history: {_policy(policy)}")


@click.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--compact", is_flag=True, help="Rebuild the store's file as well; writers wait meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="One object a database.")
@target.store_option
def gc(name: str | None, dry_run: bool, compact: bool, as_json: bool) -> None:
    """Let go of history that is older than retention says.

    Of NAME, or of all databases of the store.
    """
    location = target.locate_store() if name is None else target.locate(name)
    if dry_run and compact:
        raise OptionError("--dry-run changes nothing, --compact does: give one of them")
    with target.opened_store(location) as store:
        wanted = store.list() if name is None else [store.open(location.namespace)]
        for namespace in wanted:
            _report(namespace, store.collect(namespace.id, dry_run=dry_run), dry_run, as_json)
        if not dry_run:
            given_back = store.give_back(whole=compact)
            if given_back:
                note(f"{size(given_back)} given back to the file system")


def _report(namespace: Namespace, collected: Collected, dry_run: bool, as_json: bool) -> None:
    if as_json:
        say(
            json.dumps(
                {
                    "name": namespace.name,
                    "versions": collected.versions,
                    "page_versions": collected.page_versions,
                    "bytes": collected.bytes,
                    "horizon": format_version(collected.horizon),
                    "horizon_time": format_time(collected.horizon_us),
                    "dry_run": dry_run,
                }
            )
        )
        return
    verb = "would let go of" if dry_run else "let go of"
    say(
        f"{one_line(namespace.name)}: {verb} {collected.versions:,} versions, "
        f"{collected.page_versions:,} old pages, {size(collected.bytes)}; "
        f"readable from {format_version(collected.horizon)} of {format_time(collected.horizon_us)} on"
    )


def _facts(store: Store, namespace: Namespace) -> dict[str, int]:
    facts = asdict(store.usage(namespace.id))
    del facts["commits"]
    return facts


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@target.store_option
def du(name: str, as_json: bool) -> None:
    """Show how much a database takes, now and in the past.

    Pages that are its own, those that it shares with what it is a branch of, and those of its history.
    """
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        facts = _facts(store, namespace)
    if as_json:
        say(json.dumps({"name": namespace.name, **facts}))
        return
    own = facts["live_pages"] - facts["shared_pages"]
    columns(
        [
            ("live", f"{own:,} pages", size(facts["live_bytes"])),
            (
                "shared with what it is a branch of",
                f"{facts['shared_pages']:,} pages",
                size(facts["shared_bytes"]),
            ),
            ("history", f"{facts['history_pages']:,} pages", size(facts["history_bytes"])),
        ],
        ("cyan", "", ""),
    )


@click.command()
@click.argument("name")
@click.argument("tag_name", metavar="TAG")
@click.option("--at", metavar="WHEN", default="HEAD", help="[default: the newest version]")
@target.store_option
def tag(name: str, tag_name: str, at: str) -> None:
    """Name a version, which is then kept, whatever retention says."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        moment = resolve(at, store, namespace.id)
        store.tag(namespace.id, tag_name, moment.version)
    say(f"tagged {target.describe(location)} at {moment} as {tag_name}")


@click.command()
@click.argument("name")
@click.argument("tag_name", metavar="TAG")
@target.store_option
def untag(name: str, tag_name: str) -> None:
    """Remove a tag; retention may let go of the version then."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        store.untag(namespace.id, tag_name)
    say(f"removed the tag {tag_name} of {target.describe(location)}")


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@target.store_option
def tags(name: str, as_json: bool) -> None:
    """Show the tags of a database."""
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        found = store.tags(namespace.id)
    for one in found:
        if as_json:
            say(
                json.dumps(
                    {
                        "tag": one.name,
                        "version": format_version(one.version),
                        "tagged": format_time(one.time_us),
                    }
                )
            )
    if not as_json:
        columns(
            [(format_version(one.version), format_time(one.time_us), one_line(one.name)) for one in found],
            ("yellow", "dim", "bold"),
        )
    if not found:
        note("no tags")


COMMANDS = (retain, gc, du, tag, untag, tags)
"""In the order in which they are listed."""
