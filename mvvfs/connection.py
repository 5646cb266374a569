"""The connection that `connect()` returns: APSW's, with a second chance for single statements.

Called by programs.  A statement outside a transaction that loses a conflict has changed nothing and
returned nothing, so it can be run again, in its turn, without anybody noticing.
"""

from __future__ import annotations

from typing import Any

import apsw
import apsw.ext

from mvvfs.errors import BUSY_SNAPSHOT
from mvvfs.retry import transaction


class Cursor(apsw.Cursor):
    """A cursor whose `execute` runs a single autocommit statement again when it lost a conflict.

    Not one that returns rows (SELECT, RETURNING), not one of several statements, and not `executemany`:
    what had been done by then, or seen, could not be taken back."""

    def execute(self, statements: str, bindings: Any = None, **options: Any) -> apsw.Cursor:
        connection = self.connection
        if connection.in_transaction:
            return super().execute(statements, bindings, **options)
        try:
            return super().execute(statements, bindings, **options)
        except apsw.BusyError as exc:
            if not _may_run_again(connection, exc, statements):
                raise
        run = super().execute
        transaction(connection, turn_after=1).run(run, statements, bindings, **options)
        return self


def _may_run_again(connection: apsw.Connection, exc: apsw.BusyError, statements: str) -> bool:
    if getattr(exc, "extendedresult", 0) != BUSY_SNAPSHOT or connection.in_transaction:
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
        super().__init__(*args, **options)
        self.cursor_factory = Cursor
