"""What the sqlite engine's callers get for what SQLite says: one table of errors.

Called by `sqlite` and `sqlite_file`; calls nothing.
"""

from __future__ import annotations

import os

import apsw

from pagestore.api import (
    CorruptPageError,
    FormatError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from pagestore.engines.file_errors import FULL


def as_store_error(exc: apsw.Error, system_errno: int) -> StoreError:
    """What a caller gets for an error of SQLite; raises `exc` itself if that was a mistake of ours.

    `system_errno` is that of the connection it came from, 0 if there is none."""
    if isinstance(exc, apsw.BusyError | apsw.LockedError):
        return StoreUnavailableError("the store stayed locked for the whole timeout")
    if isinstance(exc, apsw.FullError) or (isinstance(exc, apsw.IOError) and system_errno in FULL):
        return StoreFullError("no space is left for the store")
    if isinstance(exc, apsw.ReadOnlyError):
        return StoreReadOnlyError(f"the store can't be written to: {exc}")
    if isinstance(exc, apsw.CorruptError | apsw.NotADBError):
        return CorruptPageError(f"the engine's file is damaged: {exc}")
    if isinstance(exc, apsw.IOError | apsw.CantOpenError):
        reason = f" (errno {system_errno}: {os.strerror(system_errno)})" if system_errno else ""
        return StoreUnavailableError(f"{exc}{reason}")
    raise exc


def opening_error(exc: apsw.Error) -> StoreError:
    """The same, for a file that may not be an engine file at all."""
    if isinstance(exc, apsw.CorruptError | apsw.NotADBError | apsw.SQLError):
        return FormatError(f"it is not an engine file, or damaged: {exc}")
    return as_store_error(exc, 0)
