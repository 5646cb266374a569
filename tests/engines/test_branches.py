"""Branches, drops that are undone, and reverts, over every engine."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from pagestore import drops, large, retention, staging
from pagestore.api import (
    BelowHorizonError,
    CommitRequest,
    Committed,
    ConflictError,
    InvalidNameError,
    LeaseEndedError,
    LimitError,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchVersionError,
    PageNumber,
    Retention,
    TurnTakenError,
    Version,
    new_token,
)
from pagestore.branches import MAX_DEPTH
from pagestore.encoding import chain_of
from pagestore.engines.base import KeyRange
from pagestore.store import PageStore
from pagestore.verify import verify
from tests.pages import Pages, content


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)


def whole(store: PageStore) -> None:
    store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))


def everything(store: PageStore) -> list[tuple[bytes, bytes]]:
    """All rows but the counter of ids and the format."""
    rows = store.engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xff"))))
    return [row for row in rows if row[0][:1] not in b"cf"]


def branch_of(pages: Pages, name: str, at: Version | None = None) -> Pages:
    made = pages.store.branch(pages.id, name, at or pages.version())
    return Pages(pages.store, made.id, pages.page_size)


def noise(seed: int) -> bytes:
    """A page that is no delta of any other."""
    return random.Random(seed).randbytes(512)


def slightly(body: bytes, step: int) -> bytes:
    return body[:50] + step.to_bytes(4, "big") + body[54:]


# ---- branches ----


def test_a_branch_is_a_copy(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: content("a", n) for n in range(1, 10)})
    at = pages.version()
    pages.commit({5: content("later", 5), 9: None})
    branch = branch_of(pages, "branch", at)
    assert page_store.open("branch").parent == (pages.id, at)
    assert page_store.open("branch").page_size == 512
    assert page_store.list()[0].parent == (pages.id, at)
    assert [branch.read(n) for n in range(1, 11)] == [*(content("a", n) for n in range(1, 10)), None]
    start = page_store.begin(branch.id)
    assert start.allocation is not None
    assert start.allocation.highest == 9
    assert list(page_store.changelog(branch.id)) == []
    branch.commit({1: content("b", 1), 3: None})
    pages.commit({2: content("c", 2)})
    assert branch.read(1) == content("b", 1)
    assert branch.read(1, start.version) == content("a", 1)
    assert branch.read(2) == content("a", 2)
    assert branch.read(3) is None
    assert pages.read(3) == content("a", 3)
    whole(page_store)
    usage = page_store.usage(branch.id)
    assert (usage.live_pages, usage.shared_pages) == (8, 7)
    assert usage.shared_bytes > usage.live_bytes
    with pytest.raises(NoSuchVersionError):
        branch.read(1, at)  # the past of a branch begins with it


def test_the_first_version_in_a_branch_may_be_a_delta(page_store: PageStore, pages: Pages) -> None:
    body = content("body")
    for step in range(30):
        pages.commit({1: slightly(body, step)})
    branch = branch_of(pages, "branch")
    for step in range(30, 60):
        branch.commit({1: slightly(body, step)})
        pages.commit({1: slightly(body, step + 100)})
    found = page_store.read(branch.id, branch.version(), [PageNumber(1)])[0]
    assert found is not None
    first = next(iter(page_store.changelog(branch.id)))
    (stored,) = page_store.read(branch.id, first.version, [PageNumber(1)])
    assert stored is not None
    assert chain_of(stored.blobs[0]) == len(stored.blobs) - 1 > 0
    assert branch.read(1, first.version) == slightly(body, 30)
    for each in (pages, branch):
        page_store.set_retention(each.id, Retention(0))
        page_store.collect(each.id)
        whole(page_store)
    assert branch.read(1) == slightly(body, 59)
    assert pages.read(1) == slightly(body, 159)


def test_what_a_branch_costs(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: content("a", n) for n in range(1, 500)})
    before = {key for key, _ in everything(page_store)}
    branch_of(pages, "branch")
    added = {key[:1] for key, _ in everything(page_store) if key not in before}
    assert added == {b"l", b"n", b"a", b"k"}
    assert len(everything(page_store)) == len(before) + 4


def test_branches_of_branches(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: content(0, n) for n in range(1, MAX_DEPTH + 3)})
    line = [pages]
    for depth in range(1, MAX_DEPTH + 1):
        line.append(branch_of(line[-1], f"b{depth}"))
        line[-1].commit({depth: content(depth, depth)})
    for depth, one in enumerate(line):
        for n in range(1, MAX_DEPTH + 3):
            assert one.read(n) == content(n if n <= depth else 0, n)
    with pytest.raises(LimitError, match="deep"):
        branch_of(line[-1], "too deep")
    whole(page_store)


def test_names_and_versions_of_branches(page_store: PageStore, pages: Pages) -> None:
    old = pages.commit({1: content(1)}).version
    pages.commit({1: content(2)})
    with pytest.raises(NameTakenError):
        branch_of(pages, "main")
    with pytest.raises(InvalidNameError):
        branch_of(pages, "")
    with pytest.raises(NoSuchVersionError):
        branch_of(pages, "b", Version(b"\xfe" * 10))
    page_store.set_retention(pages.id, Retention(0))
    page_store.collect(pages.id)
    with pytest.raises(BelowHorizonError):
        branch_of(pages, "b", old)
    assert [one.name for one in page_store.list()] == ["main"]
    assert page_store.retention(branch_of(pages, "b").id) == Retention(0)


def test_an_empty_one_branches_too(page_store: PageStore, pages: Pages) -> None:
    branch = branch_of(pages, "branch")
    branch.commit({1: content(1)})
    assert pages.read(1) is None


def test_writers_of_parent_and_branch_do_not_meet(page_store: PageStore, pages: Pages) -> None:
    base = pages.commit({1: content(1)}).version
    branch = branch_of(pages, "branch")
    fork = branch.version()
    pages.commit({1: content(2)}, base=base)
    branch.commit({1: content(3)}, base=fork)
    with pytest.raises(ConflictError):
        branch.commit({1: content(4)}, base=fork)
    lease = page_store.lease(branch.id, 3, 60)
    assert lease.numbers == (2, 3, 4)


def test_a_branch_survives_its_parent(page_store: PageStore, pages: Pages) -> None:
    nothing = everything(page_store)
    body = content("x")
    for step in range(20):
        pages.commit({n: slightly(body, step * n) for n in range(1, 30)})
    branch = branch_of(pages, "branch")
    twig = branch_of(branch, "twig")
    for step in range(20, 40):
        pages.commit({n: slightly(body, step * n) for n in range(1, 30)})
    branch.commit({7: content(7)})
    before = len(everything(page_store))
    page_store.drop("main", now=True)
    assert len(everything(page_store)) < before // 2  # only what the branch needs is left
    assert page_store.dropped() == []
    page_store.drop("branch", now=True)
    whole(page_store)
    assert twig.read(3) == slightly(body, 19 * 3)
    assert twig.read(7) == slightly(body, 19 * 7)
    page_store.drop("twig", now=True)
    assert [row for row in everything(page_store) if row not in nothing and row[0] != b"\xff"] == []


def test_what_only_a_branch_needed_goes_with_it(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: noise(n) for n in range(1, 40)})
    branch_of(pages, "branch")
    pages.commit({n: noise(1000 + n) for n in range(1, 40)})
    page_store.set_retention(pages.id, Retention(0))
    assert page_store.collect(pages.id).page_versions == 0
    page_store.drop("branch", now=True)
    assert page_store.collect(pages.id).page_versions == 39
    whole(page_store)


# ---- drop and undrop ----


def test_undrop(page_store: PageStore, pages: Pages) -> None:
    version = pages.commit({1: content(1)}).version
    page_store.tag(pages.id, "t", version)
    page_store.drop("main")
    (one,) = page_store.dropped()
    assert (one.id, one.name) == (pages.id, "main")
    assert one.until_us is not None
    assert one.until_us - one.dropped_us == 30 * 86400 * 10**6
    whole(page_store)
    assert page_store.undrop(pages.id, "again").name == "again"
    assert pages.read(1, version) == content(1)
    assert [tag.name for tag in page_store.tags(pages.id)] == ["t"]
    assert page_store.dropped() == []
    pages.commit({1: content(2)})
    with pytest.raises(NoSuchNamespaceError):
        page_store.undrop(pages.id, "twice")
    with pytest.raises(NoSuchNamespaceError):
        page_store.purge(pages.id)


def test_two_dropped_of_one_name(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    page_store.drop("main")
    second = Pages(page_store, page_store.create("main").id)
    second.commit({1: content(2)})
    with pytest.raises(NameTakenError):
        page_store.undrop(pages.id, "main")
    time.sleep(0.001)
    page_store.drop("main")
    assert [one.id for one in page_store.dropped()] == [second.id, pages.id]
    page_store.undrop(pages.id, "main")
    page_store.undrop(second.id, "other")
    assert (pages.read(1), second.read(1)) == (content(1), content(2))


def test_the_time_to_come_back_ends(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    for_ever = page_store.create("kept").id
    page_store.set_retention(for_ever, Retention(None))
    page_store.set_retention(pages.id, Retention(0))
    page_store.drop("main")
    page_store.drop("kept")
    page_store.finish_drops()
    assert [(one.name, one.until_us) for one in page_store.dropped()] == [("kept", None)]
    with pytest.raises(NoSuchNamespaceError):
        page_store.undrop(pages.id, "main")
    page_store.purge(for_ever)
    assert page_store.dropped() == []
    assert not any(row[0][:1] in b"plonk" for row in everything(page_store))


def test_a_drop_for_good_may_stop_anywhere(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.commit({n: content("a", n) for n in range(1, 30)})
    branch = branch_of(pages, "branch")
    pages.commit({n: content("b", n) for n in range(1, 30)})

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(drops, "_strip", stop)
        with pytest.raises(Stop):
            page_store.drop("main", now=True)
    whole(page_store)
    page_store.finish_drops()
    whole(page_store)
    assert branch.read(29) == content("a", 29)
    assert len([row for row in everything(page_store) if row[0].startswith(b"p")]) == 29
    page_store.finish_drops()


# ---- revert ----


@pytest.fixture(params=["in one", "staged"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a revert's pages go with its commit, or are staged before because they are many."""
    if request.param == "staged":
        monkeypatch.setattr(large, "_STAGED_AT_ONCE", 700)
    return str(request.param)


