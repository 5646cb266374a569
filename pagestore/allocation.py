"""Which pages are allocated at a version: kept as images and changes, and leased out in numbers.

Called by `store`.  Calls the engine.

1. The changelog tells what each commit allocated and freed.  The allocation at V is the newest image at
   or before V with the changes in (image, V] applied.  An image, once written, never changes: it is what
   the changes up to its version come to.
2. Commits never touch an image or each other's leases, so allocation alone never makes two of them meet.
3. Images are written behind commits, one in `IMAGE_EVERY` on average, and one for `IMAGE_EVERY_PAGES` that
   were allocated or freed, picked by the commit's token: so what must be replayed is bounded, in commits
   and in page numbers, whoever commits, however often they restart.
4. A lease is granted in one engine transaction that looks at all leases of the namespace, and relies on
   nobody else being granted the same numbers: no number is in two unexpired ones.  Who lost to another grant
   passes over some numbers, so that of many who ask at once few meet twice.  A commit that takes numbers from
   a lease reads it, with conflict, and fails if it has ended.
5. A lease that has ended stays until somebody is given numbers: until then it can be renewed.

An image is stored as `images` says.  Lease: end in Unix µs (8 bytes, big-endian), then runs as in an image.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count
from typing import NamedTuple

from pagestore import changelog, images, keys, waypoints
from pagestore.api import (
    Allocation,
    Change,
    Lease,
    LeaseEndedError,
    LimitError,
    NamespaceId,
    PageNumber,
    PageRun,
    PageRuns,
    RunSet,
    Version,
    before,
    runs_in,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.namespaces import Record, find, rely_on

IMAGE_EVERY = 256
IMAGE_EVERY_PAGES = 1024
MAX_LEASE = 1024
MAX_LEASE_SECONDS = 600.0

_PENDING_BYTE = 0x40000000  # https://www.sqlite.org/fileformat2.html#the_lock_byte_page
_LEASE_ID_SIZE = 16

_WIDEST = 6
"""So many times as much as it wants a grant passes over at most, as a power of two."""


def pending_page(page_size: int) -> int:
    """The page that SQLite locks on: never allocated, never leased.  0 while the size is undecided."""
    return _PENDING_BYTE // page_size + 1 if page_size else 0


# ---- the set ----


class FreeSet:
    """The unallocated numbers, as changes are applied one after the other; takes memory by the gaps."""

    def __init__(self, allocation: Allocation, page_size: int) -> None:
        self._highest: int = allocation.highest
        self._free = RunSet(allocation.free)
        self._pending = pending_page(page_size)

    def apply(self, change: Change) -> None:
        if change.allocated:
            top = change.allocated[-1]
            if top > self._highest:
                self._free.update(PageRuns([(self._highest + 1, top - self._highest)]))
                self._free.difference_update((self._pending,))
                self._highest = top
            self._free.difference_update(change.allocated)
        self._free.update(change.freed)

    def allocation(self) -> Allocation:
        """Without the free numbers at the top: they are no part of the database any more."""
        free = list(self._free.runs())
        while self._highest:
            if free and free[-1].first + free[-1].length - 1 == self._highest:
                self._highest -= free.pop().length
            elif self._highest == self._pending:
                self._highest -= 1
            else:
                break
        self._free = RunSet(free)
        return Allocation(PageNumber(self._highest), tuple(free))


# ---- at a version ----


def at(
    tx: Snapshot,
    id_: NamespaceId,
    page_size: int,
    version: Version,
    newest: tuple[bytes, bytes] | None = None,
) -> Allocation:
    """The allocation at `version`.  `newest`: the changelog row of that version, if it is in hand.

    Raises CorruptPageError."""
    base, allocation = images.newest(tx, id_, version)
    rows = tx.scan(KeyRange(*keys.log(id_, base, before(version) if newest else version)))
    if newest is not None and base < version:
        rows = chain(rows, (newest,))
    changes = (
        changelog.change_of(tx, id_, key, record)
        for key, record in rows
        if changelog.touches_allocation(record)
    )
    free: FreeSet | None = None
    for change in changes:
        free = free or FreeSet(allocation, page_size)
        free.apply(change)
    return free.allocation() if free else allocation


def image_is_due(token: bytes, pages: int) -> bool:
    """`pages`: how many the commit has allocated or freed."""
    chance = int.from_bytes(token[-4:-2], "big") % IMAGE_EVERY_PAGES
    return token[-1] % IMAGE_EVERY == 0 or chance < pages


def write_image(engine: Engine, id_: NamespaceId, version: Version, timeout: float) -> None:
    """Put an image behind a commit, and a waypoint.  May be done twice, or never."""

    def read(tx: Snapshot) -> tuple[Allocation, waypoints.Plan | None]:
        record = find(tx, id_)
        return at(tx, id_, record.page_size, version), waypoints.plan(tx, id_, record, version)

    allocation, waypoint = engine.read(read, timeout=timeout)

    def beside(tx: Transaction, record: Record) -> None:
        if waypoint is not None:
            waypoints.put(tx, id_, record, version, waypoint)

    images.write(engine, id_, version, allocation, timeout, beside)


# ---- leases ----


class _Granted(NamedTuple):
    key: bytes
    ends_us: int
    runs: tuple[PageRun, ...]


def _granted(tx: Snapshot, id_: NamespaceId) -> list[_Granted]:
    return [
        _Granted(key, int.from_bytes(value[:8], "big"), images.unpack_runs(value[8:]))
        for key, value in tx.scan(KeyRange(*keys.leases(id_)))
    ]


def _numbers(runs: Iterable[PageRun]) -> Iterator[PageNumber]:
    for run in runs:
        yield from map(PageNumber, range(run.first, run.first + run.length))


def _choose(free: Allocation, taken: set[PageNumber], want: int, pending: int, skip: int) -> list[PageNumber]:
    """The lowest numbers that are neither allocated nor in anybody's lease, but for `skip` of them."""
    chosen: list[PageNumber] = []
    past_the_end = map(PageNumber, count(max(free.highest, 1) + 1))
    for number in chain(_numbers(free.free), past_the_end):
        if number not in taken and number != pending:
            if skip:
                skip -= 1
                continue
            chosen.append(number)
            if len(chosen) == want:
                break
    return chosen


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds <= MAX_LEASE_SECONDS:
        raise LimitError(f"a lease lasts for at most {MAX_LEASE_SECONDS:.0f} s, not {seconds:g}")


