"""What the calls of one worker share.

Made by `server`; used by `gate` and the functions in `calls`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pagestore.api import NamespaceId, Store, Version
from pagestore.recent_writes import RecentWrites
from pagestore.service.committer import Committer
from pagestore.service.ids import Ids
from pagestore.service.metrics import Metrics
from pagestore.service.names import Names
from pagestore.service.settings import Settings
from pagestore.service.strands import Strands
from pagestore.service.watching import Watching

T = TypeVar("T")

_QUICK_THREADS, _SLOW_THREADS = 8, 2


class Backend:
    """A store, and what stands around it."""

    def __init__(
        self, store: Store, settings: Settings, metrics: Metrics, failed: Callable[[], None]
    ) -> None:
        """`failed` is called once the store can't be used any more."""
        self.store = store
        self.settings = settings
        self.metrics = metrics
        self.ids = Ids(store.incarnation())
        self.names = Names(store)
        self.recent_writes = RecentWrites()
        self._strands = Strands() if store.waits_anywhere else None
        self.committer = Committer(store, failed, metrics, self._strands)
        self.watching = Watching(store, self.committer, metrics, self.look)
        self._beside: dict[tuple[NamespaceId, Version | None], asyncio.Task[object]] = {}
        self._quick = ThreadPoolExecutor(_QUICK_THREADS, thread_name_prefix="call")
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="slow-call")

    def begin_beside(
        self, namespace: NamespaceId, read_version: Version | None, begin: Coroutine[Any, Any, object]
    ) -> None:
        """Run a begin that its caller was spared, for who commits from it (`begun`).  It raises nothing."""
        key = namespace, read_version
        task = self._beside[key] = asyncio.create_task(begin)
        task.add_done_callback(lambda _: self._beside.pop(key, None))

    async def begun(self, namespace: NamespaceId, read_version: Version) -> None:
        """Return once that begin is over."""
        task = self._beside.get((namespace, read_version))
        if task is not None:
            await asyncio.wait([task])

    async def look(self, work: Callable[[], T]) -> T:
        """A short look into the store: in the event loop, unless that would hold it up for a network."""
        if self._strands is not None:
            return await self._strands.run(work)
        return await self.quick(work) if self.store.distant else work()

    async def brief(self, work: Callable[[], T]) -> T:
        """What is short, but may wait for a lock."""
        return await (self.quick(work) if self._strands is None else self._strands.run(work))

    async def quick(self, work: Callable[[], T]) -> T:
        """What may wait for a lock and take a while, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, work)

    async def slow(self, work: Callable[[], T]) -> T:
        """What may walk over much, in one of a few threads, so that it leaves the others alone."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, work)

    async def tell(self, version: Version) -> None:
        """To be awaited before a version that the store told leaves the process."""
        await self.committer.flushed(version)
        self.metrics.handed_out(version)

    async def believe(self, namespace: NamespaceId, version: Version) -> Version:
        """A version that a caller names, once it is known to be one, and flushed.

        Nearly always it was told here before; a service that has just started asks the store.  Raises
        NoSuchVersionError, BelowHorizonError, NoSuchNamespaceError."""
        if not self.committer.has_flushed(version):
            known = await self.look(lambda: self.store.begin(namespace, version, version))
            await self.committer.flushed(known.version)
        return version

    def committed(self, namespace: NamespaceId) -> None:
        """A commit was made here: nobody who watches has to wait for the next look."""
        self.watching.wake(namespace)

    async def close(self) -> None:
        if self._beside:
            await asyncio.wait(self._beside.values())
        await self.committer.close()
        if self._strands is not None:
            await self._strands.close()
        self._quick.shutdown()
        self._slow.shutdown()
