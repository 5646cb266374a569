"""What every store promises (pagestore/api.py), rule by rule, over every engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pagestore import snapshot
from pagestore.api import (
    ZERO_VERSION,
    BelowHorizonError,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    InvalidNameError,
    InvalidRequestError,
    LimitError,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchVersionError,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    Version,
    VoidTokenError,
    new_token,
)
from pagestore.commit import MAX_CHECKED, MAX_FRESH
from pagestore.encoding import FREED, decode, encode
from pagestore.faults import armed
from pagestore.store import PageStore
from tests.engines.conftest import OpenEngine
from tests.pages import Pages, content

FUTURE = Version(b"\xfe" * 10)
ODD_NAMES = [
    "main", " ", ".", "..", "a/b", "a\\b", "new\nline", "quote'\"", "%00", "ünïcödé", "データベース", "🐘",
    "x" * 1024, "-", "--yes", "*?[]", "e\u0301", "\u00e9", "A", "a",
]  # fmt: skip


# ---- namespaces ----


def test_names(page_store: PageStore) -> None:
    for name in ODD_NAMES:
        assert page_store.create(name).name == name
    assert [namespace.name for namespace in page_store.list()] == sorted(ODD_NAMES)
    assert len({namespace.id for namespace in page_store.list()}) == len(ODD_NAMES)
    for name in ODD_NAMES:
        assert page_store.open(name) in page_store.list()


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "x" * 1025, "é" * 513, "\ud800"])
def test_names_that_none_can_have(page_store: PageStore, name: str) -> None:
    actions: list[Callable[[str], object]] = [page_store.create, page_store.open, page_store.drop]
    for action in actions:
        with pytest.raises(InvalidNameError):
            action(name)


def test_a_name_is_taken_once(page_store: PageStore) -> None:
    first = page_store.create("a")
    with pytest.raises(NameTakenError):
        page_store.create("a")
    assert page_store.open("a") == first


def test_rename(page_store: PageStore) -> None:
    first, second = page_store.create("a"), page_store.create("b")
    with pytest.raises(NameTakenError):
        page_store.rename("a", "b")
    with pytest.raises(NoSuchNamespaceError):
        page_store.rename("c", "d")
    assert page_store.rename("a", "c").id == first.id
    assert page_store.rename("c", "c").id == first.id
    with pytest.raises(NoSuchNamespaceError):
        page_store.open("a")
    assert {n.name: n.id for n in page_store.list()} == {"b": second.id, "c": first.id}


def test_drop(page_store: PageStore, pages: Pages) -> None:
    version = pages.commit({1: content(1)}).version
    page_store.drop("main")
    assert page_store.list() == []
    for use in (
        lambda: page_store.drop("main"),
        lambda: page_store.open("main"),
        lambda: page_store.begin(pages.id),
        lambda: page_store.begin(pages.id, version),
        lambda: page_store.read(pages.id, version, [PageNumber(1)]),
        lambda: page_store.commit(
            CommitRequest(
                new_token(),
                version,
                [CommitPart(pages.id, PageSet(), [PageWrite(PageNumber(1), FREED)], 512)],
            )
        ),
        lambda: page_store.outcome(pages.id, new_token()),
        lambda: page_store.changelog(pages.id),
        lambda: page_store.version_at(pages.id, 0),
        lambda: page_store.usage(pages.id),
    ):
        with pytest.raises(NoSuchNamespaceError):
            use()
    again = page_store.create("main")
    assert again.id != pages.id
    assert page_store.read(again.id, page_store.begin(again.id).version, [PageNumber(1)]) == [None]


def test_drop_leaves_nothing_but_other_namespaces(page_store: PageStore, pages: Pages) -> None:
    from pagestore.engines.base import KeyRange

    def everything() -> list[tuple[bytes, bytes]]:
        rows = page_store.engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xff"))))
        return [row for row in rows if not row[0].startswith(b"c")]  # ids are never given out again

    pages.commit({1: content(1)})
    before = everything()
    other = Pages(page_store, page_store.create("other").id)
    for step in range(20):
        other.commit({number: content(step, number) for number in range(1, 200)})
    page_store.drop("other", now=True)
    assert everything() == before


def test_page_size(page_store: PageStore) -> None:
    for wrong in (1, 511, 513, 1000, 131072, -512):
        with pytest.raises(ValueError, match="power of two"):
            page_store.create("wrong", page_size=wrong)
    fixed = Pages(page_store, page_store.create("fixed", page_size=1024).id, 512)
    assert page_store.begin(fixed.id).page_size == 1024
    with pytest.raises(InvalidRequestError, match="1024 bytes, not 512"):
        fixed.commit({1: content(1)})
    for size in (512, 4096, 65536):
        pages = Pages(page_store, page_store.create(f"open {size}").id, size)
        assert page_store.begin(pages.id).page_size == 0
        pages.commit({1: content(1, 1, size), 2: content(2, 2, size)})
        assert page_store.begin(pages.id).page_size == size
        assert page_store.open(f"open {size}").page_size == size
        assert pages.read(1) == content(1, 1, size)
        assert pages.read(2) == content(2, 2, size)


# ---- snapshots ----


def test_an_empty_namespace(page_store: PageStore, pages: Pages) -> None:
    start = page_store.begin(pages.id)
    assert (start.changes, start.page_size) == (None, 0)
    assert start.version >= page_store.open("main").horizon
    assert page_store.read(pages.id, start.version, [PageNumber(2), PageNumber(1)]) == [None, None]
    assert page_store.begin(pages.id, start.version).changes == ()
    assert list(page_store.changelog(pages.id)) == []
    with pytest.raises(NoSuchVersionError):
        page_store.version_at(pages.id, time.time_ns() // 1000)


def test_every_version_of_every_page(page_store: PageStore, pages: Pages) -> None:
    history: dict[Version, dict[int, bytes | None]] = {pages.version(): {}}
    state: dict[int, bytes | None] = {}
    for step in range(60):  # past the longest chain of deltas
        change: dict[int, bytes | None] = {
            1: bytes([step]) * 8 + content("same", 1)[8:],
            2 + step % 7: content(step),
        }
        if step % 5 == 4:
            change[2 + step % 7] = None
        state = state | change
        history[pages.commit(change).version] = state
    for version, expected in history.items():
        numbers = [PageNumber(number) for number in (7, 1, 2, 3, 4, 5, 6, 8, 99)]
        found = page_store.read(pages.id, version, numbers)
        assert [page and decode(page, 512) for page in found] == [expected.get(number) for number in numbers]
        assert all(page is None or page.version <= version for page in found)


def test_pages_come_in_the_order_asked_also_twice(page_store: PageStore, pages: Pages) -> None:
    version = pages.commit({n: content(n) for n in (1, 2, 3)}).version
    found = page_store.read(pages.id, version, [PageNumber(n) for n in (3, 9, 1, 3)])
    assert [page and page.number for page in found] == [3, None, 1, 3]
    assert page_store.read(pages.id, version, []) == []


def test_begin_tells_what_changed(page_store: PageStore, pages: Pages) -> None:
    versions = [pages.commit({n: content(n), 9: content(n)}).version for n in (1, 2, 3)]
    start = page_store.begin(pages.id, versions[0])
    assert start.version == versions[2]
    assert start.changes is not None
    assert [(c.version, c.pages) for c in start.changes] == [(versions[1], (2, 9)), (versions[2], (3, 9))]
    assert page_store.begin(pages.id, versions[2]).changes == ()
    assert page_store.begin(pages.id).changes is None
    past = page_store.begin(pages.id, versions[0], at=versions[1])
    assert past.version == versions[1]
    assert past.changes == start.changes[:1]
    assert page_store.begin(pages.id, versions[2], at=versions[1]).changes is None
    assert page_store.begin(pages.id, at=versions[1]).version == versions[1]


def test_a_later_version_of_the_store_holds(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    other = Pages(page_store, page_store.create("other").id)
    later = other.commit({1: content(1)}).version
    start = page_store.begin(pages.id, later)
    assert (start.version, start.changes) == (later, ())
    assert pages.commit({1: content(2)}, base=later).others == ((),)


def test_versions_that_do_not_exist(page_store: PageStore, pages: Pages) -> None:
    before = page_store.open("main").horizon
    pages.commit({1: content(1)})
    for use in (
        lambda: page_store.begin(pages.id, FUTURE),
        lambda: page_store.begin(pages.id, at=FUTURE),
        lambda: page_store.begin(pages.id, at=ZERO_VERSION),
        lambda: page_store.read(pages.id, ZERO_VERSION, [PageNumber(1)]),
    ):
        with pytest.raises(NoSuchVersionError):
            use()
    with pytest.raises(InvalidRequestError, match="future"):
        pages.store.commit(
            CommitRequest(new_token(), FUTURE, [CommitPart(pages.id, PageSet.of([1]), [], 512)])
        )
    assert page_store.begin(pages.id, at=before).version == before


def test_too_many_changes_are_not_listed(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = pages.version()
    versions = [pages.commit({n: content(n) for n in range(1, 11)}).version for _ in range(6)]
    monkeypatch.setattr(snapshot, "MAX_CHANGES", 5)
    assert page_store.begin(pages.id, start).changes is None
    assert page_store.begin(pages.id, start).version == versions[-1]
    assert len(page_store.begin(pages.id, versions[0]).changes or ()) == 5
    assert page_store.begin(pages.id, start, at=versions[-1]).changes is None
    monkeypatch.setattr(snapshot, "MAX_CHANGE_BYTES", 3 * 35)
    assert page_store.begin(pages.id, versions[0]).changes is None
    assert len(page_store.begin(pages.id, versions[2]).changes or ()) == 3


def test_below_the_horizon(page_store: PageStore, pages: Pages) -> None:
    from dataclasses import replace

    from pagestore import keys, namespaces

    old = pages.commit({1: content(1)})
    new = pages.commit({1: content(2)})
    record = page_store.engine.read(lambda tx: namespaces.find(tx, pages.id))
    raised = replace(record, horizon=new.version).pack()
    page_store.engine.transact(lambda tx: tx.set(keys.namespace(pages.id), raised))
    for use in (
        lambda: page_store.begin(pages.id, at=old.version),
        lambda: pages.read(1, old.version),
        lambda: page_store.version_at(pages.id, old.time_us),
        lambda: page_store.commit(
            CommitRequest(new_token(), old.version, [CommitPart(pages.id, PageSet.of([5]), [], 512)])
        ),
    ):
        with pytest.raises(BelowHorizonError, match="the oldest readable one is v0") as caught:
            use()
        assert caught.value.horizon == new.version
    assert pages.read(1) == content(2)


# ---- commit ----


def test_disjoint_commits_from_one_base_both_go_through(pages: Pages) -> None:
    base = pages.commit({1: content(1), 2: content(2)}).version
    first = pages.commit({1: content(3)}, base)
    second = pages.commit({2: content(4)}, base, message="second")
    assert base < first.version < second.version
    assert [change.version for change in second.others[0]] == [first.version]
    assert (pages.read(1), pages.read(2)) == (content(3), content(4))


@pytest.mark.parametrize(("reads", "writes"), [([1], [5]), ([1, 5], [5]), ([], [1]), ([7], [5]), ([9], [5])])
def test_what_was_read_or_written_must_not_have_changed(
    pages: Pages, reads: list[int], writes: list[int]
) -> None:
    """Blind writes count as reads; so do pages that did not exist (9) or were freed (7)."""
    base = pages.commit({n: content(n) for n in (1, 2, 7)}).version
    winner = pages.commit({1: content("new"), 7: None, 9: content("new")}, base).version
    with pytest.raises(ConflictError) as caught:
        pages.commit({n: content("lost") for n in writes}, base, reads)
    (page,) = {*reads, *writes} - {5}
    assert (caught.value.namespace, caught.value.pages, caught.value.version) == (pages.id, (page,), winner)
    assert [p.number for p in caught.value.fresh] == ([] if page == 7 else [page])
    assert pages.read(5) is None
    pages.commit({n: content("again") for n in writes}, winner, reads)


def test_a_conflict_brings_the_new_content(pages: Pages) -> None:
    base = pages.commit({n: content(n) for n in range(1, 30)}).version
    pages.commit({3: content("a")}, base)
    newest = pages.commit({n: content("b") for n in range(2, 25)}).version
    pages.commit({29: content("unrelated")})
    with pytest.raises(ConflictError, match=r"23 page\(s\) changed by v") as caught:
        pages.commit({50: content("lost")}, base, range(1, 28))
    conflict = caught.value
    assert conflict.version == newest
    assert conflict.pages == tuple(range(2, 25))
    assert len(conflict.fresh) == MAX_FRESH
    assert all(decode(page, 512) == content("b", 1) for page in conflict.fresh)


@pytest.mark.long_on_cluster
def test_far_behind(pages: Pages) -> None:
    base = pages.commit({1: content(1), 2: content(2)}).version
    versions = [pages.commit({1: content(n)}).version for n in range(2 * MAX_CHECKED + 5)]
    late = pages.commit({2: content("late")}, base)
    assert [change.version for change in late.others[0]] == versions
    with pytest.raises(ConflictError) as caught:
        pages.commit({3: content("late")}, base, reads=[1])
    assert caught.value.version == versions[-1]


def test_racing_first_commits(page_store: PageStore, pages: Pages) -> None:
    base = pages.version()
    larger = Pages(page_store, pages.id, 1024)
    pages.commit({1: content(1)}, base)
    with pytest.raises(ConflictError):
        larger.commit({1: content(1, 1, 1024)}, base)
    assert page_store.begin(pages.id).page_size == 512


def test_a_token_commits_once(page_store: PageStore, pages: Pages) -> None:
    token = new_token()
    base = pages.version()
    first = pages.commit({1: content(1)}, base, token=token)
    other = pages.commit({1: content(2)})
    again = pages.commit({1: content(1)}, base, token=token)
    assert (again.version, again.time_us) == (first.version, first.time_us)
    assert pages.read(1) == content(2)
    assert [change.version for change in page_store.changelog(pages.id)] == [first.version, other.version]
    assert page_store.outcome(pages.id, token) == first.version


def test_outcome_settles_for_good(page_store: PageStore, pages: Pages) -> None:
    token = new_token()
    assert page_store.outcome(pages.id, token) is None
    assert page_store.outcome(pages.id, token) is None
    with pytest.raises(VoidTokenError):
        pages.commit({1: content(1)}, token=token)
    assert pages.read(1) is None
    with pytest.raises(InvalidRequestError):
        page_store.outcome(pages.id, b"short")


def test_several_namespaces_commit_together(page_store: PageStore, pages: Pages) -> None:
    other = Pages(page_store, page_store.create("other").id, 1024)
    base = other.version()
    parts = (
        pages.part({1: content(1)}, base),
        other.part({1: content(2, 1, 1024), 2: content(3, 2, 1024)}, base),
    )
    token = new_token()
    done = page_store.commit(CommitRequest(token, base, parts, "both"))
    assert done.others == ((), ())
    for one in (pages, other):
        (change,) = page_store.changelog(one.id)
        assert (change.version, change.message, change.token) == (done.version, "both", token)
        assert page_store.outcome(one.id, token) == done.version
    stale = (pages.part({2: content(1)}, base), CommitPart(other.id, PageSet.of([1]), [], 1024))
    with pytest.raises(ConflictError) as caught:
        page_store.commit(CommitRequest(new_token(), base, stale))
    assert (caught.value.namespace, caught.value.pages) == (other.id, (1,))
    assert pages.read(2) is None
    fresh = (pages.part({2: content(1)}, done.version), CommitPart(other.id, PageSet.of([1]), [], 1024))
    page_store.commit(CommitRequest(new_token(), done.version, fresh))
    assert len(list(page_store.changelog(other.id))) == 1  # only read


def _write(number: int, blob: bytes) -> PageWrite:
    return PageWrite(PageNumber(number), blob)


def test_requests_that_make_no_sense(page_store: PageStore, pages: Pages) -> None:
    base = pages.version()
    blob = encode(PageNumber(1), bytes(512), None, moves=True).blob

    def part(*writes: PageWrite, page_size: int = 512) -> CommitPart:
        return CommitPart(pages.id, PageSet(), writes, page_size)

    good = part(_write(1, blob))
    for request in (
        CommitRequest(b"short", base, [good]),
        CommitRequest(new_token(), Version(b"short"), [good]),
        CommitRequest(new_token(), base, []),
        CommitRequest(new_token(), base, [good, good]),
        CommitRequest(new_token(), base, [part(_write(1, blob), _write(1, blob))]),
        CommitRequest(new_token(), base, [part(_write(-1, blob))]),
        CommitRequest(new_token(), base, [part(_write(2**32 - 1, blob))]),
        CommitRequest(new_token(), base, [part(_write(1, b""))]),
        CommitRequest(new_token(), base, [part(_write(1, bytes(600)))]),
        CommitRequest(new_token(), base, [part(_write(0, FREED))]),
        CommitRequest(new_token(), base, [part(_write(1, blob), page_size=500)]),
    ):
        with pytest.raises(InvalidRequestError):
            page_store.commit(request)
    with pytest.raises(LimitError):
        page_store.commit(CommitRequest(new_token(), base, [good], message="x" * 4097))
    nowhere = CommitPart(NamespaceId(1 << 40), PageSet(), [_write(1, blob)], 512)
    with pytest.raises(NoSuchNamespaceError):
        page_store.commit(CommitRequest(new_token(), base, [nowhere]))
    assert pages.version() == base


def test_writers_of_many_threads_lose_no_update(open_engine: OpenEngine) -> None:
    stores = [PageStore(open_engine(), "test:", 10.0) for _ in range(2)]
    id_ = stores[0].create("main").id
    Pages(stores[0], id_).commit({1: bytes(512)})
    conflicts = []

    def add(store: Store) -> None:
        mine = Pages(store, id_)
        for _ in range(20):
            while True:
                base = mine.version()
                before = mine.read(1, base)
                assert before is not None
                number = int.from_bytes(before[:8], "big") + 1
                try:
                    mine.commit({1: number.to_bytes(8, "big") + before[8:]}, base)
                    break
                except ConflictError as conflict:
                    conflicts.append(conflict)

    threads = [threading.Thread(target=add, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = Pages(stores[0], id_).read(1)
    assert final is not None
    assert int.from_bytes(final[:8], "big") == 80
    for store in stores:
        store.close()


# ---- the store itself ----


def test_closing_twice_does_no_harm(page_store: PageStore) -> None:
    page_store.close()
    page_store.close()


def test_a_store_tells_itself_from_others(page_store: PageStore) -> None:
    assert len(page_store.store_id()) == 16
    assert page_store.store_id() == page_store.store_id()


def test_others_are_complete(pages: Pages, open_engine: OpenEngine) -> None:
    """Also where somebody commits after this commit's snapshot, and before itself."""
    if not pages.store.engine.transact(lambda tx: tx.optimistic).value:  # type: ignore[attr-defined]
        pytest.skip("nobody can: commits wait for each other")
    base = pages.commit({1: content(1), 2: content(1, 2)}).version
    others = Pages(PageStore(open_engine(), "test:", 5.0), pages.id)
    before = others.commit({2: content(2, 2)})
    between: list[Committed] = []
    with armed("commit.written", lambda: between.append(others.commit({2: content(3, 2)}))):
        done = pages.commit({1: content(2)}, base)
    assert before.version < between[0].version < done.version
    assert [change.version for change in done.others[0]] == [before.version, between[0].version]
    assert done.others[0].packed.count(before.version) == 1


def test_incarnations(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: content(1)})
    store_id = page_store.store_id()
    assert page_store.incarnation() == 0
    assert not page_store.renew(only_if_copied=True)
    assert page_store.incarnation() == 0
    assert page_store.renew()
    first = page_store.incarnation()
    assert page_store.renew()
    assert len({0, first, page_store.incarnation()}) == 3
    assert page_store.store_id() == store_id
    assert pages.read(1, pages.version()) == content(1)
