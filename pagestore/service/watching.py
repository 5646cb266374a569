"""Streams of commits: many readers of many namespaces, one task that looks.

Called by the `Watch` call; calls `pagestore.watch.Follower` and the committer, for the flush.

1. The task exists while somebody watches.  It looks at the head word of each namespace that is watched
   (which commits of all processes move), a few hundred times a second, and asks the store only for those
   whose word moved.  A commit made by this worker wakes it at once.
2. What one look found is put into a message once, for all who stood where it starts; whoever stands
   elsewhere asks the store for itself.
3. A reader that is slow is told more at once, later: nothing piles up for it here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from pagestore import wire
from pagestore.api import NamespaceId, Store, StoreError, Version, Watched
from pagestore.service.committer import Committer
from pagestore.service.metrics import Metrics
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.watch import Follower

Look = Callable[[Callable[[], Any]], Awaitable[Any]]

log = logging.getLogger("pagestore.service")


class _Followed:
    """A namespace that somebody watches."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.readers = 0
        self.version: Version = follower.version
        """The newest one, flushed."""
        self.before: Version | None = None
        """Where `message` starts."""
        self.message: pb.WatchResponse | None = None
        self.news = asyncio.Event()
        """Set, and replaced, whenever `version` moves or `error` comes."""
        self.error: StoreError | None = None

    def tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Watching:
    """See the head of this file.  Belongs to one event loop."""

    def __init__(self, store: Store, committer: Committer, metrics: Metrics, look: Look) -> None:
        """`look`: how to look into the store (`Backend.look`)."""
        self._store = store
        self._look_into = look
        self._committer = committer
        self._metrics = metrics
        self._followed: dict[NamespaceId, _Followed] = {}
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False

    def wake(self, namespace: NamespaceId) -> None:
        if namespace in self._followed:
            self._woken.set()

    def close(self) -> None:
        """End all streams."""
        self._closing = True
        for followed in self._followed.values():
            followed.tell()

    async def watch(
        self, namespace: NamespaceId, after: Version, heartbeat: float
    ) -> AsyncIterator[pb.WatchResponse]:
        """What `Store.watch` tells, as messages.  Ends when `close` is called.

        Raises what `Store.begin` does."""
        watched = await self._since(namespace, after)
        yield wire.watched_message(watched)
        followed = self._join(namespace, watched.version)
        told = watched.version
        try:
            while not self._closing:
                silent = False
                if followed.version <= told and followed.error is None:
                    try:
                        await asyncio.wait_for(followed.news.wait(), heartbeat)
                    except TimeoutError:
                        silent = True
                if followed.error is not None:
                    raise followed.error
                if followed.before == told and followed.message is not None:
                    told = followed.version
                    yield followed.message
                elif silent or followed.version > told:
                    watched = await self._since(namespace, told)
                    told = watched.version
                    yield wire.watched_message(watched)
        finally:
            self._leave(namespace, followed)

    async def _since(self, namespace: NamespaceId, told: Version) -> Watched:
        clock = time.monotonic()
        start = await self._look_into(lambda: self._store.begin(namespace, told))
        await self._committer.flushed(start.version)
        return Watched(start.version, start.changes, clock)

    def _join(self, namespace: NamespaceId, after: Version) -> _Followed:
        followed = self._followed.get(namespace)
        if followed is None:
            followed = self._followed[namespace] = _Followed(Follower(self._store, namespace, after))
            self._metrics.followed.inc()
        followed.readers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return followed

    def _leave(self, namespace: NamespaceId, followed: _Followed) -> None:
        followed.readers -= 1
        if not followed.readers and self._followed.get(namespace) is followed:
            del self._followed[namespace]
            self._metrics.followed.dec()

    async def _run(self) -> None:
        while self._followed:
            interval = 1.0
            for namespace, followed in list(self._followed.items()):
                interval = min(interval, followed.follower.interval)
                if followed.follower.moved():
                    await self._look(followed)
                if followed.error is not None and self._followed.get(namespace) is followed:
                    del self._followed[namespace]  # a later reader starts anew
                    self._metrics.followed.dec()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), interval)
                self._woken.clear()
        self._task = None

    async def _look(self, followed: _Followed) -> None:
        """Bring what is known of a namespace up to date."""
        before = followed.follower.version
        try:
            watched = await self._look_into(followed.follower.look)
            if watched is None:
                return
            await self._committer.flushed(watched.version)
        except StoreError as exc:
            followed.error = exc
            followed.tell()
            return
        if watched.version <= followed.version:  # another look was faster
            return
        followed.before, followed.version = before, watched.version
        followed.message = wire.watched_message(watched)
        followed.tell()
