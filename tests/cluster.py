"""A FoundationDB cluster for tests, where there is one: FDB_CLUSTER_FILE or the default place.

Each test works under its own random prefix, which is cleared afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pytest

from pagestore import format, keys
from pagestore.api import StoreError
from pagestore.cluster import parse
from pagestore.engines.base import Engine
from pagestore.engines.foundationdb import FoundationEngine

DEFAULT_CLUSTER_FILE = "/etc/foundationdb/fdb.cluster"
_PATIENCE = 3.0


@cache
def missing() -> str | None:
    """Why there is no cluster to test on, in one line; None if there is."""
    file = os.environ.get("FDB_CLUSTER_FILE", DEFAULT_CLUSTER_FILE)
    if not Path(file).is_file():
        return f"no FoundationDB: there is no cluster file {file} (FDB_CLUSTER_FILE names another)"
    try:
        engine = FoundationEngine(file, b"\x02unused\0")
        engine.read(lambda tx: tx.read_version(), timeout=_PATIENCE)
    except StoreError as exc:
        return f"no FoundationDB: {exc}"
    return None


def need() -> None:
    """Skip the test where there is no cluster."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)


@contextmanager
def prefix() -> Iterator[str]:
    """A prefix that nobody uses, cleared afterwards."""
    need()
    name = f"test-{os.urandom(8).hex()}"
    try:
        yield name
    finally:
        _clear(name)


def clear(url: str) -> None:
    """Remove the store at a URL that `url` made."""
    _clear(parse(url).prefix)


def _clear(prefix: str) -> None:
    engine(prefix).transact(lambda tx: tx.clear_range(b"", b"\xff" * 10))


def engine(prefix: str) -> Engine:
    opened = FoundationEngine(None, keys.store_prefix(prefix))
    opened.read(lambda tx: tx.read_version())  # a library of several versions refuses the first transaction
    return opened


def make_store(prefix: str) -> None:
    engine(prefix).transact(lambda tx: tx.set(*format.row()))


def url(prefix: str) -> str:
    return f"fdb:{quote(os.environ.get('FDB_CLUSTER_FILE', ''))}?prefix={prefix}"
