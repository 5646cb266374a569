"""What can go wrong, as Python exceptions with SQLite result codes: one tree, one table.

Raised by every module of `mvvfs`; `bridge` calls `translate` to turn an error of the store into a
SQLite code and the exception that comes out of the SQL statement.  docs/errors.md lists them for users.

1. Each class derives from `Error` and from APSW's exception of its code, so that code written for
   plain SQLite (`except apsw.BusyError`) catches it as well.
2. `extendedresult` is what SQLite answers (https://www.sqlite.org/rescode.html), `result` its low byte.
3. Only a conflict is BUSY: SQLite keeps a transaction open after a BUSY that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import apsw

from pagestore import api
from pagestore.api import PageNumber, Version, format_version

BUSY = apsw.SQLITE_BUSY
BUSY_SNAPSHOT = apsw.SQLITE_BUSY_SNAPSHOT


class Error(Exception):
    """Base of everything that mvvfs raises on purpose."""

    code: ClassVar[int] = apsw.SQLITE_ERROR
    """The SQLite result code of the class, extended where there is one."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.extendedresult: int = self.code
        self.result: int = self.code & 0xFF


class OptionError(Error, apsw.CantOpenError, ValueError):
    """An option, or a time given with `at=`, that makes no sense.  A retry does not help."""

    code = apsw.SQLITE_CANTOPEN


class NoSuchDatabaseError(Error, apsw.CantOpenError):
    """There is no database (or store) of that name, and the mode says not to create one."""

    code = apsw.SQLITE_CANTOPEN


class DatabaseExistsError(Error, apsw.CantOpenError):
    """The name is taken by another database of the store."""

    code = apsw.SQLITE_CANTOPEN


class CopyError(Error, apsw.SQLError):
    """A copy of a history can't be made, or is not what it should be.  The source is as it was."""


class InvalidNameError(Error, apsw.CantOpenError):
    """A name that no database can have: empty, too long, or with a NUL in it."""

    code = apsw.SQLITE_CANTOPEN


class NoSuchVersionError(Error, apsw.CantOpenError):
    """`at=` names a version or time in the future, or before the first commit."""

    code = apsw.SQLITE_CANTOPEN


