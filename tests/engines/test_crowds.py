"""Many clients at once: nobody has to try again and again because others come, wait and go."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pagestore import allocation, keys, turns
from pagestore.api import LeaseEndedError, NamespaceId, PageNumber, new_token
from pagestore.engines.sqlite import SqliteEngine
from pagestore.store import PageStore
from tests.engines.conftest import Clock
from tests.pages import Pages, content


@pytest.fixture
def tickets() -> list[bytes]:
    return [new_token() for _ in range(3)]


@pytest.fixture
def optimistic(page_store: PageStore) -> None:
    if isinstance(page_store.engine, SqliteEngine):
        pytest.skip("nothing happens meanwhile: writers wait for each other")


# ---- ids ----


def test_many_create_databases_and_branches(page_store: PageStore, pages: Pages) -> None:
    version = pages.commit({1: content(1)}).version
    page_store.branch(pages.id, "first", version)  # from now on the store has all features that it needs
    count = 32
    together = threading.Barrier(count)
    before = page_store.engine.operations()

    def make(n: int) -> NamespaceId:
        together.wait(30)
        if n % 2:
            return page_store.create(f"database {n}").id
        return page_store.branch(pages.id, f"branch {n}", version).id

    with ThreadPoolExecutor(count) as pool:
        ids = list(pool.map(make, range(count)))
    assert len({*ids, *(namespace.id for namespace in page_store.list())}) == count + 2
    after = page_store.engine.operations()
    if before is not None and after is not None:
        assert after.retries - before.retries < count


def test_no_id_is_given_out_again(page_store: PageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[NamespaceId] = []
    for share in (7, 7, 0, 7, 0, 255, 8):
        monkeypatch.setattr(random, "randrange", lambda _stop, share=share: share)
        given.append(page_store.create("name").id)
        page_store.drop("name", now=True)
    counted_by_all = isinstance(page_store.engine, SqliteEngine)
    assert given == (list(range(1, 8)) if counted_by_all else [7, 263, 256, 519, 512, 255, 8])


@pytest.mark.usefixtures("optimistic")
def test_ids_go_on_where_the_plain_counter_ends(
    page_store: PageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_store.engine.transact(lambda tx: tx.set(keys.counter("namespace"), (1000).to_bytes(8, "big")))
    given = []
    for share in (232, 233, 231, 232):
        monkeypatch.setattr(random, "randrange", lambda _stop, share=share: share)
        given.append(page_store.create(f"{len(given)}").id)
    assert given == [1000 + 256, 1001, 1000 + 255, 1000 + 512]


# ---- page numbers ----


def test_many_ask_for_numbers(page_store: PageStore, pages: Pages) -> None:
    """None goes to two of them."""
    pages.commit({n: content(n) for n in range(1, 20)})
    count = 24
    together = threading.Barrier(count)
    before = page_store.engine.operations()

    def ask(_n: int) -> tuple[PageNumber, ...]:
        together.wait(30)
        return tuple(page_store.lease(pages.id, 8, 60).numbers)

    with ThreadPoolExecutor(count) as pool:
        numbers = [number for lease in pool.map(ask, range(count)) for number in lease]
    assert len(numbers) == len(set(numbers)) == 8 * count
    after = page_store.engine.operations()
    if before is not None and after is not None:
        assert after.retries - before.retries < 4 * count


@pytest.mark.usefixtures("optimistic")
def test_who_lost_numbers_to_another_is_granted_others(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.commit({1: content(1)})
    real = allocation._choose
    others: list[PageNumber] = []

    def choose(*arguments: Any) -> list[PageNumber]:
        chosen = real(*arguments)
        if not others:
            others.append(PageNumber(0))
            others.extend(page_store.lease(pages.id, 5, 60).numbers)
            assert others[1:] == chosen
        return chosen

    monkeypatch.setattr(allocation, "_choose", choose)
    lease = page_store.lease(pages.id, 5, 60)
    assert len(lease.numbers) == 5
    assert set(lease.numbers).isdisjoint(others)


@pytest.mark.usefixtures("optimistic")
@pytest.mark.parametrize("first", ["renewed", "given"])
def test_a_lease_is_renewed_while_its_numbers_are_given_to_another(
    page_store: PageStore, pages: Pages, clock: Clock, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """One of the two sees what the other did."""
    pages.commit({1: content(1)})
    lease = page_store.lease(pages.id, 5, 60)
    clock.wait(61)
    given: list[PageNumber] = []
    chosen: list[list[PageNumber]] = []
    real_choose, real_ask = allocation._choose, allocation.ask_lease

    def choose(*arguments: Any) -> list[PageNumber]:
        chosen.append(real_choose(*arguments))
        if first == "renewed" and len(chosen) == 1:
            page_store.renew_lease(pages.id, lease.id, 60)
        return chosen[-1]

    def ask_lease(*arguments: Any) -> Any:
        asked = real_ask(*arguments)
        if first == "given" and not given:
            asked()
            given.extend(page_store.lease(pages.id, 5, 60).numbers)
        return asked

    monkeypatch.setattr(allocation, "_choose", choose)
    monkeypatch.setattr(allocation, "ask_lease", ask_lease)
    if first == "renewed":
        given.extend(page_store.lease(pages.id, 5, 60).numbers)
        assert chosen[0] == list(lease.numbers)
        assert set(given).isdisjoint(lease.numbers)
    else:
        with pytest.raises(LeaseEndedError):
            page_store.renew_lease(pages.id, lease.id, 60)
        assert given == list(lease.numbers)


# ---- turns ----


class Meanwhile:
    """Something that happens while an engine transaction that takes a turn is under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        """Of such transactions."""
        self.action: Callable[[], object] | None = None
        self._rely_on = turns.rely_on
        monkeypatch.setattr(turns, "rely_on", self._begun)
        self._real = turns._places
        monkeypatch.setattr(turns, "_places", self._places)
        self._within = False

    def _begun(self, *arguments: Any) -> Any:
        self.runs += 1
        self._within = True
        return self._rely_on(*arguments)

    def _places(self, *arguments: Any) -> Any:
        found = list(self._real(*arguments))
        action, self.action = (self.action, None) if self._within else (None, self.action)
        self._within = False
        if action is not None:
            action()
        return iter(found)


