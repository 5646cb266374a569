"""Commits whose pages were staged: on every engine, folded in or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pagestore import bulk, changelog, keys, retention, snapshot, staging, verify
from pagestore.api import (
    CommitRequest,
    Committed,
    ConflictError,
    InvalidRequestError,
    LeaseEndedError,
    NoSuchNamespaceError,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    Retention,
    StoreUnavailableError,
    Version,
    VoidTokenError,
    new_token,
)
from pagestore.encoding import FREED
from pagestore.engines.base import Engine, KeyRange
from pagestore.store import PageStore
from tests.engines.conftest import OpenEngine
from tests.pages import Pages, content


@pytest.fixture(params=["unfolded", "folded"])
def folded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a commit is folded in before anybody looks."""
    monkeypatch.setattr(bulk.Folder, "fold", lambda _self, _id: None)
    return bool(request.param == "folded")


def commit_staged(
    pages: Pages,
    contents: Mapping[int, bytes | None],
    direct: Mapping[int, bytes | None] | None = None,
    base: Version | None = None,
    token: bytes | None = None,
) -> Committed:
    base, token = base or pages.version(), token or new_token()
    part = pages.part({**contents, **(direct or {})}, base)
    pages.store.stage(pages.id, token, [write for write in part.writes if write.number in contents])
    rest = [write for write in part.writes if write.number not in contents]
    part = replace(part, writes=rest, staged=PageRuns.of(contents))
    return pages.store.commit(CommitRequest(token, base, (part,), "", "normal"))


def fold(pages: Pages) -> None:
    assert isinstance(pages.store, PageStore)
    assert bulk.fold(pages.store.engine, pages.id, 5.0)


def left(engine: Engine) -> list[bytes]:
    """Keys of what is staged, or not folded in."""
    rows = engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xf0"))))
    return [key for key, _ in rows if key[:1] in (b"s", b"i") or key.startswith(keys.bulk_prefix(1))]  # type: ignore[arg-type]


def test_all_pages_appear_at_one_version(pages: Pages, engine: Engine, folded: bool) -> None:
    before = pages.commit({n: content("old", n) for n in range(1, 20)}).version
    done = commit_staged(
        pages, {n: content("new", n) for n in range(5, 40)} | {2: None}, {1: content("direct", 1), 3: None}
    )
    if folded:
        fold(pages)
        assert left(engine) == []
    assert [pages.read(n, before) for n in (1, 2, 3, 5, 19, 20)] == [
        *(content("old", n) for n in (1, 2, 3, 5, 19)),
        None,
    ]
    expected = [
        content("direct", 1),
        None,
        None,
        content("old", 4),
        content("new", 5),
        content("new", 39),
        None,
    ]
    assert [pages.read(n) for n in (1, 2, 3, 4, 5, 39, 40)] == expected
    (change,) = pages.store.changelog(pages.id, after=before)
    assert (change.version, change.time_us) == (done.version, done.time_us)
    assert change.pages == (1, 2, 3, *range(5, 40))
    assert (change.allocated, change.freed) == (tuple(range(20, 40)), (2, 3))
    assert pages.store.begin(pages.id, before).changes is not None
    assert pages.store.allocation(pages.id, done.version).highest == 39
    assert engine.read(lambda tx: verify.verify(tx, lambda _done, _all: None)) is None


def test_deltas_of_staged_pages(pages: Pages, folded: bool) -> None:
    """Each commit is a delta of the one before, whether that was staged, or folded in meanwhile."""
    contents = []
    for n in range(12):
        contents.append(content("same") if n == 0 else contents[-1][:n] + b"!" + contents[-1][n + 1 :])
        if n % 3 == 1:
            commit_staged(pages, {1: contents[-1]})
        else:
            pages.commit({1: contents[-1]})
        if folded and n % 2:
            fold(pages)
    versions = [change.version for change in pages.store.changelog(pages.id)]
    assert [pages.read(1, version) for version in versions] == contents
    fold(pages)
    assert [pages.read(1, version) for version in versions] == contents


