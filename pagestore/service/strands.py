"""Calls of a store that wait for its cluster, many at a time, in the event loop's own thread.

Called by `backend` and `committer`, for stores that can wait so (`Store.waits_anywhere`); calls the store.
A call runs in a greenlet (https://greenlet.readthedocs.io), a *strand*, which begins in the middle of the
loop's turn.  Where the engine would block for an answer, it switches back to the loop instead, and is gone on
with when the answer has been posted into the inbox (native/inbox.c), which the loop watches.

1. Strands run one at a time, and only the loop's thread switches to them.  What they must keep to stands in
   `pagestore.waits`.
2. A strand goes on to its end, also when nobody is interested any more: what is half done would be worth
   less.  The engine's deadlines bound it.
3. A greenlet takes one call after another: to make a new one costs a mapping of memory.
4. Threads for what is long (`apart`) are few, and made when they are first needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from pagestore.native import ffi, lib
from pagestore.waits import Keeper, here

T = TypeVar("T")

_APART_THREADS = 4

_MOST_IDLE = 64
"""Greenlets that are kept for the next calls, of 16 KiB each."""

_ROOM = 64
"""Answers that are taken from the inbox at once."""


class Strands(Keeper):
    """See the head of this file.  Belongs to the event loop in which it is made."""

    def __init__(self) -> None:
        """Raises MemoryError."""
        self._loop = asyncio.get_running_loop()
        self._inbox = lib.mv_inbox_new()
        if not self._inbox:
            raise MemoryError("no memory, or no file descriptor, for an inbox")
        self._came = ffi.new("uint64_t[]", _ROOM)
        self._waiting: dict[int, greenlet] = {}
        """By the number that is posted."""
        self._next = 0
        self._answered: deque[greenlet] = deque()
        """To be gone on with."""
        self._idle: list[greenlet] = []
        self._running = 0
        self._quiet = asyncio.Event()
        """Nothing is running."""
        self._quiet.set()
        self._threads = ThreadPoolExecutor(_APART_THREADS, thread_name_prefix="apart")
        self._descriptor = lib.mv_inbox_descriptor(self._inbox)
        self._loop.add_reader(self._descriptor, self._take)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._running += 1
        self._quiet.clear()
        strand = self._idle.pop() if self._idle else greenlet(self._strand)
        self._go_on(strand, work, done)
        return await done

    def _strand(self, work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        """One call after another."""
        strand = getcurrent()
        while True:
            self._work(work, done)
            del work, done  # what came of it is somebody else's
            if len(self._idle) == _MOST_IDLE:
                return
            self._idle.append(strand)
            work, done = _leave(strand)

    def _work(self, work: Callable[[], T], done: asyncio.Future[T]) -> None:
        try:
            try:
                value = work()
            finally:
                self._running -= 1
                if not self._running:
                    self._quiet.set()
        except (Exception, KeyboardInterrupt, SystemExit) as exc:
            if not done.done():  # nobody is interested any more
                done.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            if not done.done():
                done.set_result(value)

    def _go_on(self, strand: greenlet, *with_: Any) -> None:
        here.keeper = self
        try:
            strand.switch(*with_)
        finally:
            here.keeper = None

    # ---- what strands call ----

    def wait(self, ask: Callable[[int, int], int]) -> None:
        strand = getcurrent()
        self._next = id_ = self._next + 1
        self._waiting[id_] = strand
        if not ask(self._inbox, id_):
            del self._waiting[id_]
            raise MemoryError("no memory to wait for an answer")
        _leave(strand)

    def apart(self, work: Callable[[], T]) -> T:
        strand = getcurrent()
        running = self._threads.submit(work)
        running.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._go_on, strand))
        _leave(strand)
        return running.result()

    # ---- what the loop calls ----

    def _take(self) -> None:
        """Go on with those whose answers came."""
        count = _ROOM
        while count == _ROOM:
            count = lib.mv_inbox_take(self._inbox, self._came, _ROOM)
            self._answered.extend(map(self._waiting.pop, ffi.unpack(self._came, count)))
        self._go_on_with_all()

    def _go_on_with_all(self) -> None:
        try:
            while self._answered:
                self._go_on(self._answered.popleft())
        finally:
            if self._answered:  # one of them was interrupted
                self._loop.call_soon(self._go_on_with_all)

    async def close(self) -> None:
        """After the last call, once all have ended."""
        await self._quiet.wait()
        self._threads.shutdown()
        for strand in self._idle:
            strand.throw()
        self._loop.remove_reader(self._descriptor)
        lib.mv_inbox_end(self._inbox)


def _leave(strand: greenlet) -> Any:
    """Back to the loop, until somebody goes on with this strand; what he hands over."""
    assert strand.parent is not None
    return strand.parent.switch()
