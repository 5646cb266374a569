"""Commits on the condition that nobody else has committed since, and begins that reach a commit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pagestore import solitude
from pagestore.api import CommitRequest, ConflictError, NamespaceId, PageNumber, Version
from pagestore.engines.base import Engine
from pagestore.solitude import Solitude
from tests.engines.conftest import only
from tests.pages import Pages, content

N = NamespaceId(3)


def wanting(request: CommitRequest) -> CommitRequest:
    """Of a client that is going to begin again at once."""
    return replace(request, tells_others=False, wants_begin=True)


def next_request(database: Pages, base: Version, named: Version | None, text: str) -> CommitRequest:
    part = database.part({1: content(text)}, base)
    return wanting(replace(database.request({}), base=base, parts=(part,), read_version=named))


def test_a_begin_reaches_the_commit(pages: Pages) -> None:
    base = pages.commit({1: content("one"), 2: content("two")}).version
    ours = pages.commit({1: content("ours")}).version
    begin = pages.store.begin(pages.id, base, reaching=ours)
    assert [change.version for change in begin.changes or ()] == [ours]
    assert (begin.version, begin.page_size) == (ours, pages.page_size)
    theirs = pages.commit({2: content("theirs")}).version
    begin = pages.store.begin(pages.id, base, reaching=ours)
    assert begin.version in (ours, theirs)
    assert next(iter(begin.changes or ())).version == ours
    assert pages.read(1, begin.version) == content("ours")


def test_who_is_alone_is_told_where_it_stands(database: Pages, ran: list[str], engine: Engine) -> None:
    request = wanting(database.request({1: content("first")}))
    for n in range(4):
        done = database.store.commit(request)
        assert only(ran, "as of its begin")
        assert done.others == ((),)
        begin = done.begin
        assert begin is not None
        assert begin.version == done.version
        assert begin.read_version == engine.reached_by(done.version)
        (own,) = begin.changes or ()
        assert (own.version, own.pages, own.allocated, own.freed) == (done.version, (1,), (), ())
        beside = database.store.begin(database.id, done.version, reaching=done.version)
        assert (beside.version, beside.read_version) == (begin.version, begin.read_version)
        request = next_request(database, begin.version, begin.read_version, f"next {n}")
        ran.clear()
    assert database.read(1) == content("next 2")


def test_who_is_not_alone_commits_all_the_same(database: Pages, ran: list[str]) -> None:
    first, second = (wanting(database.request({n: content("ours")})) for n in (1, 2))
    theirs = database.commit({3: content("theirs")}).version
    ran.clear()
    done = database.store.commit(first)
    assert only(ran, "as of its begin", "anew")
    assert (done.begin, done.others) == (None, None)
    ran.clear()
    done = database.store.commit(second)  # not tried again for a while
    assert only(ran, "as of its begin")
    assert (done.begin, done.others) == (None, None)
    changes = database.store.begin(database.id, first.base).changes or ()
    assert [change.pages for change in changes] == [(3,), (1,), (2,)]
    assert changes[0].version == theirs


def test_who_meets_another_is_refused(database: Pages) -> None:
    request = wanting(database.request({1: content("ours")}))
    database.commit({1: content("theirs")})
    with pytest.raises(ConflictError):
        database.store.commit(request)
    assert database.read(1) == content("theirs")


def test_where_nobody_has_begun_beside_it_is_looked_at_anew(database: Pages, ran: list[str]) -> None:
    """The name alone proves nothing: another's commit may have the same read version."""
    begin = database.store.commit(wanting(database.request({1: content("ours")}))).begin
    assert begin is not None
    database.commit({2: content("theirs")})
    ran.clear()
    database.store.commit(next_request(database, begin.version, begin.read_version, "next"))
    assert only(ran, "anew")
    database.commit({1: content("theirs")})
    with pytest.raises(ConflictError):
        database.store.commit(next_request(database, begin.version, begin.read_version, "lost"))


def test_a_commit_in_the_same_batch_is_met(database: Pages, ran: list[str], engine: Engine) -> None:
    """As if another's commit came right behind ours, in the same batch: then it has the same read version."""
    begin = database.store.commit(wanting(database.request({1: content("ours")}))).begin
    assert begin is not None
    theirs = database.commit({1: content("theirs")}).version
    beside = database.store.begin(database.id, begin.version, reaching=theirs)
    assert beside.version == theirs
    ran.clear()
    with pytest.raises(ConflictError):
        database.store.commit(next_request(database, begin.version, beside.read_version, "lost"))
    assert only(ran, "anew")


def test_who_wants_no_begin_makes_no_condition(database: Pages, ran: list[str]) -> None:
    request = replace(database.request({1: content("ours")}), tells_others=False)
    database.commit({2: content("theirs")})
    ran.clear()
    done = database.store.commit(request)
    assert only(ran, "as of its begin")
    assert (done.begin, done.others) == (None, None)


def test_pages_that_are_allocated_and_freed_are_told(database: Pages) -> None:
    new = PageNumber(1000)
    request = wanting(database.request({1: content("x"), new: content("new")}))
    part = replace(request.parts[0], allocated=(new,))
    begin = database.store.commit(replace(request, parts=(part,))).begin
    assert begin is not None
    ((own,), told) = begin.changes, database.store.begin(database.id, request.base).changes
    assert begin.changes.packed == told.packed  # type: ignore[union-attr]
    assert (own.pages, own.allocated) == ((1, new), (new,))


def test_solitude_rests_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(solitude.time, "monotonic", lambda: now[0])
    lonely = Solitude()
    assert lonely.is_likely(N)
    rests = []
    for _ in range(9):
        lonely.note(N, alone=False)
        assert not lonely.is_likely(N)
        assert lonely.is_likely(NamespaceId(4))
        before = now[0]
        while not lonely.is_likely(N):
            now[0] += 0.25
        rests.append(now[0] - before)
    assert rests == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    lonely.note(N, alone=True)
    lonely.note(N, alone=False)
    now[0] += 0.25
    assert lonely.is_likely(N)


def test_solitude_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solitude, "_MOST", 2)
    lonely = Solitude()
    for n in range(3):
        lonely.note(NamespaceId(n), alone=False)
    assert [lonely.is_likely(NamespaceId(n)) for n in range(3)] == [True, False, False]
