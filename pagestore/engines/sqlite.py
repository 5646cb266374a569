"""The embedded engine: one ordinary SQLite file in WAL mode, an ordered table of keys and values.

Called by `pagestore.store` through the engine interface; opened by `pagestore.embedded`.  Calls APSW
through `sqlite_connection` (the flush rule) and `sqlite_transaction` (the table), `clock`, `heads`
and `recent`.

1. `transact` runs `work` once, under SQLite's write lock (BEGIN IMMEDIATE): nothing it read can change
   before it commits, so conflicts need no naming.  The lock is held for one commit, without its flush.
2. A commit moves the head words of the namespaces that it announced: odd before it becomes visible, even
   after (native/words.c); and leaves what it changed among the recent changes (native/recent.h).
3. The version is taken under the lock, from the clock record, which is part of the commit.
4. A commit with durability "full" returns after its flush.  When a flush fails, the engine is closed:
   what the disk holds is not known any more until the file is read anew.
5. The write-ahead log is bounded: the committer that finds it longer than `MAX_LOG_FRAMES` copies it to
   the main file, first without any lock that others wait for, then, with little left to do, so that
   the log starts anew.  Where a reader is in the way it is left for later: nobody waits for a reader.
6. Commits to a file that nobody can open any more would be lost: who comes to know that the file was removed
   or replaced (when a store is put back from a backup, say) closes the engine.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import apsw

from pagestore.api import (
    ZERO_VERSION,
    Durability,
    HeadWord,
    NamespaceId,
    OutcomeUnknownError,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines import clock, heads, recent
from pagestore.engines.base import Engine, Limits, Result, Snapshot, Transaction
from pagestore.engines.file_errors import FULL
from pagestore.engines.pace import Pace
from pagestore.engines.sqlite_connection import DEFAULT_TIMEOUT, Connection, Pool
from pagestore.engines.sqlite_errors import as_store_error, opening_error
from pagestore.engines.sqlite_transaction import SqliteSnapshot, SqliteTransaction
from pagestore.faults import fault

T = TypeVar("T")

MAX_LOG_FRAMES = 4096
"""Pages (of 4 KiB) in the log: 16 MiB."""

_CHECKPOINT_PATIENCE = 0.01
"""Seconds that a checkpoint waits for readers, holding the write lock."""

_SHORTEN_PAGES = 64
"""Pages of the file moved in one transaction at most."""

_FREE_AT_MOST = 10
"""One page in so many may stay unused: what is written next takes it."""

_log = logging.getLogger("pagestore.sqlite")


class SqliteEngine(Engine):
    """See the head of this file."""

    limits = Limits(max_seconds=0, max_bytes=0, max_value_bytes=0)
    one_writer = True
    tells_numbers = True

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open the engine file that `sqlite_file` made, and the shared files beside it.

        Raises FormatError, StoreError."""
        self._path = path
        self._read_only = read_only
        self._pid = os.getpid()
        self._unusable: str | None = None
        """Why every call is refused."""
        self._pool = Pool(lambda: Connection(path, read_only=read_only))
        self._checkpointing = threading.Lock()
        self._checkpoint_at = MAX_LOG_FRAMES
        connection = self._take(DEFAULT_TIMEOUT, opening=True)
        self._here = clock.place(path)
        found = os.stat(path)
        self._file = found.st_dev, found.st_ino
        folder = os.path.dirname(path)
        self._heads = heads.Heads(os.path.join(folder, "heads"), read_only=read_only)
        self._recent = recent.Recent(os.path.join(folder, "recent"), read_only=read_only)
        if not read_only:
            self._gate = self._heads.gate()
        self._give_back(connection)
        _engines.add(self)

    # ---- reading ----

    def read(
        self,
        work: Callable[[Snapshot], T],
        *,
        timeout: float | None = None,
        reaching: Version | None = None,
        as_of: Version | None = None,
    ) -> T:
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
        as_of: Version | None = None,
    ) -> Result[T]:
        if self._read_only:
            raise StoreReadOnlyError("the store was opened read-only")
        connection = self._take(timeout)
        tx = SqliteTransaction(connection.db, self._here)
        holding = True
        try:
            connection.begin_writing(self._gate)
            value = work(tx)
            version = tx.finish()
            tx.close_scans()
            self._commit(connection, tx, version)
            self._gate.open()
            holding = False
            if durability == "full":
                self._flush(connection)
            self._bound_log(connection)
            return Result(value, version)
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection, tx)
            if holding:
                self._gate.open()

    def _commit(self, connection: Connection, tx: SqliteTransaction, version: Version | None) -> None:
        """COMMIT, with the head words odd while nobody can say whether it is visible yet."""
        words: list[tuple[int, int]] = []
        told: int | None = None
        try:
            if tx.announced:
                told = self._recent.begin()
            for namespace, before, numbers in tx.announced:
                address = self._heads.address(namespace)
                words.append((address, heads.begin(address)))
                if version is not None and before is not None:
                    self._recent.add(namespace, words[-1][1], version, before, numbers)
            fault("commit.before_commit")
            connection.db.execute("COMMIT")
            if told is not None:
                self._recent.end(told)
            fault("commit.after_commit")
        except apsw.IOError as exc:
            if connection.db.system_errno in FULL:  # the log's last frame, which makes it count, is not whole
                raise
            raise OutcomeUnknownError(b"", self._give_up(f"commit failed: {exc}")) from exc
        finally:
            for address, odd in words:
                heads.end(address, odd)

    def _flush(self, connection: Connection) -> None:
        try:
            fault("commit.before_sync")
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
            self._gate.open()
            fault("checkpoint.after")
        except (apsw.BusyError, apsw.FullError) as exc:
            _log.debug("checkpoint put off: %s", exc)
            self._checkpoint_at = frames + MAX_LOG_FRAMES // 4
        except apsw.Error as exc:  # the commit before it is safe in the log
            self._give_up(f"checkpoint failed: {exc}")
        finally:
            self._checkpointing.release()

    # ---- the rest ----

    def is_copied(self, tx: Snapshot) -> bool:
        """A file keeps its inode over moves and boots; a copy has another one, mostly."""
        assert isinstance(tx, SqliteSnapshot)
        last = tx.clock()
        return last.version != ZERO_VERSION and last.place.inode != self._here.inode

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        word = self._heads.word(namespace)
        if word is None:
            return None
        return HeadWord(word.address, (word.keepalive, self._recent.keepalive), self._recent.address)

    def give_back(self, *, whole: bool = False) -> int:
        """The file's unused pages, unless there are so few that it is better to use them again.

        Works page by page in a file that was made with `auto_vacuum=INCREMENTAL`, as all are since there is
        retention.  `whole` rebuilds the file (VACUUM) and makes an older one such: others can read meanwhile,
        who writes has to wait."""
        before = os.stat(self._path).st_size
        if whole:
            self._rebuild()
        else:
            self._shorten()
        self._checkpoint_all()
        return max(before - os.stat(self._path).st_size, 0)

    def _shorten(self) -> None:
        pace = Pace(self, _SHORTEN_PAGES)
        while pace.transact(lambda tx: _shorten(tx, pace.size)):
            fault("collect.shortened")
            pace.rest()

    def _rebuild(self) -> None:
        connection = self._take(None)
        try:
            connection.db.execute("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection)
            self._gate.open()

    def _checkpoint_all(self) -> None:
        """The file gets shorter when the log has been copied to it."""
        connection = self._take(_CHECKPOINT_PATIENCE)
        try:
            connection.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except (apsw.BusyError, apsw.FullError) as exc:
            _log.debug("checkpoint put off: %s", exc)
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection)
            self._gate.open()

    def sync(self) -> None:
        connection = self._take(None)
        try:
            connection.flush()
        except OSError as exc:
            raise StoreUnavailableError(self._give_up(f"flush failed: {exc}")) from exc
        finally:
            self._give_back(connection)

    @contextmanager
    def standing_still(self) -> Iterator[apsw.Connection]:
        """A connection in a read transaction that sees all that is committed by now, for a backup."""
        connection = self._take(None)
        try:
            connection.db.execute("BEGIN")
            SqliteSnapshot(connection.db).read_version()
            yield connection.db
        except apsw.Error as exc:
            raise self._error(connection, exc) from exc
        finally:
            self._give_back(connection)

    def close(self) -> None:
        self._unusable = self._unusable or "it was closed"
        if self._pid == os.getpid():
            for connection in self._pool.drain():
                connection.close()
            self._heads.close()

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
        if not opening and not self._is_in_place():
            self._heads.spoil()
            raise StoreUnavailableError(self._give_up(f"{self._path} was removed, or another file put there"))
        try:
            connection = self._pool.take()
        except apsw.Error as exc:
            raise opening_error(exc) if opening else as_store_error(exc, 0) from exc
        except OSError as exc:
            raise StoreUnavailableError(f"its files can't be opened: {exc}") from exc
        connection.wait_at_most(DEFAULT_TIMEOUT if timeout is None else timeout)
        return connection

    def _is_in_place(self) -> bool:
        """Rule 6."""
        try:
            found = os.stat(self._path)
        except OSError as exc:
            return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
        return (found.st_dev, found.st_ino) == self._file

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
        return as_store_error(exc, connection.db.system_errno)


def _shorten(tx: Transaction, most: int) -> bool:
    """One step, of so many pages; whether there is more to do."""
    assert isinstance(tx, SqliteTransaction)
    unused, pages = tx.free_pages()
    if unused <= max(pages // _FREE_AT_MOST, _SHORTEN_PAGES):
        return False
    tx.shorten(most)
    return tx.free_pages()[0] < unused


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in _engines:
        engine.after_fork()


os.register_at_fork(after_in_child=_after_fork)
