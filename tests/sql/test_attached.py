"""A commit of several databases: rules 15 and 16 of docs/design/sqlite-vfs.md."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from tests.conftest import Connect
from tests.sql.attached import (
    BUSY_SNAPSHOT,
    MAINS,
    MODES,
    SYNCHRONOUS,
    Open,
    balances,
    newest_change,
    refused,
    table_a,
    transfer,
)
from tests.sql.twins import is_intact, rows, value


@pytest.mark.parametrize("store", ["folder"], indirect=True)
@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("synchronous", SYNCHRONOUS)
def test_16_both_or_none(
    open_all: Open, connect: Connect, store: str, main: str, mode: str, synchronous: str, tmp_path: Path
) -> None:
    first, second = open_all(main, journal_mode=mode), open_all(main, journal_mode=mode)
    for connection in (first, second):
        for name in ("main", "a", "b") if main != "mv" else ("main", "b"):
            connection.execute(f"PRAGMA {name}.synchronous = {synchronous}")
    for amount in (1, 2, 3):
        transfer(first, main, amount)
    assert balances(connect) == (94, 106)
    assert newest_change(store, "a") == newest_change(store, "b")
    a = table_a(main)
    # a conflict in one, in the other, before and after pages were spilled
    for loser in (f"UPDATE {a} SET v = v - 10", "UPDATE b.t SET v = v + 10"):
        winner = loser.replace("10", "1")
        for spill in (False, True):
            second.execute("BEGIN")
            second.execute(f"UPDATE {a} SET v = v + 5 WHERE id = 9")
            second.execute("SELECT count(*) FROM b.t").fetchall()
            if spill:
                fill(second, a)
                fill(second, "b.t")
            before = balances(connect)
            first.execute(winner)
            assert_refused_whole(second, loser)
            moved = -1 if loser.startswith(f"UPDATE {a}") else 1
            after = balances(connect)
            assert after == ((before[0] - 1, before[1]) if moved < 0 else (before[0], before[1] + 1))
            assert rows(second, f"SELECT sum(v) FROM {a}") == [(after[0],)]
            assert rows(second, "SELECT sum(v) FROM b.t") == [(after[1],)]
    transfer(second, main)
    for name in ("a", "b"):
        is_intact(connect(name))
    assert not [path for path in tmp_path.iterdir() if "-mj" in path.name]


def fill(connection: apsw.Connection, table: str) -> None:
    schema = table.split(".", maxsplit=1)[0]
    connection.execute(f"PRAGMA {schema}.cache_size = 5")
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES(10) UNION ALL SELECT i + 1 FROM n WHERE i < 60) "
        f"INSERT INTO {table} SELECT i, zeroblob(1000) FROM n"
    )


def assert_refused_whole(connection: apsw.Connection, sql: str) -> None:
    """At the statement, or at COMMIT."""
    with pytest.raises(apsw.BusyError) as caught:
        connection.execute(f"{sql}; COMMIT")
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("synchronous", ["OFF", "FULL"])
def test_16_a_refused_commit_leaves_an_open_cursor_without_what_was_refused(
    open_all: Open, main: str, synchronous: str
) -> None:
    """SQLite reads its journals back only if the super-journal counts as present."""
    connection, other = open_all(main), open_all(main)
    a = table_a(main)
    for name in ("a", "b") if main != "mv" else ("main", "b"):
        connection.execute(f"PRAGMA {name}.synchronous = {synchronous}")
    for i in range(2, 50):
        other.execute(f"INSERT INTO {a} VALUES({i}, {i}); INSERT INTO b.t VALUES({i}, {i})")
    cursors = [connection.execute(f"SELECT v FROM {table} ORDER BY id") for table in (a, "b.t")]
    assert [next(iter(cursor)) for cursor in cursors] == [(100,), (100,)]
    connection.execute(f"BEGIN; UPDATE {a} SET v = -1; UPDATE b.t SET v = -1")
    other.execute("UPDATE b.t SET v = v + 1 WHERE id = 2")
    refused(connection)
    for cursor in cursors:
        assert [v for (v,) in cursor] == list(range(2, 50))
    assert rows(connection, f"SELECT min(v) FROM {a} UNION ALL SELECT v FROM b.t WHERE id = 2") == [
        (2,),
        (3,),
    ]


@pytest.mark.parametrize("main", ["memory", "delete", "wal"])
def test_16_journal_mode_off_says_that_it_is_not_atomic(open_all: Open, connect: Connect, main: str) -> None:
    connection = open_all(main, journal_mode="OFF")
    connection.execute("UPDATE a.t SET v = v - 1")  # one of them alone: as ever
    connection.execute("UPDATE b.t SET v = v + 1")
    assert balances(connect) == (99, 101)
    with pytest.raises(mvvfs.Error, match="journal_mode=OFF"):
        transfer(connection, main)
    assert balances(connect) == (98, 101)
    for name in ("a", "b"):
        is_intact(connect(name))


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_16_bystanders_of_begin_immediate(
    open_all: Open, connect: Connect, store: str, main: str, begin: str
) -> None:
    connection = open_all(main)
    a = table_a(main)
    for sql, expected in (
        (f"UPDATE {a} SET v = v - 1", (99, 100)),
        ("UPDATE b.t SET v = v + 1", (99, 101)),
        (f"UPDATE {a} SET v = v - 1; UPDATE b.t SET v = v + 1", (98, 102)),
        ("SELECT 1", (98, 102)),
    ):
        before = newest_change(store, "a"), newest_change(store, "b")
        connection.execute(f"{begin}; {sql}; COMMIT")
        assert balances(connect) == expected
        after = newest_change(store, "a"), newest_change(store, "b")
        assert (after[0] != before[0]) == (a in sql)
        assert (after[1] != before[1]) == ("b.t" in sql)


def test_16_rollback_and_savepoints_over_both(open_all: Open, connect: Connect) -> None:
    connection = open_all()
    connection.execute("BEGIN; UPDATE t SET v = 0; SAVEPOINT s; UPDATE b.t SET v = 0; ROLLBACK TO s; COMMIT")
    assert balances(connect) == (0, 100)
    connection.execute("BEGIN; UPDATE main.t SET v = 1; UPDATE b.t SET v = 1; ROLLBACK")
    assert balances(connect) == (0, 100)


def test_16_both_grow_and_shrink(open_all: Open, connect: Connect) -> None:
    """Page numbers are leased, freed and shown for each database by itself."""
    connection, other = open_all(), open_all()
    for i in range(4):
        for each in (connection, other):
            each.execute("BEGIN")
            for table in ("main.t", "b.t"):
                each.execute(
                    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 80) "
                    f"INSERT INTO {table}(v) SELECT zeroblob(500) FROM n"
                )
                each.execute(f"CREATE TABLE {table}{i}_{id(each)}(x)")
            each.execute("COMMIT")
        connection.execute("BEGIN; DELETE FROM main.t WHERE id % 2; DELETE FROM b.t WHERE id % 3; COMMIT")
    for name in ("a", "b"):
        is_intact(connect(name))
    for name in ("main", "b"):
        assert rows(connection, f"PRAGMA {name}.integrity_check") == [("ok",)]


def test_16_the_first_commit_of_both(connect: Connect, store: str) -> None:
    connection = connect("x")
    connection.execute("ATTACH ? AS y", (to_uri("y", store=store),))
    connection.execute(
        "BEGIN; CREATE TABLE main.t(v); CREATE TABLE y.t(v); INSERT INTO y.t VALUES(1); COMMIT"
    )
    assert value(connect("y"), "SELECT v FROM t") == 1
    assert newest_change(store, "x") == newest_change(store, "y")


def test_16_of_different_page_sizes(connect: Connect, store: str) -> None:
    connection = connect("x", page_size=512)
    connection.execute("ATTACH ? AS y", (to_uri("y", store=store, page_size=65536),))
    connection.execute("BEGIN; CREATE TABLE main.t(v); CREATE TABLE y.t(v); COMMIT")
    connection.execute(
        "BEGIN; INSERT INTO main.t VALUES(zeroblob(9000)); INSERT INTO y.t SELECT * FROM main.t; COMMIT"
    )
    for name, size in (("x", 512), ("y", 65536)):
        is_intact(connect(name))
        assert value(connect(name), "PRAGMA page_size") == size


def test_16_many_databases(connect: Connect, store: str) -> None:
    connection = connect("d0")
    for i in range(1, 9):
        connection.execute(f"ATTACH ? AS d{i}", (to_uri(f"d{i}", store=store),))
    names = ["main", *(f"d{i}" for i in range(1, 9))]
    connection.execute("BEGIN;" + ";".join(f"CREATE TABLE {name}.t(v)" for name in names) + "; COMMIT")
    connection.execute(
        "BEGIN;" + ";".join(f"INSERT INTO {name}.t VALUES(1)" for name in names[::2]) + "; COMMIT"
    )
    assert len({newest_change(store, f"d{i}") for i in range(0, 9, 2)}) == 1
    assert newest_change(store, "d1") < newest_change(store, "d0")


def test_16_single_statements_over_both(open_all: Open, connect: Connect) -> None:
    """A trigger of the temporary schema writes both in one statement."""
    connection = open_all()
    connection.execute(
        "CREATE TEMP TRIGGER g AFTER UPDATE ON main.t BEGIN UPDATE b.t SET v = v + old.v - new.v; END"
    )
    connection.execute("UPDATE main.t SET v = v - 7")
    assert balances(connect) == (93, 107)


@pytest.mark.parametrize("main", ["mv", "memory", "file"])
def test_16_in_the_standard_module(
    open_all: Open, connect: Connect, store: str, tmp_path: Path, main: str
) -> None:
    """Another SQLite, of another version."""
    mvvfs.register()
    names = {"mv": to_uri("a", store=store), "memory": ":memory:", "file": f"file:{tmp_path}/x.sqlite"}
    stock = sqlite3.connect(names[main], uri=True, isolation_level=None)
    if main == "file":  # BEGIN IMMEDIATE writes to an empty one
        stock.execute("CREATE TABLE p(x)")
    a = table_a(main)
    for name in ("b",) if main == "mv" else ("a", "b"):
        stock.execute("ATTACH ? AS " + name, (to_uri(name, store=store),))
    stock.executescript(f"BEGIN; UPDATE {a} SET v = v - 1; UPDATE b.t SET v = v + 1; COMMIT")
    assert balances(connect) == (99, 101)
    stock.executescript(f"BEGIN IMMEDIATE; UPDATE {a} SET v = v - 1; UPDATE b.t SET v = v + 1; COMMIT")
    assert balances(connect) == (98, 102)
    stock.executescript(f"BEGIN; UPDATE {a} SET v = 0; UPDATE b.t SET v = 0")
    open_all().execute("UPDATE b.t SET v = v + 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        stock.execute("COMMIT")
    assert caught.value.sqlite_errorcode == BUSY_SNAPSHOT
    assert not stock.in_transaction
    assert balances(connect) == (98, 103)
    assert stock.execute(f"SELECT {a}.v, b.t.v FROM {a}, b.t").fetchall() == [(98, 103)]
    assert not [path for path in tmp_path.iterdir() if "-mj" in path.name]
    stock.close()


def test_16_vacuum_and_detach(open_all: Open, connect: Connect, store: str) -> None:
    connection = open_all()
    fill(connection, "b.t")
    connection.execute("DELETE FROM b.t WHERE id > 5; VACUUM b; VACUUM")
    for _ in range(3):
        connection.execute("BEGIN; UPDATE main.t SET v = v - 1; UPDATE b.t SET v = v + 1; COMMIT")
        connection.execute("DETACH b")
        connection.execute("UPDATE t SET v = v + 1")
        connection.execute("ATTACH ? AS b", (to_uri("b", store=store),))
    assert balances(connect) == (100, 103)
    for name in ("a", "b"):
        is_intact(connect(name))
