"""A store in a FoundationDB cluster: all its keys stand under one prefix.

Called by `opener`.  Calls the foundationdb engine.

    fdb:                          the cluster file of FDB_CLUSTER_FILE or the default place, prefix `mvvfs`
    fdb:/path/to/fdb.cluster
    fdb:?prefix=NAME              one of several stores in the cluster

1. A prefix is the tuple-encoded name, so that no store's keys lie within another's, whatever their names.
2. A prefix is a store if and only if it holds the format key.  It becomes one only while it is empty.
"""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pagestore import format, keys
from pagestore.api import FormatError, NoSuchStoreError
from pagestore.engines.base import KeyRange, Transaction
from pagestore.engines.foundationdb import FoundationEngine
from pagestore.store import PageStore

DEFAULT_PREFIX = "mvvfs"
MAX_PREFIX_BYTES = 100


class Place(NamedTuple):
    """Where a store is in which cluster."""

    cluster_file: str | None
    """None: FDB_CLUSTER_FILE, or FoundationDB's default place."""
    prefix: str

    @property
    def url(self) -> str:
        query = "" if self.prefix == DEFAULT_PREFIX else f"?prefix={quote(self.prefix, safe='')}"
        return f"fdb:{quote(self.cluster_file or '')}{query}"


def parse(url: str) -> Place:
    """Raises FormatError."""
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    (prefix,) = options.pop("prefix", [DEFAULT_PREFIX])
    if parts.scheme != "fdb" or parts.netloc or parts.fragment or options:
        raise FormatError(f"{url!r} is not written as fdb:/path/to/fdb.cluster?prefix=NAME")
    if not prefix or "\0" in prefix or len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise FormatError(f"a prefix is 1 to {MAX_PREFIX_BYTES} bytes of UTF-8 without NUL, not {prefix!r}")
    path = unquote(parts.path)
    return Place(os.path.realpath(path) if path else None, prefix)


def open_cluster(place: Place, *, create: bool, read_only: bool, timeout: float) -> PageStore:
    """Open the store at a place.

    Raises NoSuchStoreError, FormatError, StoreUnavailableError."""
    engine = FoundationEngine(place.cluster_file, keys.store_prefix(place.prefix), read_only=read_only)
    store = PageStore(engine, place.url, timeout)
    try:
        if create and not read_only:
            engine.transact(_make_store, timeout=timeout)
        elif not engine.read(lambda tx: tx.get(keys.FORMAT), timeout=timeout):
            raise NoSuchStoreError(f"there is no store {place.url}")
        engine.read(format.check, timeout=timeout)
        if not read_only:
            store.finish_drops()
    except FormatError as exc:
        store.close()
        raise FormatError(f"{place.url} is not a store that this release can read: {exc}") from exc
    except BaseException:
        store.close()
        raise
    return store


def _make_store(tx: Transaction) -> None:
    """Write the format key, unless it is there.  Raises FormatError if something else is."""
    tx.add_read_conflict(keys.FORMAT, keys.FORMAT + b"\0")
    found = tx.ask(keys.FORMAT)
    others = tx.scan(KeyRange(b"", b"\xff", 1))
    if found() is not None:
        return
    if next(others, None) is not None:
        raise FormatError("the prefix holds other things")
    tx.set(*format.row())
