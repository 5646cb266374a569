"""One FoundationDB transaction as the engine interface has it.

Called by `foundationdb`; calls `foundationdb_handles`.

1. Every read is a snapshot read: what must not change is named by the caller as a read conflict.
2. Reads are sent when they are asked for and waited for when they are used; of a range, the next part is
   sent for only once it is wanted.
3. What carries the commit's version adds no write conflict of its own: nobody else can write that key.
4. What is written is collected, and handed to the library right before the commit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from pagestore.api import NamespaceId, StoreUnavailableError, Version, format_version
from pagestore.engines.base import KeyRange, Snapshot, Transaction, pack_range
from pagestore.engines.foundationdb_handles import Future, Handle
from pagestore.native import lib

HIGHEST_BATCH = b"\xff\xff"

_READ_CONFLICT, _WRITE_CONFLICT = 0, 1
"""FDBConflictRangeType (https://apple.github.io/foundationdb/api-c.html)."""

_ALONE = 1
"""Nobody conflicts on what is written."""

_HEADER = struct.Struct("=BBiii")


class FoundationSnapshot(Snapshot):
    is_wanted_again = False
    """Whether somebody may want to stand where this one stands."""

    def __init__(self, tr: Handle, stands_at: Version | None = None) -> None:
        """`stands_at`: the read version, where it is known."""
        self._tr = tr
        self._read_version = stands_at

    def ask_read_version(self) -> None:
        self.is_wanted_again = True
        if self._read_version is None:
            self._tr.ask_version()

    def read_version(self) -> Version:
        if self._read_version is None:
            self._read_version = Version(self._tr.version().to_bytes(8, "big") + HIGHEST_BATCH)
        return self._read_version

    def confirm(self, version: Version) -> None:
        if version > self.read_version():
            raise StoreUnavailableError(
                f"version {format_version(version)} is stored, but the cluster has only come to "
                f"{format_version(self.read_version())}: was it restored from another cluster's backup? "
                "Then `advanceversion` in fdbcli has to bring it beyond the versions that are stored"
            )

    def ask(self, key: bytes) -> Callable[[], bytes | None]:
        return self._tr.get(key).value

    def get(self, key: bytes) -> bytes | None:
        return self.ask(key)()

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        begin, end, limit, reverse = wanted
        if begin >= end:
            return iter(())
        return self._rows(begin, end, limit, reverse, self._tr.range(begin, end, limit, 1, reverse=reverse))

    def _rows(
        self, begin: bytes, end: bytes, limit: int, reverse: bool, part: Future
    ) -> Iterator[tuple[bytes, bytes]]:
        left, iteration = limit, 1
        while True:
            rows = part.rows()
            yield from rows
            left -= len(rows)
            if not rows.more or not rows or (limit and left <= 0):
                return
            if reverse:
                end = rows.last_key()
            else:
                begin = rows.last_key() + b"\0"
            iteration += 1
            part = self._tr.range(begin, end, left if limit else 0, iteration, reverse=reverse)


class FoundationTransaction(FoundationSnapshot, Transaction):
    wrote = False
    """Whether anything is set or cleared."""

    def __init__(self, tr: Handle, stands_at: Version | None = None) -> None:
        super().__init__(tr, stands_at)
        self._operations: list[bytes] = []

    def commit(self) -> tuple[Future, Future]:
        """Send what was set, cleared and named, and commit: its versionstamp, and that it is done."""
        return self._tr.commit(b"".join(self._operations))

    def _write(self, kind: int, a: bytes, b: bytes = b"", c: bytes = b"", code: int = 0) -> None:
        self.wrote = True
        self._operations += (_HEADER.pack(kind, code, len(a), len(b), len(c)), a, b, c)

    def set(self, key: bytes, value: bytes) -> None:
        self._write(lib.MV_FDB_SET, key, value)

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self._write(lib.MV_FDB_VERSIONED_KEY, prefix, suffix, value)

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self._write(lib.MV_FDB_VERSIONED_VALUE, key, prefix, suffix)

    def clear(self, key: bytes) -> None:
        self._write(lib.MV_FDB_CLEAR, key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        if begin < end:
            self._write(lib.MV_FDB_CLEAR_RANGE, begin, end)

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        self.add_read_conflicts(pack_range(begin, end))

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        self.add_write_conflicts(pack_range(begin, end))

    def add_read_conflicts(self, ranges: bytes) -> None:
        self._operations += (_HEADER.pack(lib.MV_FDB_CONFLICTS, _READ_CONFLICT, len(ranges), 0, 0), ranges)

    def add_write_conflicts(self, ranges: bytes) -> None:
        self._operations += (_HEADER.pack(lib.MV_FDB_CONFLICTS, _WRITE_CONFLICT, len(ranges), 0, 0), ranges)

    def announce(self, namespace: NamespaceId, before: Version | None = None, numbers: bytes = b"") -> None:
        """Set the key that `Signal`s watch; nobody conflicts on it."""
        self._write(lib.MV_FDB_VERSIONED_VALUE, head_key(namespace), code=_ALONE)

    def commit_time(self, now_us: int) -> int:
        return now_us  # to read the last commit's time with conflict would make all commits meet


def head_key(namespace: NamespaceId) -> bytes:
    """Of the newest version that was announced; behind all keys of the store."""
    return b"\xff" + namespace.to_bytes(8, "big")