@pytest.fixture
def meanwhile(optimistic: None, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(monkeypatch)


def test_who_joins_behind_others_meets_nobody(
    page_store: PageStore, pages: Pages, tickets: list[bytes], meanwhile: Meanwhile
) -> None:
    a, b, c = tickets
    assert page_store.take_turn(pages.id, a, None, 5)
    alone = meanwhile.runs
    meanwhile.action = lambda: page_store.take_turn(pages.id, b, None, 5)
    assert not page_store.take_turn(pages.id, c, None, 5)
    assert meanwhile.action is None
    assert meanwhile.runs == 3 * alone
    page_store.leave_turn(pages.id, a)
    assert page_store.take_turn(pages.id, b, None, 5)
    assert not page_store.take_turn(pages.id, c, None, 5)


def test_who_waits_meets_nobody(
    page_store: PageStore,
    pages: Pages,
    tickets: list[bytes],
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b, c = tickets
    pages.commit({1: content(1)})  # the first one changes the namespace's record
    assert page_store.take_turn(pages.id, a, None, 5)
    alone = meanwhile.runs
    assert not page_store.take_turn(pages.id, b, None, 5)
    monkeypatch.setattr(turns, "WAITING_SECONDS", 60.0)  # so that b has to give a sign of life
    meanwhile.action = lambda: page_store.take_turn(pages.id, c, None, 5)
    assert not page_store.take_turn(pages.id, b, None, 5)
    assert meanwhile.action is None
    assert meanwhile.runs == 4 * alone
    monkeypatch.setattr(turns, "WAITING_SECONDS", 600.0)
    meanwhile.action = lambda: pages.store.commit(
        pages.with_ticket(pages.request({1: content(2)}), a)
    )  # which gives up its turn
    page_store.take_turn(pages.id, b, None, 5)
    assert meanwhile.runs == 5 * alone
    assert page_store.take_turn(pages.id, b, None, 5)


def test_of_two_who_find_nobody_one_is_first(
    page_store: PageStore, pages: Pages, tickets: list[bytes], meanwhile: Meanwhile
) -> None:
    a, b, _ = tickets
    came = []
    meanwhile.action = lambda: came.append(page_store.take_turn(pages.id, b, None, 5))
    came.append(page_store.take_turn(pages.id, a, None, 5))
    assert came == [True, False]


def test_who_was_passed_over_may_come_back_meanwhile(
    page_store: PageStore, pages: Pages, tickets: list[bytes], meanwhile: Meanwhile
) -> None:
    """Whether the place behind it is new or was there."""
    a, b, c = tickets
    assert page_store.take_turn(pages.id, a, None, 1e-6)
    meanwhile.action = lambda: page_store.take_turn(pages.id, a, None, 5)
    assert not page_store.take_turn(pages.id, b, None, 5)
    assert page_store.take_turn(pages.id, a, None, 1e-6)
    meanwhile.action = lambda: page_store.take_turn(pages.id, a, None, 5)
    assert not page_store.take_turn(pages.id, b, None, 5)
    assert not page_store.take_turn(pages.id, c, None, 5)
    page_store.leave_turn(pages.id, a)
    assert page_store.take_turn(pages.id, b, None, 5)


def test_many_ask_for_a_turn(page_store: PageStore, pages: Pages) -> None:
    count = 24
    together = threading.Barrier(count)
    tries = page_store.engine.operations()

    def come(_n: int) -> bool:
        ticket = new_token()
        together.wait(30)
        return page_store.take_turn(pages.id, ticket, None, 30)

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(come, range(count))) == 1
    after = page_store.engine.operations()
    if tries is not None and after is not None:
        assert after.retries - tries.retries < count
