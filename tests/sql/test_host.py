"""The host program: threads, fork, signals, exceptions in callbacks."""

from __future__ import annotations

import gc
import os
import queue
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import bridge, errors
from pagestore import embedded, opener
from pagestore.api import Store
from pagestore.opener import open_store
from tests.conftest import NAME, Connect
from tests.sql.twins import is_intact, rows, value


@pytest.fixture
def opened(store: str) -> Iterator[Store]:
    found = open_store(store, create=False)
    yield found
    found.close()


# ---- threads ----


@pytest.mark.long_on_cluster
def test_a_connection_for_each_thread(connect: Connect) -> None:
    connect().execute(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES(1, 0), (2, 0), (3, 0)"
    )
    threads, rounds = 6, 40

    def count(i: int) -> None:
        connection = connect(cache_bytes=100_000)
        for j in range(rounds):
            mvvfs.transaction(connection, tries=1000).run(
                connection.execute, "UPDATE t SET n = n + 1 WHERE id = ?", (1 + (i + j) % 3,)
            )
        connection.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(threads)))
    assert value(connect(), "SELECT sum(n) FROM t") == threads * rounds
    is_intact(connect())


def test_a_connection_that_goes_from_thread_to_thread(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t(thread)")
    for i in range(10):
        thread = threading.Thread(target=connection.execute, args=("INSERT INTO t VALUES(?)", (i,)))
        thread.start()
        thread.join()
    assert rows(connection, "SELECT thread FROM t") == [(i,) for i in range(10)]


def test_readers_and_writers_share_the_page_cache(connect: Connect) -> None:
    """Whatever version a thread stands at, what it reads fits together: all rows hold the same number."""
    writer = connect()
    writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad)")
    writer.executemany("INSERT INTO t VALUES(?, 0, zeroblob(900))", [(i,) for i in range(40)])
    stop = threading.Event()
    found: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        connection = connect()
        last = -1
        while not stop.is_set():
            ((low, high),) = connection.execute("SELECT min(n), max(n) FROM t").fetchall()
            if low != high or low < last:
                found.put((last, low, high))
            last = low
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for _ in range(150):
                writer.execute("UPDATE t SET n = n + 1")
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert found.empty(), found.get()


# ---- fork ----


def in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked child and returns its exit status: 0 if it returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_connection_is_refused_after_fork(connect_folder: Connect) -> None:
    connection = connect_folder()
    connection.execute("CREATE TABLE t(x)")
    writing = connect_folder()
    writing.execute("BEGIN; INSERT INTO t VALUES(1)")

    def work() -> None:
        for sql in ("SELECT * FROM t", "INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE"):
            with pytest.raises(errors.ForkError, match="fork"):
                connection.execute(sql)
        with pytest.raises(apsw.Error):
            writing.execute("COMMIT")
        for inherited in (connection, writing):
            inherited.close(True)  # of no meaning for the parent
        connect_folder().execute("INSERT INTO t VALUES('child')")

    assert in_child(work) == 0
    assert rows(connection, "SELECT x FROM t") == [("child",)]
    connection.execute("INSERT INTO t VALUES('parent')")
    assert value(connection, "SELECT count(*) FROM t") == 2
    writing.execute("ROLLBACK")
    is_intact(connection)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_standard_module_after_fork(folder: str) -> None:
    import sqlite3

    mvvfs.register()
    uri = mvvfs.options.to_uri(NAME, store=folder)
    stock = sqlite3.connect(uri, uri=True)
    stock.execute("CREATE TABLE t(x)")

    def work() -> None:
        with pytest.raises(sqlite3.Error):
            stock.execute("SELECT * FROM t")
        fresh = sqlite3.connect(uri, uri=True, isolation_level=None)
        fresh.execute("INSERT INTO t VALUES(1)")
        fresh.close()

    assert in_child(work) == 0
    assert stock.execute("SELECT * FROM t").fetchall() == [(1,)]
    stock.close()


# ---- signals and exceptions ----