def grant(
    engine: Engine, id_: NamespaceId, want: int, seconds: float, replaces: bytes | None, timeout: float
) -> Lease:
    """See `Store.lease`."""
    if not 1 <= want <= MAX_LEASE:
        raise LimitError(f"a lease is 1 to {MAX_LEASE} pages, not {want}")
    _check_seconds(seconds)
    lease_id = os.urandom(_LEASE_ID_SIZE)
    numbers: list[PageNumber] = []
    lost = 0

    def work(tx: Transaction) -> None:
        nonlocal numbers, lost
        record = rely_on(tx, id_)
        now = time.time_ns() // 1000
        taken: set[PageNumber] = set()
        for granted in _granted(tx, id_):
            if granted.ends_us <= now or (replaces is not None and granted.key == keys.lease(id_, replaces)):
                tx.clear(granted.key)
            else:
                taken.update(_numbers(granted.runs))
        free = at(tx, id_, record.page_size, tx.read_version())
        lost += not taken.isdisjoint(numbers)  # the ones that an earlier try wanted
        skip = want * random.randrange(1 << min(2 * lost, _WIDEST))
        numbers = _choose(free, taken, want, pending_page(record.page_size), skip)
        for first, length in runs_in(numbers):
            mine = keys.leased_numbers(id_, first, first + length - 1)
            tx.add_read_conflict(*mine)
            tx.add_write_conflict(*mine)
        ends = now + round(seconds * 1e6)
        tx.set(keys.lease(id_, lease_id), ends.to_bytes(8, "big") + images.pack_runs(runs_in(numbers)))

    engine.transact(work, durability="normal", timeout=timeout)
    return Lease(lease_id, tuple(numbers), seconds)


def renew(engine: Engine, id_: NamespaceId, lease_id: bytes, seconds: float, timeout: float) -> None:
    """See `Store.renew_lease`.  Who is given numbers of a lease that has ended removes it."""
    _check_seconds(seconds)
    key = keys.lease(id_, lease_id)

    def work(tx: Transaction) -> None:
        rely_on(tx, id_)
        found = ask_lease(tx, id_, lease_id)()
        if found is None:
            raise LeaseEndedError("the lease of page numbers has ended, and others may have been given them")
        for first, length in images.unpack_runs(found[8:]):  # who is being given one of them looks again
            tx.add_write_conflict(*keys.leased_numbers(id_, first, first + length - 1))
        ends = max(time.time_ns() // 1000 + round(seconds * 1e6), int.from_bytes(found[:8], "big"))
        tx.set(key, ends.to_bytes(8, "big") + found[8:])

    engine.transact(work, durability="normal", timeout=timeout)


def release(engine: Engine, id_: NamespaceId, lease_id: bytes, timeout: float) -> None:
    """See `Store.release`."""
    engine.transact(lambda tx: tx.clear(keys.lease(id_, lease_id)), durability="normal", timeout=timeout)


def end_leases(tx: Transaction, id_: NamespaceId, allocated: Sequence[PageNumber]) -> None:
    """For a commit that takes numbers whoever leased them: end those leases."""
    if not allocated:
        return
    tx.add_read_conflict(*keys.leases(id_))
    taken = PageRuns.ascending(allocated)
    for granted in _granted(tx, id_):
        if any(number in taken for number in _numbers(granted.runs)):
            tx.clear(granted.key)


def ask_lease(tx: Transaction, id_: NamespaceId, lease_id: bytes) -> Callable[[], bytes | None]:
    """What `check_lease` looks at, under way; it stays as it is until the commit."""
    key = keys.lease(id_, lease_id)
    tx.add_read_conflict(key, key + b"\0")
    return tx.ask(key)


def check_lease(found: bytes | None, allocated: Sequence[PageNumber]) -> None:
    """For a commit: whether the numbers that it takes are still its own.  Raises LeaseEndedError."""
    if found is None or int.from_bytes(found[:8], "big") <= time.time_ns() // 1000:
        raise LeaseEndedError(
            f"the lease of page numbers ended before the commit that takes {len(allocated)} of them"
        )
