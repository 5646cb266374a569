"""Namespaces: their records, and create, open, rename, drop, list.

Called by `store`; `find` also by every file that works inside one namespace.  Calls the engine.

1. A name belongs to one namespace.  Ids are given out once and never again.
2. A namespace exists as long as its record does and says so.  Whoever relies on it in a transaction
   declares a read conflict on the record; whoever changes the record sets it.
3. Drop takes effect at once, in one transaction: the name is gone, the record says dropped, a tombstone
   stands.  The pages go afterwards in small steps; whoever opens the store next finishes what a crash
   interrupted.

Namespace record: state (one byte: 0 alive, 1 dropped), page size (4 bytes), creation in Unix µs (8), the
version that created it (10), horizon (10; zero means the creating version).  All big-endian.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from pagestore import keys
from pagestore.api import (
    MAX_NAME_BYTES,
    ZERO_VERSION,
    InvalidNameError,
    Namespace,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    Version,
)
from pagestore.encoding import MAX_PAGE_SIZE, MIN_PAGE_SIZE
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.faults import fault

_STEP_KEYS = 2000
"""Keys removed in one engine transaction by drop: a few milliseconds."""

_ALIVE, _DROPPED = 0, 1
_IDS = "namespace"


@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps about a namespace."""

    page_size: int
    created_us: int
    created: Version
    horizon: Version
    dropped: bool = False

    def pack(self) -> bytes:
        start, end = _pack_around_version(self)
        return start + self.created + end


def _pack_around_version(record: Record) -> tuple[bytes, bytes]:
    state = _DROPPED if record.dropped else _ALIVE
    start = bytes((state,)) + record.page_size.to_bytes(4, "big") + record.created_us.to_bytes(8, "big")
    return start, record.horizon


@lru_cache(maxsize=64)
def unpack(record: bytes) -> Record:
    """Every begin and every commit reads the same few."""
    created = Version(record[13:23])
    horizon = Version(record[23:33])
    return Record(
        page_size=int.from_bytes(record[1:5], "big"),
        created_us=int.from_bytes(record[5:13], "big"),
        created=created,
        horizon=created if horizon == ZERO_VERSION else horizon,
        dropped=record[0] != _ALIVE,
    )


def alive(id_: NamespaceId, record: bytes | None) -> Record:
    """The record of a namespace that exists.  Raises NoSuchNamespaceError."""
    if record is None or record[0] != _ALIVE:
        raise NoSuchNamespaceError(f"namespace {id_} does not exist (any more)")
    return unpack(record)


def find(tx: Snapshot, id_: NamespaceId) -> Record:
    """Raises NoSuchNamespaceError."""
    return alive(id_, tx.get(keys.namespace(id_)))


def rely_on(tx: Transaction, id_: NamespaceId) -> Record:
    """As `find`, for what must not happen once the namespace is dropped."""
    key = keys.namespace(id_)
    tx.add_read_conflict(key, key + b"\0")
    return find(tx, id_)


def valid_page_size(size: int) -> bool:
    """Whether SQLite has pages of this size (https://www.sqlite.org/fileformat2.html#page_size)."""
    return MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE and size & (size - 1) == 0


