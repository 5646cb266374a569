"""Which file of a cache folder is in use, and connections to it.

Called by `near.file`; calls APSW, and `near.rows` for the tables of a new file.

    CACHE_DIR/current-1            the name of the file in use
    CACHE_DIR/pages-XXXX.sqlite    an SQLite file in WAL mode, with -wal and -shm beside it

1. A file that SQLite finds damaged is given up for a new one, of another name: whoever still has it open goes
   on with what was one state, and never sees half of one file and half of another.
2. The file is never opened but by SQLite, and its connections never serve two threads at once.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import apsw

from mvvfs.near import rows
from pagestore.embedded import locked_folder

_CURRENT = "current-1"
"""The number is the format's: another release may keep its own file beside this one."""
_BUSY_MS = 2000
_LOG_LIMIT = 8 << 20


class Slot:
    """A connection to the file in use, for one thread at a time: the one that has its lock."""

    def __init__(self, folder: str) -> None:
        self.lock = threading.Lock()
        self._folder = folder
        self._db: apsw.Connection | None = None
        self._path = ""

    def connect(self) -> apsw.Connection:
        """To the file in use, made if there is none.  Raises apsw.Error, OSError."""
        if self._db is not None and os.path.exists(self._path):
            return self._db
        self.close()  # given up by another process
        try:
            self._db = self._connect()
        except (apsw.CorruptError, apsw.NotADBError):
            self.give_up()
            self._db = self._connect()
        return self._db

    def _connect(self) -> apsw.Connection:
        with locked_folder(self._folder):
            name = _read(os.path.join(self._folder, _CURRENT))
            self._path = os.path.join(self._folder, name)
            if not name or not os.path.exists(self._path):
                self._path = _make(self._folder)
        return _open(self._path)

    def give_up(self) -> None:
        """The file is damaged: whoever looks for it next makes a new one."""
        self.close()
        with locked_folder(self._folder):
            pointer = os.path.join(self._folder, _CURRENT)
            if _read(pointer) == os.path.basename(self._path):
                _unlink(pointer)
            for end in ("", "-wal", "-shm"):
                _unlink(self._path + end)

    def close(self) -> None:
        if self._db is not None:
            self._db.close(True)
            self._db = None


def _make(folder: str) -> str:
    """A new, empty file; those before it go.  With the folder locked."""
    name = f"pages-{os.urandom(4).hex()}.sqlite"
    path = os.path.join(folder, name)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        db.execute(f"PRAGMA page_size = {rows.PAGE_SIZE}; PRAGMA auto_vacuum = incremental")
        db.pragma("journal_mode", "wal")
        db.execute(rows.SCHEMA)
    finally:
        db.close(True)
    pointer = os.path.join(folder, _CURRENT)
    with open(f"{pointer}.new", "w", encoding="ascii") as out:
        out.write(name)
    os.replace(f"{pointer}.new", pointer)
    for other in os.listdir(folder):
        if other.startswith("pages-") and not other.startswith(name):
            _unlink(os.path.join(folder, other))
    return path


def _open(path: str) -> apsw.Connection:
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(_BUSY_MS)
        # a power cut may take the last transactions, which leaves an older state, but never a torn one
        db.execute(f"PRAGMA synchronous = normal; PRAGMA journal_size_limit = {_LOG_LIMIT}")
        db.execute("SELECT (SELECT count(*) FROM databases), (SELECT min(key) FROM pages)").fetchall()
    except apsw.SQLError as exc:  # no such table: not one of ours
        db.close(True)
        raise apsw.NotADBError(str(exc)) from exc
    except apsw.Error:
        db.close(True)
        raise
    return db


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as pointer:
            name = pointer.read(100)
    except FileNotFoundError:
        return ""
    return name if name.startswith("pages-") and name == os.path.basename(name) else ""
