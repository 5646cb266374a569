"""Answers that are lost, late or doubled: a commit happens once or not at all, and its client knows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import cycle

import pytest

import mvvfs
from mvvfs import errors
from mvvfs.remote import RemoteStore, calls, open_remote
from mvvfs.remote.calls import AnswerLostError
from pagestore.api import (
    ConflictError,
    NameTakenError,
    NoSuchNamespaceError,
    OutcomeUnknownError,
    PageNumber,
    StoreFullError,
    StoreUnavailableError,
    Version,
    new_token,
)
from pagestore.store import PageStore
from tests.pages import Pages, content
from tests.proxy import Fault, Plan, Proxy


def once(method: str, *faults: Fault) -> Plan:
    """These faults for the first calls of that name, one after the other; then none."""
    left = list(faults)

    def plan(called: str, _request: bytes) -> Fault:
        return left.pop(0) if called == method and left else Fault.NONE

    return plan


def always(*methods: str, fault: Fault = Fault.CUT_BEFORE) -> Plan:
    return lambda called, _request: fault if called in methods else Fault.NONE


def log(store: PageStore, pages: Pages) -> list[tuple[Version, str]]:
    return [(change.version, change.message) for change in store.changelog(pages.id)]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.CUT_BEFORE],
        [Fault.CUT_AFTER],
        [Fault.CUT_AFTER, Fault.CUT_AFTER, Fault.CUT_BEFORE],
        [Fault.TWICE],
        [Fault.BOTH_AT_ONCE],
        [Fault.SLOW_THERE],
        [Fault.SLOW_BACK],
        [Fault.SWALLOWED],
        [Fault.CUT_AFTER, Fault.TWICE],
    ],
    ids=lambda faults: " ".join(fault.name.lower() for fault in faults),
)
def test_a_commit_happens_once(proxy: Proxy, backing: PageStore, pages: Pages, faults: list[Fault]) -> None:
    base = pages.commit({1: content(1), 2: content(2)}).version
    other = Pages(backing, pages.id).commit({2: content("other")}, base, message="other")
    proxy.faults = once("Commit", *faults)
    done = pages.commit({1: content("ours")}, base, message="ours")
    assert log(backing, pages)[1:] == [(other.version, "other"), (done.version, "ours")]
    assert [change.version for change in done.others[0]] == [other.version]
    assert pages.read(1) == content("ours")


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.TWICE, Fault.BOTH_AT_ONCE])
def test_a_conflict_stays_one(proxy: Proxy, backing: PageStore, pages: Pages, fault: Fault) -> None:
    base = pages.commit({1: content(1)}).version
    winner = Pages(backing, pages.id).commit({1: content("theirs")}, base)
    proxy.faults = once("Commit", fault)
    with pytest.raises(ConflictError) as caught:
        pages.commit({1: content("ours")}, base)
    assert (caught.value.pages, caught.value.version) == ((1,), winner.version)
    assert len(log(backing, pages)) == 2


def test_what_overtakes_between_a_commit_and_its_answer(
    proxy: Proxy, backing: PageStore, pages: Pages
) -> None:
    """The commit happened, its answer is lost, others write the same page: it is told all the same."""
    base = pages.commit({1: content(1)}).version
    direct = Pages(backing, pages.id)
    left = [Fault.CUT_AFTER]

    def plan(method: str, _request: bytes) -> Fault:
        if method != "Commit":
            return Fault.NONE
        if left:
            return left.pop()
        direct.commit({1: content("later")}, message="later")
        return Fault.NONE

    proxy.faults = plan
    done = pages.commit({1: content("ours")}, base, message="ours")
    assert [message for _, message in log(backing, pages)][1:] == ["ours", "later"]
    assert done.version == log(backing, pages)[1][0]
    assert pages.read(1) == content("later")


def test_nobody_is_there(proxy: Proxy, remote: RemoteStore, pages: Pages, backing: PageStore) -> None:
    """What was never sent is known not to have happened; what was sent is not known."""
    request = pages.request({1: content(1)})
    proxy.faults = lambda method, _request: Fault.CUT_BEFORE
    remote.timeout = 0.4
    started = time.monotonic()
    with pytest.raises(OutcomeUnknownError, match=r"did not answer within 0\.4 s: unavailable") as caught:
        remote.commit(request)
    assert caught.value.token == request.token
    assert 0.1 < time.monotonic() - started < 2
    with pytest.raises(
        StoreUnavailableError, match="did not answer"
    ):  # it is known by now that nobody answers
        remote.commit(request)
    with pytest.raises(StoreUnavailableError):
        remote.begin(pages.id)
    with pytest.raises(StoreUnavailableError):
        remote.create("other")
    proxy.faults = lambda method, _request: Fault.NONE
    assert log(backing, pages) == []
    assert remote.outcome(pages.id, request.token) is None
    assert [namespace.name for namespace in remote.list()] == ["main"]


def test_nobody_was_ever_there(tmp_path) -> None:
    store = open_remote(f"grpc+unix:{tmp_path}/nobody", None, None, None, None, 0.3)
    with pytest.raises(StoreUnavailableError, match="nobody"):
        store.open("main")
    store.close()


def test_a_silent_service_is_given_up_in_time(proxy: Proxy, remote: RemoteStore, pages: Pages) -> None:
    request = pages.request({1: content(1)})
    proxy.faults = always("Begin", "Commit", fault=Fault.SWALLOWED)
    remote.timeout = 0.5
    for call in (lambda: remote.begin(pages.id), lambda: remote.commit(request)):
        started = time.monotonic()
        with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
            call()
        assert time.monotonic() - started < 2.5


def test_an_error_after_a_lost_answer_is_settled(
    proxy: Proxy, remote: RemoteStore, backing: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try went through, the second meets a full disk: the token tells."""
    base = pages.commit({1: content(1)}).version
    between = Pages(backing, pages.id).commit({2: content(2)})
    committed = backing.commit
    tried = []

    def commit(request):
        tried.append(request)
        if len(tried) > 1:
            raise StoreFullError("no space left")
        return committed(request)

    monkeypatch.setattr(backing, "commit", commit)
    proxy.faults = once("Commit", Fault.CUT_AFTER)
    done = pages.commit({1: content("ours")}, base, message="ours")
    assert len(tried) == 2
    assert log(backing, pages)[-1] == (done.version, "ours")
    assert [change.version for change in done.others[0]] == [between.version]


