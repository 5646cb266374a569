"""One connection to the engine's SQLite file, with its flush; and the pool that lends them out.

Called by `sqlite`.  Calls APSW.  The flush rule, which makes a commit with `synchronous=NORMAL` as
durable as one with FULL, while the flushes of all processes overlap outside the write lock:

1. Every connection uses `synchronous=NORMAL`: never OFF, under which SQLite would not flush the log
   before it copies pages to the main file.
2. The descriptor of the -wal file is opened after the connection's first read, and closed with the
   connection: while a connection has the file open, nobody replaces the log.  Before each flush, its
   inode is compared with that of the file of that name all the same.
3. A commit is acknowledged only after fdatasync returned without error.  After one that failed, the
   kernel may have dropped what it could not write, and a second one would say that all is well: so it is
   never tried again, the outcome is unknown, the engine closes.
4. A reader may see a commit that is not flushed yet.  `flush` by that reader makes it durable.
5. The main file and -shm are never opened but by APSW's SQLite: closing any descriptor of a file drops
   all POSIX locks that the process holds on it.
6. The log is bounded: see `SqliteEngine`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable

import apsw

from pagestore.api import FormatError, StoreFullError, StoreReadOnlyError
from pagestore.engines.file_errors import FULL
from pagestore.engines.heads import Gate

APPLICATION_ID = 0x6D767674
"""In the header of every engine file, so that it can be told from others ("mvvt")."""

LOG_SIZE_LIMIT = 32 << 20
"""Bytes of the -wal file that are left on disk when the log starts anew."""

DEFAULT_TIMEOUT = 5.0
"""Seconds to wait for a lock where nobody says."""

_CACHE_KIB = 16384
_MAX_IDLE = 8
_NORMAL = 1  # as `PRAGMA synchronous` answers
_SHORTEST_NAP, _LONGEST_NAP = 30e-6, 1e-3

_PRAGMAS = f"""
    PRAGMA synchronous = NORMAL;
    PRAGMA journal_size_limit = {LOG_SIZE_LIMIT};
    PRAGMA cache_size = -{_CACHE_KIB};
    PRAGMA temp_store = MEMORY;
    PRAGMA trusted_schema = OFF;
"""


_persist_log = ctypes.c_int(1)


class Connection:
    """A connection that one thread at a time uses."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        """Raises apsw.Error, FormatError, OSError."""
        self.log_frames = 0
        """Pages in the -wal file after this connection's last commit."""
        self._timeout = DEFAULT_TIMEOUT
        self._deadline = 0.0
        self._gate: Gate | None = None
        self._looked = 0
        self._log_path = path + "-wal"
        self._log = -1
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        self.db = apsw.Connection(path, flags)
        try:
            self._set_up(read_only)
            self._log = os.open(self._log_path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            self._log_inode = os.fstat(self._log).st_ino
        except BaseException as exc:
            full = isinstance(exc, apsw.IOError) and self.db.system_errno in FULL
            self.close()
            if full:  # to read, a first connection writes the file that all share
                raise StoreFullError("no space is left for the store") from exc
            raise

    def _set_up(self, read_only: bool) -> None:
        db = self.db
        if db.readonly("main") and not read_only:
            raise StoreReadOnlyError("this process may not write to the store's files (it can be read)")
        db.set_busy_handler(self._wait)
        if db.pragma("application_id") != APPLICATION_ID:
            raise FormatError("it is not a page store's engine file")
        db.execute("SELECT k, v FROM kv LIMIT 0")
        db.execute(_PRAGMAS)
        db.set_wal_hook(self._note_log)  # in the place of automatic checkpoints
        if db.pragma("journal_mode") != "wal" or db.pragma("synchronous") != _NORMAL:
            raise FormatError("its journal mode or `synchronous` was tampered with")
        db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(_persist_log))

    def _note_log(self, _db: apsw.Connection, _name: str, frames: int) -> int:
        self.log_frames = frames
        return apsw.SQLITE_OK

    # ---- locks ----

    def wait_at_most(self, seconds: float) -> None:
        """How long to wait for a lock from now on."""
        self._timeout = seconds

    def begin_writing(self, gate: Gate) -> None:
        """Begin a transaction that holds the write lock.  Raises apsw.BusyError when the time is up."""
        self._gate = gate
        self._looked = gate.look()
        try:
            self.db.execute("BEGIN IMMEDIATE")
        finally:
            self._gate = None

    def _wait(self, tries: int) -> bool:
        """SQLite's busy handler.

        The write lock, held for some 100 µs, is waited for at the gate; others, which nobody announces, with
        naps that are short at first."""
        now = time.monotonic()
        if tries == 0:
            self._deadline = now + self._timeout
        if self._gate is not None:
            nap = _LONGEST_NAP
        else:
            nap = min(_SHORTEST_NAP * 2 ** min(tries, 20), _LONGEST_NAP)
        nap *= random.uniform(0.5, 1.5)
        if now + nap > self._deadline:
            return False
        if self._gate is not None:
            self._looked = self._gate.wait(self._looked, nap)
        else:
            time.sleep(nap)
        return True

    # ---- the flush ----

    def flush(self) -> None:
        """Make everything durable that this connection has committed or seen.  Raises OSError."""
        if os.stat(self._log_path).st_ino != self._log_inode:
            raise OSError(errno.ESTALE, "the log was replaced under an open store", self._log_path)
        sync_data(self._log)

    # ---- the end ----

    def reset(self) -> None:
        """End whatever transaction is open.  Raises apsw.Error."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        self.db.close(True)

    def abandon(self) -> None:
        """In a forked child: never to be used, never to be closed.

        SQLite would take the file for its own, and the last one to close it checkpoints."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.db))


def sync_data(fd: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there leaves data in the drive's cache
    else:
        os.fdatasync(fd)


class Pool:
    """Connections that nobody uses at the moment."""

    def __init__(self, make: Callable[[], Connection]) -> None:
        self._make = make
        self._idle: deque[Connection] = deque()

    def take(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def give_back(self, connection: Connection) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def drain(self) -> list[Connection]:
        """All idle connections, which are in the pool no longer."""
        drained = []
        while self._idle:
            drained.append(self._idle.pop())
        return drained
