"""Closes what the garbage collector found: not in the middle of the code that it interrupted.

Called by `bridge` when SQLite closes a file.  The collector runs wherever an object is made: also while this
very thread holds the lock of some table of ours, or the engine's write lock.  What closing a database asks of
the store (the return of a lease, say) would then wait for the thread that it runs on.

1. A file that a program closes, or lets go of, is closed at once, on its thread.
2. One that the collector found is closed by a thread made for it, which ends when there are no more.
"""

from __future__ import annotations

import _thread
import gc
import logging
import os
from collections import deque
from collections.abc import Callable

_collector = 0
"""The thread that collects garbage at this moment; there is one at most."""
_found: deque[Callable[[], None]] = deque()
_closer = _thread.allocate_lock()
"""Held by the thread that closes what was found.  (Not of `threading`, whose locks may be held just now.)"""


def _collecting(phase: str, _info: dict[str, int]) -> None:
    global _collector
    _collector = _thread.get_ident() if phase == "start" else 0


gc.callbacks.append(_collecting)


def close(work: Callable[[], None]) -> None:
    """Do the work: now, or, in the middle of a collection, soon."""
    if _collector == _thread.get_ident():
        _found.append(work)
        _start()
    else:
        work()


def _start() -> None:
    if _found and _closer.acquire(blocking=False):
        try:
            _thread.start_new_thread(_run, ())
        except RuntimeError:  # the interpreter ends: leases end by themselves
            _closer.release()


def _run() -> None:
    try:
        while _found:
            try:
                _found.popleft()()
            except Exception as exc:  # noqa: BLE001 (nobody waits for it; leases and turns end by themselves)
                logging.getLogger("mvvfs").warning("closing a connection that nobody closed: %r", exc)
    finally:
        _closer.release()
    _start()  # what was found after the last look


def _after_fork() -> None:
    """In a child: the connections are the parent's."""
    global _closer, _collector
    _found.clear()
    _closer, _collector = _thread.allocate_lock(), 0


os.register_at_fork(after_in_child=_after_fork)
