"""`mvctl cache fill info clear`: pages of distant stores on this machine's disk.

The work is in `mvvfs.near`."""

from __future__ import annotations

import os

import click

from mvvfs.cli import target
from mvvfs.cli.output import columns, counted, note, one_line, progress, say, size
from mvvfs.errors import NoSuchDatabaseError
from mvvfs.near import NearCache, PageFile, fill, open_file
from mvvfs.options import Options, from_keywords
from pagestore.api import format_version

_options = (
    click.option("--cache-dir", metavar="FOLDER", help="Where the pages are.  [default: MV_CACHE_DIR]"),
    click.option("--size", "cache_dir_size", metavar="BYTES", help="As the option cache_dir_size."),
)


def _chosen(cache_dir: str | None, cache_dir_size: str | None = None) -> tuple[str, Options]:
    options = from_keywords({"cache_dir": cache_dir, "cache_dir_size": cache_dir_size})
    if options.cache_dir is None:
        raise click.UsageError("which cache? give --cache-dir FOLDER, or set MV_CACHE_DIR")
    return options.cache_dir, options


def _existing(cache_dir: str | None) -> PageFile:
    folder, options = _chosen(cache_dir)
    if not os.path.isdir(folder):
        raise NoSuchDatabaseError(f"there is no cache at {folder}")
    return open_file(folder, options.cache_dir_size)


@click.group()
def cache() -> None:
    """Keep pages of distant databases on disk (cache_dir)."""


@cache.command("fill")
@click.argument("name")
@_options[0]
@_options[1]
@target.store_option
def fill_(name: str, cache_dir: str | None, cache_dir_size: str | None) -> None:
    """Bring all pages of a database near, as it is now; what is near already is not fetched."""
    folder, options = _chosen(cache_dir, cache_dir_size)
    location = target.locate(name)
    with target.opened_database(location) as (store, namespace):
        file = open_file(folder, options.cache_dir_size)
        near = NearCache(file, store, namespace.id, namespace.name)
        with progress("filling") as report:
            came, there, total = fill(near, store, namespace.id, report)
        near.close()
    say(f"{target.describe(location)}: {there:,} of {total:,} pages are near, {came:,} of them came now")
    if there < total:
        note(
            f"the cache is full at {size(file.limit)}: give more with --size, and as cache_dir_size "
            "when connecting"
        )


@cache.command()
@_options[0]
def info(cache_dir: str | None) -> None:
    """Show what is kept."""
    file = _existing(cache_dir)
    rows = [
        (one_line(kept.name), f"{kept.pages:,} pages", size(kept.bytes), format_version(kept.version))
        for kept in file.databases()
    ]
    columns(rows, ("bold", "", "", "dim"))
    say(f"{file.folder}: {size(file.used())} in use")


@cache.command()
@click.argument("name", required=False)
@_options[0]
def clear(name: str | None, cache_dir: str | None) -> None:
    """Forget what is kept: of databases called NAME, or everything."""
    file = _existing(cache_dir)
    if name is not None and name not in {kept.name for kept in file.databases()}:
        raise NoSuchDatabaseError(f"nothing is kept of a database {name!r} in {file.folder}")
    say(f"forgot {counted(file.clear(name), 'page')}")


COMMANDS = (cache,)
