"""Strands: calls of a store that wait in the event loop's thread."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from greenlet import getcurrent

from pagestore._native import ffi
from pagestore.api import ConflictError, new_token
from pagestore.engines.foundationdb_client import Client
from pagestore.opener import open_store
from pagestore.service.strands import Strands
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.waits import apart, here
from tests import cluster
from tests.pages import Pages, content
from tests.service.conftest import DEADLINE, page, wait_until
from tests.strands import NotedLock, answering, send_away


@pytest.fixture
def answers():
    with answering() as answers:
        yield answers


def run(main):
    """`main(strands)` in an event loop; the strands are closed afterwards."""

    async def whole():
        strands = Strands()
        try:
            return await main(strands)
        finally:
            await strands.close()

    return asyncio.run(asyncio.wait_for(whole(), 20))


# ---- what a call comes to ----


def test_what_does_not_wait_comes_at_once():
    async def main(strands):
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        return await strands.run(threading.current_thread), tuple(turns)

    assert run(main) == (threading.current_thread(), ())


def test_values_and_errors_come_out_as_they_are(answers):
    conflict = ConflictError(1, (2,), bytes(10))

    def refuse():
        answers.wait()
        raise conflict

    async def main(strands):
        with pytest.raises(ConflictError) as caught:
            await strands.run(refuse)
        assert caught.value is conflict
        return await strands.run(lambda: answers.wait() or 7)

    assert run(main) == 7


def test_many_wait_at_once_in_one_thread(answers):
    under_way = most = 0

    def work(number):
        nonlocal under_way, most
        under_way += 1
        for _ in range(3):
            answers.wait()
            assert here.keeper is not None
            most = max(most, under_way)
        under_way -= 1
        return number, threading.current_thread()

    async def main(strands):
        return await asyncio.gather(*(strands.run(lambda n=n: work(n)) for n in range(300)))

    assert run(main) == [(n, threading.current_thread()) for n in range(300)]
    assert most == 300
    assert here.keeper is None


def test_greenlets_are_used_again(answers):
    async def main(strands):
        def work():
            answers.wait()
            return getcurrent()

        used = {await strands.run(work) for _ in range(10)}
        assert len(used) == 1
        used |= set(await asyncio.gather(*(strands.run(work) for _ in range(200))))
        assert len(used) == 200
        kept = {await strands.run(work)}
        kept.update(await asyncio.gather(*(strands.run(work) for _ in range(64))))
        assert kept < used  # some of them, and no more than that
        return used

    assert all(strand.dead for strand in run(main))


def test_who_is_not_interested_any_more_does_not_end_the_call(answers):
    ended = []

    async def main(strands):
        with answers.held():
            task = asyncio.create_task(strands.run(lambda: answers.wait() or ended.append(1)))
            failing = asyncio.create_task(strands.run(lambda: answers.wait() or 1 / 0))
            await asyncio.sleep(0)
            for one in (task, failing):
                one.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await one
            assert not ended

    run(main)  # closing waits for it
    assert ended == [1]


def test_an_interrupt_ends_the_loop_and_not_the_other_calls(answers):
    ended = []

    def interrupted():
        answers.wait()
        raise KeyboardInterrupt

    async def main(strands):
        calls = [interrupted, *[lambda: answers.wait() or ended.append(1)] * 5]
        await asyncio.gather(*map(strands.run, calls), return_exceptions=True)

    with pytest.raises(KeyboardInterrupt):
        run(main)
    assert len(ended) == 5


# ---- what is long ----


def test_what_is_long_goes_on_apart_from_the_loop(answers):
    async def main(strands):
        turns = 0

        def long():
            assert here.keeper is None
            wait_until(lambda: turns > 3)
            return threading.current_thread()

        async def count():
            nonlocal turns
            while turns < 10:
                turns += 1
                await asyncio.sleep(0)

        thread, _ = await asyncio.gather(strands.run(lambda: answers.wait() or apart(long)), count())
        assert thread is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await strands.run(lambda: apart(lambda: 1 / 0))

    run(main)


def test_without_a_keeper_what_is_long_is_done_here():
    assert apart(threading.current_thread) is threading.current_thread()


# ---- the client library ----

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_SET_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_IS_READY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


class Library:
    """The part of FoundationDB's that tells when an answer has come."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.error = 0
        self._set_callback = _SET_CALLBACK(self._note)
        self.client = object.__new__(Client)
        self._is_ready = _IS_READY(lambda _future: 0)
        self.client.functions = ffi.new(
            "mv_fdb_functions *",
            {"set_callback": _address(self._set_callback), "is_ready": _address(self._is_ready)},
        )

    def _note(self, _future, callback, context) -> int:
        if not self.error:
            self.asked.append((callback, context))
        return self.error

    def answer(self) -> None:
        """To the oldest question, from this thread."""
        callback, context = self.asked.pop(0)
        _CALLBACK(callback)(None, context)

    def wait(self) -> str:
        """As the engine waits for a future."""
        future = SimpleNamespace(fpointer=1, wait=lambda: "came")
        return self.client.wait(future)


def test_the_library_tells_the_loop():
    library = Library()

    async def main(strands):
        calls = [asyncio.create_task(strands.run(library.wait)) for _ in range(100)]
        await asyncio.sleep(0)
        assert len(library.asked) == 100
        with ThreadPoolExecutor(4) as threads:
            for _ in range(100):
                threads.submit(library.answer)
            return await asyncio.gather(*calls)

    assert run(main) == ["came"] * 100


