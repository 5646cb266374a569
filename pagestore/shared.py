"""Stores that a process has open, one object for each place, shared by all who open it.

Called by `pagestore.opener` and `mvvfs.stores`; calls nothing.

1. The last user's `close` closes the store; until then its `close` does nothing (`Shareable.on_close`).
2. A child of fork() has none: what was open belongs to the parent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Shareable(Protocol):
    """What a store has to have, so that it can be shared."""

    timeout: float
    """Seconds that an operation waits."""
    on_close: Callable[[], bool] | None
    """Asked by `close`: whether it is that of the last user."""

    def usable(self) -> bool: ...


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Shareable)


class _Entry(Generic[S]):
    def __init__(self, store: S) -> None:
        self.store = store
        self.users = 0


class SharedStores(Generic[K, S]):
    """Stores by what tells one from another, and how often each was opened."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a store while another one is opened
        self._entries: dict[K, _Entry[S]] = {}

    def open(self, key: K, make: Callable[[], S], timeout: float) -> S:
        """The store of that key, made if there is none, or none that can still be used.

        Of the timeouts that its users asked for, the longest counts."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                entry.users += 1  # before anything else: whoever closes it meanwhile is not the last
                if not entry.store.usable():
                    entry.users -= 1
                    entry = None
            if entry is None:
                entry = self._entries[key] = _Entry(make())
                entry.store.on_close = self._closer(key, entry)
                entry.users += 1
            entry.store.timeout = max(timeout, entry.store.timeout)
            return entry.store

    def _closer(self, key: K, entry: _Entry[S]) -> Callable[[], bool]:
        return lambda: self._close(key, entry)

    def _close(self, key: K, entry: _Entry[S]) -> bool:
        """Whether nobody uses the store any more."""
        with self._lock:
            entry.users -= 1
            if entry.users > 0:
                return False
            entry.store.on_close = None  # which refers to the store
            if self._entries.get(key) is entry:
                del self._entries[key]
            return True

    def __iter__(self) -> Iterator[K]:
        with self._lock:
            return iter(tuple(self._entries))
