"""Copies of databases with their history, between engines."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

import mvvfs
from mvvfs import copying
from mvvfs.copying import copy_database
from mvvfs.errors import CopyError
from mvvfs.when import format_time
from pagestore.api import (
    Change,
    CommitRequest,
    ConflictError,
    InvalidRequestError,
    NameTakenError,
    Retention,
    Store,
    format_version,
    new_token,
)
from pagestore.opener import open_store
from tests.pages import Pages, content


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture(params=["folder", "memory"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "other") if request.param == "folder" else f"memory:{tmp_path}"


def fill(store: str, rounds: int = 6) -> None:
    """A history with growth, updates, frees and freed pages used again."""
    connection = mvvfs.connect("app", store=store, page_size=1024)
    connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, x)")
    for i in range(rounds):
        connection.pragma("mv_message", f"round {i}")
        connection.execute(
            "WITH n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i < 60) "
            "INSERT INTO t(x) SELECT randomblob(200) FROM n"
        )
        connection.execute("UPDATE t SET x = zeroblob(10) WHERE i % 7 = 0")
        connection.execute("DELETE FROM t WHERE i <= ?", (i * 40,))
    connection.close()


def changes(store: str) -> list[Change]:
    opened = open_store(store, create=False)
    try:
        return list(opened.changelog(opened.open("app").id))
    finally:
        opened.close()


def rows(store: str, at: str) -> list[object]:
    connection = mvvfs.connect("app", store=store, at=at)
    try:
        assert connection.pragma("integrity_check") == "ok"
        return connection.execute("SELECT * FROM t").fetchall()
    finally:
        connection.close()


def assert_same(store: str, other: str) -> None:
    ours, theirs = changes(store), changes(other)
    assert [c.token for c in ours] == [c.token for c in theirs]
    for mine, copied in zip(ours, theirs, strict=True):
        assert (mine.time_us, mine.message, mine.pages) == (copied.time_us, copied.message, copied.pages)
        assert (mine.allocated, mine.freed) == (copied.allocated, copied.freed)
        assert rows(store, format_version(mine.version)) == rows(other, format_version(copied.version))


def test_every_version_is_there_as_it_was(store, other):
    fill(store)
    copied = copy_database("app", "app", store=store, new_store=other)
    assert copied.commits == len(changes(store))
    assert copied.resumed == 0
    assert_same(store, other)


def test_a_time_means_the_same_version(store, other):
    fill(store)
    copy_database("app", "app", store=store, new_store=other)
    for change in changes(store):
        time = format_time(change.time_us)
        assert rows(store, time) == rows(other, time)


def test_the_copy_can_be_written(store, other):
    fill(store)
    copy_database("app", "app", store=store, new_store=other)
    connection = mvvfs.connect("app", store=other)
    connection.execute("INSERT INTO t(x) VALUES (1)")
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


class Interrupt:
    """Progress that stops after so many commits."""

    def __init__(self, after: int) -> None:
        self._after = after

    def __call__(self, done: int, total: int) -> None:
        if done == self._after:
            raise KeyboardInterrupt


def test_goes_on_where_it_was_interrupted(store, other):
    fill(store)
    with pytest.raises(KeyboardInterrupt):
        copy_database("app", "app", store=store, new_store=other, progress=Interrupt(7))
    copied = copy_database("app", "app", store=store, new_store=other)
    assert copied.resumed == 7
    assert copied.commits == len(changes(store)) - 7
    assert_same(store, other)


def test_again_fetches_what_is_new(store, other):
    fill(store, 2)
    copy_database("app", "app", store=store, new_store=other)
    assert copy_database("app", "app", store=store, new_store=other).commits == 0
    connection = mvvfs.connect("app", store=store)
    connection.execute("INSERT INTO t(x) VALUES ('new')")
    connection.close()
    assert copy_database("app", "app", store=store, new_store=other).commits == 1
    assert_same(store, other)


def test_progress_counts_commits(store, other):
    fill(store, 2)
    seen: list[tuple[int, int]] = []
    copy_database("app", "app", store=store, new_store=other, progress=lambda *step: seen.append(step))
    total = len(changes(store))
    assert seen == [(i, total) for i in range(1, total + 1)]


def test_what_is_there_and_is_something_else_stays(store, other):
    fill(store, 2)
    connection = mvvfs.connect("app", store=other)
    connection.execute("CREATE TABLE precious(x)")
    connection.close()
    before = changes(other)
    with pytest.raises(CopyError, match="no beginning of this history"):
        copy_database("app", "app", store=store, new_store=other)
    assert changes(other) == before


def test_who_wrote_to_the_copy_is_not_overwritten(store, other):
    fill(store, 2)
    copy_database("app", "app", store=store, new_store=other)
    connection = mvvfs.connect("app", store=other)
    connection.execute("INSERT INTO t(x) VALUES ('ours')")
    connection.close()
    with pytest.raises(CopyError, match="no beginning"):
        copy_database("app", "app", store=store, new_store=other)


def test_who_writes_to_the_copy_meanwhile_is_told_of(store, other):
    fill(store, 3)

    def write(done: int, _total: int) -> None:
        if done == 4:
            connection = mvvfs.connect("app", store=other)
            connection.execute("INSERT INTO t(x) VALUES ('ours')")
            connection.close()

    with pytest.raises((CopyError, ConflictError), match=r"somebody else|changed by"):
        copy_database("app", "app", store=store, new_store=other, progress=write)


def test_an_empty_database(store, other):
    mvvfs.connect("app", store=store).close()
    copied = copy_database("app", "app", store=store, new_store=other)
    assert (copied.commits, copied.newest) == (0, None)


def test_not_onto_itself(store):
    fill(store, 1)
    with pytest.raises(NameTakenError):
        copy_database("app", "app", store=store, new_store=store)


def test_within_one_store(store):
    fill(store, 2)
    copied = copy_database("app", "copy", store=store, new_store=store)
    assert copied.commits == len(changes(store))


def test_few_contents_in_hand(store, other, monkeypatch):
    monkeypatch.setattr(copying, "_KEPT_BYTES", 3000)
    monkeypatch.setattr(copying, "_PAGES_AT_ONCE", 2)
    fill(store)
    copy_database("app", "app", store=store, new_store=other)
    assert_same(store, other)


class Corrupting:
    """A store one of whose pages comes back as another one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read(self, namespace, version, numbers):
        pages = self._store.read(namespace, version, numbers)
        return [None if page and page.number == 2 else page for page in pages]


