"""What only the foundationdb engine promises: deadlines, errors by name, unknown outcomes, fork and exit."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pagestore import format, keys, watch
from pagestore.api import (
    CommitRequest,
    FormatError,
    LimitError,
    NoSuchStoreError,
    OutcomeUnknownError,
    PageNumber,
    StoreReadOnlyError,
    StoreUnavailableError,
    Version,
    Watched,
    new_token,
)
from pagestore.engines.base import Engine, KeyRange, Transaction
from pagestore.engines.foundationdb import FoundationEngine
from pagestore.engines.foundationdb_handles import Handle
from pagestore.opener import open_store
from pagestore.service.metrics import EngineOperations
from pagestore.store import PageStore
from tests import cluster
from tests.pages import Pages, content

pytestmark = pytest.mark.foundationdb


@pytest.fixture
def prefix() -> Iterator[str]:
    with cluster.prefix() as name:
        yield name


@pytest.fixture
def engine(prefix: str) -> Engine:
    return cluster.engine(prefix)


class Interfering:
    """An engine's client library, whose first commits meet errors, before or after they happened."""

    def __init__(self, engine: Engine, *errors: int, before: bool = False) -> None:
        assert isinstance(engine, FoundationEngine)
        self.error, self.errors, self.before = engine.error_type, list(errors), before
        begin = engine.new_transaction
        engine.new_transaction = lambda *args, **options: _Transaction(  # type: ignore[method-assign, assignment, return-value]
            self, begin(*args, **options)
        )


class _Transaction:
    def __init__(self, owner: Interfering, tr: Handle) -> None:
        self._owner, self._tr = owner, tr

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tr, name)

    def commit(self, operations: bytes) -> tuple[Any, Any]:
        if not self._owner.errors:
            return self._tr.commit(operations)
        if not self._owner.before:
            self._tr.commit(operations)[1].wait()
        failed = _Failed(self._owner.error(self._owner.errors.pop(0)))
        return failed, failed


class _Failed:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def wait(self) -> None:
        raise self._error


def put(tx: Transaction) -> None:
    tx.set(b"k", b"v")


def counted(engine: Engine) -> tuple[int, int]:
    """Retries and commits."""
    operations = engine.operations()
    assert operations is not None
    return operations.retries, operations.commits


# ---- errors ----


@pytest.mark.parametrize("code", [1007, 1009, 1020, 1037, 1042, 1051, 1213])
def test_what_can_be_tried_again_is(engine: Engine, code: int) -> None:
    Interfering(engine, code, code, before=True)
    retries, commits = counted(engine)
    assert engine.transact(put).version is not None
    assert counted(engine) == (retries + 2, commits + 1)


def test_a_commit_of_unknown_fate_finds_itself(engine: Engine) -> None:
    engine.transact(lambda tx: tx.set(*format.row()))
    pages = Pages(PageStore(engine, "test:", 5.0), PageStore(engine, "test:", 5.0).create("main").id)
    before = pages.version()
    Interfering(engine, 1021)
    done = pages.commit({1: b"x" * 512})
    changes = list(pages.store.changelog(pages.id, after=before))
    assert [change.version for change in changes] == [done.version]
    assert done.time_us == changes[0].time_us


def test_a_commit_of_unknown_fate_that_did_not_happen(engine: Engine) -> None:
    engine.transact(lambda tx: tx.set(*format.row()))
    pages = Pages(PageStore(engine, "test:", 5.0), PageStore(engine, "test:", 5.0).create("main").id)
    Interfering(engine, 1021, before=True)
    done = pages.commit({1: b"x" * 512})
    assert [change.version for change in pages.store.changelog(pages.id)] == [done.version]


@pytest.mark.parametrize(("code", "idempotent"), [(1031, True), (1031, False), (1021, False), (1039, False)])
def test_an_outcome_that_nobody_knows(engine: Engine, code: int, idempotent: bool) -> None:
    Interfering(engine, code)
    with pytest.raises(OutcomeUnknownError):
        engine.transact(put, idempotent=idempotent)
    assert engine.read(lambda tx: tx.get(b"k")) == b"v"


