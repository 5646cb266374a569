"""The embedded engine: one ordinary SQLite file in WAL mode, an ordered table of keys and values.

Called by `pagestore.store` through the engine interface; opened by `pagestore.embedded`.  Calls APSW
(through `sqlite_connection`, which holds the flush rule), `clock` and `heads`.

1. `transact` runs `work` once, under SQLite's write lock (BEGIN IMMEDIATE): nothing it read can change
   before it commits, so conflicts need no naming.  The lock is held for one commit, without its flush.
2. A commit moves the head words of the namespaces that it announced: odd before it becomes visible, even
   after (native/words.c).
3. The version is taken under the lock, from the clock record, which is part of the commit.
4. A commit with durability "full" returns after its flush.  When a flush fails, the engine is closed:
   what the disk holds is not known any more until the file is read anew.
5. The write-ahead log is bounded: the committer that finds it longer than `MAX_LOG_FRAMES` copies it to
   the main file, first without any lock that others wait for, then, with little left to do, so that
   the log starts anew.  Where a reader is in the way it is left for later: nobody waits for a reader.

The file: `kv(k, v)` holds the keys, in a B-tree of their own, with their values if these are short; a
long value lies in `large(id, d)`, where several share a page, and `v` is its number.  The clock record's
key, 0xff, is behind all others.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import apsw

from pagestore.api import (
    CorruptPageError,
    Durability,
    FormatError,
    HeadWord,
    NamespaceId,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines import clock, heads
from pagestore.engines.base import Engine, KeyRange, Limits, Result, Snapshot, Transaction
from pagestore.engines.sqlite_connection import APPLICATION_ID, Connection, Pool
from pagestore.faults import fault

T = TypeVar("T")

MAX_LOG_FRAMES = 4096
"""Pages of 4 KiB in the log: 16 MiB."""

_PAGE_SIZE = 4096
_MAX_INLINE = 500
"""Bytes of the longest value that lies beside its key: several rows must fit into a B-tree page."""

_CLOCK_KEY = b"\xff"
_DEFAULT_TIMEOUT = 5.0
_CHECKPOINT_PATIENCE = 0.01
"""Seconds that a checkpoint waits for readers, holding the write lock."""

_SCHEMA = """
    CREATE TABLE kv (k BLOB PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE large (id INTEGER PRIMARY KEY, d BLOB);
"""
_VALUE = "CASE typeof(v) WHEN 'blob' THEN v ELSE (SELECT d FROM large WHERE id = v) END"
_GET = f"SELECT {_VALUE} FROM kv WHERE k = ?"
_SCAN = f"SELECT k, {_VALUE} FROM kv WHERE k >= ? AND k < ? ORDER BY k LIMIT ?"
_SCAN_REVERSE = f"SELECT k, {_VALUE} FROM kv WHERE k >= ? AND k < ? ORDER BY k DESC LIMIT ?"
_SET = "INSERT OR REPLACE INTO kv VALUES (?, ?)"
_SET_LARGE = "INSERT INTO large (d) VALUES (?)"
_CLEAR_LARGE = "DELETE FROM large WHERE id IN (SELECT v FROM kv WHERE k >= ? AND k < ? AND typeof(v) = 'integer')"
_CLEAR = "DELETE FROM kv WHERE k >= ? AND k < ?"

_log = logging.getLogger("pagestore.sqlite")


class SqliteSnapshot(Snapshot):
    """A read transaction of one connection."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._cursors: list[apsw.Cursor] = []
        self._clock: clock.Clock | None = None

    def clock(self) -> clock.Clock:
        if self._clock is None:
            self._clock = clock.unpack(self.get(_CLOCK_KEY))
        return self._clock

    def read_version(self) -> Version:
        return self.clock().version

    def get(self, key: bytes) -> bytes | None:
        return cast("bytes | None", self._db.execute(_GET, (key,)).get)

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.cursor()
        self._cursors.append(cursor)
        return _scan(cursor, wanted)

    def scan_many(self, wanted: Sequence[KeyRange]) -> list[Iterator[tuple[bytes, bytes]]]:
        cursor = self._db.cursor()
        self._cursors.append(cursor)
        return [_scan_later(cursor, one) for one in wanted]

    def close_scans(self) -> None:
        for cursor in self._cursors:
            cursor.close()


def _scan(cursor: apsw.Cursor, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
    sql = _SCAN_REVERSE if wanted.reverse else _SCAN
    rows = cursor.execute(sql, (wanted.begin, wanted.end, wanted.limit or -1))
    return cast("Iterator[tuple[bytes, bytes]]", rows)


def _scan_later(cursor: apsw.Cursor, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
    yield from _scan(cursor, wanted)


class SqliteTransaction(SqliteSnapshot, Transaction):
    """The write transaction of a connection: what is set waits in a list until `work` is through."""

    optimistic = False

    def __init__(self, db: apsw.Connection, here: clock.Place) -> None:
        super().__init__(db)
        self._here = here
        self._rows: list[tuple[bytes, bytes | int]] = []
        self._next: Version | None = None
        self._time_us = 0
        self._cleared = False
        self.announced: list[NamespaceId] = []

    def _version(self) -> Version:
        if self._next is None:
            self._next = clock.next_version(self.clock(), self._here)
        return self._next

    def set(self, key: bytes, value: bytes) -> None:
        self._rows.append((key, value))

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self._rows.append((prefix + self._version() + suffix, self._short(value)))

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self._rows.append((key, prefix + self._version() + suffix))

    def _short(self, value: bytes) -> bytes | int:
        """What goes beside a key that was never set before.

        (Where another value may be replaced, as in `set`, it stays beside the key however long it is:
        else each `set` would have to look for the old one's row in `large`.)"""
        if len(value) <= _MAX_INLINE:
            return value
        self._db.execute(_SET_LARGE, (value,))
        return self._db.last_insert_rowid()

    def clear(self, key: bytes) -> None:
        self.clear_range(key, key + b"\0")

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self._apply()
        self._db.execute(_CLEAR_LARGE, (begin, end))
        self._db.execute(_CLEAR, (begin, end))
        self._cleared = True

    def _apply(self) -> None:
        if self._rows:
            self._db.executemany(_SET, self._rows)
            self._rows.clear()

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        """Nothing to do: nobody else writes meanwhile."""

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        """Nothing to do."""

    def announce(self, namespace: NamespaceId) -> None:
        self.announced.append(namespace)

    def commit_time(self, now_us: int) -> int:
        self._time_us = max(now_us, self.clock().time_us)
        return self._time_us

    def finish(self) -> Version | None:
        """Write what is left and the clock; the commit's version, or None if nothing was written."""
        if not self._rows and not self._cleared:
            return None
        version = self._version()
        time_us = self._time_us or self.clock().time_us
        self._rows.append((_CLOCK_KEY, clock.pack(clock.Clock(version, time_us, self._here))))
        self._apply()
        return version


class SqliteEngine(Engine):
    """See the head of this file."""

    limits = Limits(max_seconds=0, max_bytes=0, max_value_bytes=0)

    def __init__(self, path: str, heads_path: str, *, read_only: bool = False) -> None:
        """Open the engine file that `create_file` made.  Raises FormatError, StoreError."""
        self._path = path
        self._read_only = read_only
        self._pid = os.getpid()
        self._unusable: str | None = None
        """Why every call is refused."""
        self._pool = Pool(lambda: Connection(path, read_only=read_only))
        self._checkpointing = threading.Lock()
        self._checkpoint_at = MAX_LOG_FRAMES
        connection = self._take(_DEFAULT_TIMEOUT, opening=True)
        self._here = clock.place(path)
        self._heads = heads.Heads(heads_path, read_only=read_only)
        self._give_back(connection)
        _engines.add(self)

    # ---- reading ----

    def read(self, work: Callable[[Snapshot], T], *, timeout: float | None = None) -> T:
        connection = self._take(timeout)
        db = connection.db
        snapshot = SqliteSnapshot(db)
        try:
            db.execute("BEGIN")
            value = work(snapshot)
            snapshot.close_scans()
            db.execute("COMMIT")
            return value
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection, snapshot)

    # ---- writing ----

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        durability: Durability = "full",
        timeout: float | None = None,
        idempotent: bool = True,
    ) -> Result[T]:
        if self._read_only:
            raise StoreReadOnlyError("the store was opened read-only")
        connection = self._take(timeout)
        tx = SqliteTransaction(connection.db, self._here)
        try:
            connection.db.execute("BEGIN IMMEDIATE")
            value = work(tx)
            version = tx.finish()
            tx.close_scans()
            self._commit(connection, tx.announced)
            if durability == "full":
                self._flush(connection)
            self._bound_log(connection)
            return Result(value, version)
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection, tx)

    def _commit(self, connection: Connection, announced: Sequence[NamespaceId]) -> None:
        """COMMIT, with the head words odd while nobody can say whether it is visible yet."""
        words = [(address, heads.begin(address)) for address in map(self._heads.address, announced)]
        fault("commit.before_commit")
        try:
            connection.db.execute("COMMIT")
        except apsw.IOError as exc:  # the log may hold it whole, for a recovery to find
            raise OutcomeUnknownError(b"", self._give_up(f"commit failed: {exc}")) from exc
        fault("commit.after_commit")
        for address, odd in words:
            heads.end(address, odd)

    def _flush(self, connection: Connection) -> None:
        fault("commit.before_sync")
        try:
            connection.flush()
        except OSError as exc:
            raise OutcomeUnknownError(b"", self._give_up(f"flush failed: {exc}")) from exc
        fault("commit.after_sync")

    def _bound_log(self, connection: Connection) -> None:
        """Copy a log that has grown too long to the main file, so that it starts anew."""
        frames = connection.log_frames
        if frames <= MAX_LOG_FRAMES:
            self._checkpoint_at = MAX_LOG_FRAMES
        if frames <= self._checkpoint_at or not self._checkpointing.acquire(blocking=False):
            return
        try:
            connection.wait_at_most(_CHECKPOINT_PATIENCE)
            fault("checkpoint.before")
            connection.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            fault("checkpoint.copied")
            connection.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            fault("checkpoint.after")
        except (apsw.BusyError, apsw.FullError) as exc:
            _log.debug("checkpoint put off: %s", exc)
            self._checkpoint_at = frames + MAX_LOG_FRAMES // 4
        except apsw.IOError as exc:  # the commit before it is safe in the log
            self._give_up(f"checkpoint failed: {exc}")
        finally:
            self._checkpointing.release()

    # ---- the rest ----

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return self._heads.word(namespace)

    def sync(self) -> None:
        connection = self._take(None)
        try:
            connection.flush()
        except OSError as exc:
            raise StoreUnavailableError(self._give_up(f"flush failed: {exc}")) from exc
        finally:
            self._give_back(connection)

    def close(self) -> None:
        self._unusable = self._unusable or "it was closed"
        if self._pid == os.getpid():
            for connection in self._pool.drain():
                connection.close()

    def usable(self) -> bool:
        return self._unusable is None and self._pid == os.getpid()

    def after_fork(self) -> None:
        """In a child: what was inherited is the parent's."""
        for connection in self._pool.drain():
            connection.abandon()

    # ---- connections and errors ----

    def _take(self, timeout: float | None, *, opening: bool = False) -> Connection:
        if self._pid != os.getpid():
            raise StoreUnavailableError("a store opened before fork() can't be used after it: open it again")
        if self._unusable is not None:
            raise StoreUnavailableError(f"the store can't be used any more: {self._unusable}")
        try:
            connection = self._pool.take()
        except apsw.Error as exc:
            raise _opening_error(exc) if opening else _error(exc, 0) from exc
        except OSError as exc:
            raise StoreUnavailableError(f"its files can't be opened: {exc}") from exc
        connection.wait_at_most(_DEFAULT_TIMEOUT if timeout is None else timeout)
        return connection

    def _give_back(self, connection: Connection, used: SqliteSnapshot | None = None) -> None:
        try:
            if used is not None:
                used.close_scans()
            connection.reset()
        except apsw.Error:  # whatever ails it, what went wrong before is what the caller has to know
            _log.warning("a connection could not be reset", exc_info=True)
            connection.close()
            return
        if self._unusable is None:
            self._pool.give_back(connection)
        else:
            connection.close()

    def _give_up(self, reason: str) -> str:
        """Refuse every further call; returns `reason`."""
        self._unusable = reason
        _log.error("%s: closing the store: %s", self._path, reason)
        for connection in self._pool.drain():
            connection.close()
        return reason

    def _error(self, connection: Connection, exc: apsw.Error) -> StoreError:
        return _error(exc, connection.db.system_errno)


