"""One FoundationDB transaction as the engine interface has it.

Called by `foundationdb`; calls `foundationdb_handles`.

1. Every read is a snapshot read: what must not change is named by the caller as a read conflict.
2. Reads are sent when they are asked for and waited for when they are used; of a range, the next part is
   sent for only once it is wanted.
3. What carries the commit's version adds no write conflict of its own: nobody else can write that key.
4. What is written is collected, and handed to the library right before the commit.
5. Everything that is sent is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from pagestore._native import lib
from pagestore.api import VERSION_SIZE, NamespaceId, StoreUnavailableError, Version, format_version
from pagestore.engines.base import KeyRange, Operations, Snapshot, Transaction
from pagestore.engines.foundationdb_handles import Future, Handle

HIGHEST_BATCH = b"\xff\xff"

_VERSIONSTAMPED_KEY, _VERSIONSTAMPED_VALUE = 14, 15
_READ_CONFLICT, _WRITE_CONFLICT = 0, 1
"""FDBMutationType and FDBConflictRangeType (https://apple.github.io/foundationdb/api-c.html)."""

_HEADER = struct.Struct("=BBii")


class FoundationSnapshot(Snapshot):
    def __init__(self, tr: Handle, prefix: bytes) -> None:
        self._tr = tr
        self._prefix = prefix
        self.counted = Operations()
        self.is_wanted_again = False
        """Whether somebody may want to stand where this one stands."""
        self._read_version: Version | None = None

    def ask_read_version(self) -> None:
        self.is_wanted_again = True
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
        self.counted.gets += 1
        return self._tr.get(self._prefix + key).value

    def get(self, key: bytes) -> bytes | None:
        return self.ask(key)()

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        if wanted.begin >= wanted.end:
            return iter(())
        begin, end = self._prefix + wanted.begin, self._prefix + wanted.end
        self.counted.range_reads += 1
        return self._rows(begin, end, wanted, self._send(begin, end, wanted.limit, 1, wanted.reverse))

    def scan_many(self, wanted: Sequence[KeyRange]) -> list[Iterator[tuple[bytes, bytes]]]:
        return [self.scan(one) for one in wanted]  # each is on its way before any is waited for

    def _send(self, begin: bytes, end: bytes, limit: int, iteration: int, reverse: bool) -> Future:
        self.counted.parts += 1
        return self._tr.range(begin, end, limit, iteration, reverse=reverse)

    def _rows(
        self, begin: bytes, end: bytes, wanted: KeyRange, part: Future
    ) -> Iterator[tuple[bytes, bytes]]:
        cut, limit, iteration = len(self._prefix), wanted.limit, 1
        while True:
            rows = part.rows(cut)
            count = len(rows)
            self.counted.rows += count
            yield from rows
            limit -= count
            if not rows.more or not count or (wanted.limit and limit <= 0):
                return
            if wanted.reverse:
                end = self._prefix + rows.last_key()
            else:
                begin = self._prefix + rows.last_key() + b"\0"
            iteration += 1
            part = self._send(begin, end, limit if wanted.limit else 0, iteration, wanted.reverse)


class FoundationTransaction(FoundationSnapshot, Transaction):
    def __init__(self, tr: Handle, prefix: bytes) -> None:
        super().__init__(tr, prefix)
        self._operations: list[bytes] = []

    @property
    def wrote(self) -> bool:
        return bool(self.counted.sets or self.counted.clears)

    def commit(self) -> tuple[Future, Future]:
        """Send what was set, cleared and named, and commit: its versionstamp, and that it is done."""
        return self._tr.commit(b"".join(self._operations))

    def _add(self, kind: int, a: bytes = b"", b: bytes = b"", code: int = 0) -> None:
        self._operations += (_HEADER.pack(kind, code, len(a), len(b)), a, b)

    def set(self, key: bytes, value: bytes) -> None:
        self.counted.sets += 1
        self._add(lib.MV_FDB_SET, self._prefix + key, value)

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self.counted.sets += 1
        key = _with_gap(self._prefix + prefix, suffix)
        header = _HEADER.pack(lib.MV_FDB_ATOMIC_ALONE, _VERSIONSTAMPED_KEY, len(key), len(value))
        self._operations += (header, key, value)

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self.counted.sets += 1
        self._add(lib.MV_FDB_ATOMIC, self._prefix + key, _with_gap(prefix, suffix), _VERSIONSTAMPED_VALUE)

    def clear(self, key: bytes) -> None:
        self.counted.clears += 1
        self._add(lib.MV_FDB_CLEAR, self._prefix + key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        if begin < end:
            self.counted.clears += 1
            self._add(lib.MV_FDB_CLEAR_RANGE, self._prefix + begin, self._prefix + end)

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        self.counted.conflicts += 1
        self._add(lib.MV_FDB_CONFLICT, self._prefix + begin, self._prefix + end, _READ_CONFLICT)

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        self.counted.conflicts += 1
        self._add(lib.MV_FDB_CONFLICT, self._prefix + begin, self._prefix + end, _WRITE_CONFLICT)

    def add_conflicts(
        self, read: Sequence[tuple[bytes, bytes]], written: Sequence[tuple[bytes, bytes]]
    ) -> None:
        self.counted.conflicts += len(read) + len(written)
        prefix, pack, kind = self._prefix, _HEADER.pack, lib.MV_FDB_CONFLICT
        for ranges, code in ((read, _READ_CONFLICT), (written, _WRITE_CONFLICT)):
            for begin, end in ranges:
                header = pack(kind, code, len(prefix) + len(begin), len(prefix) + len(end))
                self._operations += (header, prefix, begin, prefix, end)

    def announce(self, namespace: NamespaceId, before: Version | None = None, numbers: bytes = b"") -> None:
        """Set the key that `Signal`s watch; nobody conflicts on it."""
        self.counted.sets += 1
        key = self._prefix + head_key(namespace)
        self._add(lib.MV_FDB_ATOMIC_ALONE, key, _with_gap(b"", b""), _VERSIONSTAMPED_VALUE)

    def commit_time(self, now_us: int) -> int:
        return now_us  # to read the last commit's time with conflict would make all commits meet


def head_key(namespace: NamespaceId) -> bytes:
    """Of the newest version that was announced; behind all keys of the store."""
    return b"\xff" + namespace.to_bytes(8, "big")


def _with_gap(prefix: bytes, suffix: bytes) -> bytes:
    """Bytes with room for a versionstamp, and where that is (four bytes, little-endian, at the end)."""
    return prefix + bytes(VERSION_SIZE) + suffix + struct.pack("<I", len(prefix))
