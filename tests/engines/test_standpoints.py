"""Commits and reads that stand at their begin's read version, on engines that reach back."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pagestore import standpoints
from pagestore.api import (
    ZERO_VERSION,
    CommitRequest,
    ConflictError,
    NamespaceId,
    NoSuchNamespaceError,
    PageNumber,
    PageSet,
    TurnTakenError,
    Version,
    VoidTokenError,
    new_token,
)
from pagestore.commit import FEW_RUNS
from pagestore.encoding import decode
from pagestore.engines.base import Engine, KeyRange
from pagestore.namespaces import Record
from pagestore.snapshot import Standpoint
from pagestore.store import PageStore
from tests.engines.conftest import only
from tests.pages import Pages, content


def test_a_commit_stands_where_its_begin_stood(database: Pages, ran: list[str]) -> None:
    done = database.store.commit(database.request({1: content("new")}))
    assert only(ran, "as of its begin")
    assert database.read(1) == content("new")
    assert database.read(1, done.version) == content("new")
    assert done.others == ((),)


def test_one_that_does_not_say_where_looks_anew(database: Pages, ran: list[str]) -> None:
    database.store.commit(replace(database.request({1: content("new")}), read_version=None))
    assert only(ran, "anew")


def test_one_whose_begin_is_long_ago_looks_anew(
    database: Pages, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = database.request({1: content("new")})
    monkeypatch.setattr(database.store._standpoints._by_read_version, "_seconds", 0.0)  # type: ignore[attr-defined]
    database.store.commit(request)
    assert only(ran, "anew")
    assert standpoints.COMMIT_SECONDS <= 0.1  # what `turns` promises


def test_what_others_write_is_met(database: Pages, ran: list[str]) -> None:
    request = database.request({1: content("mine")})
    theirs = database.commit({1: content("theirs")}, base=request.base)
    ran.clear()
    with pytest.raises(ConflictError) as caught:
        database.store.commit(request)
    assert only(ran, "as of its begin", "anew")
    assert (caught.value.pages, caught.value.version) == ((1,), theirs.version)


def test_what_others_write_elsewhere_is_not(database: Pages, ran: list[str]) -> None:
    request = database.request({1: content("mine")})
    theirs = database.commit({2: content("theirs")}, base=request.base)
    ran.clear()
    done = database.store.commit(request)
    assert only(ran, "as of its begin")
    assert [change.version for change in (done.others or ((),))[0]] == [theirs.version]


def test_others_may_be_left_out(database: Pages) -> None:
    request = replace(database.request({1: content("mine")}), tells_others=False)
    theirs = database.commit({2: content("theirs")}, base=request.base)
    done = database.store.commit(request)
    assert done.others is None
    since = database.store.begin(database.id, request.base)
    assert [change.version for change in since.changes or ()] == [theirs.version, done.version]


def test_many_gaps_between_the_pages_read_are_covered(database: Pages, ran: list[str]) -> None:
    """A commit that names few ranges looks anew where others wrote between them; it is not lost."""
    reads = list(range(1, 39, 2))
    assert len(reads) > FEW_RUNS
    start = database.store.begin(database.id, database.version())
    part = database.part({1: content("mine")}, start.version, reads)
    request = CommitRequest(
        new_token(), start.version, (part,), "", "normal", read_version=start.read_version
    )
    database.commit({number: content("theirs") for number in range(2, 38, 2)}, base=start.version)
    ran.clear()
    database.store.commit(request)
    assert only(ran, "as of its begin", "anew")


def test_a_commit_that_was_given_up_does_not_happen(database: Pages) -> None:
    request = database.request({1: content("mine")})
    assert database.store.outcome(database.id, request.token) is None
    database.request({})  # others begin after it, and stand where it is void
    with pytest.raises(VoidTokenError):
        database.store.commit(request)
    assert database.read(1) == content(1)


def test_a_commit_happens_once(database: Pages) -> None:
    request = database.request({1: content("mine")})
    done = database.store.commit(request)
    database.request({})
    assert database.store.commit(request).version == done.version
    assert len(list(database.store.changelog(database.id))) == 2


def test_a_database_that_is_dropped_meanwhile(database: Pages, page_store: PageStore) -> None:
    request = database.request({1: content("mine")})
    page_store.drop(next(found.name for found in page_store.list() if found.id == database.id))
    with pytest.raises(NoSuchNamespaceError):
        database.store.commit(request)


def test_turns_that_a_begin_was_told_of(engine: Engine, database: Pages, ran: list[str]) -> None:
    """By another process: its own store forgets where begins stood."""
    elsewhere = PageStore(engine, "test:", 5.0)
    assert elsewhere.take_turn(database.id, new_token(), PageSet.of([1]), 5)
    with pytest.raises(TurnTakenError):
        database.store.commit(database.request({1: content("mine")}))
    assert only(ran, "anew")
    ran.clear()
    database.store.commit(database.request({2: content("mine")}))
    assert only(ran, "as of its begin")


def test_reads_stand_there_too(engine: Engine, database: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    version = database.store.begin(database.id, database.version()).version
    database.commit({1: content("later")}, base=version)
    asked: list[KeyRange] = []
    read = engine.read

    def note(work, **options):  # type: ignore[no-untyped-def]
        asked.append(options.get("as_of"))
        return read(work, **options)

    monkeypatch.setattr(engine, "read", note)
    (page,) = database.store.read(database.id, version, [PageNumber(1)])
    assert page is not None
    assert decode(page, database.page_size) == content(1)
    assert len(asked) == 1
    assert asked[0] is not None
    monkeypatch.setattr(standpoints._Recent, "get", lambda _self, _key: None)
    assert database.store.read(database.id, version, [PageNumber(1)]) == [page]
    assert asked[1] is None


def test_begins_that_are_remembered_are_few() -> None:
    known = standpoints.Standpoints()
    started, id_ = time.monotonic() + 3600, NamespaceId(1)  # however long this takes
    record = Record(512, 0, ZERO_VERSION, ZERO_VERSION)
    for n in range(standpoints.MOST + 10):
        version = Version(n.to_bytes(10, "big"))
        known.note(id_, Standpoint(version, version, record, 0, has_bulks=False, turn=None), started)
    assert known.at(id_, ZERO_VERSION) is None
    assert known.of(id_, version) is not None
    known.look_again()
    assert known.of(id_, version) is None
    assert known.at(id_, version) is not None
