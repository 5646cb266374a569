"""Allocation by version, and leases of page numbers, on every engine."""

from __future__ import annotations

import math
import random
import tracemalloc
from dataclasses import replace

import pytest

from pagestore import allocation, keys
from pagestore.api import (
    MAX_VERSION,
    TOKEN_SIZE,
    Allocation,
    CommitRequest,
    Lease,
    LeaseEndedError,
    LimitError,
    NoSuchNamespaceError,
    PageNumber,
    PageRun,
    Version,
    new_token,
)
from pagestore.engines.base import KeyRange
from pagestore.store import PageStore
from tests.engines.conftest import Clock
from tests.pages import Pages, content


def allocated(page_store: PageStore, pages: Pages, at: Version) -> set[int]:
    found = page_store.allocation(pages.id, at)
    free = {n for run in found.free for n in range(run.first, run.first + run.length)}
    assert all(n < found.highest for n in free)
    return set(range(1, found.highest + 1)) - free


def test_the_allocation_of_every_version(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an image now and then, and from changes alone."""
    monkeypatch.setattr(allocation, "IMAGE_EVERY", 5)
    chance = random.Random(7)
    truth: dict[Version, set[int]] = {}
    now: set[int] = set()
    for _ in range(60):
        numbers = chance.sample(range(1, 60), chance.randrange(1, 12))
        contents = {n: None if n in now and chance.random() < 0.6 else content(n) for n in numbers}
        token = new_token()[:-1] + bytes([chance.randrange(256)])
        version = pages.commit(contents, token=token).version
        now = {n for n in now | contents.keys() if contents.get(n, b"") is not None}
        truth[version] = set(now)
    for version, expected in truth.items():
        assert allocated(page_store, pages, version) == expected
    start = page_store.begin(pages.id)
    assert start.allocation == page_store.allocation(pages.id, start.version)


def test_far_apart_pages_take_memory_by_the_gaps(page_store: PageStore, pages: Pages) -> None:
    first = pages.commit({1: content(1), 3: content(3)}).version
    far = 20_000_000
    second = pages.commit({far: content(5), far + 2: content(6)}).version
    tracemalloc.start()
    try:
        found = page_store.allocation(pages.id, second)
        lease = page_store.lease(pages.id, 3, 60)
        page_store.revert(pages.id, first)
        again = page_store.revert(pages.id, second)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert found == Allocation(PageNumber(far + 2), (*gap(2, 3), *gap(4, far), *gap(far + 1, far + 2)))
    assert lease.numbers == (2, 4, 5)
    assert page_store.allocation(pages.id, again.version) == found
    assert pages.read(far) == content(5)


def gap(first: int, end: int) -> tuple[PageRun, ...]:
    """The free pages of a database of 512-byte pages; the lock-byte page is none of them."""
    lock_byte = 0x40000000 // 512 + 1
    parts = ((first, min(end, lock_byte)), (max(first, lock_byte + 1), end))
    return tuple(PageRun(PageNumber(a), b - a) for a, b in parts if a < b)


def test_no_number_is_in_two_leases(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: content(n) for n in range(1, 20)})
    pages.commit(dict.fromkeys(range(5, 12)))
    leases = [page_store.lease(pages.id, 10, 60) for _ in range(4)]
    numbers = [n for lease in leases for n in lease.numbers]
    assert len(set(numbers)) == len(numbers) == 40
    assert set(range(5, 12)) <= set(numbers), "freed numbers first"
    taken = allocated(page_store, pages, pages.version())
    assert taken.isdisjoint(numbers)
    for lease in leases:
        assert list(lease.numbers) == sorted(lease.numbers)


def test_released_and_replaced_numbers_come_back(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    first = page_store.lease(pages.id, 8, 60)
    second = page_store.lease(pages.id, 8, 60, first.id)
    assert second.numbers == first.numbers
    page_store.release(pages.id, second.id)
    page_store.release(pages.id, second.id)
    assert page_store.lease(pages.id, 8, 60).numbers == first.numbers


def taking(pages: Pages, lease: Lease, number: PageNumber) -> CommitRequest:
    """A commit that allocates a number of that lease."""
    made = pages.request({number: content(number)})
    return replace(made, parts=[replace(part, lease=lease.id) for part in made.parts])


def test_numbers_of_the_dead_come_back(page_store: PageStore, pages: Pages, clock: Clock) -> None:
    pages.commit({1: content(1)})
    lost = page_store.lease(pages.id, 8, 60)
    clock.wait(59)
    assert set(page_store.lease(pages.id, 8, 60).numbers).isdisjoint(lost.numbers)
    clock.wait(2)
    assert page_store.lease(pages.id, 8, 60).numbers == lost.numbers


def test_a_commit_can_not_use_a_lease_that_has_ended(
    page_store: PageStore, pages: Pages, clock: Clock
) -> None:
    pages.commit({1: content(1)})
    lease = page_store.lease(pages.id, 8, 60)
    page_store.commit(taking(pages, lease, lease.numbers[0]))
    clock.wait(61)
    with pytest.raises(LeaseEndedError):
        page_store.commit(taking(pages, lease, lease.numbers[1]))
    assert pages.read(lease.numbers[1]) is None


@pytest.mark.parametrize("after", [59, 61])
def test_a_lease_is_renewed(page_store: PageStore, pages: Pages, clock: Clock, after: int) -> None:
    """Also when it has ended, as long as nobody was given its numbers."""
    pages.commit({1: content(1)})
    lease = page_store.lease(pages.id, 8, 60)
    clock.wait(after)
    page_store.renew_lease(pages.id, lease.id, 60)
    clock.wait(59)
    page_store.renew_lease(pages.id, lease.id, 1)  # no less than it had
    assert set(page_store.lease(pages.id, 8, 60).numbers).isdisjoint(lease.numbers)
    page_store.commit(taking(pages, lease, lease.numbers[0]))
    clock.wait(2)
    with pytest.raises(LeaseEndedError):
        page_store.commit(taking(pages, lease, lease.numbers[1]))


def test_a_lease_whose_numbers_others_have_is_not_renewed(
    page_store: PageStore, pages: Pages, clock: Clock
) -> None:
    pages.commit({1: content(1)})
    ended = page_store.lease(pages.id, 8, 60)
    clock.wait(61)
    page_store.lease(pages.id, 1, 60)
    released = page_store.lease(pages.id, 8, 60)
    page_store.release(pages.id, released.id)
    for lease in (ended.id, released.id, b"nobody's"):
        with pytest.raises(LeaseEndedError):
            page_store.renew_lease(pages.id, lease, 60)


def test_a_lease_that_was_ended_for_all_is_not_renewed(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    lease = page_store.lease(pages.id, 8, 60)
    made = pages.request({lease.numbers[0]: content(2)})
    page_store.commit(replace(made, parts=[replace(part, reads_all=True) for part in made.parts]))
    with pytest.raises(LeaseEndedError):
        page_store.renew_lease(pages.id, lease.id, 60)


def test_the_pending_byte_page_is_never_leased(page_store: PageStore) -> None:
    pages = Pages(page_store, page_store.create("large").id, 65536)
    pending = allocation.pending_page(65536)
    assert pending == 16385
    pages.commit({1: content(1, 1, 65536), pending - 3: content(2, 1, 65536)})
    numbers: list[PageNumber] = []
    while not numbers or numbers[-1] < pending + 3:
        numbers += page_store.lease(pages.id, 1024, 60).numbers
    assert pending not in numbers
    assert {pending - 1, pending + 1} <= set(numbers)
    pages.commit({pending + 2: content(3, 1, 65536)})
    found = page_store.allocation(pages.id, pages.version())
    assert found.highest == pending + 2
    assert all(not run.first <= pending < run.first + run.length for run in found.free)


def test_bounds(page_store: PageStore, pages: Pages) -> None:
    for want, seconds in ((0, 60), (allocation.MAX_LEASE + 1, 60), (5, 0), (5, 601)):
        with pytest.raises(LimitError):
            page_store.lease(pages.id, want, seconds)
    lease = page_store.lease(pages.id, 5, 60).id
    for seconds in (0, 601, math.nan):
        with pytest.raises(LimitError):
            page_store.renew_lease(pages.id, lease, seconds)
    page_store.drop("main")
    with pytest.raises(NoSuchNamespaceError):
        page_store.lease(pages.id, 5, 60)
    with pytest.raises(NoSuchNamespaceError):
        page_store.renew_lease(pages.id, lease, 60)


def images(page_store: PageStore, pages: Pages) -> list[Version]:
    wanted = KeyRange(*keys.images(pages.id, MAX_VERSION))
    return [keys.version_of(key) for key, _ in page_store.engine.read(lambda tx: list(tx.scan(wanted)))]


def test_a_large_commit_is_followed_by_an_image(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody has to go through all of its page numbers again; whatever its token is."""
    monkeypatch.setattr(allocation, "IMAGE_EVERY_PAGES", 50)
    token = bytes([1]) * TOKEN_SIZE
    small = pages.commit({1: content(1)}, token=token).version
    assert images(page_store, pages) == []
    large = pages.commit({n: content(n) for n in range(2, 60)}, token=token[:-1] + b"\3").version
    assert images(page_store, pages) == [large]
    freed = pages.commit(dict.fromkeys(range(5, 57)), token=token[:-1] + b"\5").version
    pages.commit({n: content(n) for n in range(1, 5)}, token=token[:-1] + b"\7")
    assert images(page_store, pages) == [large, freed]
    assert allocated(page_store, pages, small) == {1}
    assert allocated(page_store, pages, pages.version()) == {1, 2, 3, 4, 57, 58, 59}
