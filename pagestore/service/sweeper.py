"""Retention, run by the service: now and then, a little for each namespace.

Started by `server`, in one of the workers; calls `Store.collect` in a thread.

1. One task for all namespaces, and only while the service runs: a namespace has no timer.
2. A namespace gets `SLICE_SECONDS` a round; what is left waits for the next.
3. When something went, unused space is given back to the file system, in small steps (`Store.give_back`).
"""

from __future__ import annotations

import asyncio
import logging
import time

from pagestore.api import Namespace, NoSuchNamespaceError, StoreError, UnsupportedError
from pagestore.service.backend import Backend

SLICE_SECONDS = 1.0

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
    try:
        work = backend.slow(lambda: backend.store.collect(namespace.id, seconds=SLICE_SECONDS))
        collected = await work
    except NoSuchNamespaceError:  # dropped meanwhile
        return 0
    metrics = backend.metrics
    metrics.collected.inc(collected.bytes)
    if collected.horizon_us:
        label = metrics.namespace(namespace.name)
        metrics.restorable.labels(label).set(time.time() - collected.horizon_us / 1e6)
    return collected.bytes