def test_a_page_staged_again_replaces_the_earlier_one(pages: Pages, engine: Engine, folded: bool) -> None:
    base, token = pages.version(), new_token()
    for text in ("first", "second"):
        big = pages.part({1: content(text, 1), 2: content(text, 2)}, base).writes
        pages.store.stage(pages.id, token, big)
    pages.store.stage(pages.id, token, [PageWrite(PageNumber(2), FREED)])
    commit_staged(pages, {1: content("third"), 3: content("third", 3)}, token=new_token())
    part = replace(
        pages.part({1: content("x"), 4: content("x", 4)}, pages.version()),
        writes=[],
        allocated=[],
        staged=PageRuns.of([1, 2]),
        freed=[PageNumber(2)],
    )
    pages.store.commit(CommitRequest(token, pages.version(), (part,), "", "normal"))
    if folded:
        fold(pages)
    assert [pages.read(1), pages.read(2)] == [content("second", 1), None]


def test_conflicts_go_both_ways(pages: Pages, engine: Engine, folded: bool) -> None:
    base = pages.commit({n: content(1, n) for n in (1, 2, 3)}).version
    pages.commit({2: content(2, 2)})
    with pytest.raises(ConflictError) as caught:
        commit_staged(pages, {2: content(3, 2), 3: content(3, 3)}, base=base)
    assert caught.value.pages == (2,)
    assert left(engine) == []
    base = pages.version()
    commit_staged(pages, {2: content(4, 2), 3: content(4, 3)})
    if folded:
        fold(pages)
    with pytest.raises(ConflictError) as caught:
        pages.commit({3: content(5, 3)}, base)
    assert [page.number for page in caught.value.fresh] == [3]
    with pytest.raises(ConflictError):
        pages.commit({1: content(5, 1)}, base, reads=[2])
    pages.commit({1: content(5, 1)}, base)


def test_nothing_is_left_where_a_lease_has_ended(page_store: PageStore, pages: Pages, engine: Engine) -> None:
    base = pages.commit({1: content(1)}).version
    lease = page_store.lease(pages.id, 8, 60)
    number = lease.numbers[0]
    token, part = new_token(), pages.part({number: content(2, number)}, base)
    page_store.stage(pages.id, token, part.writes)
    page_store.release(pages.id, lease.id)
    staged = replace(part, writes=[], staged=PageRuns.of([number]), lease=lease.id)
    with pytest.raises(LeaseEndedError):
        page_store.commit(CommitRequest(token, base, (staged,), "", "normal"))
    assert left(engine) == []


def test_what_was_not_staged_so_is_refused(pages: Pages, engine: Engine) -> None:
    base = pages.version()
    part = pages.part({1: content(1), 2: content(2, 2)}, base)
    token = new_token()

    def commit(**changes: object) -> None:
        changed = replace(part, **({"writes": [], "staged": PageRuns.of([1, 2])} | changes))  # type: ignore[arg-type]
        pages.store.commit(CommitRequest(token, base, (changed,), "", "normal"))

    with pytest.raises(InvalidRequestError, match="never staged"):
        commit()
    pages.store.stage(pages.id, token, part.writes[:1])
    for changes in (
        {},
        {"staged": PageRuns.of([1]), "allocated": [1], "freed": []},
        {"staged": PageRuns.of([1]), "allocated": [], "freed": [1]},
    ):
        if changes.get("freed") != [] or not changes:
            with pytest.raises(InvalidRequestError):
                commit(**changes)
    pages.store.stage(pages.id, token, part.writes[1:])
    with pytest.raises(InvalidRequestError, match="twice"):
        commit(writes=part.writes[:1])
    with pytest.raises(InvalidRequestError, match="is not what it lists"):
        commit(staged=PageRuns.of([1]), allocated=[PageNumber(1)])
    with pytest.raises(InvalidRequestError, match="is not what it lists"):
        commit(freed=[PageNumber(2)], allocated=[PageNumber(1)])
    commit()
    with pytest.raises(InvalidRequestError, match="has happened"):
        pages.store.stage(pages.id, token, part.writes)
    assert pages.read(2) == content(2, 2)


def test_what_can_not_be_staged(pages: Pages) -> None:
    pages.commit({1: content(1)})
    write = pages.part({1: content(2)}, pages.version()).writes[0]
    token = new_token()
    assert pages.store.outcome(pages.id, token) is None
    with pytest.raises(VoidTokenError):
        pages.store.stage(pages.id, token, [write])
    for bad in (
        PageWrite(PageNumber(0), FREED),
        PageWrite(PageNumber(1), b"x"),
        PageWrite(PageNumber(1), b"\0" * 2000),
    ):
        with pytest.raises(InvalidRequestError):
            pages.store.stage(pages.id, new_token(), [bad])
    with pytest.raises(InvalidRequestError):
        pages.store.stage(pages.id, b"short", [write])
    pages.store.drop("main")
    with pytest.raises(NoSuchNamespaceError):
        pages.store.stage(pages.id, new_token(), [write])


