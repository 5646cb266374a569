"""Turns: a queue for transactions that keep losing, one for each namespace.

Called by `store`, and by `commit` for the check.  Calls the engine.

1. A place in the queue is a key that carries the version at which it was taken, so the queue's order is
   that of the versions.  A place ends at a time that its holder moves on while it waits, and that is
   fixed once its turn has come; whoever meets an ended place passes over it.  So nobody waits for the dead.
2. The first place that has not ended has the turn, once its holder has said that it is there.  While it
   lasts, a commit of somebody else that writes a page which the holder declared waits.  Other commits,
   and all who only read, never look.
3. A commit that holds the turn gives it up in the same engine transaction.
4. Where commits can stand at their begin's read version (`Engine.reaches_back`), the turn is told behind the
   namespace record as well, for begins to see: a commit looks at the queue only if its begin saw a turn that
   might stand in its way, or was long ago.  What is told there is never taken back: it ends.
5. Who joins behind others, or waits, meets nobody: its transaction relies on its own place alone.  Who finds
   nobody before it relies on that: on the places it passed over, and if it joins, on nobody else joining.
   (Nobody joins before a place that is there.)  So however many come at once, each is in the queue at its
   second try.

Place: end in Unix µs (8 bytes), state (one byte: 0 waiting, 1 has the turn for the pages that follow, 2 has
the turn for all pages), page numbers (4 bytes each, ascending).  All big-endian.

Worked example: A, B and C lost on page 9.  A stands first and takes the turn for page 9.  B and C wait; D,
who writes page 9 as well, waits at its commit; E, who writes page 3, does not.  A commits, its place goes
with the commit.  B sees itself first and takes the turn; D, whose base is older than A's commit, is told
of a conflict.  B is killed: its place ends, and C has the turn.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pagestore import keys
from pagestore.api import (
    TOKEN_SIZE,
    InvalidRequestError,
    LimitError,
    NamespaceId,
    PageNumber,
    PageSet,
    TurnTakenError,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.namespaces import rely_on

MAX_SECONDS = 60.0
"""The longest turn."""

WAITING_SECONDS = 2.0
"""How long a place stays without a sign of life of who waits there."""

MAX_PAGES = 4096
"""More declared pages than this count as all of them."""

_HEAD = struct.Struct(">QB")
_WAITING, _PAGES, _ALL = range(3)


class _Place(NamedTuple):
    key: bytes
    ends_us: int
    state: int
    pages: bytes

    @property
    def ticket(self) -> bytes:
        return keys.ticket_of(self.key)

    def stops(self, written: Sequence[PageNumber]) -> bool:
        if self.state == _PAGES:
            return not set(_unpack(self.pages)).isdisjoint(written)
        return self.state == _ALL


def _now_us() -> int:
    return time.time_ns() // 1000


def _places(tx: Snapshot, id_: NamespaceId) -> Iterator[_Place]:
    return _parsed(ask(tx, id_))


def ask(tx: Snapshot, id_: NamespaceId) -> Iterator[tuple[bytes, bytes]]:
    """The queue's rows, for `check`, under way."""
    return tx.scan(KeyRange(*keys.queue(id_)))


def _parsed(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[_Place]:
    for key, value in rows:
        ends_us, state = _HEAD.unpack_from(value)
        yield _Place(key, ends_us, state, value[_HEAD.size :])


def _pack(pages: PageSet) -> bytes:
    return struct.pack(f">{len(pages)}I", *pages)


def _unpack(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(packed) // 4}I", packed)


def _value(ends_us: int, state: int, pages: bytes = b"") -> bytes:
    return _HEAD.pack(ends_us, state) + pages


def _read_again(tx: Transaction, key: bytes) -> None:
    """What `work` saw under this key must be there still when it commits."""
    tx.add_read_conflict(key, key + b"\0")


def _check(ticket: bytes, seconds: float) -> None:
    if len(ticket) != TOKEN_SIZE:
        raise InvalidRequestError(f"a ticket has {TOKEN_SIZE} bytes")
    if not 0 < seconds <= MAX_SECONDS:
        raise LimitError(f"a turn lasts at most {MAX_SECONDS:.0f} s")


def take(
    engine: Engine, id_: NamespaceId, ticket: bytes, pages: PageSet | None, seconds: float, timeout: float
) -> bool:
    """See `Store.take_turn`: whether the turn has come."""
    _check(ticket, seconds)
    declared = b""
    if pages is not None and len(pages) <= MAX_PAGES:
        declared = _pack(pages)
    state = _ALL if pages is None or len(pages) > MAX_PAGES else _PAGES

    def look(tx: Snapshot) -> bool | None:
        """None: something has to be written."""
        now = _now_us()
        first = True
        for place in _places(tx, id_):
            if place.ticket == ticket:
                stale = place.ends_us < now + WAITING_SECONDS * 5e5
                return None if first or stale else False
            first = first and place.ends_us <= now
        return None

    def work(tx: Transaction) -> bool:
        rely_on(tx, id_)
        begin, end = keys.queue(id_)
        now = _now_us()
        first, mine = True, None
        for place in _places(tx, id_):
            if place.ticket == ticket:
                mine = place.key
                break
            if place.ends_us <= now:
                _read_again(tx, place.key)
                tx.clear(place.key)
            else:
                first = False
        value = _value(now + round(WAITING_SECONDS * 1e6), _WAITING)
        if first:
            value = _value(now + round(seconds * 1e6), state, declared)
            _tell(tx, id_, value)
        if mine is not None:
            _read_again(tx, mine)
            tx.set(mine, value)
        else:
            if first:
                tx.add_read_conflict(begin, end)
            tx.add_write_conflict(begin, begin + b"\0")
            tx.set_versioned_key(
                keys.queue_prefix(id_), keys.VERSION_SUFFIX + keys.ticket_suffix(ticket), value
            )
        return first

    came = engine.read(look, timeout=timeout)
    return engine.transact(work, durability="normal", timeout=timeout).value if came is None else came


def _tell(tx: Transaction, id_: NamespaceId, place: bytes) -> None:
    if tx.optimistic:
        tx.set(keys.turn_told(id_), place)


def may_stop(told: bytes | None, written: Sequence[PageNumber]) -> bool:
    """Whether the turn that a begin was told of may stand in the way of a commit."""
    if told is None:
        return False
    (place,) = _parsed(iter(((b"", told),)))
    return place.ends_us > _now_us() and place.stops(written)


def leave(engine: Engine, id_: NamespaceId, ticket: bytes, timeout: float) -> None:
    """See `Store.leave_turn`."""

    def work(tx: Transaction) -> None:
        for place in _places(tx, id_):
            if place.ticket == ticket:
                tx.clear(place.key)

    engine.transact(work, durability="normal", timeout=timeout)


def check(
    tx: Transaction,
    queue: Iterator[tuple[bytes, bytes]],
    ticket: bytes | None,
    written: Sequence[PageNumber],
) -> None:
    """For a commit: give up its own place, wherever it is, or raise TurnTakenError if the turn of another
    stands in its way.  `queue`: from `ask`."""
    now = _now_us()
    first = True
    for place in _parsed(queue):
        if place.ticket == ticket:
            tx.clear(place.key)
            first = first and place.ends_us <= now
        elif first and place.ends_us > now:
            if place.stops(written):
                raise TurnTakenError((place.ends_us - now) / 1e6)
            first = False
        if not first and ticket is None:
            return
