"""A memory store that is far away: begins and ends of its engine's transactions wait for an answer.

The answers come from a thread of their own, as a client library's would.  Where there is nobody who keeps the
waits (`pagestore.waits`), who asked blocks.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pagestore._native import lib
from pagestore.engines.memory import MemoryEngine
from pagestore.waits import here


class Answers:
    """Comes to every question a little later, in the order in which they were asked."""

    def __init__(self) -> None:
        self.asked = 0
        """By those who did not block."""
        self._questions: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        for tell in iter(self._questions.get, None):
            tell()

    def post(self, inbox: int, id_: int) -> bool:
        self._questions.put(lambda: lib.mv_inbox_post(inbox, id_))
        return True

    def wait(self) -> None:
        if here.keeper is not None:
            self.asked += 1
            here.keeper.wait(self.post)
            return
        came = threading.Event()
        self._questions.put(came.set)
        came.wait()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No answer comes before the block ends."""
        ended = threading.Event()
        self._questions.put(ended.wait)
        try:
            yield
        finally:
            ended.set()

    def close(self) -> None:
        self._questions.put(None)
        self._thread.join()


@contextmanager
def answering() -> Iterator[Answers]:
    answers = Answers()
    try:
        yield answers
    finally:
        answers.close()


def send_away(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> None:
    """From now on memory stores are far away."""

    def waiting(original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any) -> Any:
            answers.wait()
            return original(*args)

        return method

    for name in ("_begin", "_end"):
        monkeypatch.setattr(MemoryEngine, name, waiting(getattr(MemoryEngine, name)))
    monkeypatch.setattr(MemoryEngine, "distant", True)
    monkeypatch.setattr(MemoryEngine, "waits_anywhere", True)


class NotedLock:
    """A lock that knows which thread holds it."""

    held = threading.local()

    def __init__(self) -> None:
        self._lock = _lock_type()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._lock.acquire(blocking, timeout):
            return False
        self.held.count = getattr(self.held, "count", 0) + 1
        return True

    def release(self) -> None:
        self._lock.release()
        self.held.count = getattr(self.held, "count", 0) - 1

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    @classmethod
    def is_held(cls) -> bool:
        """Whether this thread holds one."""
        return getattr(cls.held, "count", 0) > 0


_lock_type = threading.Lock
