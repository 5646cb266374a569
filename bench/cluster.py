"""A FoundationDB cluster to measure on: a store under a prefix of its own, a service, and what is no rate.

Called by `cli`.  The cluster is that of FDB_CLUSTER_FILE or of the default place.
"""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mvvfs
from bench.errors import BenchError
from bench.results import Finding
from bench.stats import percentile
from pagestore.api import (
    CommitPart,
    CommitRequest,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    new_token,
)
from pagestore.encoding import encode
from pagestore.opener import open_store

_FIRST = ("nice", "-n", "-10")
"""The service shares its processors with its clients: it goes first, as docs/deploy.md says for such
machines.  (Without the right to it, `nice` says so and runs it as it is.)"""

_PATIENCE_S = 30.0
PAGE_COUNTS = (1, 10, 100, 1_000, 10_000)
_PAGE_SIZE = 4096
_LARGE_MIB = 1024


@dataclass(frozen=True, slots=True)
class Stores:
    """URLs of one store: on the cluster itself, and behind a service."""

    direct: str
    served: str


@contextmanager
def running(directory: Path) -> Iterator[Stores]:
    """A fresh store, cleared in the end.  Raises BenchError where there is no cluster."""
    prefix = f"bench-{os.urandom(6).hex()}"
    direct = f"fdb:{os.environ.get('FDB_CLUSTER_FILE', '')}?prefix={prefix}"
    try:
        open_store(direct, create=True).close()
    except mvvfs.Error as exc:
        raise BenchError(f"no cluster to measure on: {exc}") from exc
    socket = directory / "service.sock"
    serve = ["serve", "--store", direct, "--listen", f"unix:{socket}"]
    with (directory / "service.log").open("w") as output:
        service = subprocess.Popen(
            [*_FIRST, sys.executable, "-m", "pagestore.service", *serve], stderr=output
        )
    try:
        yield Stores(direct, f"grpc+unix:{socket}")
    finally:
        service.terminate()
        service.wait(_PATIENCE_S)
        _clear(prefix)


def _clear(prefix: str) -> None:
    fdb = importlib.import_module("fdb")

    fdb.api_version(710)
    for first in (b"\x02" + prefix.encode() + b"\0", b"\x02bench\0"):
        tr = fdb.open().create_transaction()
        tr.clear_range(first, first + b"\xff")
        tr.commit().wait()


def findings(url: str, small: bool, told: Callable[[str], None]) -> list[Finding]:
    """Commit latency against pages and history; the time and memory of a large transaction."""
    store = open_store(url, create=False)
    try:
        # history first: a cluster still writes to its disk for seconds after commits of 10,000 pages
        by_history = list(_by_history(store, small, told))
        found = [*_by_pages(store, small, told), *by_history]
    finally:
        store.close()
    return found + _large(url, 16 if small else _LARGE_MIB, told)


class _Commits:
    """Commits of whole pages to a namespace of their own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._id = store.create(f"latency-{os.urandom(6).hex()}").id
        self._base = store.begin(self._id).version
        self._allocated: set[int] = set()
        self._rng = random.Random(1)

    def commit(self, pages: int) -> float:
        """Seconds."""
        writes = []
        for number in map(PageNumber, range(1, pages + 1)):
            content = self._rng.randbytes(_PAGE_SIZE // 2) + bytes(_PAGE_SIZE // 2)
            writes.append(PageWrite(number, encode(number, content, None, moves=False).blob))
        fresh = [write.number for write in writes if write.number not in self._allocated]
        part = CommitPart(self._id, PageSet(), writes, _PAGE_SIZE, fresh)
        request = CommitRequest(new_token(), self._base, (part,))
        started = time.perf_counter()
        self._base = self._store.commit(request).version
        seconds = time.perf_counter() - started
        self._allocated.update(fresh)
        return seconds


def _by_pages(store: Store, small: bool, told: Callable[[str], None]) -> Iterator[Finding]:
    for pages in PAGE_COUNTS:
        told(f"commits of {pages} pages")
        commits = _Commits(store)
        times = sorted(commits.commit(pages) for _ in range(3 if small or pages > 1000 else 20))
        yield _found(f"commit of {pages:,} pages, median", 1000 * percentile(times, 50), "ms")


def _by_history(store: Store, small: bool, told: Callable[[str], None]) -> Iterator[Finding]:
    commits = _Commits(store)
    length = 0
    for target in (10, 100) if small else (100, 1_000, 10_000):
        told(f"a history of {target} commits")
        while length < target:
            commits.commit(1)
            length += 1
        times = sorted(commits.commit(1) for _ in range(50))
        length += len(times)
        what = f"commit of 1 page after {target:,} commits, median"
        yield _found(what, 1000 * percentile(times, 50), "ms")


_LARGE = """
import sys, time
import mvvfs
from bench.memory import peak
connection = mvvfs.connect("large", store=sys.argv[1], timeout=60)
connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
rows = int(sys.argv[2]) * (1 << 20) // 4000
connection.execute("BEGIN")
connection.execute(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
    "INSERT INTO t(v) SELECT randomblob(3900) FROM n", (rows,)
)
before = peak()
started = time.perf_counter()
connection.execute("COMMIT")
print(time.perf_counter() - started, before, peak())
"""


def _large(url: str, mib: int, told: Callable[[str], None]) -> list[Finding]:
    """In a process of its own, whose memory is measured."""
    told(f"a transaction of {mib} MiB")
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, url, str(mib)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"the large transaction failed:\n{done.stderr}")
    seconds, before, peak = map(float, done.stdout.split())
    return [
        _found(f"COMMIT of {mib:,} MiB of new pages", seconds, "s"),
        _found(f"memory before that COMMIT, {mib:,} MiB", before / 2**20, "MiB"),
        _found(f"memory at its peak, {mib:,} MiB", peak / 2**20, "MiB"),
    ]


def _found(what: str, figure: float, unit: str) -> Finding:
    return Finding("cluster", what, round(figure, 2 if unit == "ms" else 1), None, unit)