def test_the_same_commit_again_is_not_done_again(pages: Pages, folded: bool) -> None:
    base, token = pages.version(), new_token()
    done = commit_staged(pages, {1: content(1)}, base=base, token=token)
    if folded:
        fold(pages)
    part = replace(pages.part({1: content(1)}, base), writes=[], staged=PageRuns.of([1]))
    again = pages.store.commit(CommitRequest(token, base, (part,), "", "normal"))
    assert again.version == done.version == pages.store.outcome(pages.id, token)


def test_what_is_never_committed_is_collected(
    pages: Pages, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, token = pages.version(), new_token()
    part = pages.part({n: content(1, n) for n in range(1, 30)}, base)
    pages.store.stage(pages.id, token, part.writes)
    staging.collect(engine, pages.id, 5.0)
    assert len(left(engine)) == 29 + 2
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + int((staging.STAGE_SECONDS + 1) * 1e9))
    pages.store.stage(pages.id, new_token(), part.writes[:1])
    assert len(left(engine)) == 1 + 2
    part = replace(part, writes=[], staged=PageRuns.of(range(1, 30)))
    with pytest.raises(InvalidRequestError, match="collected"):
        pages.store.commit(CommitRequest(token, base, (part,), "", "normal"))


def test_drop_leaves_nothing(pages: Pages, engine: Engine, folded: bool) -> None:
    commit_staged(pages, {n: content(1, n) for n in range(1, 30)})
    pages.store.stage(pages.id, new_token(), pages.part({1: content(2)}, pages.version()).writes)
    if folded:
        fold(pages)
    pages.store.drop("main", now=True)
    rows = engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xf0"))))
    assert [key[:1] for key, _ in rows] == [b"c", b"f"]