class Tripwire:
    """Wraps a method of the store: at its next call something happens before, or after, the real work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store, method: str) -> None:
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None
        self.trips = 0
        real = getattr(type(store), method)

        def wrapped(this: Store, *args: Any, **keywords: Any) -> Any:
            self._trip("before")
            result = real(this, *args, **keywords)
            self._trip("after")
            return result

        monkeypatch.setattr(type(store), method, wrapped)

    def _trip(self, when: str) -> None:
        action = getattr(self, when)
        setattr(self, when, None)
        if action:
            self.trips += 1
            action()


def control_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_interrupt_during_a_fetch(connect: Connect, opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(cache_bytes=0).execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    connection = connect(cache_bytes=0)
    connection.execute(
        "INSERT INTO t SELECT value, zeroblob(3000) FROM json_each(?)", (str(list(range(100))),)
    )
    wire = Tripwire(monkeypatch, opened, "read")
    reader = connect(cache_bytes=0)
    reader.execute("PRAGMA cache_size = 5")
    wire.before = control_c
    with pytest.raises(KeyboardInterrupt):
        reader.execute("SELECT sum(length(x)) FROM t").fetchall()
    assert wire.trips == 1
    assert value(reader, "SELECT sum(length(x)) FROM t") == 300_000
    wire.before = control_c
    with pytest.raises(KeyboardInterrupt):
        reader.execute("UPDATE t SET x = zeroblob(1)")
    assert value(reader, "SELECT sum(length(x)) FROM t") == 300_000
    reader.execute("UPDATE t SET x = zeroblob(1)")
    assert value(connection, "SELECT sum(length(x)) FROM t") == 100
    is_intact(connection)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_interrupt_during_a_commit(
    connect: Connect, opened: Store, monkeypatch: pytest.MonkeyPatch, when: str, autocommit: bool
) -> None:
    """What was interrupted before the store had it did not happen; after, it did; nothing in between."""
    connection = connect()
    connection.execute("CREATE TABLE t(x)")
    wire = Tripwire(monkeypatch, opened, "commit")
    setattr(wire, when, control_c)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (it may come one instruction after the call)
        if autocommit:
            connection.execute("INSERT INTO t VALUES(1)")
        else:
            connection.execute("BEGIN; INSERT INTO t VALUES(1)")
            connection.execute("COMMIT")
        for _ in range(1000):
            pass
    assert wire.trips == 1
    if connection.in_transaction:
        assert when == "before"
        connection.execute("ROLLBACK")
    happened = int(when == "after")
    assert value(connection, "SELECT count(*) FROM t") == happened
    assert value(connect(), "SELECT count(*) FROM t") == happened
    connection.execute("INSERT INTO t VALUES(2)")
    assert value(connect(), "SELECT count(*) FROM t") == happened + 1
    is_intact(connection)


def test_interrupt_at_begin(connect: Connect, opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(reads="durable")  # asks the store at every begin
    connection.execute("CREATE TABLE t(x)")
    wire = Tripwire(monkeypatch, opened, "begin")
    wire.before = control_c
    with pytest.raises(KeyboardInterrupt):
        connection.execute("SELECT * FROM t").fetchall()
    assert rows(connection, "SELECT * FROM t") == []


class OddError(Exception):
    pass


def raise_odd() -> None:
    raise OddError("out of the blue")


@pytest.mark.parametrize("method", ["begin", "read", "commit"])
def test_an_exception_in_a_callback_comes_out_as_itself(
    connect: Connect, opened: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    connection = connect(cache_bytes=0, reads="durable")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    connection.execute(
        "INSERT INTO t SELECT value, zeroblob(3000) FROM json_each(?)", (str(list(range(50))),)
    )
    fresh = connect(cache_bytes=0, reads="durable")
    fresh.execute("PRAGMA cache_size = 5")
    wire = Tripwire(monkeypatch, opened, method)
    wire.before = raise_odd
    with pytest.raises(OddError, match="out of the blue"):
        fresh.execute("UPDATE t SET x = 1")
    assert wire.trips == 1
    assert "out of the blue" in value(fresh, "PRAGMA mv_last_error")
    if fresh.in_transaction:
        fresh.execute("ROLLBACK")
    assert value(connection, "SELECT sum(length(x)) FROM t") == 150_000
    fresh.execute("UPDATE t SET x = 1")
    assert value(connection, "SELECT sum(x) FROM t") == 50
    is_intact(connection)


def test_an_exception_after_the_commit_happened(
    connect: Connect, opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it, so the statement succeeds."""
    connection = connect()
    connection.execute("CREATE TABLE t(x)")
    wire = Tripwire(monkeypatch, opened, "commit")
    wire.after = raise_odd
    connection.execute("INSERT INTO t VALUES(1)")
    assert wire.trips == 1
    assert value(connection, "SELECT count(*) FROM t") == 1
    connection.execute("INSERT INTO t VALUES(2)")
    assert value(connect(), "SELECT count(*) FROM t") == 2