class ConflictError(Error, apsw.BusyError):
    """Another commit changed what this transaction read.  Nothing was written; run it again."""

    code = BUSY_SNAPSHOT

    def __init__(
        self,
        message: str,
        *,
        pages: tuple[PageNumber, ...] = (),
        version: Version | None = None,
        tries: int = 1,
        tables: tuple[str, ...] | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(message)
        self.pages = pages
        """Page numbers that this transaction read and others changed, ascending; empty: not known."""
        self.version = version
        """The newest commit that changed one of them; None: not known."""
        self.tries = tries
        """How often the transaction was tried."""
        self.tables = tables
        """Tables that the pages belong to, where it was worked out; None where not."""
        self.schema = schema
        """The attached database in which they are ("main", or its name in ATTACH); None: not known."""


class OpenCursorError(ConflictError):
    """A conflict that trying again can't solve: a cursor left open holds on to the old snapshot."""


class OutcomeUnknownError(Error, apsw.IOError):
    """It could not be learnt in time whether the commit happened.  It did, whole, or it did not."""

    code = apsw.SQLITE_IOERR_FSYNC

    def __init__(self, message: str, token: bytes = b"") -> None:
        super().__init__(message)
        self.token = token
        """By which the store can be asked later."""


class BelowHorizonError(Error, apsw.SQLError):
    """The version is older than the oldest one kept.  A new transaction, at a newer one, works."""

    code = apsw.SQLITE_ERROR_SNAPSHOT

    def __init__(self, message: str, version: Version | None = None, horizon: Version | None = None) -> None:
        super().__init__(message)
        self.version = version
        self.horizon = horizon
        """The oldest version that can be read."""


class CorruptPageError(Error, apsw.CorruptError):
    """A stored page could not be read whole and verified.  A retry does not help."""

    code = apsw.SQLITE_CORRUPT


class StoreFormatError(Error, apsw.NotADBError):
    """Not a page store, or one that this release does not know how to read."""

    code = apsw.SQLITE_NOTADB


class StoreUnavailableError(Error, apsw.IOError):
    """The store could not be reached within the timeout.  Nothing was applied; a retry may help."""

    code = apsw.SQLITE_IOERR


class NotAllowedError(Error, apsw.AuthError):
    """A service refuses: no token, an unknown one, or one that does not allow this.  Nothing was applied."""

    code = apsw.SQLITE_AUTH


class StoreFullError(Error, apsw.FullError):
    """No space left where the store lives.  Nothing was applied."""

    code = apsw.SQLITE_FULL


class StoreReadOnlyError(Error, apsw.ReadOnlyError):
    """The store, or the snapshot, can't be written to."""

    code = apsw.SQLITE_READONLY


class TooLargeError(Error, apsw.TooBigError):
    """The transaction is larger than the store takes."""

    code = apsw.SQLITE_TOOBIG


class StoreIOError(Error, apsw.IOError):
    """Something else went wrong between SQLite and the store."""

    code = apsw.SQLITE_IOERR


class ForkError(Error, apsw.MisuseError):
    """A connection opened before `fork()` was used after it.  Open a new one in the child."""

    code = apsw.SQLITE_MISUSE


class TransactionError(Error, apsw.SQLError):
    """`mvvfs.transaction` was used where it can't work: inside a transaction, say."""


class RegisterError(Error, apsw.ExtensionLoadingError):
    """The VFS could not be registered with a copy of SQLite."""


class UnsupportedError(Error, apsw.SQLError):
    """SQLite was asked for something that an mv database can't do."""


def _conflict(exc: api.StoreError) -> Error:
    assert isinstance(exc, api.ConflictError)
    return ConflictError(
        f"another commit changed what this one read: {exc}", pages=exc.pages, version=exc.version
    )


def _outcome(exc: api.StoreError) -> Error:
    assert isinstance(exc, api.OutcomeUnknownError)
    return OutcomeUnknownError(str(exc), exc.token)


def _horizon(exc: api.StoreError) -> Error:
    assert isinstance(exc, api.BelowHorizonError)
    return BelowHorizonError(str(exc), exc.version, exc.horizon)


class _Row(NamedTuple):
    raised: type[api.StoreError]
    code: int
    shown: type[Error]
    make: Callable[[api.StoreError], Error] | None = None


TABLE: tuple[_Row, ...] = (
    _Row(api.ConflictError, ConflictError.code, ConflictError, _conflict),
    _Row(api.LeaseEndedError, ConflictError.code, ConflictError),
    _Row(api.TurnTakenError, ConflictError.code, ConflictError),
    _Row(api.NoSuchNamespaceError, NoSuchDatabaseError.code, NoSuchDatabaseError),
    _Row(api.NameTakenError, DatabaseExistsError.code, DatabaseExistsError),
    _Row(api.InvalidNameError, InvalidNameError.code, InvalidNameError),
    _Row(api.NoSuchVersionError, NoSuchVersionError.code, NoSuchVersionError),
    _Row(api.BelowHorizonError, BelowHorizonError.code, BelowHorizonError, _horizon),
    _Row(api.CorruptPageError, CorruptPageError.code, CorruptPageError),
    _Row(api.OutcomeUnknownError, OutcomeUnknownError.code, OutcomeUnknownError, _outcome),
    _Row(api.StoreUnavailableError, StoreUnavailableError.code, StoreUnavailableError),
    _Row(api.NotAllowedError, NotAllowedError.code, NotAllowedError),
    _Row(api.UnsupportedError, UnsupportedError.code, UnsupportedError),
    _Row(api.StoreFullError, StoreFullError.code, StoreFullError),
    _Row(api.StoreReadOnlyError, StoreReadOnlyError.code, StoreReadOnlyError),
    _Row(api.FormatError, StoreFormatError.code, StoreFormatError),
    _Row(api.LimitError, TooLargeError.code, TooLargeError),
    _Row(api.VoidTokenError, StoreUnavailableError.code, StoreUnavailableError),
    _Row(api.InvalidRequestError, StoreIOError.code, StoreIOError),
)
"""Each error of the store, the SQLite code that it becomes, and the exception that a caller sees."""

_BY_TYPE = {row.raised: row for row in TABLE}


def translate(exc: api.StoreError | Error) -> tuple[int, Error]:
    """The SQLite result code (extended) of an error, and the `mvvfs.Error` to raise for it.

    The original error is the new one's `__cause__`.  A subclass counts as its nearest known base."""
    if isinstance(exc, Error):
        return exc.extendedresult, exc
    for kind in type(exc).__mro__:
        row = _BY_TYPE.get(kind)
        if row is not None:
            shown = row.make(exc) if row.make else row.shown(str(exc))
            break
    else:
        shown = StoreIOError(str(exc))
    shown.__cause__ = exc
    return shown.extendedresult, shown


_BY_PRIMARY_CODE: dict[int, type[Error]] = {
    apsw.SQLITE_ERROR: UnsupportedError,
    BUSY: ConflictError,
    apsw.SQLITE_READONLY: StoreReadOnlyError,
    apsw.SQLITE_IOERR: StoreIOError,
    apsw.SQLITE_CORRUPT: CorruptPageError,
    apsw.SQLITE_FULL: StoreFullError,
    apsw.SQLITE_CANTOPEN: NoSuchDatabaseError,
    apsw.SQLITE_MISUSE: ForkError,
}


def for_code(code: int, what: str) -> Error:
    """The error for something that the C shim found by itself: a SQLite code (extended) and a phrase."""
    error = _BY_PRIMARY_CODE.get(code & 0xFF, StoreIOError)(what)
    error.extendedresult, error.result = code, code & 0xFF
    return error


def conflict_summary(pages: tuple[PageNumber, ...], version: Version | None) -> str:
    """For a message: which pages another commit changed, and which commit."""
    if not pages:
        return "another commit changed what this one read"
    listed = ", ".join(map(str, pages[:10])) + (", ..." if len(pages) > 10 else "")
    by = f" by {format_version(version)}" if version is not None else ""
    return f"{len(pages)} page(s) changed{by}: {listed}"
