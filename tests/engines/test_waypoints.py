"""Skipping commits: what is found is what walking finds, whatever else happens, and little is read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from pagestore import allocation, history, keys, retention, waypoints
from pagestore.api import MAX_VERSION, ZERO_VERSION, Retention, Version, new_token
from pagestore.engines.base import KeyRange, Snapshot, Transaction
from pagestore.namespaces import find
from pagestore.store import PageStore
from pagestore.waypoints import Waypoint
from tests.pages import Pages, content

T = TypeVar("T")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)


def due(wanted: bool) -> bytes:
    """The token of a commit that writes an image, or of one that does not."""
    return new_token()[:-4] + b"\xff\xff\1" + bytes([0 if wanted else 1])


def all_of(page_store: PageStore, pages: Pages) -> list[Waypoint]:
    wanted = KeyRange(*keys.waypoints(pages.id, ZERO_VERSION, MAX_VERSION))
    rows = page_store.engine.read(lambda tx: list(tx.scan(wanted)))
    return [Waypoint(keys.version_of(key), int.from_bytes(value, "big")) for key, value in rows]


def grown(pages: Pages, commits: int, seed: int, every: int = 8) -> list[Version]:
    chance = random.Random(seed)
    return [
        pages.commit({1: content(n)}, token=due(chance.random() < 1 / every)).version for n in range(commits)
    ]


def skipped_is_walked(page_store: PageStore, pages: Pages, chance: random.Random, tries: int = 40) -> None:
    newest_first = [change.version for change in page_store.changelog(pages.id, newest_first=True)]
    for _ in range(tries):
        skip = chance.randrange(len(newest_first) + 2)
        first = chance.randrange(len(newest_first))
        found = page_store.changelog(
            pages.id, until=newest_first[first], newest_first=True, skip=skip, limit=2
        )
        assert [change.version for change in found] == newest_first[first + skip :][:2]


def counts_are_right(page_store: PageStore, pages: Pages) -> None:
    """Rule 1, of those at or above the horizon."""
    horizon = page_store.open("main").horizon
    kept = [one for one in all_of(page_store, pages) if one.version >= horizon]
    for one, other in pairwise(kept):
        between = list(page_store.changelog(pages.id, after=one.version, until=other.version))
        assert other.commits - one.commits == len(between)


class Counting(Snapshot):
    """Counts the rows that are read through it."""

    def __init__(self, tx: Snapshot, counts: list[int]) -> None:
        self._tx = tx
        self._counts = counts

    def read_version(self) -> Version:
        return self._tx.read_version()

    def get(self, key: bytes) -> bytes | None:
        self._counts.append(1)
        return self._tx.get(key)

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        for row in self._tx.scan(wanted):
            self._counts.append(1)
            yield row


@contextmanager
def rows_read(monkeypatch: pytest.MonkeyPatch, page_store: PageStore) -> Iterator[list[int]]:
    counts: list[int] = []
    reading = page_store.engine.read

    def counted(work: Callable[[Snapshot], T], **options: Any) -> T:
        return reading(lambda tx: work(Counting(tx, counts)), **options)

    with monkeypatch.context() as patch:
        patch.setattr(page_store.engine, "read", counted)
        yield counts


def test_skipping_finds_what_walking_finds(page_store: PageStore, pages: Pages) -> None:
    grown(pages, 150, seed=1)
    assert len(all_of(page_store, pages)) > 5
    counts_are_right(page_store, pages)
    skipped_is_walked(page_store, pages, random.Random(2))
    oldest_first = [change.version for change in page_store.changelog(pages.id)]
    assert [c.version for c in page_store.changelog(pages.id, skip=7, limit=3)] == oldest_first[7:10]


def test_without_waypoints_the_changelog_is_walked(page_store: PageStore, pages: Pages) -> None:
    """As in a store of an earlier release."""
    grown(pages, 60, seed=3)
    page_store.engine.transact(
        lambda tx: tx.clear_range(*keys.waypoints(pages.id, ZERO_VERSION, MAX_VERSION))
    )
    skipped_is_walked(page_store, pages, random.Random(4))
    grown(pages, 60, seed=5)
    counts_are_right(page_store, pages)
    skipped_is_walked(page_store, pages, random.Random(6))


def test_in_between_and_below_the_horizon(page_store: PageStore, pages: Pages) -> None:
    versions = grown(pages, 80, seed=7)
    page_store.tag(pages.id, "kept", versions[20])
    page_store.set_retention(pages.id, Retention(0))
    assert page_store.collect(pages.id).complete
    grown(pages, 80, seed=8)
    counts_are_right(page_store, pages)
    horizon = page_store.open("main").horizon
    assert all(one.version >= horizon for one in all_of(page_store, pages)), "those below are let go of"
    skipped_is_walked(page_store, pages, random.Random(9))


@pytest.mark.long_on_cluster
def test_skipping_reads_little(page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the commits between two waypoints, and some steps that double what they reach."""
    versions = [pages.commit({1: content(n)}, token=due(n % 8 == 7)).version for n in range(400)]
    for skip in (0, 3, 50, 200, 391):
        with rows_read(monkeypatch, page_store) as counts:
            found = list(page_store.changelog(pages.id, newest_first=True, skip=skip, limit=1))
        assert [change.version for change in found] == [versions[-1 - skip]]
        assert len(counts) <= 2 * 8 + 2 * 20


