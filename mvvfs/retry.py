"""`transaction`: run a transaction, and run it again when another commit got in its way.

Called by programs; needs nothing but an `apsw.Connection` to an mv database.

A conflict shows at COMMIT, or earlier when a page is needed that has changed, or at BEGIN IMMEDIATE:
SQLite has rolled back, or `transaction` does.  What was read may be out of date by then, so the *whole*
transaction runs again, after a random pause that doubles (1 ms, 2 ms, ... up to 250 ms at most), so that
writers who met once don't meet again.

There is no `for attempt in transaction(...): with attempt:`.  A `return` inside that block would leave
the loop although COMMIT was refused, and the writes would be lost without a word.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import ParamSpec, TypeVar

import apsw

from mvvfs.attempt import Ahead, Attempt, Mode, schemas_of
from mvvfs.errors import ConflictError, OpenCursorError, conflict_summary
from mvvfs.tables import table_map, tables_of
from pagestore.api import PageNumber, Version

P = ParamSpec("P")
R = TypeVar("R")

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.250
_TABLES_UP_TO_PAGES = 20_000
"""A larger database is not walked to say which tables a conflict was about: it would take too long."""


class transaction:
    """A transaction on `connection`.

    As a context manager: BEGIN, the block, COMMIT; ROLLBACK if the block raises.  One try, because
    Python can't run a block twice:

        with transaction(connection):
            connection.execute(...)

    As a decorator, or with `run`: the function runs again on a conflict, up to `tries` times in all.

        @transaction(connection)
        def book(seat): ...

        transaction(connection).run(book, "12A")

    After `turn_after` lost tries, or one that ran longer than `turn_seconds`, the transaction waits for its
    turn, in every attached database that it was about: then nobody else may write what it reads, so that it
    soon commits.

    `mode` is SQLite's: DEFERRED or IMMEDIATE.  `message` goes into the changelog with the commit.
    Whatever the function does outside the database happens once per try.

    `ahead`: where a store is distant, a function that runs right after a commit of this process may start
    where that one left off, without asking the store what came since.  The commit finds out; where there is
    none (the function only read, or raised), the store is asked before the result is given out, or the
    exception raised.  If something that was read had changed, the function runs again, from the newest
    version, and the first try does not count.  False: every try asks first.

    Raises ConflictError, with pages, tables, winning version and tries, when the tries run out;
    OpenCursorError when a cursor left open holds on to the old snapshot, so that no retry can succeed;
    TransactionError inside a transaction (use a savepoint there: `with connection:`), and when the block
    ended the transaction by itself.  Any other exception comes out as it is, after ROLLBACK."""

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        tries: int = 10,
        turn_after: int = 3,
        turn_seconds: float = 0.5,
        mode: Mode = "DEFERRED",
        message: str | None = None,
        ahead: bool = True,
    ) -> None:
        if not isinstance(connection, apsw.Connection):
            raise TypeError(
                f"transaction() takes a connection of mvvfs.connect(), not {type(connection).__module__}."
                f"{type(connection).__name__}: docs/guide.md has a loop for sqlite3"
            )
        if tries < 1 or turn_after < 1:
            raise ValueError("tries and turn_after must be at least 1")
        if mode not in ("DEFERRED", "IMMEDIATE"):
            raise ValueError("mode must be DEFERRED or IMMEDIATE")
        if message is not None and "\0" in message:
            raise ValueError("the message holds a NUL character")
        self.connection = connection
        self.tries = tries
        self.turn_after = turn_after
        self.turn_seconds = turn_seconds
        self.mode = mode
        self.message = message
        self._entered: list[Attempt] = []
        self._ahead = Ahead(connection) if ahead and mode == "DEFERRED" else None

    def __enter__(self) -> apsw.Connection:
        attempt = Attempt(self.connection, self.mode, self.message)
        with _naming_conflict(attempt, 1):
            connection = attempt.__enter__()
        self._entered.append(attempt)
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        attempt = self._entered.pop()
        with _naming_conflict(attempt, 1):
            attempt.__exit__(kind, exc, trace)
            if exc is not None and attempt.conflict:
                raise exc

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.run(function, *args, **kwargs)

        return wrapper

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in a transaction, again on a conflict, and return what it returned."""
        number, turns = 1, _Turns(self)
        asks = self._ahead is None or not self._ahead.pays
        while True:
            attempt = Attempt(self.connection, self.mode, self.message, self._ahead, asks=asks)
            started = time.monotonic()
            try:
                with attempt:  # leaving it commits, and raises if that was refused
                    result = function(*args, **kwargs)
                if self._ahead is not None:
                    self._ahead.pays = attempt.wrote
                if attempt.is_confirmed():
                    return result
            except apsw.BusyError as exc:
                if not attempt.conflict:
                    turns.leave()
                    raise
                if _holds_snapshot(self.connection):
                    traceback.clear_frames(exc.__traceback__)  # lets go of cursors of functions that ended
                is_last = number == self.tries and not attempt.unconfirmed
                if is_last or _holds_snapshot(self.connection):
                    turns.leave()
                    raise _explained(self.connection, exc, number) from exc
            except Exception:
                if attempt.is_confirmed():
                    turns.leave()
                    raise
            except BaseException:
                turns.leave()
                raise
            asks = True
            if attempt.unconfirmed:
                continue  # it ran ahead, and does not count
            if not turns.wait(number, time.monotonic() - started):
                pause(number)
            number += 1