def test_a_cluster_that_changes_its_version_before_the_commit(engine: Engine) -> None:
    """What was not sent did not happen.  A library of one version does not know what to do about it."""
    errors = [engine.error_type(1039)]  # type: ignore[attr-defined]

    def work(tx: Transaction) -> None:
        put(tx)
        if errors:
            raise errors.pop()

    with suppress(StoreUnavailableError):  # not OutcomeUnknownError
        engine.transact(work, idempotent=False)


def test_too_large_a_transaction_is_refused_by_name(engine: Engine) -> None:
    def work(tx: Transaction) -> None:
        for n in range(120):
            tx.set(b"k%d" % n, bytes(99_000))

    with pytest.raises(LimitError, match=r"transaction_too_large \(2101\)"):
        engine.transact(work)
    with pytest.raises(LimitError, match="value_too_large"):
        engine.transact(lambda tx: tx.set(b"k", bytes(100_001)))
    assert engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xff")))) == []


def test_what_takes_too_long_ends_at_its_deadline(engine: Engine) -> None:
    def endless(tx: Transaction) -> None:
        tx.read_version()
        engine.transact(put)
        tx.add_read_conflict(b"k", b"l")
        put(tx)

    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"transaction_timed_out \(1031\).*not_committed"):
        engine.transact(endless, timeout=0.5)
    assert 0.4 < time.monotonic() - started < 2


def test_versions_above_the_clusters_own_fail_closed(engine: Engine) -> None:
    """As after a restore to another cluster without `advanceversion`."""
    engine.transact(lambda tx: tx.set(*format.row()))
    store = PageStore(engine, "test:", 5.0)
    pages = Pages(store, store.create("main").id)
    version = pages.commit({1: b"x" * 512}).version
    future = Version(b"\x7f" + version[1:])
    record = engine.read(lambda tx: list(tx.scan(KeyRange(*keys.log(pages.id, Version(bytes(10)), version)))))
    engine.transact(lambda tx: tx.set(keys.log_prefix(pages.id) + future + keys.VERSION_SUFFIX, record[0][1]))
    for since in (None, version):
        with pytest.raises(StoreUnavailableError, match="advanceversion"):
            store.begin(pages.id, since)
    with pytest.raises(StoreUnavailableError, match="advanceversion"):
        pages.commit({1: b"y" * 512}, version)


# ---- opening ----


@pytest.fixture
def away(tmp_path: Path) -> str:
    """The URL of a cluster that does not answer."""
    cluster.need()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    file = tmp_path / "fdb.cluster"
    file.write_text(f"none:none@127.0.0.1:{port}")
    return f"fdb:{file}"


def test_a_cluster_that_is_away(away: str) -> None:
    for create in (True, False):
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="transaction_timed_out"):
            open_store(away, create=create, timeout=0.5)
        assert time.monotonic() - started < 3


def test_cluster_files_that_are_none(tmp_path: Path) -> None:
    cluster.need()
    with pytest.raises(StoreUnavailableError, match="no_cluster_file_found"):
        open_store(f"fdb:{tmp_path}/missing", create=True, timeout=0.5)
    (tmp_path / "bad").write_text("what?")
    with pytest.raises(StoreUnavailableError, match="connection_string_invalid"):
        open_store(f"fdb:{tmp_path}/bad", create=True, timeout=0.5)


def test_opening(prefix: str) -> None:
    url = cluster.url(prefix)
    with pytest.raises(NoSuchStoreError):
        open_store(url, create=False)
    with pytest.raises(NoSuchStoreError):
        open_store(url, create=True, read_only=True)
    store = open_store(url, create=True)
    assert open_store(store.url, create=False) is store
    with pytest.raises(StoreReadOnlyError):
        open_store(url, create=False, read_only=True).create("x")
    store.close()
    store.create("x")
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.list()
    assert [found.name for found in open_store(url, create=False).list()] == ["x"]


def test_a_prefix_that_holds_something_else(prefix: str, engine: Engine) -> None:
    engine.transact(put)
    with pytest.raises(FormatError, match="other things"):
        open_store(cluster.url(prefix), create=True)


def test_a_store_of_another_release(prefix: str, engine: Engine) -> None:
    engine.transact(lambda tx: tx.set(keys.FORMAT, b'{"format": 2, "features": [], "store": ""}'))
    with pytest.raises(FormatError, match="format 2"):
        open_store(cluster.url(prefix), create=True)