def test_an_error_after_a_call_that_was_lost_on_its_way(
    proxy: Proxy, backing: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(request):
        raise StoreFullError("no space left")

    request = pages.request({1: content("ours")})
    with monkeypatch.context() as patch:
        patch.setattr(backing, "commit", commit)
        proxy.faults = once("Commit", Fault.CUT_BEFORE)
        with pytest.raises(StoreFullError):
            pages.store.commit(request)
    from pagestore.api import VoidTokenError

    with pytest.raises(VoidTokenError):  # nothing that is still on its way can happen
        backing.commit(request)


def test_unsettled(proxy: Proxy, remote: RemoteStore, backing: PageStore, pages: Pages, monkeypatch) -> None:
    def commit(request):
        raise StoreFullError("no space left")

    monkeypatch.setattr(backing, "commit", commit)
    left = [Fault.CUT_AFTER, Fault.NONE]
    proxy.faults = lambda method, _: (
        (left.pop(0) if left else Fault.NONE)
        if method == "Commit"
        else Fault.CUT_BEFORE
        if method == "Outcome"
        else Fault.NONE
    )
    left[0] = Fault.CUT_BEFORE
    remote.timeout = 0.4
    request = pages.request({1: content(1)})
    with pytest.raises(OutcomeUnknownError, match="no space left"):
        remote.commit(request)


# ---- other calls ----


def test_reads_are_asked_again(proxy: Proxy, remote: RemoteStore, pages: Pages) -> None:
    version = pages.commit({1: content(1)}).version
    faults = cycle([Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.TWICE, Fault.NONE])
    proxy.faults = lambda method, _request: next(faults)
    for _ in range(3):
        assert pages.read(1, version) == content(1)
        assert remote.begin(pages.id).version == version
        assert remote.open("main").id == pages.id
        assert remote.allocation(pages.id, version).highest == 1
        assert remote.version_at(pages.id, time.time_ns() // 1000 - 1) <= version
    lease = remote.lease(pages.id, 4, 5.0)
    remote.release(pages.id, lease.id)
    ticket = new_token()
    assert remote.take_turn(pages.id, ticket, None, 5.0)
    remote.leave_turn(pages.id, ticket)


def test_what_must_not_be_done_twice(proxy: Proxy, remote: RemoteStore) -> None:
    proxy.faults = once("Create", Fault.CUT_AFTER)
    with pytest.raises(AnswerLostError, match="the creation of 'a' may have happened"):
        remote.create("a")
    with pytest.raises(NameTakenError):
        remote.create("a")
    proxy.faults = once("Rename", Fault.CUT_BEFORE)
    with pytest.raises(OutcomeUnknownError, match="the renaming of 'a'"):
        remote.rename("a", "b")
    assert remote.rename("a", "b").name == "b"
    proxy.faults = once("Drop", Fault.CUT_AFTER)
    with pytest.raises(AnswerLostError, match="the removal of 'b'"):
        remote.drop("b")
    with pytest.raises(NoSuchNamespaceError):
        remote.open("b")


def test_as_sql_sees_it(proxy: Proxy, url: str, folder: str) -> None:
    connection = mvvfs.connect("app", store=url, timeout=0.5)
    connection.execute("CREATE TABLE t(a)")
    proxy.faults = once("Commit", Fault.CUT_AFTER)
    connection.execute("INSERT INTO t VALUES(1)")
    proxy.faults = always("Commit", "Outcome", fault=Fault.CUT_AFTER)
    with pytest.raises(errors.OutcomeUnknownError) as caught:
        connection.execute("INSERT INTO t VALUES(2)")
    assert len(caught.value.token) == 16
    proxy.faults = lambda *_: Fault.NONE
    assert connection.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,)]
    proxy.faults = always("Begin")
    with pytest.raises(errors.StoreUnavailableError):
        connection.execute("SELECT * FROM t").fetchall()
    proxy.faults = lambda *_: Fault.NONE
    connection.execute("INSERT INTO t VALUES(3)")
    assert connection.execute("SELECT count(*) FROM t").get == 3
    connection.close()