def test_a_library_that_refuses_leaves_nothing_behind():
    library = Library()
    library.error = 2000

    async def main(strands):
        with pytest.raises(MemoryError):
            await strands.run(library.wait)

    run(main)  # nobody waits any more


def test_an_answer_may_come_after_the_loop_has_gone():
    library = Library()

    async def main():
        strands = Strands()
        task = asyncio.create_task(strands.run(library.wait))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())  # it was never closed, as when a loop dies
    gc.collect()
    library.answer()


def test_a_process_ends_with_calls_that_wait():
    done = subprocess.run([sys.executable, "-c", _LEFT_WAITING], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ending\n", b"")


_LEFT_WAITING = """
import asyncio
from pagestore.service.strands import Strands

async def main():
    strands = Strands()
    asked = []
    def work():
        strands.wait(lambda inbox, id: asked.append(id) or True)
    tasks = [asyncio.create_task(strands.run(work)) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(asked) == 3

asyncio.run(main())
print("ending")
"""


# ---- stores ----


@pytest.fixture
def watched_locks(monkeypatch):
    """Whoever waits while he holds a lock fails."""
    monkeypatch.setattr(threading, "Lock", NotedLock)
    monkeypatch.setattr(Strands, "wait", _without_locks(Strands.wait))
    monkeypatch.setattr(Strands, "apart", _without_locks(Strands.apart))


def _without_locks(original):
    def method(*args):
        assert not NotedLock.is_held()
        return original(*args)

    return method


def use(store, rounds=30):
    """Begins, reads and commits, side by side, with all that may come after a commit."""
    pages = Pages(store, store.create("main").id)
    pages.commit({n: content(f"{n}") for n in range(1, 9)})
    lost = 0

    def one(number):
        nonlocal lost
        start = store.begin(pages.id, pages.store.begin(pages.id).version)
        store.read(pages.id, start.version, [1, number])
        try:
            pages.commit({number: content(f"{number}"), 1: content("met")}, base=start.version)
        except ConflictError:
            lost += 1

    async def main(strands):
        for _ in range(rounds):
            calls = [strands.run(lambda n=n: one(n)) for n in range(2, 9)]
            await asyncio.wait_for(asyncio.gather(*calls), 10)  # no two of them wait for each other

    run(main)
    assert lost  # they did meet


def test_nobody_waits_with_a_lock_held(watched_locks, answers, monkeypatch):
    send_away(monkeypatch, answers)
    store = open_store("memory:strands-locks", create=True)
    assert store.waits_anywhere
    use(store)
    assert answers.asked > 1000


def test_the_check_of_locks_would_find_one(watched_locks, answers):
    lock = threading.Lock()

    def work():
        with lock:
            answers.wait()

    async def main(strands):
        with pytest.raises(AssertionError):
            await strands.run(work)

    run(main)


@pytest.mark.foundationdb
def test_nobody_waits_for_a_cluster_with_a_lock_held(watched_locks):
    with cluster.prefix() as prefix:
        cluster.make_store(prefix)
        store = open_store(cluster.url(prefix), create=False)
        try:
            use(store, rounds=10)
        finally:
            store.close()


# ---- a service ----


@pytest.fixture
def served(serve, answers, monkeypatch):
    send_away(monkeypatch, answers)
    return serve(store=f"memory:strands-{new_token().hex()}")


def test_a_service_has_many_calls_under_way_in_one_thread(served, call, answers):
    caller = call(served)
    id_ = caller("Create", name="main").id
    base = caller.commit(id_, {n: page("first") for n in range(1, 33)}).committed.version
    before, threads_before = answers.asked, pool_threads()

    def work(number):
        own = call(served)
        for _ in range(20):
            start = own("Begin", namespace=id_, since=base)
            answer = own.commit(id_, {number: page("next")}, start.version)
            assert answer.HasField("committed")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(1, 9)))
    assert answers.asked - before >= 8 * 20 * 4
    assert pool_threads() == threads_before


def pool_threads():
    """Of those in which a service calls its store."""
    return {one for one in threading.enumerate() if one.name.startswith(("call", "committer"))}


def test_large_commits_stay_out_of_the_loop(served, call):
    caller = call(served)
    id_ = caller("Create", name="main").id
    assert caller.commit(id_, {n: page("many") for n in range(1, 200)}).HasField("committed")
    assert any(thread.name.startswith("committer") for thread in pool_threads())


def test_a_client_that_has_gone_leaves_nothing_behind(served, call, answers):
    caller = call(served)
    id_ = caller("Create", name="main").id
    first = caller.commit(id_, {1: page("one")}).committed.version
    with answers.held():
        waiting = begin_and_wait(caller, id_, first, answers)
        waiting.cancel()
        assert waiting.code() is grpc.StatusCode.CANCELLED
    assert caller("Begin", namespace=id_, since=first).version == first


def test_draining_waits_for_calls_under_way(served, call, answers):
    caller = call(served)
    id_ = caller("Create", name="main").id
    first = caller.commit(id_, {1: page("one")}).committed.version
    with answers.held():
        waiting = begin_and_wait(caller, id_, first, answers)
        served.backend._strands._loop.call_soon_threadsafe(served.stop)
        wait_until(lambda: served._gate.closing)
    assert waiting.result().version == first


def begin_and_wait(caller, namespace, since, answers):
    """A begin that has asked, and has no answer yet."""
    before = answers.asked
    call = caller.stub.Begin.future(pb.BeginRequest(namespace=namespace, since=since), timeout=DEADLINE)
    wait_until(lambda: answers.asked > before)
    return call