@pytest.mark.parametrize(
    ("page_size", "count"),
    [(512, 2600), pytest.param(512, 26_000, marks=pytest.mark.long), (65536, 40)],
    ids=["512", "512, really long", "65536"],
)
def test_long_records_and_large_pages(
    page_store: PageStore,
    engine: Engine,
    folded: bool,
    page_size: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if count == 2600:  # a tenth of the pages, and of each number half the bytes
        monkeypatch.setattr(changelog, "MAX_RECORD", changelog.MAX_RECORD // 20)
        monkeypatch.setattr(snapshot, "MAX_CHANGE_BYTES", snapshot.MAX_CHANGE_BYTES // 20)
    pages = Pages(page_store, page_store.create("large").id, page_size)
    first = pages.commit({1: content(0, 1, page_size)}).version
    token, scattered = new_token(), [PageNumber(3 * n + 2) for n in range(count)]
    blob = pages.part({2: content(7, 2, page_size)}, first).writes[0].blob
    page_store.stage(pages.id, token, [PageWrite(number, blob) for number in scattered])
    part = replace(
        pages.part({}, first), reads=PageSet.of([1]), staged=PageRuns.of(scattered), allocated=scattered
    )
    done = page_store.commit(CommitRequest(token, first, (part,), "many", "normal"))
    head = engine.read(lambda tx: list(tx.scan(KeyRange(*keys.log(pages.id, first, done.version)))))[0][1]
    assert (changelog.size_of(head) > changelog.MAX_RECORD) == (page_size == 512) == (len(head) < 100)
    if folded:
        fold(pages)
    (change,) = page_store.changelog(pages.id, after=first)
    assert (change.pages, change.allocated, change.message) == (tuple(scattered), tuple(scattered), "many")
    assert (page_store.begin(pages.id, first).changes is None) == (page_size == 512)
    assert page_store.allocation(pages.id, done.version).highest == scattered[-1]
    assert pages.read(2) == content(7, 2, page_size)
    with pytest.raises(ConflictError):
        pages.commit({scattered[9]: None}, first)
    pages.commit({1: content(1, 1, page_size)}, first, reads=[3])
    if page_size == 512:
        page_store.drop("large", now=True)
        assert engine.read(lambda tx: list(tx.scan(KeyRange(b"m", b"n")))) == []


def test_a_dropped_database_comes_back_whole(pages: Pages, folded: bool) -> None:
    commit_staged(pages, {n: content(1, n) for n in range(1, 30)})
    pages.store.drop("main")
    pages.store.undrop(pages.id, "again")
    assert pages.read(29) == content(1, 29)
    fold(pages)
    assert pages.read(29) == content(1, 29)


def test_branches_of_what_is_not_folded_in(pages: Pages, engine: Engine, folded: bool) -> None:
    version = commit_staged(pages, {n: content(1, n) for n in range(1, 30)}).version
    branch = Pages(pages.store, pages.store.branch(pages.id, "branch", version).id)
    commit_staged(branch, {2: content(2, 2), 3: None})
    commit_staged(pages, {1: content(3, 1), 2: content(3, 2)})
    if folded:
        fold(pages)
        fold(branch)
    assert [branch.read(n) for n in (1, 2, 3, 29)] == [content(1, 1), content(2, 2), None, content(1, 29)]
    assert [pages.read(n) for n in (1, 2, 3)] == [content(3, 1), content(3, 2), content(1, 3)]
    engine.read(lambda tx: verify.verify(tx, lambda _done, _all: None))


def test_retention_of_large_commits(
    pages: Pages, engine: Engine, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "MAX_RECORD", 100)
    pages.store.set_retention(pages.id, Retention(0.0))
    for n in range(4):
        commit_staged(pages, {page: content(n, page) for page in range(1, 100)})
    last = pages.commit({1: content(9)}).version
    if folded:
        fold(pages)
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0.0)
    assert pages.store.collect(pages.id).complete
    assert left(engine) == []
    assert pages.store.open("main").horizon == last
    assert [pages.read(1), pages.read(99)] == [content(9), content(3, 99)]
    assert engine.read(lambda tx: list(tx.scan(KeyRange(b"m", b"n")))) == []
    engine.read(lambda tx: verify.verify(tx, lambda _done, _all: None))


def test_a_commit_that_is_too_large_is_staged_by_the_store(
    page_store: PageStore, pages: Pages, engine: Engine, folded: bool
) -> None:
    page_store.max_commit_bytes = 5000
    first = pages.commit({1: content(0), 2: content(0, 2)}).version
    request = replace(
        pages.request({n: content(1, n) for n in range(1, 100)}), message="large", durability="full"
    )
    done = page_store.commit(request)
    assert len(left(engine)) > 99
    if folded:
        fold(pages)
    assert page_store.commit(request).version == done.version
    assert [pages.read(n) for n in (1, 99)] == [content(1, 1), content(1, 99)]
    reverted = page_store.revert(pages.id, first)
    assert [pages.read(n) for n in (2, 99)] == [content(0, 2), None]
    assert page_store.allocation(pages.id, reverted.version).highest == 2


def test_two_who_fold_at_once(pages: Pages, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk.Folder, "fold", lambda _self, _id: None)
    monkeypatch.setattr(bulk, "FOLD_BYTES", 2000)
    commit_staged(pages, {n: content(1, n) for n in range(1, 200)})
    engines = [open_engine() for _ in range(3)]
    threads = [threading.Thread(target=bulk.fold, args=(engine, pages.id, 20.0)) for engine in engines]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert [pages.read(n) for n in (1, 100, 199)] == [content(1, n) for n in (1, 100, 199)]
    assert left(engines[0]) == []
    assert [pages.read(n) for n in range(1, 200)] == [content(1, n) for n in range(1, 200)]


def test_who_committed_folds_in_behind(pages: Pages, engine: Engine) -> None:
    commit_staged(pages, {n: content(1, n) for n in range(1, 30)})
    assert isinstance(pages.store, PageStore)
    pages.store.settle()
    assert left(engine) == []
    assert pages.read(29) == content(1, 29)
    assert "pagestore-fold" not in [thread.name for thread in threading.enumerate()]


def test_what_was_left_is_folded_in_by_who_finds_it(
    pages: Pages, engine: Engine, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bulk.Folder, "fold", lambda _self, _id: None)
        commit_staged(pages, {1: content(1)})
    other = PageStore(open_engine(), "test:", 5.0)
    assert Pages(other, pages.id).read(1) == content(1)
    other.settle()
    assert left(engine) != []
    monkeypatch.setattr(bulk, "LEFT_SECONDS", 0.0)
    assert Pages(other, pages.id).read(1) == content(1)
    other.settle()
    assert left(engine) == []


def test_not_too_many_wait(pages: Pages, folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_BULKS", 3)
    for n in range(3):
        commit_staged(pages, {1: content(n)})
    if folded:
        fold(pages)
        commit_staged(pages, {1: content(3)})
        return
    with pytest.raises(StoreUnavailableError, match="still being folded"):
        commit_staged(pages, {1: content(3)})
    assert pages.read(1) == content(2)