# ---- processes ----

_FORKING = """
import os, sys, mvvfs
url = sys.argv[1]
db = mvvfs.connect("app", store=url)
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
child = os.fork()
if child == 0:
    def read():
        return db.execute("SELECT * FROM t").fetchall()
    for attempt in read, lambda: mvvfs.connect("app", store=url):
        try:
            attempt()
        except Exception as exc:
            print("refused:", exc)
    sys.exit(7)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
db.execute("INSERT INTO t VALUES (1)")
print("parent", db.execute("SELECT count(*) FROM t").fetchall())
"""

_LATER = """
import os, sys
import mvvfs
child = os.fork()
if child == 0:
    db = mvvfs.connect("app", store=sys.argv[1])
    db.execute("CREATE TABLE t(x)")
    sys.exit(7)
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
db = mvvfs.connect("app", store=sys.argv[1])
print("parent", db.execute("SELECT count(*) FROM t").fetchall())
"""

_BUSY_AT_EXIT = """
import sys, threading, time
from pagestore.opener import open_store
store = open_store(sys.argv[1], create=True)
name = store.create("x").id
def busy():
    while True:
        store.begin(name)
for _ in range(4):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
print("leaving")
"""


def run(script: str, prefix: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, cluster.url(prefix)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_fork_after_opening(prefix: str) -> None:
    *refused, child, parent = run(_FORKING, prefix)
    assert len(refused) == 2
    assert "fork" in refused[0]
    assert "forked off one that used it" in refused[1]
    assert (child, parent) == ("child 7", "parent [(1,)]")


def test_fork_before_opening(prefix: str) -> None:
    assert run(_LATER, prefix) == ["child 7", "parent [(0,)]"]


def test_threads_that_are_busy_when_the_process_ends(prefix: str) -> None:
    assert run(_BUSY_AT_EXIT, prefix) == ["leaving"]


# ---- what an action asks of the cluster ----


class Meter:
    """What has been asked since the last look."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        counted = self._engine.operations()
        assert counted is not None
        return asdict(counted)

    def __call__(self) -> dict[str, int]:
        now = self._now()
        spent = {name: now[name] - self._before[name] for name in now}
        self._before = now
        return {name: count for name, count in spent.items() if count}


@pytest.fixture
def pages(engine: Engine) -> Pages:
    engine.transact(lambda tx: tx.set(*format.row()))
    store = PageStore(engine, "test:", 5.0)
    pages = Pages(store, store.create("main").id)
    for n in range(3):
        pages.commit({number: content(n, number) for number in range(1, 40)}, token=_quiet_token(n))
    return pages


def _quiet_token(n: int) -> bytes:
    """Of a commit behind which neither an allocation image nor a step of retention is due."""
    return new_token()[:-4] + bytes((n >> 8, n & 255, 1, 1))


def test_begin_is_one_range_read(pages: Pages, engine: Engine) -> None:
    since = pages.version()
    spent = Meter(engine)
    pages.store.begin(pages.id, since)
    assert spent() == {"range_reads": 1, "parts": 1, "rows": 2}  # the record, and the commit of `since`
    for n in range(20):
        pages.commit({1: content(n)}, token=_quiet_token(n))
    spent()
    assert len(pages.store.begin(pages.id, since).changes or ()) == 20
    assert spent() == {"range_reads": 1, "parts": 1, "rows": 22}


@pytest.mark.parametrize("count", [1, 32])
def test_an_uncached_page_is_one_range_read(pages: Pages, engine: Engine, count: int) -> None:
    version = pages.version()
    spent = Meter(engine)
    pages.store.read(pages.id, version, [PageNumber(number) for number in range(1, count + 1)])
    asked = spent()
    assert asked["range_reads"] == asked["parts"] == count + 1  # and one for the namespace's record


def test_a_page_with_a_long_chain_is_one_range_read(pages: Pages, engine: Engine) -> None:
    for n in range(12):
        pages.commit({1: content(0)[:n] + b"!" + content(0)[n + 1 :]}, token=_quiet_token(n))
    version = pages.version()
    spent = Meter(engine)
    pages.store.read(pages.id, version, [PageNumber(1)])
    assert spent()["parts"] == 2


@pytest.mark.parametrize("count", [1, 10, 39])
def test_a_commit_of_n_pages_is_n_sets_and_a_constant(pages: Pages, engine: Engine, count: int) -> None:
    base = pages.version()
    contents = {number: content("new", number) for number in range(1, count + 1)}
    request = CommitRequest(_quiet_token(1), base, (pages.part(contents, base),))
    spent = Meter(engine)
    pages.store.commit(request)
    asked = spent()
    assert asked["sets"] == count + 4  # changelog, time, token, and what watches look at
    assert asked["gets"] == 1  # the token
    # record and changelog; the queue; afterwards the changelog between snapshot and commit
    assert asked["range_reads"] == asked["parts"] == 3
    assert asked["rows"] == 2
    assert asked["conflicts"] == 4  # the token, the record, one run of pages read, one of pages written
    assert (asked["commits"], asked.get("retries", 0), asked.get("clears", 0)) == (1, 0, 0)


@pytest.mark.parametrize("count", [1, 10, 39])
def test_a_commit_that_stands_at_its_begin_reads_nothing(pages: Pages, engine: Engine, count: int) -> None:
    request = pages.request({number: content("new", number) for number in range(1, count + 1)})
    request = replace(request, token=_quiet_token(1), tells_others=False)
    spent = Meter(engine)
    done = pages.store.commit(request)
    assert done.others is None
    assert spent() == {"sets": count + 4, "conflicts": 4, "commits": 1}


def test_a_read_at_a_begins_version_reads_pages_only(pages: Pages, engine: Engine) -> None:
    version = pages.store.begin(pages.id, pages.version()).version
    spent = Meter(engine)
    assert len(pages.store.read(pages.id, version, [PageNumber(n) for n in range(1, 11)])) == 10
    assert {what: n for what, n in spent().items() if what != "rows"} == {"range_reads": 10, "parts": 10}


def test_no_key_is_read_twice(pages: Pages, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    get, read = Handle.get, Handle.range

    def note_key(self: Handle, key: bytes) -> Any:
        seen.append(key)
        return get(self, key)

    def note_part(self: Handle, *args: Any, **options: Any) -> Any:
        part = read(self, *args, **options)
        seen.extend(key for key, _ in part.rows())  # all that came, not only what is used
        return part

    monkeypatch.setattr(Handle, "get", note_key)
    monkeypatch.setattr(Handle, "range", note_part)
    base = pages.version()
    request = CommitRequest(_quiet_token(1), base, (pages.part({1: content("x"), 2: None}, base),))
    for action in (
        lambda: pages.store.begin(pages.id),
        lambda: pages.store.begin(pages.id, base),
        lambda: pages.store.read(pages.id, base, [PageNumber(number) for number in range(1, 20)]),
        lambda: pages.store.commit(request),
        lambda: pages.store.lease(pages.id, 10, 60),
        lambda: pages.store.outcome(pages.id, new_token()),
    ):
        seen.clear()
        action()
        assert sorted(seen) == sorted(set(seen))


def test_a_watch_asks_nothing_until_somebody_commits(
    pages: Pages, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ASK_SECONDS", 60.0)
    other = Pages(PageStore(FoundationEngine(None, engine.prefix), "test:", 5.0), pages.id)  # type: ignore[attr-defined]
    version = pages.version()
    watching = pages.store.watch(pages.id, version, heartbeat=20)
    assert next(watching).version == version  # it has looked
    told: list[Watched] = []
    reader = threading.Thread(target=lambda: told.append(next(watching)))
    spent = Meter(engine)
    reader.start()
    time.sleep(0.5)
    assert spent() == {}
    done = other.commit({1: content("theirs")})
    reader.join(5)
    assert [one.version for one in told] == [done.version]
    assert [change.version for change in told[0].changes or ()] == [done.version]
    watching.close()


def test_a_service_shows_what_it_asked(pages: Pages) -> None:
    registry = CollectorRegistry()
    registry.register(EngineOperations(pages.store.operations))
    before = registry.get_sample_value("pagestore_engine_operations_total", {"operation": "range_reads"})
    assert before is not None
    pages.version()
    after = registry.get_sample_value("pagestore_engine_operations_total", {"operation": "range_reads"})
    assert after is not None
    assert after > before