class _Turns:
    """The place in the queue of one transaction that keeps losing."""

    def __init__(self, owner: transaction) -> None:
        self._owner = owner
        self._taken = 0

    def wait(self, lost: int, seconds: float) -> bool:
        """Before the next try, if enough were lost or the last one was long: wait for the turn.

        It is for the pages that the lost try had read; for all pages, if that try was long (others may
        have written pages since that it will read) or held the turn already.  False: no turn was due, or
        none came within the connection's timeout."""
        long = seconds > self._owner.turn_seconds
        if lost < self._owner.turn_after and not long:
            return False
        what = "all" if long or self._taken else "pages"
        self._taken += 1
        hold = min(60.0, 2.0 + 3.0 * seconds)
        return self._pragma(f"'{what} {hold:.1f}'") == "taken"

    def leave(self) -> None:
        if self._taken:
            self._taken = 0
            self._pragma("'leave'")

    def _pragma(self, value: str) -> object:
        """Any database will do to ask: the turn is for all that the lost try was about."""
        for schema in schemas_of(self._owner.connection):
            return self._owner.connection.execute(f"PRAGMA {schema}.mv_turn = {value}").get
        return None


def pause(refused: int) -> None:
    """Sleep after the `refused`-th refusal: a random part of a span that doubles up to a bound."""
    time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(refused - 1, 20))))


@contextlib.contextmanager
def _naming_conflict(attempt: Attempt, tries: int) -> Iterator[None]:
    """A conflict comes out as one that says all that is known about it."""
    try:
        yield
    except apsw.BusyError as exc:
        if not attempt.conflict:
            raise
        raise _explained(attempt.connection, exc, tries) from exc


def _holds_snapshot(connection: apsw.Connection) -> bool:
    return connection.txn_state() != apsw.SQLITE_TXN_NONE


def _explained(connection: apsw.Connection, exc: apsw.BusyError, tries: int) -> ConflictError:
    """The conflict that ends it: what `exc` says, the tables and tries, whether a cursor is to blame."""
    pages: tuple[PageNumber, ...] = getattr(exc, "pages", ())
    version: Version | None = getattr(exc, "version", None)
    what = conflict_summary(pages, version) if pages else _last_error(connection) or str(exc)
    kind, advice, tables = ConflictError, "", None
    schema: str | None = getattr(exc, "schema", None)
    if _holds_snapshot(connection):
        kind = OpenCursorError
        advice = (
            "; a cursor of this connection is still open and holds on to the old snapshot: "
            "close it, or read it to its end, before the transaction ends"
        )
    else:
        tables = _tables(connection, pages, schema or "main")
    prefix = f"{schema}." if schema and schema != "main" else ""
    where = f" (in {', '.join(prefix + table for table in tables)})" if tables else ""
    times = "once" if tries == 1 else f"{tries} times"
    return kind(
        f"tried {times}: {what}{where}{advice}",
        pages=pages,
        version=version,
        tries=tries,
        tables=tables,
        schema=schema,
    )


def _last_error(connection: apsw.Connection) -> str | None:
    """More than "database is locked", where SQLite made the exception and the VFS knew the reason."""
    text = next((connection.execute(f"PRAGMA {s}.mv_last_error").get for s in schemas_of(connection)), None)
    prefix = f"{ConflictError.__name__}: "
    return text.removeprefix(prefix) if isinstance(text, str) and text.startswith(prefix) else None


def _tables(
    connection: apsw.Connection, pages: tuple[PageNumber, ...], schema: str
) -> tuple[str, ...] | None:
    if not pages:
        return None
    try:
        if connection.pragma("page_count", schema=schema) > _TABLES_UP_TO_PAGES:
            return None
        return tables_of(pages, table_map(connection, schema))
    except apsw.Error:
        return None  # it would only have embellished the message