def create_file(path: str, rows: dict[bytes, bytes]) -> None:
    """Make a new engine file that holds `rows`, flushed, with nothing beside it."""
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        db.execute(f"PRAGMA page_size = {_PAGE_SIZE}; PRAGMA application_id = {APPLICATION_ID}")
        db.execute(_SCHEMA)
        db.executemany(_SET, rows.items())
        db.pragma("journal_mode", "wal")
    except apsw.Error as exc:
        raise _error(exc, db.system_errno) from exc
    finally:
        db.close(True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _error(exc: apsw.Error, system_errno: int) -> StoreError:
    """What a caller gets for what SQLite said; raises `exc` itself if that was a mistake of ours."""
    if isinstance(exc, apsw.BusyError | apsw.LockedError):
        return StoreUnavailableError("the store stayed locked for the whole timeout")
    if isinstance(exc, apsw.FullError) or (isinstance(exc, apsw.IOError) and system_errno in _FULL):
        return StoreFullError(f"no space is left for the store: {exc}")
    if isinstance(exc, apsw.ReadOnlyError):
        return StoreReadOnlyError(f"the store can't be written to: {exc}")
    if isinstance(exc, apsw.CorruptError | apsw.NotADBError):
        return CorruptPageError(f"the engine's file is damaged: {exc}")
    if isinstance(exc, apsw.IOError | apsw.CantOpenError):
        return StoreUnavailableError(f"{exc} (errno {system_errno}: {os.strerror(system_errno)})")
    raise exc


def _opening_error(exc: apsw.Error) -> StoreError:
    if isinstance(exc, apsw.CorruptError | apsw.NotADBError | apsw.SQLError):
        return FormatError(f"it is not an engine file, or damaged: {exc}")
    return _error(exc, 0)


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in _engines:
        engine.after_fork()


os.register_at_fork(after_in_child=_after_fork)