def _check_name(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise InvalidNameError(f"{name!a} can't be written as UTF-8") from exc
    if not name or "\0" in name or size > MAX_NAME_BYTES:
        raise InvalidNameError(
            f"a name is 1 to {MAX_NAME_BYTES} bytes of UTF-8 without NUL, not {name[:40]!a}"
        )


def _id_of(tx: Snapshot, name: str) -> NamespaceId:
    found = tx.get(keys.name(name))
    if found is None:
        raise NoSuchNamespaceError(f"no database is called {name!r}")
    return NamespaceId(int.from_bytes(found, "big"))


def _lookup(tx: Snapshot, name: str) -> Namespace:
    id_ = _id_of(tx, name)
    return _namespace(id_, name, find(tx, id_))


def _namespace(id_: NamespaceId, name: str, record: Record) -> Namespace:
    return Namespace(id_, name, record.page_size, record.created_us, record.horizon)


def _claim_name(tx: Transaction, name: str, id_: NamespaceId) -> None:
    key = keys.name(name)
    tx.add_read_conflict(key, key + b"\0")
    if tx.get(key) is not None:
        raise NameTakenError(f"a database called {name!r} exists already")
    tx.set(key, id_.to_bytes(8, "big"))


def _release_name(tx: Transaction, name: str) -> NamespaceId:
    key = keys.name(name)
    tx.add_read_conflict(key, key + b"\0")
    id_ = _id_of(tx, name)
    tx.clear(key)
    return id_


class Namespaces:
    """The names of one store."""

    def __init__(self, engine: Engine, timeout: Callable[[], float]) -> None:
        self._engine = engine
        self._timeout = timeout

    def create(self, name: str, page_size: int) -> Namespace:
        _check_name(name)
        if page_size and not valid_page_size(page_size):
            raise ValueError(f"a page size is a power of two from 512 to 65536, not {page_size}")

        def work(tx: Transaction) -> NamespaceId:
            counter = keys.counter(_IDS)
            tx.add_read_conflict(counter, counter + b"\0")
            id_ = NamespaceId(int.from_bytes(tx.get(counter) or b"", "big") + 1)
            _claim_name(tx, name, id_)
            tx.set(counter, id_.to_bytes(8, "big"))
            now = tx.commit_time(time.time_ns() // 1000)
            start, end = _pack_around_version(Record(page_size, now, ZERO_VERSION, ZERO_VERSION))
            tx.set_versioned_value(keys.namespace(id_), start, end)
            return id_

        self._engine.transact(work, timeout=self._timeout(), idempotent=False)
        return self.open(name)

    def open(self, name: str) -> Namespace:
        _check_name(name)
        return self._engine.read(lambda tx: _lookup(tx, name), timeout=self._timeout())

    def rename(self, name: str, new_name: str) -> Namespace:
        _check_name(name)
        _check_name(new_name)
        if name == new_name:
            return self.open(name)

        def work(tx: Transaction) -> None:
            _claim_name(tx, new_name, _release_name(tx, name))

        self._engine.transact(work, timeout=self._timeout(), idempotent=False)
        return self.open(new_name)

    def list(self) -> list[Namespace]:
        def work(tx: Snapshot) -> list[Namespace]:
            named = [
                (keys.text_of_name(key), NamespaceId(int.from_bytes(id_, "big")))
                for key, id_ in tx.scan(KeyRange(*keys.all_names()))
            ]
            return [_namespace(id_, name, find(tx, id_)) for name, id_ in named]

        return sorted(self._engine.read(work, timeout=self._timeout()), key=lambda namespace: namespace.name)

    def drop(self, name: str) -> None:
        _check_name(name)

        def work(tx: Transaction) -> NamespaceId:
            id_ = _release_name(tx, name)
            tx.set(keys.namespace(id_), replace(find(tx, id_), dropped=True).pack())
            tx.set(keys.dropped(id_), name.encode())
            tx.announce(id_)
            return id_

        id_ = self._engine.transact(work, timeout=self._timeout(), idempotent=False).value
        fault("drop.name_removed")
        self._remove_pages(id_)

    def finish_drops(self) -> None:
        """Go on with drops that were interrupted."""
        tombstones = self._engine.read(
            lambda tx: [key for key, _ in tx.scan(KeyRange(*keys.all_dropped()))], timeout=self._timeout()
        )
        for key in tombstones:
            self._remove_pages(keys.namespace_of_dropped(key))

    def _remove_pages(self, id_: NamespaceId) -> None:
        """Remove all that a dropped namespace left, its tombstone last.  Two may do so at once."""
        for begin, end in keys.belongings(id_):
            while self._remove_some(begin, end):
                fault("drop.step")
        fault("drop.before_end")

        def work(tx: Transaction) -> None:
            tx.clear(keys.namespace(id_))
            tx.clear(keys.dropped(id_))

        self._engine.transact(work, timeout=self._timeout())

    def _remove_some(self, begin: bytes, end: bytes) -> bool:
        """Whether there was something to remove."""

        def work(tx: Transaction) -> bool:
            if self._engine.clears_ranges_at_once:
                tx.clear_range(begin, end)
                return False
            found = [key for key, _ in tx.scan(KeyRange(begin, end, limit=_STEP_KEYS))]
            if found:
                tx.clear_range(begin, found[-1] + b"\0")
            return bool(found)

        return self._engine.transact(work, durability="normal", timeout=self._timeout()).value
