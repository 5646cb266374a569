"""Namespaces: their records; create, open, rename, list.

Called by `store`; `find` also by every file that works inside one namespace, the names by `drops` and
`branches`.  Calls the engine.

1. A name belongs to one namespace.  Ids are given out once and never again.
2. A namespace exists as long as its record does and says so.  Whoever relies on it in a transaction
   declares a read conflict on the record; whoever changes the record sets it.
3. Ids are counted: 1, 2, 3, …  Where those who count at the same moment would meet (optimistic engines), each
   draws one of 256 counters: number n gives out the ids whose remainder by 256 is n, in order, from where the
   plain counter ends, which nobody moves there any more.

Namespace record: state (one byte: 0 alive, 1 dropped), page size (4 bytes), creation in Unix µs (8), the
version that created it (10), horizon (10; zero means the creating version).  Then, unless all of it is as
at creation: the horizon's Unix µs (8; 0: that of creation), retention in ms (8) and in bytes (8; all ones:
no limit), and how many ancestors follow (1): the id (8) and version (10) that it is a branch of, the same
of that one's parent, and so on.  All big-endian.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pagestore import format, keys
from pagestore.api import (
    MAX_NAME_BYTES,
    ZERO_VERSION,
    InvalidNameError,
    Namespace,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    Retention,
    Version,
)
from pagestore.encoding import MAX_PAGE_SIZE, MIN_PAGE_SIZE
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction

_ALIVE, _DROPPED = 0, 1
_IDS = "namespace"
_SHARES = 256

DEFAULT_RETENTION = Retention()

_MORE = struct.Struct(">QQQB")
_ANCESTOR = struct.Struct(">Q10s")
_NO_LIMIT = (1 << 64) - 1


class Ancestor(NamedTuple):
    """Where pages come from that a branch has no version of its own of."""

    id: NamespaceId
    version: Version


@dataclass(frozen=True, slots=True)
class Record:
    """What a store keeps about a namespace."""

    page_size: int
    created_us: int
    created: Version
    horizon: Version
    dropped: bool = False
    horizon_us: int = 0
    retention: Retention = DEFAULT_RETENTION
    ancestors: tuple[Ancestor, ...] = ()
    """The parent first."""

    def pack(self) -> bytes:
        start, end = pack_around_version(self)
        return start + self.created + end


def pack_around_version(record: Record) -> tuple[bytes, bytes]:
    """What stands before and behind the version that created it."""
    state = _DROPPED if record.dropped else _ALIVE
    start = bytes((state,)) + record.page_size.to_bytes(4, "big") + record.created_us.to_bytes(8, "big")
    if record.horizon_us == 0 and record.retention == DEFAULT_RETENTION and not record.ancestors:
        return start, record.horizon
    seconds, most = record.retention.seconds, record.retention.max_bytes
    more = _MORE.pack(
        record.horizon_us,
        _NO_LIMIT if seconds is None else round(seconds * 1000),
        _NO_LIMIT if most is None else most,
        len(record.ancestors),
    )
    return start, record.horizon + more + b"".join(_ANCESTOR.pack(*each) for each in record.ancestors)


@lru_cache(maxsize=64)
def unpack(record: bytes) -> Record:
    """Every begin and every commit reads the same few."""
    created = Version(record[13:23])
    horizon = Version(record[23:33])
    horizon_us = 0
    retention = DEFAULT_RETENTION
    ancestors: tuple[Ancestor, ...] = ()
    if len(record) > 33:
        horizon_us, milliseconds, most, _ = _MORE.unpack_from(record, 33)
        retention = Retention(
            None if milliseconds == _NO_LIMIT else milliseconds / 1000, None if most == _NO_LIMIT else most
        )
        rest = record[33 + _MORE.size :]
        ancestors = tuple(
            Ancestor(NamespaceId(id_), Version(version)) for id_, version in _ANCESTOR.iter_unpack(rest)
        )
    return Record(
        page_size=int.from_bytes(record[1:5], "big"),
        created_us=int.from_bytes(record[5:13], "big"),
        created=created,
        horizon=created if horizon == ZERO_VERSION else horizon,
        dropped=record[0] != _ALIVE,
        horizon_us=horizon_us,
        retention=retention,
        ancestors=ancestors,
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


def check_name(name: str, what: str = "a name") -> None:
    """Of a namespace, or of something else that people name.  Raises InvalidNameError."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as exc:
        raise InvalidNameError(f"{name!a} can't be written as UTF-8") from exc
    if not name or "\0" in name or size > MAX_NAME_BYTES:
        raise InvalidNameError(
            f"{what} is 1 to {MAX_NAME_BYTES} bytes of UTF-8 without NUL, not {name[:40]!a}"
        )