def test_an_interrupted_statement(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    connection.set_progress_handler(lambda: True, 1000)
    with pytest.raises(apsw.InterruptError):
        connection.execute(
            "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i FROM n"
        )
    connection.set_progress_handler(None)
    assert value(connection, "SELECT count(*) FROM t") == 1
    connection.execute("INSERT INTO t VALUES(2)")
    assert value(connect(), "SELECT count(*) FROM t") == 2


def test_a_python_function_that_raises_in_a_write(connect: Connect) -> None:
    connection = connect()
    connection.create_scalar_function("odd", raise_odd)
    connection.execute("CREATE TABLE t(x)")
    with pytest.raises(OddError):
        connection.execute("INSERT INTO t VALUES(1), (odd())")
    assert value(connect(), "SELECT count(*) FROM t") == 0


def test_closing_in_the_middle_of_a_transaction(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t(x)")
    connection.execute("PRAGMA cache_size = 5; BEGIN")
    connection.execute("INSERT INTO t SELECT zeroblob(3000) FROM json_each(?)", (str(list(range(100))),))
    connection.close(True)
    assert value(connect(), "SELECT count(*) FROM t") == 0
    is_intact(connect())


def test_descriptors_and_sessions_do_not_pile_up(folder: str) -> None:
    def open_descriptors() -> int:
        """But for sockets: an embedded store has none, and a FoundationDB library that another test loaded
        opens and closes them when it likes."""
        gc.collect()
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                found += not os.readlink(f"/proc/self/fd/{name}").startswith(("socket:", "anon_inode:"))
        return found

    mvvfs.connect(NAME, store=folder).close()
    before, sessions = open_descriptors(), len(bridge._handles)
    for i in range(50):
        connection = mvvfs.connect(NAME, store=folder)
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        connection.execute("INSERT INTO t VALUES(?)", (i,))
        connection.close()
    assert len(bridge._handles) == sessions
    assert open_descriptors() < before + 10  # threads of other tests have some of their own


def test_a_store_is_removed_under_its_connections(folder: str) -> None:
    """Not even what all of them have in memory is shown any more, once one has noticed."""
    reader, writer = mvvfs.connect(NAME, store=folder), mvvfs.connect(NAME, store=folder)
    writer.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert rows(reader, "SELECT x FROM t") == [(1,)]
    shutil.rmtree(folder)
    with pytest.raises(errors.StoreUnavailableError, match="removed"):
        writer.execute("INSERT INTO t VALUES(2)")
    with pytest.raises(errors.StoreUnavailableError, match="removed"):
        rows(reader, "SELECT x FROM t")
    anew = mvvfs.connect(NAME, store=folder)
    anew.execute("CREATE TABLE t(x)")
    assert rows(anew, "SELECT x FROM t") == []
    for connection in (reader, writer, anew):
        connection.close(True)


@pytest.mark.timeout(20)
def test_the_collector_may_close_a_connection_while_another_is_opened(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was dropped in a reference cycle goes at whatever moment the collector runs; its store is
    closed as soon as nobody is at the table of stores."""
    real, found = embedded.open_folder, []

    def open_folder(*args: Any, **options: Any) -> Any:
        before = len(bridge._handles)
        gc.collect()
        found.append(before - len(bridge._handles))
        return real(*args, **options)

    cycle: list[Any] = [mvvfs.connect("app", store=f"{folder}-first")]
    cycle[0].execute("CREATE TABLE t(x)")
    cycle.append(cycle)
    first = (f"{folder}-first", False)
    assert first in opener._shared
    monkeypatch.setattr(embedded, "open_folder", open_folder)
    del cycle
    second = mvvfs.connect("app", store=f"{folder}-second")
    assert found == [1]
    while first in opener._shared:
        time.sleep(0.01)
    second.close()


def test_why_a_database_cannot_be_opened_is_logged(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    """Python's sqlite3 has nothing but a code then, and no connection to ask."""
    mvvfs.register()
    with caplog.at_level("INFO", "mvvfs"), pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(f"file:absent?vfs=mv&mode=rw&store={folder}", uri=True)
    assert "absent can't be opened: there is no store" in caplog.text
