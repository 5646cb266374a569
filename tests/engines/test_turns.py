"""The queue of those who lose conflicts, on every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pagestore import turns
from pagestore.api import LimitError, PageSet, TurnTakenError, new_token
from pagestore.engines.sqlite import SqliteEngine
from pagestore.store import PageStore
from tests.pages import Pages, content


@pytest.fixture
def tickets() -> list[bytes]:
    return [new_token() for _ in range(3)]


def commit(pages: Pages, number: int, ticket: bytes | None = None) -> None:
    request = pages.request({number: content(number)})
    pages.store.commit(request if ticket is None else pages.with_ticket(request, ticket))


def test_first_come_first_served(page_store: PageStore, pages: Pages, tickets: list[bytes]) -> None:
    a, b, c = tickets
    assert page_store.take_turn(pages.id, a, PageSet.of([1]), 5)
    for _ in range(3):
        assert not page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
        assert not page_store.take_turn(pages.id, c, PageSet.of([1]), 5)
    page_store.leave_turn(pages.id, a)
    assert not page_store.take_turn(pages.id, c, PageSet.of([1]), 5)
    assert page_store.take_turn(pages.id, b, PageSet.of([1]), 5)


def test_only_commits_that_write_what_was_declared_wait(
    page_store: PageStore, pages: Pages, tickets: list[bytes]
) -> None:
    assert page_store.take_turn(pages.id, tickets[0], PageSet.of([1, 7, 70_000]), 5)
    commit(pages, 2)
    for number in (7, 70_000):
        with pytest.raises(TurnTakenError) as caught:
            commit(pages, number)
        assert 0 < caught.value.seconds <= 5
    assert pages.read(7) is None
    assert page_store.begin(pages.id).version  # readers never look


def test_a_turn_for_all_pages(page_store: PageStore, pages: Pages, tickets: list[bytes]) -> None:
    assert page_store.take_turn(pages.id, tickets[0], None, 5)
    with pytest.raises(TurnTakenError):
        commit(pages, 2)
    other = Pages(page_store, page_store.create("other").id)
    commit(other, 2)  # another database has a queue of its own
    many = PageSet.of(range(1, turns.MAX_PAGES + 2))
    assert page_store.take_turn(pages.id, tickets[0], many, 5)
    with pytest.raises(TurnTakenError):
        commit(pages, turns.MAX_PAGES + 50)


def test_the_commit_gives_the_turn_up(page_store: PageStore, pages: Pages, tickets: list[bytes]) -> None:
    a, b, _ = tickets
    assert page_store.take_turn(pages.id, a, PageSet.of([1]), 5)
    assert not page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    commit(pages, 1, a)
    assert page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    commit(pages, 1, b)
    commit(pages, 1)


def test_a_turn_ends_by_itself(
    page_store: PageStore, pages: Pages, tickets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = tickets
    now = turns._now_us()
    monkeypatch.setattr(turns, "_now_us", lambda: now)
    assert page_store.take_turn(pages.id, a, None, 5)
    assert not page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    now += 2_100_000  # b gave no sign of life for longer than a place keeps
    with pytest.raises(TurnTakenError):
        commit(pages, 3)
    now += 3_000_000  # and so did a, for longer than its turn
    commit(pages, 3)
    assert page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    assert not page_store.take_turn(pages.id, a, PageSet.of([1]), 5)


def test_whose_place_has_ended_waits_like_others(
    page_store: PageStore, pages: Pages, tickets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = tickets
    now = turns._now_us()
    monkeypatch.setattr(turns, "_now_us", lambda: now)
    assert page_store.take_turn(pages.id, a, PageSet.of([1]), 5)
    now += 6_000_000
    assert page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    with pytest.raises(TurnTakenError):
        commit(pages, 1, a)


def test_bounds(page_store: PageStore, pages: Pages, tickets: list[bytes]) -> None:
    with pytest.raises(LimitError):
        page_store.take_turn(pages.id, tickets[0], None, turns.MAX_SECONDS + 1)
    page_store.leave_turn(pages.id, tickets[0])  # not there: no error


def test_a_commit_gives_its_place_up_wherever_it_stands(
    page_store: PageStore, pages: Pages, tickets: list[bytes]
) -> None:
    a, b, c = tickets
    assert page_store.take_turn(pages.id, a, PageSet.of([1]), 5)
    assert not page_store.take_turn(pages.id, b, PageSet.of([1]), 5)
    assert not page_store.take_turn(pages.id, c, PageSet.of([1]), 5)
    commit(pages, 2, b)  # is not in a's way, and does not wait any longer
    page_store.leave_turn(pages.id, a)
    assert page_store.take_turn(pages.id, c, PageSet.of([1]), 5)


# ---- many at once ----


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
def meanwhile(page_store: PageStore, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    if isinstance(page_store.engine, SqliteEngine):
        pytest.skip("nothing happens meanwhile: writers wait for each other")
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
    commit(pages, 1)  # the first one changes the namespace's record
    assert page_store.take_turn(pages.id, a, None, 5)
    alone = meanwhile.runs
    assert not page_store.take_turn(pages.id, b, None, 5)
    monkeypatch.setattr(turns, "WAITING_SECONDS", 60.0)  # so that b has to give a sign of life
    meanwhile.action = lambda: page_store.take_turn(pages.id, c, None, 5)
    assert not page_store.take_turn(pages.id, b, None, 5)
    assert meanwhile.action is None
    assert meanwhile.runs == 4 * alone
    monkeypatch.setattr(turns, "WAITING_SECONDS", 600.0)
    meanwhile.action = lambda: commit(pages, 1, a)  # which gives up its turn
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


def test_many_come_at_once(page_store: PageStore, pages: Pages) -> None:
    """Nobody has to try again and again while others come and go."""
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
