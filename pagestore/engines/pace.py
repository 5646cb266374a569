"""How fast work goes on that nobody waits for: in steps that are short, with rests while others write.

Called by `retention`, `sweep` and the sqlite engine (giving back space).  Calls the engine.

1. Where who writes waits for whoever else does (`Engine.one_writer`), a step holds the others up for
   `HOLD_SECONDS`, about: the next one is made as much smaller or larger as the last one took too long or too
   short.
2. Between reading and writing, and after each step, it rests `REST` times as long as that kept a processor
   busy, and at least as long as it took.  So it leaves most of a processor to others, and half of the disk.
   (Were it to rest in proportion to what it took, it would fall behind the writers on a busy machine.)
3. Who has just rested has a whole time slice ahead: so it takes the write lock after a rest, and is seldom
   interrupted while it holds others up.
4. Where nobody else has written for `QUIET_SECONDS` its steps grow to the largest and it does not rest.
   Others show by the engine's newest version: it moved between the end of one write transaction and the
   next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pagestore.api import Version
from pagestore.engines.base import Engine, Transaction

T = TypeVar("T")

HOLD_SECONDS = 0.0005
"""For how long a step may hold the write lock: a small commit takes about half of it."""

REST = 16.0
"""Times the processor time: some 6 % of one processor.  100,000 versions take 3 to 5 s of it."""

QUIET_SECONDS = 5.0
"""Longer than a flush takes on a disk that is busy: who waits for one is still at work."""

_LONGEST_REST = 0.5
"""Seconds."""

_SMALLEST = 8


class Pace:
    """Of one run of such work, by one thread."""

    def __init__(self, engine: Engine, most: int) -> None:
        """`most`: the size of the largest step, in whatever it is counted.  Where an engine has more than one
        writer all steps are that large, and there are no rests."""
        self.size = min(most, 4 * _SMALLEST) if engine.one_writer else most
        """Of the next step."""
        self._engine = engine
        self._most = most
        self._newest: Version | None = None
        """After the last write transaction."""
        self._busy_until = 0.0
        self._began, self._began_cpu = time.monotonic(), time.thread_time()

    @property
    def _busy(self) -> bool:
        return time.monotonic() < self._busy_until

    def transact(self, work: Callable[[Transaction], T], timeout: float | None = None) -> T:
        """`Engine.transact`, not flushed: a step's write transaction."""
        if not self._engine.one_writer:
            return self._engine.transact(work, durability="normal", timeout=timeout).value
        locked = 0.0
        newest: Version | None = None

        def watched(tx: Transaction) -> T:
            nonlocal locked, newest
            locked, newest = time.monotonic(), tx.read_version()
            return work(tx)

        value, version = self._engine.transact(watched, durability="normal", timeout=timeout)
        now = time.monotonic()
        if self._newest not in (None, newest):
            self._busy_until = now + QUIET_SECONDS
        self._newest = version or newest
        self._fit(now - locked)
        return value

    def _fit(self, held: float) -> None:
        """How large the next step is, after one that held the lock for so many seconds."""
        if not self._busy:
            self.size = min(self._most, 2 * self.size)
            return
        wanted = self.size * min(max(HOLD_SECONDS / max(held, 1e-6), 0.5), 1.25)
        self.size = max(_SMALLEST, min(self._most, int(wanted)))

    def rest(self) -> None:
        """In proportion to what was done since the last rest."""
        if self._busy:
            took, cpu = time.monotonic() - self._began, time.thread_time() - self._began_cpu
            time.sleep(min(max(REST * cpu, took), _LONGEST_REST))
        self._began, self._began_cpu = time.monotonic(), time.thread_time()