def test_a_copy_that_differs_is_an_error(store, other, monkeypatch):
    fill(store, 2)
    opened = copying.opened

    @contextmanager
    def corrupted(location, *, create=False):
        with opened(location, create=create) as found:
            yield Corrupting(found) if create else found

    monkeypatch.setattr(copying, "opened", corrupted)
    with pytest.raises(CopyError, match="differs"):
        copy_database("app", "app", store=store, new_store=other)


# ---- the store's part: times that are given ----


@pytest.fixture
def pages(other: str):
    opened = open_store(other, create=True)
    yield Pages(opened, opened.create("main").id)
    opened.close()


def commit_at(pages: Pages, time_us: int, seed: int):
    request = pages.request({1: content(seed)})
    request = CommitRequest(new_token(), request.base, request.parts, time_us=time_us)
    return pages.store.commit(request)


def test_times_are_recorded_as_given(pages):
    pages.store.set_retention(pages.id, Retention(None))  # or a commit may let go of such old times
    times = [1_000_000, 1_000_000, 5_000_000]
    pages.store.set_retention(pages.id, Retention(None, None))  # a commit may look after retention
    made = [commit_at(pages, time_us, seed) for seed, time_us in enumerate(times)]
    assert [change.time_us for change in pages.store.changelog(pages.id)] == times
    assert pages.store.version_at(pages.id, 4_000_000) == made[1].version
    later = pages.commit({1: content("now")})
    assert later.time_us > 1_000_000_000_000


@pytest.mark.parametrize("time_us", [999_999, 1 << 62])
def test_times_that_go_back_or_are_to_come_are_refused(pages, time_us):
    commit_at(pages, 1_000_000, 1)
    with pytest.raises(InvalidRequestError, match="the time of a commit"):
        commit_at(pages, time_us, 2)
    assert pages.read(1) == content(1)
