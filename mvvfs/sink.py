"""An SQLite file that is nowhere: whoever makes one is handed its pages as they are written.

Called by `transfer`, as the destination of SQLite's backup API; calls APSW.

1. Each page is handed on when SQLite lets go of it, in any order, and kept nowhere; but for page 1, which is
   written first and last, and kept.
2. There is nothing to read back: the file is written once, without a journal, in one transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

_CACHE_KIB = 4096
_numbers = itertools.count()


class Sink(apsw.VFS):
    """A VFS with a single file."""

    def __init__(self, page_size: int, take: Callable[[int, bytes], None]) -> None:
        """`take` is given a page number and the content of every page but the first."""
        self.name = f"mv-sink-{next(_numbers)}"
        super().__init__(self.name, "", makedefault=False)
        self.page_size = page_size
        self.take = take
        self.first = b""
        """Page 1 as it was last written."""

    def xAccess(self, _path: str, _flags: int) -> bool:  # there is no journal, and no file before
        return False

    def xFullPathname(self, name: str) -> str:
        return name

    def xOpen(self, _name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, flags)  # type: ignore[return-value]

    def xDelete(self, _path: str, _sync: bool) -> None:
        return


class _File:
    def __init__(self, sink: Sink, flags: list[int]) -> None:
        self._sink = sink
        self._size = 0
        flags[1] = flags[0]

    def xRead(self, amount: int, offset: int) -> bytes:
        if offset >= self._size:
            return b""
        if offset + amount <= len(self._sink.first):
            return self._sink.first[offset : offset + amount]
        raise apsw.IOError(f"what was written at {offset} is gone")

    def xWrite(self, data: bytes, offset: int) -> None:
        number, rest = divmod(offset, self._sink.page_size)
        if rest or len(data) != self._sink.page_size:
            raise apsw.IOError(f"{len(data)} bytes at {offset} are no page of {self._sink.page_size}")
        self._size = max(self._size, offset + len(data))
        if number == 0:
            self._sink.first = bytes(data)
        else:
            self._sink.take(number + 1, bytes(data))

    def xFileSize(self) -> int:
        return self._size

    def xTruncate(self, size: int) -> None:
        self._size = size

    def xSync(self, _flags: int) -> None:
        return

    def xLock(self, _level: int) -> None:
        return

    def xUnlock(self, _level: int) -> None:
        return

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        return

    def xFileControl(self, _op: int, _pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 0

    def xDeviceCharacteristics(self) -> int:
        return 0


@contextmanager
def open_sink(sink: Sink) -> Iterator[apsw.Connection]:
    """A connection to back up into."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection("sink", vfs=sink.name, flags=flags)
    try:
        for pragma in (
            f"page_size = {sink.page_size}",
            "journal_mode = OFF",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
            f"cache_size = -{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        yield connection
    finally:
        connection.close(force=True)
