"""Following a namespace, on every engine."""

import threading
import time

import pytest

from pagestore.api import NoSuchNamespaceError, Version
from pagestore.store import PageStore
from tests.engines.conftest import OpenEngine
from tests.pages import Pages, content


def test_an_answer_at_once_and_heartbeats(pages):
    version = pages.version()
    watch = pages.store.watch(pages.id, version, heartbeat=0.05)
    started = time.monotonic()
    for _ in range(1 + 4):
        watched = next(watch)
        assert (watched.version, watched.changes) == (version, ())
    assert 4 * 0.05 <= time.monotonic() - started < 4 * 5  # which is the pace if none is asked for
    watch.close()


def test_commits_in_order_and_each_once(pages):
    start = pages.version()
    watch = pages.store.watch(pages.id, start, heartbeat=30)
    next(watch)
    commits = [pages.commit({1: content(n)}, message=str(n)).version for n in range(3)]
    told = []
    while len(told) < 3:
        watched = next(watch)
        told += watched.changes
        assert watched.version == told[-1].version
    assert [(change.version, change.message) for change in told] == list(zip(commits, "012", strict=True))


def test_what_came_before_is_told_first(pages):
    start = pages.version()
    commit = pages.commit({1: content(1)})
    watched = next(pages.store.watch(pages.id, start))
    assert [change.version for change in watched.changes] == [commit.version] == [watched.version]


def test_who_knows_nothing_has_to_forget(pages):
    for n in range(3):
        pages.commit({n + 1: content(n)})
    far = Version(bytes(10))
    watched = next(pages.store.watch(pages.id, far))
    assert watched.version == pages.version()


def test_close_ends_a_wait(pages):
    watch = pages.store.watch(pages.id, pages.version(), heartbeat=60)
    next(watch)
    timer = threading.Timer(0.05, watch.close)
    timer.start()
    assert list(watch) == []
    timer.join()


def test_a_drop_ends_it(page_store):
    dropped = page_store.create("dropped")
    watch = page_store.watch(dropped.id, page_store.begin(dropped.id).version, heartbeat=60)
    next(watch)
    page_store.drop("dropped")
    with pytest.raises(NoSuchNamespaceError):
        next(watch)


def test_commits_made_elsewhere(open_engine: OpenEngine):
    """By another opener: another process, as far as the engine can tell."""
    ours, theirs = (PageStore(open_engine(), "test:", 5.0) for _ in range(2))
    pages = Pages(theirs, theirs.create("main").id)
    watch = ours.watch(pages.id, pages.version(), heartbeat=30)
    next(watch)
    timer = threading.Timer(0.05, pages.commit, [{1: content(1)}])
    timer.start()
    (change,) = next(watch).changes
    timer.join()
    assert change.version == pages.version()
    theirs.close()
    ours.close()


def test_idle_watches_take_no_threads(pages):
    before = threading.active_count()
    watches = [pages.store.watch(pages.id, pages.version()) for _ in range(50)]
    for watch in watches:
        next(watch)
    assert threading.active_count() == before
