"""The queue of those who lose conflicts, on every engine."""

from __future__ import annotations

import pytest

from pagestore import turns
from pagestore.api import LimitError, PageSet, TurnTakenError, new_token
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