@pytest.mark.usefixtures("size")
def test_revert(page_store: PageStore, pages: Pages) -> None:
    old = pages.commit({n: content("a", n) for n in range(1, 8)}).version
    pages.commit({2: content("b", 2), 3: None, 7: None})
    newest = pages.commit({2: content("c", 2), 9: content("c", 9)}).version
    done = page_store.revert(pages.id, old, message="oops")
    assert [pages.read(n) for n in range(1, 10)] == [*(content("a", n) for n in range(1, 8)), None, None]
    (change,) = page_store.changelog(pages.id, after=newest)
    assert (change.version, change.message) == (done.version, "oops")
    assert (change.pages, change.allocated, change.freed) == ((2, 3, 7, 9), (3, 7), (9,))
    allocation = page_store.begin(pages.id).allocation
    assert allocation is not None
    assert (allocation.highest, allocation.free) == (7, ())
    assert page_store.revert(pages.id, old).version == done.version  # nothing to change
    page_store.revert(pages.id, newest)
    assert [pages.read(n) for n in (2, 3, 7, 9)] == [content("c", 2), None, None, content("c", 9)]
    whole(page_store)


def test_revert_to_what_only_a_tag_keeps(page_store: PageStore, pages: Pages) -> None:
    old = pages.commit({n: content("a", n) for n in range(1, 100)}).version
    gone = pages.commit({50: content("b", 50)}).version
    page_store.tag(pages.id, "t", old)
    pages.commit({50: None, 60: content("c", 60), 120: content("c", 120)})
    page_store.set_retention(pages.id, Retention(0))
    page_store.collect(pages.id)
    with pytest.raises(BelowHorizonError):
        page_store.revert(pages.id, gone)
    page_store.revert(pages.id, old)
    assert [pages.read(n) for n in range(1, 121)] == [
        content("a", n) if n < 100 else None for n in range(1, 121)
    ]


