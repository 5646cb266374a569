"""The engine for tests: optimistic transactions over sorted keys in memory, as strict as FoundationDB.

Called by `pagestore.store`; opened by `pagestore.opener` and by tests.  Nothing is kept.

1. A transaction reads a snapshot; nobody waits for anybody.
2. At commit its read conflicts are checked against the write conflicts of every commit after its
   snapshot; if they meet, `work` runs again.
3. Versions are given at commit; until then nobody knows them.
4. With `twice=True`, every `work` runs once for nothing before it counts, as it may on any engine.
5. The last `KEPT` commits stay known, so that a transaction can stand at what an earlier one has read.
6. A value takes as much as FoundationDB's, and no more.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from pagestore.api import VERSION_SIZE, Durability, HeadWord, LimitError, NamespaceId, Version
from pagestore.engines.base import Engine, KeyRange, Limits, Result, Snapshot, Transaction

T = TypeVar("T")

KEPT = 16
"""Commits that a transaction may reach back over."""

_CHUNK = 64
"""Rows that a scan takes at a time."""


class _Range(NamedTuple):
    begin: bytes
    end: bytes


class _Data:
    """All keys with those of their values that some snapshot may still need; callers hold the lock."""

    def __init__(self) -> None:
        self.newest = 0
        """Number of the last commit."""
        self._keys: list[bytes] = []
        self._values: dict[bytes, list[tuple[int, bytes | None]]] = {}

    def get(self, key: bytes, number: int) -> bytes | None:
        for written, value in reversed(self._values.get(key, ())):
            if written <= number:
                return value
        return None

    def scan(self, wanted: KeyRange, number: int) -> list[tuple[bytes, bytes]]:
        """The first `limit` rows of the range."""
        low, high = bisect_left(self._keys, wanted.begin), bisect_left(self._keys, wanted.end)
        found = []
        for index in range(high - 1, low - 1, -1) if wanted.reverse else range(low, high):
            value = self.get(self._keys[index], number)
            if value is not None:
                found.append((self._keys[index], value))
                if len(found) == wanted.limit:
                    break
        return found

    def keys_in(self, cleared: _Range) -> list[bytes]:
        return self._keys[bisect_left(self._keys, cleared.begin) : bisect_left(self._keys, cleared.end)]

    def put(self, key: bytes, value: bytes | None, number: int, oldest_needed: int) -> None:
        values = self._values.get(key)
        if values is None:
            if value is None:
                return
            insort(self._keys, key)
            values = self._values[key] = []
        if values and values[-1][0] == number:
            values.pop()
        values.append((number, value))
        while len(values) > 1 and values[1][0] <= oldest_needed:
            del values[0]


class MemorySnapshot(Snapshot):
    def __init__(self, engine: MemoryEngine, number: int) -> None:
        self._engine = engine
        self.number = number

    def read_version(self) -> Version:
        return _version(self.number)

    def get(self, key: bytes) -> bytes | None:
        with self._engine.lock:
            return self._engine.data.get(key, self.number)

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        begin, end, limit, reverse = wanted
        left = limit or -1
        while True:
            size = min(_CHUNK, left) if left > 0 else _CHUNK
            with self._engine.lock:
                rows = self._engine.data.scan(KeyRange(begin, end, size, reverse), self.number)
            yield from rows
            left -= len(rows)
            if len(rows) < size or left == 0:
                return
            if reverse:
                end = rows[-1][0]
            else:
                begin = rows[-1][0] + b"\0"


_Write = Callable[[bytes], tuple[bytes, bytes]]
"""Makes a key and value, given the version."""


class MemoryTransaction(MemorySnapshot, Transaction):
    def __init__(self, engine: MemoryEngine, number: int) -> None:
        super().__init__(engine, number)
        self.writes: list[_Write | _Range] = []
        """Sets and clears, in order."""
        self.read_conflicts: list[_Range] = []
        self.write_conflicts: list[_Range] = []
        self.announced: list[NamespaceId] = []

    def set(self, key: bytes, value: bytes) -> None:
        _check(value)
        self.writes.append(lambda _version: (key, value))
        self.write_conflicts.append(_Range(key, key + b"\0"))

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        _check(value)
        self.writes.append(lambda version: (prefix + version + suffix, value))

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self.writes.append(lambda version: (key, prefix + version + suffix))
        self.write_conflicts.append(_Range(key, key + b"\0"))

    def clear(self, key: bytes) -> None:
        self.clear_range(key, key + b"\0")

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.writes.append(_Range(begin, end))
        self.write_conflicts.append(_Range(begin, end))

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        self.read_conflicts.append(_Range(begin, end))

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        self.write_conflicts.append(_Range(begin, end))

    def announce(self, namespace: NamespaceId, before: Version | None = None, numbers: bytes = b"") -> None:
        """There are no head words here: `begin` costs nothing."""

    def commit_time(self, now_us: int) -> int:
        return self._engine.later_time(now_us)


class MemoryEngine(Engine):
    """See the head of this file."""

    limits = Limits(max_seconds=0, max_bytes=0, max_value_bytes=100_000)
    reaches_back = True

    def __init__(self, *, twice: bool = False) -> None:
        self.lock = threading.Lock()
        self.data = _Data()
        self._twice = twice
        self._last_time = 0
        self._snapshots: Counter[int] = Counter()
        """How many transactions stand at each commit number."""
        self._commits: deque[tuple[int, list[_Range]]] = deque()
        """Write conflicts of the commits that running transactions have to be checked against."""
        self._oldest = 0
        """The first commit number at which a transaction can stand."""

    def read(
        self,
        work: Callable[[Snapshot], T],
        *,
        timeout: float | None = None,
        reaching: Version | None = None,
        as_of: Version | None = None,
    ) -> T:
        number = self._begin(as_of or reaching)
        if number is None:
            as_of, number = None, self._begin()
        assert number is not None
        try:
            tx = MemorySnapshot(self, number)
            tx.as_of = as_of
            if self._twice:
                work(tx)
            return work(tx)
        finally:
            self._end(number)

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        durability: Durability = "full",
        timeout: float | None = None,
        idempotent: bool = True,
        as_of: Version | None = None,
    ) -> Result[T]:
        if self._twice:
            self._attempt(work, commit=False, as_of=as_of)
        while True:
            result = self._attempt(work, commit=True, as_of=as_of)
            if result is not None:
                return result
            as_of = None

    def _attempt(
        self, work: Callable[[Transaction], T], *, commit: bool, as_of: Version | None
    ) -> Result[T] | None:
        """Run `work` once and commit; None if that met a conflict, or was not wanted."""
        number = self._begin(as_of)
        if number is None:
            return None
        try:
            tx = MemoryTransaction(self, number)
            tx.as_of = as_of
            value = work(tx)
            if not commit:
                return None
            with self.lock:
                if not tx.writes:
                    return Result(value, None)
                if self._conflicts(tx):
                    return None
                return Result(value, self._commit(tx))
        finally:
            self._end(number)

    def _conflicts(self, tx: MemoryTransaction) -> bool:
        return any(
            read.begin < written.end and written.begin < read.end
            for number, ranges in self._commits
            if number > tx.number
            for written in ranges
            for read in tx.read_conflicts
        )

    def _commit(self, tx: MemoryTransaction) -> Version:
        data = self.data
        number = data.newest + 1
        version = _version(number)
        oldest = min(*self._snapshots, max(number - KEPT, 0))
        for write in tx.writes:
            if isinstance(write, _Range):
                for key in data.keys_in(write):
                    data.put(key, None, number, oldest)
            else:
                data.put(*write(version), number, oldest)
        data.newest = number
        self._commits.append((number, tx.write_conflicts))
        while self._commits[0][0] <= oldest:
            self._commits.popleft()
        self._oldest = oldest
        return version

    def _begin(self, as_of: Version | None = None) -> int | None:
        """The number of the commit to stand at; None: too much has been forgotten since `as_of`."""
        with self.lock:
            number = self.data.newest if as_of is None else int.from_bytes(as_of, "big")
            if number < self._oldest:
                return None
            self._snapshots[number] += 1
            return number

    def _end(self, number: int) -> None:
        with self.lock:
            self._snapshots[number] -= 1
            if not self._snapshots[number]:
                del self._snapshots[number]

    def later_time(self, now_us: int) -> int:
        """`now_us`, or the latest time given out before if that is later."""
        with self.lock:
            self._last_time = max(self._last_time, now_us)
            return self._last_time

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return None

    def sync(self) -> None:
        """Nothing here survives anything."""

    def usable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to release: whoever opens a memory store again finds it as it was."""


def _check(value: bytes) -> None:
    if len(value) > MemoryEngine.limits.max_value_bytes:
        raise LimitError(
            f"a value of {len(value)} bytes; this store takes {MemoryEngine.limits.max_value_bytes}"
        )


def _version(number: int) -> Version:
    return Version(number.to_bytes(VERSION_SIZE, "big"))
