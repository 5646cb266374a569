"""The connection that `connect()` returns: APSW's, with a second chance for single statements.

Called by programs.  A statement outside a transaction that loses a conflict has changed nothing and
returned nothing, so it can be run again, in its turn, without anybody noticing.

A cursor that nobody has any more may be let go by a thread (by its garbage collector, mostly) while another
one is inside the connection.  APSW (3.54.1) then revives it within `tp_dealloc`, which costs its class, if
that was made in Python, a reference that was never taken: at last the class is freed while it is in use.  And
the cursor keeps its connection alive for ever.  So such a cursor is put aside before APSW sees it, where the
collector can find it with its connection, and is closed when the connection is used or closed.
"""

from __future__ import annotations

from typing import Any

import apsw
import apsw.ext

from mvvfs.errors import BUSY_SNAPSHOT
from mvvfs.retry import transaction

_execute = apsw.Cursor.execute


class Cursor(apsw.Cursor):
    """A cursor whose `execute` runs a single autocommit statement again when it lost a conflict.

    Not one that returns rows (SELECT, RETURNING), not one of several statements, and not `executemany`:
    what had been done by then, or seen, could not be taken back."""

    def __del__(self) -> None:
        try:
            self.close(True)
        except apsw.ThreadingViolationError:
            self.connection.aside.append(self)  # type: ignore[attr-defined]

    def execute(self, statements: str, bindings: Any = None, **options: Any) -> apsw.Cursor:
        connection: Connection = self.connection  # type: ignore[assignment]
        if connection.aside:
            connection.close_aside()
        try:
            return _execute(self, statements, bindings, **options)
        except apsw.BusyError as exc:
            if not _may_run_again(connection, exc, statements):
                raise
        transaction(connection, turn_after=1).run(_execute, self, statements, bindings, **options)
        return self


def _may_run_again(connection: apsw.Connection, exc: apsw.BusyError, statements: str) -> bool:
    if getattr(exc, "extendedresult", 0) != BUSY_SNAPSHOT:
        return False
    if connection.in_transaction:  # still: only a commit ends it, and what commits is not run again
        return False
    if connection.txn_state() != apsw.SQLITE_TXN_NONE:  # another cursor holds the old snapshot
        return False
    info = apsw.ext.query_info(connection, statements)
    return (
        not info.query_remaining and not info.description and not info.is_readonly and _is_change(statements)
    )


def _is_change(statement: str) -> bool:
    """Whether it can run inside a transaction, and means the same there."""
    return statement.lstrip().partition(" ")[0].upper() in {"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"}


class Connection(apsw.Connection):
    """`apsw.Connection` with that cursor."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.aside: list[Cursor] = []
        """Cursors to be closed as soon as no thread is inside this connection."""
        super().__init__(*args, **options)
        self.cursor_factory = Cursor

    def close_aside(self) -> None:
        while self.aside:
            cursor = self.aside.pop()
            try:
                cursor.close(force=True)
            except apsw.ThreadingViolationError:
                self.aside.append(cursor)
                return

    def close(self, force: bool = False) -> None:
        self.close_aside()
        try:
            super().close(force)
        except apsw.BusyError:
            if not self._is_closed():
                raise
            # A cursor that another thread's collector has in hand: SQLite waits for it, and closes with it.
            self.close_aside()

    def _is_closed(self) -> bool:
        try:
            self.in_transaction  # noqa: B018
        except apsw.ConnectionClosedError:
            return True
        return False
