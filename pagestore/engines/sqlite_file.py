"""Whole engine files: made, copied, examined, while nobody (or, for a copy's source, anybody) uses them.

Called by `pagestore.embedded`.  Calls APSW.  A file that is no store's (yet) is in rollback-journal mode,
so that it is one file with nothing beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import apsw

from pagestore.api import CorruptPageError, FormatError
from pagestore.engines.sqlite_connection import APPLICATION_ID
from pagestore.engines.sqlite_errors import as_store_error, opening_error
from pagestore.engines.sqlite_transaction import SCHEMA, SET, SqliteSnapshot

_PAGE_SIZE = 4096
_STEP_PAGES = 1024
_SHRINKS = "PRAGMA auto_vacuum = INCREMENTAL"
"""See `SqliteEngine.give_back`."""


def create(path: str, rows: Mapping[bytes, bytes]) -> None:
    """Make a new engine file that holds `rows`, ready to be opened by engines.  Raises StoreError."""
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        db.execute(_SHRINKS)  # before anything is written
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(SCHEMA)
        db.executemany(SET, rows.items())
        db.pragma("journal_mode", "wal")
    except apsw.Error as exc:
        raise as_store_error(exc, db.system_errno) from exc
    finally:
        db.close(True)


def make_ready(path: str, change: Mapping[bytes, Callable[[bytes | None], bytes]]) -> None:
    """Of a copy, make a file that engines can open, with some values changed.  Raises StoreError."""
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        for key, changed in change.items():
            db.execute(SET, (key, changed(SqliteSnapshot(db).get(key))))
        db.pragma("journal_mode", "wal")
    except apsw.Error as exc:
        raise as_store_error(exc, db.system_errno) from exc
    finally:
        db.close(True)


def copy(source: apsw.Connection, path: str, progress: Callable[[int, int], None]) -> None:
    """Copy what the open read transaction of `source` sees to a new file.

    `progress` is told bytes done and bytes in all.  Raises StoreError."""
    page_size = source.pragma("page_size")
    target = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_STEP_PAGES)
                progress((backup.page_count - backup.remaining) * page_size, backup.page_count * page_size)
        target.pragma("journal_mode", "delete")
    except apsw.Error as exc:
        raise as_store_error(exc, target.system_errno) from exc
    finally:
        target.close(True)


@contextmanager
def examined(path: str) -> Iterator[tuple[apsw.Connection, SqliteSnapshot]]:
    """A file as one snapshot, once SQLite finds it intact.  Raises FormatError, StoreError."""
    try:
        db = apsw.Connection(path, apsw.SQLITE_OPEN_READONLY)
        try:
            if db.pragma("application_id") != APPLICATION_ID:
                raise FormatError(f"{path} is not a store's backup")
            found = db.execute("PRAGMA integrity_check(1)").get
            if found != "ok":
                raise CorruptPageError(f"{path} is damaged: {found}")
            db.execute("BEGIN")
            snapshot = SqliteSnapshot(db)
            yield db, snapshot
            snapshot.close_scans()
        finally:
            db.close(True)
    except apsw.NotADBError as exc:
        raise FormatError(f"{path} is not a store's backup") from exc
    except apsw.CorruptError as exc:
        raise CorruptPageError(f"{path} is damaged: {exc}") from exc
    except apsw.Error as exc:
        raise opening_error(exc) from exc