# ---- two at once ----


def planned(page_store: PageStore, pages: Pages, at: Version) -> waypoints.Plan | None:
    return page_store.engine.read(lambda tx: waypoints.plan(tx, pages.id, find(tx, pages.id), at))


def put(page_store: PageStore, pages: Pages, at: Version, plan: waypoints.Plan | None) -> None:
    assert plan is not None

    def work(tx: Transaction) -> None:
        waypoints.put(tx, pages.id, find(tx, pages.id), at, plan)

    page_store.engine.transact(work)


def test_counting_begins_once(page_store: PageStore, pages: Pages) -> None:
    first, second, third = (pages.commit({1: content(n)}, token=due(False)).version for n in range(3))
    plans = {version: planned(page_store, pages, version) for version in (first, second)}
    put(page_store, pages, second, plans[second])
    put(page_store, pages, first, plans[first])
    assert all_of(page_store, pages) == [Waypoint(second, 0)]
    assert planned(page_store, pages, first) is None, "older than where counting began"
    assert planned(page_store, pages, second) is None, "there is one"
    put(page_store, pages, third, planned(page_store, pages, third))
    assert all_of(page_store, pages) == [Waypoint(second, 0), Waypoint(third, 1)]


def test_a_waypoint_whose_base_the_horizon_has_passed(page_store: PageStore, pages: Pages) -> None:
    """Counted while all was there, but written when others may have begun to count anew."""
    base = pages.commit({1: content(0)}, token=due(True)).version
    for n in range(5):
        late = pages.commit({1: content(n)}, token=due(False)).version
    plan = planned(page_store, pages, late)
    assert plan == waypoints.Plan(base, 5)
    page_store.set_retention(pages.id, Retention(0))
    page_store.collect(pages.id)
    page_store.engine.transact(
        lambda tx: tx.clear_range(*keys.waypoints(pages.id, ZERO_VERSION, MAX_VERSION))
    )
    put(page_store, pages, late, plan)
    assert all_of(page_store, pages) == []
    anew = pages.commit({1: content(9)}, token=due(True)).version
    assert all_of(page_store, pages) == [Waypoint(anew, 0)]


def test_an_image_brings_a_waypoint(page_store: PageStore, pages: Pages) -> None:
    version = pages.commit({1: content(0)}, token=due(False)).version
    allocation.write_image(page_store.engine, pages.id, version, 5.0)
    allocation.write_image(page_store.engine, pages.id, version, 5.0)
    assert all_of(page_store, pages) == [Waypoint(version, 0)]
    assert [c.version for c in history.changes(page_store.engine, pages.id, ZERO_VERSION, version, 5.0)] == [
        version
    ]
