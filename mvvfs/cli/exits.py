"""What went wrong, as one line and an exit code.  Called by `app`; docs/mvctl.md lists the codes.

The line says what to do where the error itself does not.
"""

from __future__ import annotations

import sqlite3
from enum import IntEnum

import apsw

from mvvfs import errors
from pagestore.api import StoreError


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    EXISTS = 4
    CONFLICT = 5
    CORRUPT = 6
    UNAVAILABLE = 7
    INTERRUPTED = 130


_BY_ERROR: tuple[tuple[type[Exception], Exit], ...] = (
    (errors.OptionError, Exit.USAGE),
    (errors.InvalidNameError, Exit.USAGE),
    (errors.DatabaseExistsError, Exit.EXISTS),
    (errors.NoSuchDatabaseError, Exit.NOT_FOUND),
    (errors.NoSuchVersionError, Exit.NOT_FOUND),
    (errors.BelowHorizonError, Exit.NOT_FOUND),
    (errors.UnsupportedError, Exit.FAILED),
    (FileExistsError, Exit.EXISTS),
    (FileNotFoundError, Exit.NOT_FOUND),
    (apsw.BusyError, Exit.CONFLICT),
    (apsw.LockedError, Exit.CONFLICT),
    (apsw.CorruptError, Exit.CORRUPT),
    (apsw.NotADBError, Exit.CORRUPT),
    (apsw.CantOpenError, Exit.NOT_FOUND),
    (apsw.IOError, Exit.UNAVAILABLE),
    (apsw.FullError, Exit.UNAVAILABLE),
    (apsw.ReadOnlyError, Exit.UNAVAILABLE),
    (apsw.PermissionsError, Exit.UNAVAILABLE),
    (apsw.AuthError, Exit.UNAVAILABLE),
    (OSError, Exit.UNAVAILABLE),
)
"""The first that fits; what fits none is `FAILED`."""

EXPECTED = (errors.Error, StoreError, apsw.Error, sqlite3.Error, OSError)
"""What a mistake or the world can cause.  Anything else is a bug of ours and keeps its traceback."""

_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (errors.OpenCursorError, ""),
    (errors.ConflictError, "try again"),
    (errors.DatabaseExistsError, "take another name, or drop it first (mvctl drop)"),
    (errors.CorruptPageError, "restore a backup (mvctl restore), or read an older version (--at)"),
    (errors.StoreFullError, "free some space; nothing was changed"),
    (errors.NotAllowedError, "mvctl shows the token that is in MV_TOKEN"),
)


def explain(exc: Exception) -> tuple[Exit, str]:
    """The exit code, and one line for people."""
    if isinstance(exc, StoreError):
        _, exc = errors.translate(exc)
    code = next((code for kind, code in _BY_ERROR if isinstance(exc, kind)), Exit.FAILED)
    text = _text(exc)
    advice = next((advice for kind, advice in _ADVICE if isinstance(exc, kind)), "")
    if advice and advice not in text:
        text = f"{text}; {advice}"
    return code, " ".join(text.split())


def _text(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror and exc.filename is not None:
        advice = (
            "; --force overwrites it"
            if isinstance(exc, FileExistsError) and exc.strerror == "file exists"
            else ""
        )
        return f"{exc.filename}: {exc.strerror[0].lower()}{exc.strerror[1:]}{advice}"
    return str(exc) or type(exc).__name__