@pytest.mark.usefixtures("size")
def test_the_schema_cookie_never_goes_back(page_store: PageStore, pages: Pages) -> None:
    def page_1(cookie: int, rest: int = 0) -> bytes:
        return bytes(40) + cookie.to_bytes(4, "big") + bytes([rest]) * 468

    old = pages.commit({1: page_1(5), 2: content(1)}).version
    pages.commit({1: page_1(5, 1)})
    page_store.revert(pages.id, old)
    assert pages.read(1) == page_1(5)  # the schema is the same one
    pages.commit({1: page_1(6, 9), 2: content(2)})
    page_store.revert(pages.id, old)
    assert pages.read(1) == page_1(7)
    version = pages.version()
    assert page_store.revert(pages.id, old).version == version


@pytest.mark.usefixtures("size")
def test_a_revert_undoes_what_comes_in_between(page_store: PageStore, pages: Pages) -> None:
    old = pages.commit({n: content("a", n) for n in range(2, 10)}).version
    pages.commit({9: content("b", 9)})
    stop = threading.Event()
    written: list[int] = []

    def writer(number: int) -> None:
        step = 0
        while not stop.is_set():
            step += 1
            try:
                pages.commit({number: content(step, number), 20 + number: content(step)})
                written.append(number)
            except (ConflictError, TurnTakenError):
                pass

    threads = [threading.Thread(target=writer, args=(n,)) for n in (2, 3, 4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            done = page_store.revert(pages.id, old)
            assert [pages.read(n, done.version) for n in range(2, 10)] == [
                content("a", n) for n in range(2, 10)
            ]
            assert all(pages.read(20 + n, done.version) is None for n in (2, 3, 4))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert written
    whole(page_store)


def test_what_was_staged_is_looked_at_again_after_a_conflict(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """Pages that others bring back, free, change or only make for a while, while a revert is on its way."""
    old = pages.commit({n: content("a", n) for n in range(1, 30) if n != 9}).version
    pages.commit({n: content("b", n) for n in range(2, 8)} | {8: None, 9: content("b", 9)})
    between = [
        {2: content("a", 2), 3: None, 4: content("c", 4), 8: content("c", 8), 9: None, 40: content("c", 40)},
        {5: content("d", 5), 40: None, 8: content("a", 8)},
    ]
    commit = page_store.commit

    def late(request: CommitRequest) -> Committed:
        if request.message == "revert" and between:
            commit(pages.request(between.pop(0)))
        return commit(request)

    monkeypatch.setattr(page_store, "commit", late)
    done = page_store.revert(pages.id, old, message="revert")
    assert between == []
    assert [pages.read(n) for n in range(1, 41)] == [pages.read(n, old) for n in range(1, 41)]
    assert page_store.allocation(pages.id, done.version) == page_store.allocation(pages.id, old)
    newest = next(page_store.changelog(pages.id, newest_first=True))
    assert (newest.version, newest.freed) == (done.version, ())
    assert set(newest.allocated) == {3}
    assert {3, 4, 5, 6, 7} <= set(newest.pages)
    assert (40 in newest.pages) == (size == "staged"), "once staged, it is part of the commit"
    page_store.settle()
    assert page_store.engine.read(lambda tx: staging.tokens(tx, pages.id)) == []
    whole(page_store)


def test_a_revert_ends_the_leases_that_it_runs_over(page_store: PageStore, pages: Pages) -> None:
    old = pages.commit({n: content("a", n) for n in range(1, 6)}).version
    pages.commit({3: None, 4: None})
    lease = page_store.lease(pages.id, 2, 60)
    other = page_store.lease(pages.id, 2, 60)
    assert (lease.numbers, other.numbers) == ((3, 4), (6, 7))
    page_store.revert(pages.id, old)
    for held, fails in ((lease, True), (other, False)):
        part = pages.part({8 if fails else 6: content("mine")}, pages.version())
        request = CommitRequest(new_token(), pages.version(), (replace(part, lease=held.id),))
        if fails:
            with pytest.raises(LeaseEndedError):
                page_store.commit(request)
        else:
            page_store.commit(request)


@pytest.mark.usefixtures("size")
def test_a_branch_reverts_to_where_it_began(page_store: PageStore, pages: Pages) -> None:
    body = content("x")
    pages.commit({n: slightly(body, n) for n in range(1, 6)})
    branch = branch_of(pages, "branch")
    start = branch.version()
    branch.commit({1: slightly(body, 99), 2: None, 9: content(9)})
    page_store.revert(branch.id, start)
    assert [branch.read(n) for n in range(1, 10)] == [
        slightly(body, n) if n < 6 else None for n in range(1, 10)
    ]
    whole(page_store)
