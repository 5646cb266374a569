"""An ordinary SQLite file that is read.

Called by `importing`; calls SQLite.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator

import apsw

from mvvfs.errors import UnsupportedError
from mvvfs.transfer.common import COMPANIONS

_BUSY_MS = 5000
_HEADER_BYTES = 20
_READ_VERSION = 19  # of the header: 2 means write-ahead log; https://www.sqlite.org/fileformat2.html


@contextlib.contextmanager
def opened_source(path: str) -> Iterator[apsw.Connection]:
    """A connection that reads an ordinary SQLite file in one transaction, and leaves it as it was."""
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder, not an SQLite file", path)
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, "may not be read", path)
    connection = apsw.Connection(os.path.abspath(path), flags=_source_flags(path))
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.ReadOnlyError as exc:
            raise UnsupportedError(
                f"{path} was left in the middle of a transaction, which has to be undone first: open it once "
                f"with SQLite (sqlite3 {path} .schema), which does that"
            ) from exc
        yield connection
    finally:
        connection.close(force=True)


def _source_flags(path: str) -> int:
    # Read-only, but for one case.  A file in WAL mode gets its -wal and -shm when it is first opened, and
    # only a connection that may write takes them away again (empty: the file itself stays as it was).
    alone = not any(os.path.exists(path + suffix) for suffix in COMPANIONS)
    if alone and _header(path)[_READ_VERSION:] == b"\x02" and os.access(path, os.W_OK):
        return apsw.SQLITE_OPEN_READWRITE
    return apsw.SQLITE_OPEN_READONLY


def _header(path: str) -> bytes:
    # through SQLite: closing a descriptor of its own would drop the locks that this process holds
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    file = apsw.VFSFile("", os.path.abspath(path), flags)
    try:
        return file.xRead(_HEADER_BYTES, 0) if file.xFileSize() >= _HEADER_BYTES else b""
    finally:
        file.xClose()


@contextlib.contextmanager
def without_auto_vacuum(path: str) -> Iterator[str]:
    """A temporary copy of an auto_vacuum file in the mode that an mv database has.

    VACUUM INTO keeps every rowid, also of tables without an INTEGER PRIMARY KEY."""
    with tempfile.TemporaryDirectory(prefix="mvvfs-import-") as folder:
        copy = os.path.join(folder, "copy.sqlite")
        connection = apsw.Connection(os.path.abspath(path), flags=_source_flags(path))
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("auto_vacuum", "NONE")
            connection.execute("VACUUM INTO ?", (copy,))
        finally:
            connection.close(force=True)
        yield copy