def test_a_timeout_of_0_leaves_answers_their_time(proxy: Proxy, url: str) -> None:
    connection = mvvfs.connect("app", store=url, timeout=0)
    connection.execute("CREATE TABLE t(a)")
    proxy.delay = 2 * calls._SHORTEST_ATTEMPT
    proxy.faults = once("Commit", Fault.SLOW_BACK)
    connection.execute("INSERT INTO t VALUES(1)")
    proxy.faults = once("Commit", Fault.CUT_AFTER)
    connection.execute("INSERT INTO t VALUES(2)")
    proxy.faults = once("Begin", Fault.CUT_BEFORE)
    assert connection.execute("SELECT count(*) FROM t").get == 2
    connection.close()


@pytest.fixture
def unreliable(proxy: Proxy, seed: int) -> Iterator[None]:
    rng = random.Random(seed)
    lock = threading.Lock()
    proxy.delay = 0.02
    faults = [fault for fault in Fault if fault is not Fault.SWALLOWED]

    def plan(_method: str, _request: bytes) -> Fault:
        with lock:
            return rng.choice(faults) if rng.random() < 0.15 else Fault.NONE

    proxy.faults = plan
    yield
    proxy.faults = lambda *_: Fault.NONE


@pytest.mark.usefixtures("unreliable")
def test_counters_add_up_whatever_is_lost(url: str, folder: str) -> None:
    """Four threads that increment; each acknowledged increment is there once."""
    first = mvvfs.connect("app", store=folder)
    first.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES(1, 0), (2, 0)")
    problems: list[BaseException] = []

    def work() -> None:
        try:
            connection = mvvfs.connect("app", store=url, timeout=20)
            for i in range(25):
                mvvfs.transaction(connection, tries=1000).run(
                    connection.execute, "UPDATE t SET n = n + 1 WHERE a = ?", (1 + i % 2,)
                )
            connection.close()
        except BaseException as exc:  # noqa: BLE001 (shown below)
            problems.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert first.execute("SELECT sum(n) FROM t").get == 100
    assert first.execute("PRAGMA integrity_check").get == "ok"
    first.close()


def test_pages_in_pieces(remote: RemoteStore, pages: Pages, proxy: Proxy) -> None:
    numbers = [PageNumber(n) for n in range(1, 51)]
    version = pages.commit({n: content(n) for n in numbers}).version
    remote.info().max_read_pages = 16
    proxy.counts.clear()
    assert [page and page.number for page in remote.read(pages.id, version, numbers)] == numbers
    assert proxy.counts["Read"] == 4
    assert remote.read(pages.id, version, []) == []
