"""What other processes commit is taken in without asking the store; and never missed where it can't be."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import apsw
import pytest

import mvvfs
from pagestore.api import Begin, NamespaceId, Version
from pagestore.store import PageStore
from tests.process.place import value

_OTHER = """
import sys, mvvfs
connection = mvvfs.connect("app", store=sys.argv[1], leases="off", durability="normal")
for sql in sys.stdin:
    connection.execute(sql.strip())
    print("done", flush=True)
"""


class Other:
    """A process that executes what it is told."""

    def __init__(self, store: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def execute(self, sql: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(sql + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def other(folder: str) -> Iterator[Other]:
    connection = mvvfs.connect("app", store=folder)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n)")
    connection.executemany("INSERT INTO t VALUES (?, 0)", [(n,) for n in range(100)])
    connection.close()
    process = Other(folder)
    process.execute("SELECT 1")
    yield process
    process.process.kill()
    process.process.communicate()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Version | None]:
    """The begins that the store was asked for, in this process."""
    seen: list[Version | None] = []
    real = PageStore.begin

    def begin(
        self: PageStore, namespace: NamespaceId, since: Version | None = None, at: Version | None = None
    ) -> Begin:
        seen.append(since)
        return real(self, namespace, since, at)

    monkeypatch.setattr(PageStore, "begin", begin)
    return seen


@pytest.fixture
def connection(folder: str, other: Other, asked: list[Version | None]) -> apsw.Connection:
    connection = mvvfs.connect("app", store=folder, durability="normal")
    assert value(connection, "SELECT sum(n) FROM t") == 0
    connection.execute("UPDATE t SET n = n")  # the first commit since the other one's: an entry to go by
    assert value(connection, "SELECT sum(n) FROM t") == 0
    asked.clear()
    return connection


def test_what_others_commit_is_seen_without_asking(
    connection: apsw.Connection, other: Other, asked: list[Version | None]
) -> None:
    for n in range(1, 20):
        other.execute(f"UPDATE t SET n = {n} WHERE id = {n}")
        if n % 3:
            assert value(connection, "SELECT sum(n) FROM t") == n * (n + 1) // 2
    connection.execute("UPDATE t SET n = n + 1 WHERE id = 50")
    other.execute("UPDATE t SET n = n + 1 WHERE id = 50")
    assert value(connection, "SELECT n FROM t WHERE id = 50") == 2
    assert asked == []


def test_allocation_follows(connection: apsw.Connection, other: Other, asked: list[Version | None]) -> None:
    other.execute("CREATE TABLE u AS SELECT id, hex(randomblob(3000)) AS v FROM t")
    assert value(connection, "SELECT count(*) FROM u") == 100
    grown = value(connection, "PRAGMA page_count")
    assert value(connection, "PRAGMA freelist_count") == 0
    other.execute("DROP TABLE u")
    assert value(connection, "PRAGMA page_count") != grown
    assert value(connection, "PRAGMA integrity_check") == "ok"
    other.execute("CREATE TABLE w AS SELECT * FROM t")
    assert value(connection, "SELECT count(*) FROM w") == 100
    assert value(connection, "PRAGMA integrity_check") == "ok"
    assert asked == []


def test_more_than_is_kept_at_hand(
    connection: apsw.Connection, other: Other, asked: list[Version | None]
) -> None:
    for n in range(1, 201):
        other.execute(f"UPDATE t SET n = {n}")
    assert value(connection, "SELECT sum(n) FROM t") == 20_000
    assert len(asked) == 1
    other.execute("UPDATE t SET n = 0")
    assert value(connection, "SELECT sum(n) FROM t") == 0
    assert len(asked) == 1


def test_a_commit_that_leaves_nothing_there(
    connection: apsw.Connection, other: Other, asked: list[Version | None]
) -> None:
    """A large one."""
    other.execute("CREATE TABLE u AS SELECT id, hex(randomblob(100000)) AS v FROM t")
    assert value(connection, "SELECT count(*) FROM u") == 100
    assert len(asked) == 1
    other.execute("UPDATE t SET n = 1")
    assert value(connection, "SELECT sum(n) FROM t") == 100
    assert len(asked) == 1


def test_committers_that_were_killed(folder: str, connection: apsw.Connection, other: Other) -> None:
    kill = "from pagestore import faults; a = faults.armed('commit.{}_commit', faults.kill); a.__enter__()"
    total = 0
    for n, point in enumerate(("before", "after", "before", "before", "after", "after")):
        code, told = f"{kill.format(point)}\n{_OTHER}", f"UPDATE t SET n = {n + 1}\n"
        victim = subprocess.run([sys.executable, "-c", code, folder], input=told, text=True, check=False)
        assert victim.returncode == -signal.SIGKILL
        if point == "after":
            total = (n + 1) * 100
        if n != 2:
            assert value(connection, "SELECT sum(n) FROM t") == total
        if n != 4:
            other.execute("UPDATE t SET n = n + 1 WHERE id = 0")
            total += 1
            assert value(connection, "SELECT sum(n) FROM t") == total
    connection.execute("UPDATE t SET n = n + 1 WHERE id = 1")
    assert value(connection, "SELECT sum(n) FROM t") == total + 1
    assert value(connection, "PRAGMA integrity_check") == "ok"
