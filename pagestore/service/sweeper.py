"""Retention, run by the service: now and then, a little for each namespace.

Started by `server`, in one of the workers; calls `Store.collect` in a thread.

1. One task for all namespaces, and only while the service runs: a namespace has no timer.
2. A namespace gets `SLICES` times `SLICE_SECONDS` a round, mostly rests where others write to an embedded
   store; what is left waits for the next.  Between two slices it can be stopped.
3. When something went, unused space is given back to the file system, in small steps (`Store.give_back`).
"""

from __future__ import annotations

import asyncio
import logging
import time

from pagestore.api import Namespace, NoSuchNamespaceError, StoreError, UnsupportedError
from pagestore.service.backend import Backend

SLICE_SECONDS, SLICES = 1.0, 10

log = logging.getLogger("pagestore.service")


async def sweep(backend: Backend, every: float) -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(every)
        try:
            namespaces = await backend.slow(backend.store.list)
            freed = 0
            for namespace in namespaces:
                freed += await _collect(backend, namespace)
            if freed:
                await backend.slow(backend.store.give_back)
        except UnsupportedError:
            log.info("this store keeps everything: no retention to run")
            return
        except StoreError as exc:
            log.warning("retention put off: %s", exc)


async def _collect(backend: Backend, namespace: Namespace) -> int:
    """The bytes that went."""
    freed = 0
    metrics = backend.metrics
    for _ in range(SLICES):
        try:
            work = backend.slow(lambda: backend.store.collect(namespace.id, seconds=SLICE_SECONDS))
            collected = await work
        except NoSuchNamespaceError:  # dropped meanwhile
            break
        freed += collected.bytes
        metrics.collected.inc(collected.bytes)
        if collected.horizon_us:
            label = metrics.namespace(namespace.name)
            metrics.restorable.labels(label).set(time.time() - collected.horizon_us / 1e6)
        if collected.complete:
            break
    return freed
