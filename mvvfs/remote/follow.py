"""Following namespaces, so that a transaction may begin without a call.

Called by `store`, from SQL threads; calls the service's Watch on a thread of its own.

1. A follower knows a namespace's commits up to a version, and as of when there were no others.  Whatever an
   answer tells (a begin, a commit, the watch) is put in; so it never falls behind what this client has seen.
2. "As of when" is a time of this machine before the service looked: the time at which a call was made; for
   a message of the watch, the time at which the watch was opened plus what has passed since then by the
   service's clock.  How long a message was on its way, or lay here unread, makes nothing look fresher than
   it is.
3. The head word moves before that time does (native/cache.h), by 2 for each commit, so that whoever made the
   only one can tell.
4. A watch runs while somebody begins within its bound.  When nobody has for IDLE_SECONDS, thread and
   stream end.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right

from mvvfs.remote.calls import Calls, Lost, Stream, pauses
from mvvfs.shim import ffi, lib
from pagestore import wire
from pagestore.api import (
    VERSION_SIZE,
    ZERO_VERSION,
    Begin,
    Changes,
    HeadWord,
    NamespaceId,
    PackedChanges,
    StoreError,
    Version,
    split_packed,
)
from pagestore.v1 import pagestore_pb2 as pb

IDLE_SECONDS = 10.0
_KEPT = 1000
"""Changes that are kept; whoever is further behind asks."""
_MANY = 1 << 20
"""What the word moves by when it is not known how many commits there were."""
_LONGEST_HEARTBEAT = 5.0
_SHORTEST_HEARTBEAT = 0.01
_BEATS = 3
"""Heartbeats in a bound."""
_SILENT = 3
"""Heartbeats without which a watch is given up."""
_OPENINGS = 3
_REST_SECONDS = 1.0


class Follower:
    """One namespace."""

    def __init__(self, calls: Calls, namespace: NamespaceId) -> None:
        self._calls = calls
        self._namespace = namespace
        self._lock = threading.Lock()
        self._memory = ffi.new("uint64_t[3]", [2, 0, 0])  # an mv_head
        self._address = int(ffi.cast("uintptr_t", self._memory))
        self._start = self._version = ZERO_VERSION
        """Changes in (start, version] are listed."""
        self._floor = ZERO_VERSION
        self._versions: list[Version] = []
        self._changes: list[bytes] = []
        """Packed."""
        self._is_read = False
        """Whether somebody began, or wanted to, by what is listed; before that, nothing is."""
        self._page_size = 0
        self._as_of = 0
        self._watch: _Watch | None = None
        self._closed = False

    def head(self) -> HeadWord:
        return HeadWord(self._address, self._memory, followed=True)

    def recent(self, since: Version | None, within: float) -> Begin | None:
        """See `Store.recent`."""
        with self._lock:
            self._is_read = True
            self._keep_watching(within)
            fresh = time.monotonic_ns() - self._as_of <= within * 1e9
            if not fresh or since is None or not self._start <= since <= self._version:
                return None
            if self._version < self._floor or not self._page_size:
                return None
            first = bisect_right(self._versions, since)
            newer = self._changes[first:]
            return Begin(self._version, PackedChanges(b"".join(newer), len(newer)), self._page_size)

    def heard(
        self, after: Version | None, version: Version, changes: Changes | None, as_of: int, page_size: int = 0
    ) -> None:
        """`changes` are all in (after, version], and there were no others at `as_of` (`time.monotonic_ns()`).

        None: they are not known."""
        with self._lock:
            self._page_size = page_size or self._page_size
            moved = 0
            if version > self._version:
                if changes is None or after is None or after > self._version:
                    self._start_at(version)
                    moved = _MANY
                elif not self._is_read and after == self._version:
                    self._start_at(version)
                    moved = len(changes)
                else:
                    moved = self._append(version, changes)
            self._as_of = max(self._as_of, as_of)
            lib.mv_head_move(self._address, moved, self._as_of)

    def must_reach(self, version: Version) -> None:
        """There is a commit that has not been told."""
        with self._lock:
            if version > max(self._version, self._floor):
                self._floor = version
                lib.mv_head_move(self._address, _MANY, 0)

    def _start_at(self, version: Version) -> None:
        self._start = self._version = version
        self._versions, self._changes = [], []

    def _append(self, version: Version, changes: Changes) -> int:
        each = ((Version(one[:VERSION_SIZE]), one) for one in split_packed(changes.packed))
        new = [(committed, one) for committed, one in each if committed > self._version]
        self._version = version
        self._changes += [one for _, one in new]
        self._versions += [committed for committed, _ in new]
        if len(self._changes) > 2 * _KEPT:
            self._start = self._versions[-_KEPT - 1]
            self._versions, self._changes = self._versions[-_KEPT:], self._changes[-_KEPT:]
        return len(new)

    # ---- the watch ----

    def _keep_watching(self, within: float) -> None:
        """The caller holds the lock."""
        watch = self._watch
        if watch is not None and watch.serves(within):
            watch.wanted = True
            return
        if watch is not None:
            within = min(within, watch.within) if watch.is_alive() else within
            watch.end()
        if not self._closed:
            self._watch = _Watch(self, self._calls, self._namespace, within)
            self._watch.start()

    def version(self) -> Version:
        with self._lock:
            return self._version

    def used(self) -> bool:
        """Whether somebody looked at the head word since the last call."""
        return bool(lib.mv_head_used(self._address))

    def rest(self) -> None:
        """End the watch and wait for its thread; who wants it starts another."""
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()
            watch.join(_REST_SECONDS)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._watch is not None:
                self._watch.end()


class _Watch(threading.Thread):
    """Reads the watch of a namespace, and opens it again after a failure."""

    def __init__(self, follower: Follower, calls: Calls, namespace: NamespaceId, within: float) -> None:
        super().__init__(name=f"mvvfs-follow-{namespace}", daemon=True)
        self.within = within
        self.wanted = True
        """Set by who would have liked to begin without a call."""
        self._heartbeat = min(max(within / _BEATS, _SHORTEST_HEARTBEAT), _LONGEST_HEARTBEAT)
        self._follower = follower
        self._calls = calls
        self._namespace = namespace
        self._ended = threading.Event()
        self._stream: Stream | None = None
        self._heard_at = time.monotonic()
        self._used_at = time.monotonic()

    def serves(self, within: float) -> bool:
        """Whether it runs, and often enough."""
        if not self.is_alive() or self._ended.is_set() or within < self.within:
            return False
        if time.monotonic() - self._heard_at > max(_SILENT * self._heartbeat, 1.0):
            self._heard_at = time.monotonic()
            if self._stream is not None:
                self._stream.give_up()  # it is opened again, perhaps to another address
        return True

    def end(self) -> None:
        self._ended.set()
        if self._stream is not None:
            self._stream.end()

    def run(self) -> None:
        again = pauses()
        while not self._ended.is_set():
            try:
                self._follow()
                again = pauses()
            except Lost:
                pass
            except StoreError:  # not allowed, dropped, unsupported: a begin will say so
                return
            if not self._is_used() or self._ended.wait(next(again)):
                return

    def _is_used(self) -> bool:
        if self._follower.used() or self.wanted:
            self.wanted = False
            self._used_at = time.monotonic()
        return time.monotonic() - self._used_at < IDLE_SECONDS

    def _follow(self) -> None:
        for opening in range(_OPENINGS):
            if self._open_and_read(last=opening == _OPENINGS - 1):
                return

    def _open_and_read(self, *, last: bool) -> bool:
        """Read until the end.  False: the first answer took so long that the times would be worth little, and
        it was not the last try."""
        version = self._follower.version()
        opened = time.monotonic_ns()
        request = pb.WatchRequest(namespace=self._namespace, after=version, heartbeat=self._heartbeat)
        stream = self._stream = self._calls.watch(request)
        self._heard_at = time.monotonic()
        clock = 0.0
        try:
            for message in stream:
                watched = wire.watched_of(message)
                self._heard_at = time.monotonic()
                if not clock:
                    clock = watched.clock
                    if not last and time.monotonic_ns() - opened > self.within * 1e9 / _BEATS:
                        return False
                as_of = opened + int((watched.clock - clock) * 1e9) if watched.clock else 0
                self._follower.heard(version, watched.version, watched.changes, as_of)
                version = max(version, watched.version)
                if self._ended.is_set() or not self._is_used():
                    self._ended.set()
                    return True
        finally:
            stream.end()
        return True