def _id_of(tx: Snapshot, name: str) -> NamespaceId:
    found = tx.get(keys.name(name))
    if found is None:
        raise NoSuchNamespaceError(f"no database is called {name!r}")
    return NamespaceId(int.from_bytes(found, "big"))


def _lookup(tx: Snapshot, name: str) -> Namespace:
    id_ = _id_of(tx, name)
    return as_namespace(id_, name, find(tx, id_))


def as_namespace(id_: NamespaceId, name: str, record: Record) -> Namespace:
    return Namespace(
        id_,
        name,
        record.page_size,
        record.created_us,
        record.horizon,
        record.horizon_us or record.created_us,
        (record.ancestors[0].id, record.ancestors[0].version) if record.ancestors else None,
    )


def claim_name(tx: Transaction, name: str, id_: NamespaceId) -> None:
    key = keys.name(name)
    tx.add_read_conflict(key, key + b"\0")
    if tx.get(key) is not None:
        raise NameTakenError(f"a database called {name!r} exists already")
    tx.set(key, id_.to_bytes(8, "big"))


def release_name(tx: Transaction, name: str) -> NamespaceId:
    key = keys.name(name)
    tx.add_read_conflict(key, key + b"\0")
    id_ = _id_of(tx, name)
    tx.clear(key)
    return id_


def new_id(tx: Transaction) -> NamespaceId:
    """An id that no namespace of the store ever had: see rule 3."""
    plain = keys.counter(_IDS)
    last = _last(tx, plain)
    if not tx.optimistic:
        return _count(tx, plain, last + 1)
    format.require(tx, format.SHARED_COUNT)
    share = random.randrange(_SHARES)
    own = keys.counter(f"{_IDS} {share}")
    last = max(last, _last(tx, own))
    return _count(tx, own, last + 1 + (share - last - 1) % _SHARES)


def _last(tx: Transaction, counter: bytes) -> int:
    tx.add_read_conflict(counter, counter + b"\0")
    return int.from_bytes(tx.get(counter) or b"", "big")


def _count(tx: Transaction, counter: bytes, number: int) -> NamespaceId:
    tx.set(counter, number.to_bytes(8, "big"))
    return NamespaceId(number)


def find_any(tx: Snapshot, id_: NamespaceId) -> Record:
    """As `find`, dropped or not.  Raises NoSuchNamespaceError."""
    found = tx.get(keys.namespace(id_))
    if found is None:
        raise NoSuchNamespaceError(f"namespace {id_} does not exist (any more)")
    return unpack(found)


def guard(tx: Transaction, id_: NamespaceId) -> None:
    """Run again if the namespace's record changes before this transaction commits."""
    key = keys.namespace(id_)
    tx.add_read_conflict(key, key + b"\0")


class Namespaces:
    """The names of one store."""

    def __init__(self, engine: Engine, timeout: Callable[[], float]) -> None:
        self._engine = engine
        self._timeout = timeout

    def create(self, name: str, page_size: int) -> Namespace:
        check_name(name)
        if page_size and not valid_page_size(page_size):
            raise ValueError(f"a page size is a power of two from 512 to 65536, not {page_size}")

        def work(tx: Transaction) -> NamespaceId:
            id_ = new_id(tx)
            claim_name(tx, name, id_)
            now = tx.commit_time(time.time_ns() // 1000)
            start, end = pack_around_version(Record(page_size, now, ZERO_VERSION, ZERO_VERSION))
            tx.set_versioned_value(keys.namespace(id_), start, end)
            return id_

        self._engine.transact(work, timeout=self._timeout(), idempotent=False)
        return self.open(name)

    def open(self, name: str) -> Namespace:
        check_name(name)
        return self._engine.read(lambda tx: _lookup(tx, name), timeout=self._timeout())

    def rename(self, name: str, new_name: str) -> Namespace:
        check_name(name)
        check_name(new_name)
        if name == new_name:
            return self.open(name)

        def work(tx: Transaction) -> None:
            claim_name(tx, new_name, release_name(tx, name))

        self._engine.transact(work, timeout=self._timeout(), idempotent=False)
        return self.open(new_name)

    def list(self) -> list[Namespace]:
        def work(tx: Snapshot) -> list[Namespace]:
            named = [
                (keys.text_of_name(key), NamespaceId(int.from_bytes(id_, "big")))
                for key, id_ in tx.scan(KeyRange(*keys.all_names()))
            ]
            return [as_namespace(id_, name, find(tx, id_)) for name, id_ in named]

        return sorted(self._engine.read(work, timeout=self._timeout()), key=lambda namespace: namespace.name)
