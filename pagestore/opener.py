"""Opens a store by its URL: the one place that knows which engines there are.

Called by programs and by `mvvfs`; calls `embedded`, `cluster`, the memory engine, and `shared`.

    a path, or file:///path     an embedded store: a folder
    memory:NAME                 in this process only, for tests; lasts as long as the process
    fdb:, fdb:/cluster/file     a FoundationDB cluster; `?prefix=NAME` for one of several stores in it
    grpc://HOST:PORT           a service: opened by `mvvfs.stores`, not here

Of each folder, and of each store in a cluster, a process has one store object at a time (for each of
read-only and not), shared by all who open it and closed by the last of them: connections, caches and head
words are worth sharing.
"""

from __future__ import annotations

import os
import threading
from urllib.parse import unquote, urlsplit

from pagestore import cluster, embedded, format
from pagestore.api import FormatError, NoSuchStoreError, Store
from pagestore.engines.memory import MemoryEngine
from pagestore.shared import SharedStores
from pagestore.store import PageStore

NETWORK_SECONDS = 5.0
"""What an operation over a network may take where the caller's timeout is 0.  That says, as SQLite's busy
timeout does, that nobody is to be waited for; an answer takes its time all the same."""

_shared: SharedStores[tuple[str, bool], PageStore] = SharedStores()
_memory: dict[str, MemoryEngine] = {}
_memory_lock = threading.Lock()


def open_store(url: str, *, create: bool, read_only: bool = False, timeout: float = 5.0) -> Store:
    """The store at `url`.  Close it as often as it was opened.

    `create`: make it if there is none.  `timeout`: seconds that an operation waits for the store (0, over
    a network: NETWORK_SECONDS); where it is shared, the longest that anyone asked for.  Raises
    NoSuchStoreError, FormatError, StoreReadOnlyError, StoreFullError, StoreUnavailableError."""
    if url.startswith("memory:"):
        return _open_memory(url, create, timeout)
    if url.startswith("fdb:"):
        place = cluster.parse(url)
        timeout = timeout or NETWORK_SECONDS
        return _shared.open(
            (place.url, read_only),
            lambda: cluster.open_cluster(place, create=create, read_only=read_only, timeout=timeout),
            timeout,
        )
    path = _path_of(url)
    return _shared.open(
        (path, read_only),
        lambda: embedded.open_folder(path, create=create, read_only=read_only, timeout=timeout),
        timeout,
    )


def _path_of(url: str) -> str:
    scheme, colon, _ = url.partition(":")
    if scheme == "file" and colon:
        return os.path.realpath(unquote(urlsplit(url).path))
    if colon and scheme in ("grpc", "grpcs"):
        raise FormatError(f"stores at {scheme}: can't be opened by this release")
    return os.path.realpath(url)


def _open_memory(url: str, create: bool, timeout: float) -> PageStore:
    with _memory_lock:
        engine = _memory.get(url)
        if engine is None:
            if not create:
                raise NoSuchStoreError(f"there is no store {url} in this process")
            engine = _memory[url] = MemoryEngine()
            engine.transact(lambda tx: tx.set(*format.row()))
        return PageStore(engine, url, timeout)


def _after_fork() -> None:
    """In a child: stores that were open belong to the parent."""
    global _memory_lock
    _memory_lock = threading.Lock()
    _memory.clear()


os.register_at_fork(after_in_child=_after_fork)
