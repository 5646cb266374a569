"""One try of a transaction: BEGIN, the block, COMMIT or ROLLBACK; and whether it may run ahead.

Called by `retry`; needs nothing but an `apsw.Connection` to an mv database.

1. A try leaves no transaction open.
2. One that runs ahead starts where a commit of this process left off a moment ago, without asking the
   store whether anything came since.  If it commits, the store has checked all that it read.  If it does not
   (it only read, or failed), nobody may act on it before it `is_confirmed`.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Literal, TypeAlias

import apsw

from mvvfs.errors import BUSY, BUSY_SNAPSHOT, TransactionError
from mvvfs.shim import ffi, lib

Mode: TypeAlias = Literal["DEFERRED", "IMMEDIATE"]


class _Flag(threading.local):
    """What `Ahead.switch` hands over, of each thread."""

    def __init__(self) -> None:
        self.value = ffi.new("int *")
        self.address = int(ffi.cast("uintptr_t", self.value))


_flag = _Flag()


class Ahead:
    """The switch by which a connection's next transaction may run ahead."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.pays = True
        """Whether the last transaction wrote: one that only reads is asked about at its end instead."""

    def switch(self, how: int) -> bool:
        """How the next transaction begins; whether the last one ran ahead and is unconfirmed."""
        flag = _flag.value
        flag[0] = how
        known = self._connection.file_control("main", lib.MV_FCNTL_AHEAD, _flag.address)
        return bool(known and flag[0])


class Attempt:
    """See the head of this file."""

    def __init__(
        self,
        connection: apsw.Connection,
        mode: Mode,
        message: str | None,
        ahead: Ahead | None = None,
        *,
        asks: bool = False,
    ) -> None:
        """`ahead`: it may run ahead; with `asks` not it, but the next one."""
        self.conflict = False
        """Whether it failed in a way that another try may mend."""
        self.wrote = False
        self.connection = connection
        self._mode = mode
        self._message = message
        self._messages_before: dict[str, str] = {}
        self._ahead = ahead
        self._how = lib.MV_ASKS_IN_A_ROW if asks else lib.MV_RUNS_AHEAD
        self.unconfirmed = False
        """Whether it ran ahead, and has not committed."""
        self._cursor: apsw.Cursor | None = None
        """For BEGIN and what ends it; closed before anybody else could let it go (see `connection`)."""

    def __enter__(self) -> apsw.Connection:
        if self.connection.in_transaction:
            raise TransactionError(
                "the connection is already in a transaction, which could not be retried from inside: "
                "use a savepoint here (with connection: ...), or open another connection"
            )
        if self._message is not None:
            self._set_message(self._message)
        if self._ahead is not None:
            self._ahead.switch(self._how)
        try:
            self._cursor = apsw.Cursor(self.connection)
            self._cursor.execute(f"BEGIN {self._mode}")
        except BaseException as exc:
            self._failed(exc, BUSY, BUSY_SNAPSHOT)
            raise
        return self.connection

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is not None:
            self._failed(exc, BUSY_SNAPSHOT)
            return
        connection, cursor = self.connection, self._cursor
        assert cursor is not None
        try:
            if not connection.in_transaction:
                raise TransactionError(
                    "the block ended the transaction by itself: leave COMMIT and ROLLBACK out"
                )
            wrote_main = connection.txn_state("main") == apsw.SQLITE_TXN_WRITE
            self.wrote = wrote_main or connection.txn_state() == apsw.SQLITE_TXN_WRITE
            cursor.execute("COMMIT")
        except BaseException as refusal:
            self._failed(refusal, BUSY_SNAPSHOT)
            raise
        self._ended(confirmed=wrote_main)

    def is_confirmed(self) -> bool:
        """After it has ended, and not by a conflict: whether what it read was the newest when it began, or
        has not changed since.  Asks the store, where it ran ahead and did not commit.

        Raises `mvvfs.Error`."""
        return not self.unconfirmed or self.connection.execute("PRAGMA main.mv_confirm").get == "confirmed"

    def _failed(self, exc: BaseException, *conflicts: int) -> None:
        self.conflict = isinstance(exc, apsw.BusyError) and getattr(exc, "extendedresult", 0) in conflicts
        if self.connection.in_transaction:  # SQLite has rolled back by itself after some errors
            self.connection.execute("ROLLBACK")
        self._ended()

    def _ended(self, *, confirmed: bool = False) -> None:
        """`confirmed`: it began in the main database, and committed there."""
        if self._cursor is not None:
            self._cursor.close()
        if self._ahead is not None and not confirmed:
            self.unconfirmed = self._ahead.switch(lib.MV_ASKS)
        if self._messages_before:
            self._reset_message()

    def _set_message(self, message: str) -> None:
        for schema in schemas_of(self.connection):
            self._messages_before[schema] = self.connection.execute(f"PRAGMA {schema}.mv_message").get or ""
            self._write_message(schema, message)

    def _reset_message(self) -> None:
        for schema, before in self._messages_before.items():
            self._write_message(schema, before)
        self._messages_before.clear()

    def _write_message(self, schema: str, text: str) -> None:
        self.connection.execute(f"PRAGMA {schema}.mv_message = {apsw.format_sql_value(text)}")


def schemas_of(connection: apsw.Connection) -> list[str]:
    """The attached mv databases, quoted for SQL, the main one first."""
    names = [name for _, name, _ in connection.execute("PRAGMA database_list")]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names if name != "temp"]
    return [each for each in quoted if connection.execute(f"PRAGMA {each}.mv_version").fetchall()]
