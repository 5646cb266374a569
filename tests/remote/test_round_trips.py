"""How many calls a transaction costs: counted at a proxy, so that nothing is overlooked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw
import pytest

import mvvfs
from mvvfs.remote import follow
from pagestore.store import PageStore
from tests.proxy import Proxy

Open = Callable[..., apsw.Connection]


@pytest.fixture
def connect(url: str) -> Iterator[Open]:
    opened: list[apsw.Connection] = []

    def connect(**options: object) -> apsw.Connection:
        opened.append(mvvfs.connect("app", store=url, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close(force=True)


@contextmanager
def calls(proxy: Proxy, **expected: int) -> Iterator[None]:
    proxy.counts.clear()
    yield
    assert dict(proxy.counts) == expected


def table(connection: apsw.Connection) -> None:
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    connection.executemany("INSERT INTO t(b) VALUES(?)", [(b"x" * 500,)] * 20)
    connection.execute("SELECT count(*), max(b) FROM t").fetchall()


def test_opening(proxy: Proxy, connect: Open) -> None:
    table(connect())
    with calls(proxy, Open=1, Begin=1):  # what the service is has been asked
        connect()


def test_a_warm_read_costs_one_call(proxy: Proxy, connect: Open) -> None:
    connection = connect()
    table(connection)
    for _ in range(3):
        with calls(proxy, Begin=1):
            connection.execute("SELECT count(*), max(b) FROM t").fetchall()
    with calls(proxy, Begin=1), connection:
        for _ in range(5):
            connection.execute("SELECT count(*) FROM t").fetchall()


@pytest.mark.parametrize("leases", ["on", "off"])
def test_a_warm_write_costs_two_calls(proxy: Proxy, connect: Open, leases: str) -> None:
    """Also one that allocates pages: leases come with the answers."""
    connection = connect(leases=leases)
    table(connection)
    connection.execute("UPDATE t SET b = zeroblob(4000) WHERE a = 1")
    for i in range(40):
        with calls(proxy, Begin=1, Commit=1):
            connection.execute("INSERT INTO t(b) VALUES(zeroblob(?))", (5000 + 300 * i,))
    for i in range(5):
        with calls(proxy, Begin=1, Commit=1), mvvfs.transaction(connection):
            connection.execute("SELECT max(b) FROM t").fetchall()
            connection.execute("UPDATE t SET b = zeroblob(?) WHERE a = 1", (400 + i,))
    with calls(proxy, Begin=1):
        connection.execute("BEGIN; DELETE FROM t WHERE a = 7; ROLLBACK")


def test_what_others_changed_is_read_again_and_no_more(proxy: Proxy, connect: Open, folder: str) -> None:
    connection = connect()
    table(connection)
    other = mvvfs.connect("app", store=folder)
    other.execute("UPDATE t SET b = 'changed' WHERE a = 1")
    with calls(proxy, Begin=1, Read=1):
        assert connection.execute("SELECT b FROM t WHERE a = 1").get == "changed"
    other.close()


@pytest.fixture
def other(service: str) -> Iterator[apsw.Connection]:
    """Another client of the service, with a page cache of its own; its calls are not counted."""
    connection = mvvfs.connect("app", store=f"grpc+{service}")
    yield connection
    connection.close()


def test_what_another_client_changed_comes_along(
    proxy: Proxy, connect: Open, other: apsw.Connection, folder: str
) -> None:
    connection = connect()
    table(connection)
    for n in range(1, 30):  # a chain of deltas ends in between
        other.execute("UPDATE t SET b = ? WHERE a = ?", (f"changed {n}", n % 20 + 1))
        if n % 3:
            with calls(proxy, Begin=1):
                found = connection.execute("SELECT b FROM t WHERE a = ?", (n % 20 + 1,)).get
            assert found == f"changed {n}"
    with calls(proxy, Begin=1, Commit=1):
        connection.execute("UPDATE t SET b = b || '!' WHERE a = 10")
    assert other.execute("SELECT b FROM t WHERE a = 10").get == "changed 29!"
    direct = mvvfs.connect("app", store=folder)
    direct.execute("UPDATE t SET b = 'direct' WHERE a = 1")  # the service knows nothing of what this wrote
    direct.close()
    other.execute("UPDATE t SET b = 'after' WHERE a = 2")
    with calls(proxy, Begin=1, Read=1):
        found = connection.execute("SELECT b FROM t WHERE a < 3 ORDER BY a").fetchall()
    assert found == [("direct",), ("after",)]


def test_what_is_too_much_or_new_is_read(proxy: Proxy, connect: Open, other: apsw.Connection) -> None:
    connection = connect()
    table(connection)
    other.execute("UPDATE t SET b = randomblob(500)")
    other.execute("UPDATE t SET b = randomblob(100000) WHERE a = 3")
    expected = other.execute("SELECT sum(length(b)), max(b) FROM t").fetchall()
    proxy.counts.clear()
    assert connection.execute("SELECT sum(length(b)), max(b) FROM t").fetchall() == expected
    assert (proxy.counts["Begin"], proxy.counts["Read"] > 0) == (1, True)


def test_a_lost_conflict_brings_the_pages(proxy: Proxy, connect: Open, folder: str) -> None:
    connection = connect()
    table(connection)
    other = mvvfs.connect("app", store=folder)

    def change(first: list[bool]) -> None:
        connection.execute("SELECT b FROM t WHERE a = 1").fetchall()
        if first:
            first.clear()
            other.execute("UPDATE t SET b = 'theirs' WHERE a = 1")
        connection.execute("UPDATE t SET b = b || ', ours' WHERE a = 1")

    with calls(proxy, Begin=2, Commit=2):
        mvvfs.transaction(connection, ahead=False).run(change, [True])
    assert connection.execute("SELECT b FROM t WHERE a = 1").get == "theirs, ours"
    other.close()


def test_begin_immediate(proxy: Proxy, connect: Open) -> None:
    connection = connect()
    table(connection)
    with calls(proxy, Begin=2, TakeTurn=1, Commit=1):  # the commit gives the turn up
        connection.execute("BEGIN IMMEDIATE; UPDATE t SET b = 1 WHERE a = 1; COMMIT")


def test_reads_durable_costs_no_flush_of_its_own(proxy: Proxy, connect: Open, folder: str) -> None:
    connection = connect(reads="durable")
    table(connection)
    with calls(proxy, Begin=1):
        connection.execute("SELECT count(*) FROM t").fetchall()


# ---- bounded ----


def settled(connection: apsw.Connection, proxy: Proxy) -> None:
    """Until the watch runs."""
    for _ in range(400):
        before = proxy.counts["Begin"]
        connection.execute("SELECT count(*), max(b) FROM t").fetchall()
        if proxy.counts["Watch"] and proxy.counts["Begin"] == before:
            break
        time.sleep(0.005)
    time.sleep(0.05)


def test_bounded_reads_cost_nothing(proxy: Proxy, connect: Open) -> None:
    connection = connect(freshness="bounded:60000")
    table(connection)
    settled(connection, proxy)
    with calls(proxy):
        for _ in range(100):
            connection.execute("SELECT count(*), max(b) FROM t").fetchall()


def test_bounded_writes_cost_one_call(proxy: Proxy, connect: Open) -> None:
    connection = connect(freshness="bounded:60000")
    table(connection)
    settled(connection, proxy)
    for _ in range(10):
        with calls(proxy, Commit=1):
            connection.execute("INSERT INTO t(b) VALUES(zeroblob(3000))")
        with calls(proxy):
            connection.execute("SELECT count(*), max(b) FROM t").fetchall()


def test_what_is_pushed_is_seen_without_a_call(proxy: Proxy, connect: Open, folder: str) -> None:
    connection = connect(freshness="bounded:60000")
    table(connection)
    settled(connection, proxy)
    other = mvvfs.connect("app", store=folder)
    with calls(proxy, Read=1):
        other.execute("UPDATE t SET b = 'changed' WHERE a = 1")
        deadline = time.monotonic() + 10
        while connection.execute("SELECT b FROM t WHERE a = 1").get != "changed":
            assert time.monotonic() < deadline
            time.sleep(0.002)
    other.close()


def test_a_bound_that_the_watch_does_not_keep_is_kept_by_calls(
    proxy: Proxy, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_SHORTEST_HEARTBEAT", 30.0)
    monkeypatch.setattr(follow, "_LONGEST_HEARTBEAT", 30.0)
    connection = connect(freshness="bounded:100")
    table(connection)
    for _ in range(3):
        time.sleep(0.12)
        proxy.counts.clear()
        connection.execute("SELECT count(*) FROM t").fetchall()
        assert proxy.counts["Begin"] == 1


def test_latest_and_bounded_connections_side_by_side(proxy: Proxy, connect: Open) -> None:
    bounded, latest = connect(freshness="bounded:60000"), connect()
    table(bounded)
    latest.execute("SELECT count(*), max(b) FROM t").fetchall()
    settled(bounded, proxy)
    with calls(proxy, Begin=1):
        latest.execute("SELECT count(*) FROM t").fetchall()
        bounded.execute("SELECT count(*) FROM t").fetchall()
    with calls(proxy, Begin=1, Commit=1):
        latest.execute("UPDATE t SET b = 'new' WHERE a = 3")
    with calls(proxy):
        assert bounded.execute("SELECT b FROM t WHERE a = 3").get == "new"


def test_an_idle_connection_ends_its_watch(
    proxy: Proxy, connect: Open, backing: PageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(follow, "IDLE_SECONDS", 0.2)

    def followers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("mvvfs-follow")]

    connection = connect(freshness="bounded:100")
    table(connection)
    settled(connection, proxy)
    assert followers()
    deadline = time.monotonic() + 10
    while followers():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # longer than the bound
    connection.execute("SELECT count(*) FROM t").fetchall()  # it starts again
    assert followers()


def test_who_only_reads_the_latest_is_not_followed(proxy: Proxy, connect: Open) -> None:
    connection = connect()
    table(connection)
    connection.execute("SELECT count(*) FROM t").fetchall()
    assert not proxy.counts["Watch"]
