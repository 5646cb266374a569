"""What the garbage collector does to connections and cursors, whatever it interrupts."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import bridge, errors, holding, joint
from mvvfs.connection import Connection, Cursor
from pagestore import opener
from pagestore.opener import open_store
from tests.conftest import NAME, Connect

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT max(i) FROM n"


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Cycle:
    """Keeps things alive until the collector comes."""

    def __init__(self, *things: object) -> None:
        self.things = things
        self.itself = self


@pytest.fixture(autouse=True)
def by_hand() -> Iterator[None]:
    """The collector comes when it is called."""
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, 1000, 1000)
    yield
    gc.set_threshold(*before)


@pytest.fixture
def connect(folder: str) -> Iterator[Connect]:
    """Connections that nobody else keeps."""
    store = open_store(folder, create=True)
    yield lambda **options: mvvfs.connect(NAME, store=folder, **options)
    store.close()


@contextmanager
def inside(connection: apsw.Connection) -> Iterator[None]:
    """A thread is in a statement of the connection."""
    entered, leave = threading.Event(), threading.Event()

    def wait() -> int:
        entered.set()
        assert leave.wait(10)
        return 1

    connection.create_scalar_function("wait_here", wait)
    thread = threading.Thread(target=lambda: connection.execute("SELECT wait_here()").get)
    thread.start()
    assert entered.wait(10)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def an_open_cursor(connection: apsw.Connection) -> apsw.Cursor:
    cursor = connection.execute("SELECT value FROM t")
    next(cursor)
    return cursor


def with_table(connection: apsw.Connection) -> apsw.Connection:
    connection.execute("CREATE TABLE t(value)")
    connection.execute("INSERT INTO t VALUES (1), (2), (3)")
    return connection


def test_a_cursor_dropped_while_its_connection_is_busy_costs_its_class_nothing(connect: Connect) -> None:
    connection = with_table(connect())
    cursors = [an_open_cursor(connection) for _ in range(20)]
    references = sys.getrefcount(Cursor) - len(cursors)
    with inside(connection):
        cursors.clear()
    connection.execute("SELECT 1")
    assert sys.getrefcount(Cursor) == references
    connection.execute("BEGIN")  # none is open any more
    assert connection.txn_state() == apsw.SQLITE_TXN_NONE
    connection.close()


def test_and_keeps_the_connection_from_nothing(connect: Connect) -> None:
    connection = with_table(connect())
    cursors = [an_open_cursor(connection) for _ in range(3)]
    with inside(connection):
        cursors.clear()
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None
    eventually(lambda: not bridge._handles)


def test_a_connection_closes_with_cursors_that_were_dropped(connect: Connect) -> None:
    connection = with_table(connect())
    cursors = [an_open_cursor(connection) for _ in range(3)]
    with inside(connection):
        cursors.clear()
    connection.close()
    assert not bridge._handles


def test_a_cursor_dropped_while_its_connection_closes(connect: Connect, monkeypatch: Any) -> None:
    connection = with_table(connect())
    cursors = [an_open_cursor(connection)]
    close_aside = Connection.close_aside

    def too_early(self: Connection) -> None:
        close_aside(self)
        if cursors:
            with inside(connection):
                cursors.clear()

    monkeypatch.setattr(Connection, "close_aside", too_early)
    connection.close()
    assert not bridge._handles


def test_class_references_while_threads_collect_each_others_garbage(connect: Connect) -> None:
    with_table(connect()).close()
    before = sys.getrefcount(Cursor), sys.getrefcount(Connection)

    def work() -> None:
        for number in range(6):
            connection = connect()
            for _ in range(2):
                Cycle(an_open_cursor(connection), connection, ValueError())
                connection.execute(LONG).fetchall()  # meanwhile the others collect
                gc.collect()
            if number % 2:
                connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    gc.collect()
    assert (sys.getrefcount(Cursor), sys.getrefcount(Connection)) == before


def test_a_connection_is_collected_while_tables_of_the_process_are_locked(connect: Connect) -> None:
    """In the middle of anything: closing must wait for nothing that the same thread may hold."""
    connection = with_table(connect())  # it has a lease, whose end takes a transaction of the store
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.execute("BEGIN IMMEDIATE")  # and a turn, and a lock
    Cycle(connection)
    del connection
    started = time.monotonic()
    with holding._lock, opener._shared._lock, bridge._databases._lock:
        gc.collect()
        assert not bridge._handles
    assert time.monotonic() - started < 10
    eventually(lambda: not bridge._databases._open)


def test_a_connection_is_collected_inside_the_engines_write_lock(folder: str, connect: Connect) -> None:
    connection = with_table(connect(timeout=30.0))
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    Cycle(connection)
    del connection
    store: Any = open_store(folder, create=False)
    started = time.monotonic()
    store.engine.transact(lambda tx: gc.collect())
    assert time.monotonic() - started < 10
    eventually(lambda: not bridge._databases._open)
    store.close()


def test_an_open_cursor_is_not_collected_inside_its_connections_commit(folder: str, monkeypatch: Any) -> None:
    """Of any host: SQLite, told to reset one, would commit a second time in the middle of the first."""
    mvvfs.register(sqlite3=False)
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = with_table(apsw.Connection(f"file:{NAME}?vfs=mv&store={folder}", flags=flags))
    commits = []
    commit = joint.commit

    def in_the_middle(*args: Any, **options: Any) -> joint.Outcome:
        commits.append(gc.isenabled())
        gc.set_threshold(1, 1, 1)
        litter = [[[]] for _ in range(1000)]
        gc.set_threshold(1_000_000, 1000, 1000)
        del litter
        return commit(*args, **options)

    monkeypatch.setattr(joint, "commit", in_the_middle)
    cursor = an_open_cursor(connection)
    still = weakref.ref(cursor)
    connection.execute("BEGIN")
    connection.execute("UPDATE t SET value = value + 1")
    Cycle(cursor)
    del cursor
    connection.execute("COMMIT")
    assert commits == [False]
    assert gc.isenabled()
    assert still() is not None
    gc.collect()
    assert still() is None
    connection.execute("UPDATE t SET value = value + 1")
    assert commits == [False, True]
    assert connection.execute("SELECT sum(value) FROM t").get == 12
    connection.close()


def test_a_call_within_a_call_leaves_its_exception_alone(connect: Connect, monkeypatch: Any) -> None:
    """Another one comes and goes after the exception was noted and before its call ends."""
    connection = with_table(connect())
    other = connect()
    failed = bridge._failed

    def and_then(session: Any, exc: BaseException) -> int:
        code = failed(session, exc)
        monkeypatch.undo()
        assert other.execute("SELECT count(*) FROM t").get == 3
        return code

    monkeypatch.setattr(bridge, "_failed", and_then)
    with pytest.raises(errors.OptionError, match="slow"):
        connection.execute("PRAGMA mv_at = 'slow'")
    other.close()
    connection.close()
