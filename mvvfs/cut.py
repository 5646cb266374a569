"""Several databases of one store as files, all as of one version: a cut through the store's history.

Called by the command line and by programs; the copying is that of `transfer`.

1. All are read at one version, so a transaction over several of them is in all the files or in none.
2. The files take their names when all of them are written and flushed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from mvvfs import names, when
from mvvfs.errors import OptionError
from mvvfs.names import Location
from mvvfs.transfer import Copied, Progress, appearing, opened, reader, refuse_overwriting, write_file
from pagestore.api import NoSuchVersionError, Store, Version, format_version

SUFFIX = ".sqlite"


def locate(databases: Sequence[str], store: str | None = None) -> list[Location]:
    """Where the databases are.  Raises OptionError unless they are different ones of one store."""
    locations = [names.resolve(name, store) for name in databases]
    if len({location.store_url for location in locations}) > 1:
        raise OptionError(
            "only databases of one store have versions in common: "
            + ", ".join(f"{location.namespace} in {location.store_url}" for location in locations)
        )
    if len({location.namespace for location in locations}) < len(locations):
        raise OptionError("a database is named twice")
    return locations


def version_at(store: Store, locations: Sequence[Location], at: str) -> Version:
    """The version of the cut: the newest of what WHEN comes to in each of the databases.

    Raises OptionError (a WHEN that counts commits: each database has its own), NoSuchNamespaceError,
    NoSuchVersionError, BelowHorizonError."""
    if at.strip().startswith("HEAD~"):
        raise OptionError(f"{at} counts the commits of one database: give a version or a time")
    moments = []
    for location in locations:
        try:
            moments.append(when.resolve(at, store, store.open(location.namespace).id))
        except NoSuchVersionError as exc:
            raise NoSuchVersionError(f"{location.namespace}: {exc}") from exc
    return max(moment.version for moment in moments)


def checkout_files(
    databases: Sequence[str],
    folder: str,
    at: str,
    *,
    store: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[Version, list[Copied]]:
    """Write the databases, all as of WHEN `at`, to `folder` as NAME.sqlite; the folder is made if need be.

    Returns the version and what each came to.  Raises as `version_at` and `transfer.export_file` do, and
    leaves no file then, unless that happens while they take their names."""
    locations = locate(databases, store)
    with opened(locations[0]) as opened_store, contextlib.ExitStack() as files:
        version = version_at(opened_store, locations, at)
        os.makedirs(folder, exist_ok=True)
        targets = [os.path.join(folder, file_name(location)) for location in locations]
        for target in targets:
            refuse_overwriting(target, force)
        copied = []
        for location, target in zip(locations, targets, strict=True):
            started = time.monotonic()
            moment = when.resolve(
                format_version(version), opened_store, opened_store.open(location.namespace).id
            )
            temporary = files.enter_context(appearing(target, force))
            origin = reader(location, format_version(version))
            try:
                pages, page_size = write_file(origin, temporary, progress)
            finally:
                origin.close()
            copied.append(Copied(location, moment, pages, page_size, time.monotonic() - started))
    return version, copied


def file_name(location: Location) -> str:
    """What the file of a database is called.  Raises OptionError if its name can't be that of a file."""
    name = location.namespace
    if os.sep in name or name in (os.curdir, os.pardir):
        raise OptionError(f"{name!r} can't be the name of a file: check it out by itself")
    return name + SUFFIX
