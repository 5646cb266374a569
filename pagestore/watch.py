"""Following a namespace: who commits what, as it happens.

Called by `store` and by the service, which follows many namespaces with one timer.  Calls the store's
interface.

1. The head word tells whether to ask at all: while it is even and as it was, nothing has happened.  It is
   shared memory, so commits of every process move it.  Where there is none, a signal of the engine tells,
   armed before the store is asked; where there is none of these, the store is asked each time.
2. The word is read before the store is asked, so that a commit in between is noticed at the next look.
3. A version is told only once it is flushed.
4. Nothing runs while nobody looks: no thread, and no timer of its own.
"""

from __future__ import annotations

import threading
import time

from pagestore.api import ListedChanges, NamespaceId, Store, Version, Watch, Watched
from pagestore.native import lib

ARM_SECONDS = 5.0
"""How long it may take to have a commit to a distant engine told."""

POLL_SECONDS = 0.005
"""Between two looks at a head word, or at a signal."""

ASK_SECONDS = 0.02
"""Between two questions to a store that has no head words."""


class Follower:
    """One namespace, looked at by somebody again and again."""

    def __init__(self, store: Store, namespace: NamespaceId, after: Version) -> None:
        self.version = after
        """The newest version told."""
        self._store = store
        self._namespace = namespace
        self._word = store.head_word(namespace)
        self._signal = store.signal(namespace) if self._word is None else None
        self._seen = 1  # odd: ask

    @property
    def interval(self) -> float:
        """Seconds from one look to the next."""
        return ASK_SECONDS if self._word is None and self._signal is None else POLL_SECONDS

    @property
    def is_signalled(self) -> bool:
        """Whether it hears of commits a while after they happened: who has to know, looks."""
        return self._signal is not None

    def moved(self) -> bool:
        """Whether there may be something new."""
        if self._word is None:
            return self._signal is None or self._signal.has_fired()
        word: int = lib.mv_word_load(self._word.address)
        return word != self._seen or bool(word & 1)

    def look(self) -> Watched | None:
        """What has happened since the last look, or None.  Not flushed yet: see to that before it is told.

        Raises what `Store.begin` does."""
        clock = time.monotonic()
        if self._signal is not None:
            self._signal.arm(ARM_SECONDS)
        word = 1 if self._word is None else lib.mv_word_load(self._word.address)
        start = self._store.begin(self._namespace, self.version)
        self._seen = word
        if start.version == self.version and start.changes is not None:
            return None
        self.version = start.version
        return Watched(start.version, start.changes, clock)


class PollingWatch(Watch):
    """A watch whose reader does the looking."""

    def __init__(self, store: Store, namespace: NamespaceId, after: Version, heartbeat: float) -> None:
        self._follower = Follower(store, namespace, after)
        self._store = store
        self._heartbeat = heartbeat
        self._due = 0.0
        self._closed = threading.Event()

    def __next__(self) -> Watched:
        follower = self._follower
        while not self._closed.is_set():
            clock = time.monotonic()
            if follower.moved():
                watched = follower.look()
                if watched is not None:
                    self._store.sync()
                    return self._told(watched)
            left = self._due - time.monotonic()
            if left <= 0:
                watched = follower.look() if follower.is_signalled else None  # a signal takes its time
                if watched is not None:
                    return self._told(watched)
                return self._told(Watched(follower.version, ListedChanges(), clock))
            self._closed.wait(min(follower.interval, left))
        raise StopIteration

    def _told(self, watched: Watched) -> Watched:
        self._due = time.monotonic() + self._heartbeat
        return watched

    def close(self) -> None:
        self._closed.set()
