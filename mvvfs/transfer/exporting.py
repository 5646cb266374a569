"""A database becomes an SQLite file.

Called by the command line and by programs, its pieces by `mvvfs.cut`.  Calls `target`, and reads through a
connection of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from urllib.parse import quote

import apsw

from mvvfs import names
from mvvfs.connect import connect
from mvvfs.errors import Error
from mvvfs.names import Location
from mvvfs.transfer.common import Copied, Progress, copy_pages, moment_of, opened
from mvvfs.transfer.target import appearing, refuse_overwriting
from pagestore.api import format_version

_READER_CACHE_BYTES = 16 << 20

_MOST_FREE = 50
"""An export leaves at most one page in so many free."""


def export_file(
    name: str,
    target: str,
    *,
    store: str | None = None,
    at: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Write the database, as of WHEN `at` (None: now), as an ordinary SQLite file.

    The file appears whole, flushed, under its name at the end.  Takes little memory, whatever the size.
    Raises FileExistsError (without `force`; or a -journal or -wal of that name is there, which SQLite
    would apply to the file), OptionError (WHEN), and what the store raises."""
    location = names.resolve(name, store)
    started = time.monotonic()
    refuse_overwriting(target, force)
    with opened(location) as opened_store:
        moment = moment_of(opened_store, location, at)
        pin = format_version(moment.version) if moment is not None else None
        origin = reader(location, pin)
        try:
            with appearing(target, force) as temporary:  # a pinned connection needs no transaction
                pages, page_size = write_file(origin, temporary, progress)
        finally:
            origin.close()
    return Copied(location, moment, pages, page_size, time.monotonic() - started)


def reader(location: Location, at: str | None) -> apsw.Connection:
    """A connection for `write_file`: it goes through all pages once, so they are fetched many at a time and
    few of them kept."""
    return connect(
        location.namespace,
        store=location.store_url,
        mode="rw",
        at=at,
        slow_ms=0,
        read_ahead="on",
        cache_bytes=_READER_CACHE_BYTES,
    )


def write_file(origin: apsw.Connection, path: str, progress: Progress | None) -> tuple[int, int]:
    """Copy what a pinned connection sees into the empty file at `path`; how many pages, of how many bytes."""
    page_size: int = origin.pragma("page_size")
    pages: int = origin.pragma("page_count")
    if origin.pragma("freelist_count") * _MOST_FREE > pages:  # page numbers that leases left unused, say
        return _write_compact(origin, path, progress), page_size
    file = apsw.Connection(path)
    try:
        # nobody else sees this file yet, and it is flushed as a whole before anybody does
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            file.execute(f"PRAGMA {pragma}").fetchall()
        origin.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        with _telling_of_full_disks(file):
            pages = copy_pages(origin, file, progress)
    finally:
        file.close()
    return pages, page_size


@contextlib.contextmanager
def _telling_of_full_disks(connection: apsw.Connection) -> Iterator[None]:
    """SQLite calls it an I/O error, or "not an error", if a page did not fit."""
    try:
        yield
    except (apsw.IOError, apsw.FullError) as exc:
        full = isinstance(exc, apsw.FullError) or connection.system_errno == errno.ENOSPC
        if isinstance(exc, Error) or not full:  # ours are about the store
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc


def _write_compact(origin: apsw.Connection, path: str, progress: Progress | None) -> int:
    """Without the free pages.  VACUUM INTO keeps every rowid; what it changes is where the pages lie."""
    os.truncate(path, 0)
    with _telling_of_full_disks(origin):
        origin.execute("VACUUM INTO ?", (_plain_uri(path),))
    with apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY) as file:
        pages: int = file.pragma("page_count")
    if progress is not None:
        progress(pages, pages)
    return pages


def _plain_uri(path: str) -> str:
    """An ordinary file, named from a connection whose default VFS is mv."""
    return f"file:{quote(os.path.abspath(path))}?vfs={apsw.vfs_names()[0]}"
