"""Several databases in one transaction: rules 15 to 17 of docs/design/sqlite-vfs.md."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.conftest import Connect
from tests.sql.twins import is_intact, rows, value

FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
MAINS = ["mv", "memory", "delete", "wal"]
MODES = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"]
SYNCHRONOUS = ["OFF", "NORMAL", "FULL", "EXTRA"]
BUSY_SNAPSHOT = apsw.SQLITE_BUSY_SNAPSHOT

Open = Callable[..., apsw.Connection]


@pytest.fixture
def open_all(connect: Connect, store: str, tmp_path: Path) -> Iterator[Open]:
    """`open_all(main)`: a connection whose main database is of that kind, with a and b of the store."""
    made: list[apsw.Connection] = []
    for name in ("a", "b"):
        connection = connect(name, durability="normal")
        connection.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
        connection.execute("INSERT INTO t VALUES(1, 100)")

    def open_(main: str = "mv", *, journal_mode: str = "DELETE", **options: object) -> apsw.Connection:
        options = {"durability": "normal"} | options
        if main == "mv":
            connection = connect("a", **options)
        elif main == "memory":
            connection = apsw.Connection(":memory:", flags=FLAGS)
        else:
            path = tmp_path / (f"{main}.sqlite" if not made else f"{main}-{len(made)}.sqlite")
            connection = apsw.Connection(plain_uri(path), flags=FLAGS)
            connection.execute("CREATE TABLE IF NOT EXISTS p(x)")
        for name in ("a", "b") if main != "mv" else ("b",):
            connection.execute(f"ATTACH ? AS {name}", (to_uri(name, store=store, **options),))
        made.append(connection)
        if main != "mv":  # unqualified: the attached ones as well; an mv database as main would answer itself
            connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        if main == "wal":
            assert rows(connection, "PRAGMA main.journal_mode = WAL") == [("wal",)]
        return connection

    yield open_
    for connection in made:
        connection.close(True)


def plain_uri(path: Path) -> str:
    return f"file:{quote(str(path))}?vfs=unix"


def table_a(main: str) -> str:
    return "main.t" if main == "mv" else "a.t"


def transfer(connection: apsw.Connection, main: str, amount: int = 1) -> None:
    a = table_a(main)
    connection.execute(
        f"BEGIN; UPDATE {a} SET v = v - {amount}; UPDATE b.t SET v = v + {amount} WHERE id = 1; COMMIT"
    )


def balances(connect: Connect) -> tuple[int, int]:
    return value(connect("a"), "SELECT sum(v) FROM t"), value(connect("b"), "SELECT sum(v) FROM t")


def newest_change(store: str, name: str) -> bytes:
    opened = open_store(store, create=False)
    try:
        (change,) = opened.changelog(opened.open(name).id, newest_first=True, limit=1)
        return change.version
    finally:
        opened.close()


def refused(connection: apsw.Connection, sql: str = "COMMIT") -> apsw.BusyError:
    with pytest.raises(apsw.BusyError) as caught:
        connection.execute(sql)
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    assert not connection.in_transaction
    return caught.value


# ---- rules 15 and 16: the commit point ----


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


# ---- refusals ----


def test_two_stores_are_refused_when_the_second_journal_opens(
    open_all: Open, connect: Connect, tmp_path: Path
) -> None:
    connection = open_all()
    connection.execute("ATTACH ? AS far", (to_uri("f", store=str(tmp_path / "far")),))
    connection.execute("CREATE TABLE far.t(v)")
    connection.execute("BEGIN; UPDATE main.t SET v = 0")
    with pytest.raises(mvvfs.errors.UnsupportedError, match="two stores"):
        connection.execute("INSERT INTO far.t VALUES(1)")
    connection.execute("COMMIT")  # without what was refused
    assert balances(connect) == (0, 100)
    assert rows(connection, "SELECT * FROM far.t") == []
    connection.execute("INSERT INTO far.t SELECT v FROM b.t")  # to read one and write the other is no harm
    assert rows(connection, "SELECT * FROM far.t") == [(100,)]


@pytest.mark.parametrize("mode", ["TRUNCATE", "PERSIST", "MEMORY"])
def test_two_stores_are_refused_at_commit_at_the_latest(
    open_all: Open, connect: Connect, tmp_path: Path, mode: str
) -> None:
    connection = open_all("memory", journal_mode="DELETE")
    connection.execute("ATTACH ? AS far", (to_uri("f", store=str(tmp_path / "far")),))
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE far.t(v)")  # the journal stays open from here on
    with pytest.raises(mvvfs.errors.UnsupportedError, match="two stores"):
        connection.execute("BEGIN; UPDATE a.t SET v = 0; INSERT INTO far.t VALUES(1); COMMIT")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert balances(connect) == (100, 100)
    assert rows(connection, "SELECT * FROM far.t") == []
    connection.execute("BEGIN IMMEDIATE; INSERT INTO far.t VALUES(2); COMMIT")  # a is a bystander
    assert rows(connection, "SELECT * FROM far.t") == [(2,)]


@pytest.mark.parametrize("store", ["folder"], indirect=True)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("synchronous", ["OFF", "FULL"])
@pytest.mark.parametrize("main", ["mv", "memory", "delete"])
def test_an_ordinary_file_is_refused(
    open_all: Open, connect: Connect, tmp_path: Path, main: str, mode: str, synchronous: str
) -> None:
    connection, path = open_all(main), tmp_path / ("delete.sqlite" if main == "delete" else "plain.sqlite")
    plain = "main"
    if main != "delete":
        plain = "plain"
        connection.execute("ATTACH ? AS plain", (plain_uri(path),))
        connection.execute("CREATE TABLE plain.p(x)")
    connection.execute(f"PRAGMA {plain}.journal_mode = {mode}")
    connection.execute(f"PRAGMA {plain}.synchronous = {synchronous}")
    connection.execute("INSERT INTO p VALUES(0)")
    with pytest.raises(mvvfs.errors.UnsupportedError, match=f'"{plain}", which is an ordinary file'):
        connection.execute("BEGIN; INSERT INTO p VALUES(1); UPDATE b.t SET v = 0; COMMIT")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert balances(connect) == (100, 100)
    assert rows(connection, "SELECT * FROM p") == [(0,)]
    with apsw.Connection(str(path)) as outside:
        assert rows(outside, "SELECT * FROM p") == [(0,)]
    transfer(connection, main)  # it reads an ordinary file, or stands by
    connection.execute("BEGIN IMMEDIATE; UPDATE b.t SET v = v + (SELECT count(*) FROM p); COMMIT")
    connection.execute("BEGIN IMMEDIATE; INSERT INTO p VALUES(2); COMMIT")
    assert balances(connect) == (99, 102)
    assert rows(connection, "SELECT * FROM p") == [(0,), (2,)]
    assert not [each for each in tmp_path.iterdir() if "-mj" in each.name]


def test_memory_and_temporary_tables_go_along(open_all: Open, connect: Connect) -> None:
    connection = open_all()
    connection.execute("ATTACH ':memory:' AS m; CREATE TABLE m.x(v); CREATE TEMP TABLE y(v)")
    connection.execute(
        "BEGIN; INSERT INTO x VALUES(1); INSERT INTO y VALUES(1);"
        "UPDATE main.t SET v = 1; UPDATE b.t SET v = 1; COMMIT"
    )
    assert balances(connect) == (1, 1)
    assert rows(connection, "SELECT v FROM x UNION ALL SELECT v FROM y") == [(1,), (1,)]


# ---- rule 17: one version, one read set ----


@pytest.mark.parametrize("main", MAINS)
def test_17_write_skew(open_all: Open, main: str) -> None:
    """T1 reads b and writes a, T2 reads a and writes b: only one of them may commit."""
    one, two = open_all(main), open_all(main)
    a = table_a(main)
    for connection, reads, writes in ((one, "b.t", a), (two, a, "b.t")):
        connection.execute("BEGIN")
        assert value(connection, f"SELECT v FROM {reads} WHERE id = 1") == 100
        connection.execute(f"UPDATE {writes} SET v = v - 100 WHERE id = 1")
    one.execute("COMMIT")
    conflict = refused(two)
    assert isinstance(conflict, mvvfs.ConflictError)
    assert conflict.schema == ("main" if main == "mv" else "a")


@pytest.mark.parametrize("main", MAINS)
def test_17_read_at_one_version(open_all: Open, connect: Connect, main: str) -> None:
    reader, writer = open_all(main), open_all(main)
    a = table_a(main)
    for _ in range(3):
        reader.execute("BEGIN")
        before = value(reader, f"SELECT sum(v) FROM {a}")
        transfer(writer, main)
        transfer(writer, main)
        assert before + value(reader, "SELECT sum(v) FROM b.t") == 200
        reader.execute("COMMIT")
        assert value(reader, f"SELECT (SELECT sum(v) FROM {a}) + (SELECT sum(v) FROM b.t)") == 200


def test_17_who_joins_sees_what_was_there_at_the_start(open_all: Open, connect: Connect) -> None:
    """Also its own commits, and those of others, to a database that it has not touched for long."""
    connection, other = open_all(), open_all()
    for i in range(5):
        connection.execute("UPDATE b.t SET v = v + 1")
        other.execute("UPDATE b.t SET v = v + 1")
        connection.execute("BEGIN")
        assert value(connection, "SELECT v FROM main.t") == 100
        assert value(connection, "SELECT v FROM b.t") == 102 + 2 * i
        connection.execute("COMMIT")


def test_17_a_version_that_the_cache_has_left_behind(open_all: Open, connect: Connect) -> None:
    """b grows and shrinks after the transaction began at a; it is read as it was all the same."""
    reader, writer = open_all(), open_all()
    reader.execute("BEGIN")
    assert value(reader, "SELECT v FROM main.t") == 100
    transfer(writer, "mv")
    writer.execute("CREATE TABLE b.more(x); INSERT INTO b.more VALUES(zeroblob(50000))")
    value(writer, "SELECT count(*) FROM b.more")
    writer.execute("UPDATE main.t SET v = v + 1")
    assert value(reader, "SELECT v FROM b.t") == 100
    assert rows(reader, "SELECT name FROM b.sqlite_schema") == [("t",)]
    assert rows(reader, "PRAGMA b.integrity_check") == [("ok",)]
    reader.execute("INSERT INTO b.t VALUES(7, 7)")
    refused(reader)


def test_17_what_one_only_read_counts(open_all: Open) -> None:
    connection, other = open_all(), open_all()
    connection.execute("BEGIN; UPDATE main.t SET v = 1 + (SELECT v FROM b.t)")
    other.execute("UPDATE b.t SET v = 5")
    refused(connection)
    connection.execute("BEGIN; UPDATE main.t SET v = 1 + (SELECT v FROM b.t)")
    other.execute("CREATE TABLE b.elsewhere(x)")  # another page: but the schema is what it read first
    refused(connection)
    connection.execute("BEGIN; UPDATE main.t SET v = 1 + (SELECT v FROM b.t); COMMIT")
    assert value(other, "SELECT v FROM main.t") == 6


def test_17_a_pinned_database_is_left_out(connect: Connect, store: str) -> None:
    connection, other = connect("a"), connect("a")
    connection.execute("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
    connection.execute("ATTACH ? AS past", (to_uri("a", store=store, at="HEAD"),))
    connection.execute("BEGIN")
    assert value(connection, "SELECT v FROM past.t") == 1
    other.execute("UPDATE t SET v = 2")
    assert value(connection, "SELECT v FROM main.t") == 2
    connection.execute("UPDATE main.t SET v = (SELECT v FROM past.t) + 10; COMMIT")
    assert value(other, "SELECT v FROM t") == 11


def test_17_after_a_commit_with_a_cursor_open_all_stand_at_the_new_version(open_all: Open) -> None:
    connection, other = open_all(), open_all()
    for i in range(2, 40):
        other.execute(f"INSERT INTO b.t VALUES({i}, zeroblob(900))")
    cursor = connection.execute("SELECT id FROM b.t ORDER BY id")
    assert next(iter(cursor)) == (1,)
    connection.execute("UPDATE main.t SET v = 7")
    assert value(connection, "SELECT v FROM main.t") == 7
    versions = {value(connection, f"PRAGMA {name}.mv_version") for name in ("main", "b")}
    assert len(versions) == 1
    other.execute("UPDATE b.t SET v = 1 WHERE id = 39")
    connection.execute("UPDATE main.t SET v = 8")  # it has not read that page of b yet
    with pytest.raises(apsw.BusyError):
        list(cursor)
    assert value(other, "SELECT v FROM main.t") == 8


def test_a_database_attached_twice(connect: Connect, store: str) -> None:
    connection = connect("a")
    connection.execute("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
    connection.execute("ATTACH ? AS again", (to_uri("a", store=store),))
    connection.execute("BEGIN; UPDATE main.t SET v = 2")
    assert value(connection, "SELECT v FROM again.t") == 1
    with pytest.raises(mvvfs.errors.UnsupportedError, match="attached twice"):
        connection.execute("UPDATE again.t SET v = 3")
    connection.execute("COMMIT")
    assert value(connection, "SELECT v FROM again.t") == 2
    connection.execute("UPDATE again.t SET v = 4")
    assert value(connection, "SELECT v FROM main.t") == 4
    with pytest.raises(mvvfs.errors.UnsupportedError, match="attached twice"):
        connection.execute("BEGIN IMMEDIATE")
    other = connect("a")
    connection.execute("BEGIN; INSERT INTO main.t SELECT v + 1 FROM again.t")
    other.execute("UPDATE t SET v = 9")
    refused(connection)
    cursor = connection.execute("SELECT v FROM again.t")
    next(iter(cursor))
    connection.execute("INSERT INTO main.t VALUES(zeroblob(20000))")
    assert value(connection, "SELECT count(*) FROM main.t") == 2
    cursor.close()
    assert value(connection, "SELECT count(*) FROM again.t") == 2


def test_attach_within_a_transaction(connect: Connect, store: str) -> None:
    connection, other = connect("a"), connect("b")
    connection.execute("CREATE TABLE t(v)")
    other.execute("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
    connection.execute("BEGIN; INSERT INTO t VALUES(1)")
    connection.execute("ATTACH ? AS b", (to_uri("b", store=store),))
    connection.execute("INSERT INTO b.t SELECT v + 1 FROM main.t; COMMIT")
    assert rows(other, "SELECT v FROM t") == [(1,), (2,)]


def test_a_database_younger_than_the_transaction(connect: Connect, store: str) -> None:
    connection, other = connect("a"), connect("a")
    connection.execute("CREATE TABLE t(v)")
    connection.execute("BEGIN")
    value(connection, "SELECT count(*) FROM t")
    other.execute("INSERT INTO t VALUES(1)")
    connect("young").execute("CREATE TABLE y(v)")
    with pytest.raises(mvvfs.errors.NoSuchVersionError, match="did not exist yet"):
        connection.execute("ATTACH ? AS young", (to_uri("young", store=store),))
    connection.execute("COMMIT")
    if "young" not in {name for _, name, _ in rows(connection, "PRAGMA database_list")}:
        connection.execute("ATTACH ? AS young", (to_uri("young", store=store),))
    assert value(connection, "SELECT count(*) FROM y") == 0


# ---- retries and turns ----


def test_a_retry_gets_its_turn_in_every_database(open_all: Open, connect: Connect) -> None:
    """While it has it, a commit that would spoil it waits, in the database that it only reads as well."""
    connection, other = open_all(), open_all()
    singles = connect("a", timeout=0), connect("b", timeout=0)
    tries = 0

    def work() -> None:
        nonlocal tries
        tries += 1
        (v,) = connection.execute("SELECT v FROM b.t WHERE id = 1").fetchone()
        if tries < 3:
            other.execute("UPDATE b.t SET v = v + 1 WHERE id = 1")
        else:
            for single in singles:
                with pytest.raises(apsw.BusyError):
                    single.execute("BEGIN IMMEDIATE")
                single.close()  # leaves the queue
        connection.execute("UPDATE main.t SET v = 1000 + ?", (v,))

    mvvfs.transaction(connection, turn_after=2).run(work)
    assert tries == 3
    assert balances(connect) == (1102, 102)
    started = time.monotonic()
    other.execute("UPDATE b.t SET v = 0; UPDATE main.t SET v = 0")
    assert time.monotonic() - started < 1  # no turn is left behind


@pytest.mark.parametrize("main", MAINS)
def test_the_helper_works_whatever_the_main_database_is(
    open_all: Open, connect: Connect, store: str, main: str
) -> None:
    connection, other = open_all(main), open_all(main)
    tries = 0

    @mvvfs.transaction(connection, turn_after=1, message="moved")
    def work() -> None:
        nonlocal tries
        tries += 1
        connection.execute("UPDATE b.t SET v = v - 1")
        if tries == 1:
            other.execute("UPDATE b.t SET v = v + 1")

    work()
    assert tries == 2
    assert balances(connect) == (100, 100)
    opened = open_store(store, create=False)
    (change,) = opened.changelog(opened.open("b").id, newest_first=True, limit=1)
    opened.close()
    assert change.message == "moved"


def test_begin_immediate_waits_for_its_turn_in_every_database(open_all: Open, connect: Connect) -> None:
    connection, other, single = open_all(), open_all(), connect("b")
    connection.execute("BEGIN IMMEDIATE")
    for each in (other, single):
        each.set_busy_timeout(100)
        with pytest.raises(apsw.BusyError) as caught:
            each.execute("BEGIN IMMEDIATE")
        assert caught.value.extendedresult == apsw.SQLITE_BUSY
    connection.execute("UPDATE b.t SET v = v + 1; COMMIT")
    for each in (single, other):
        each.set_busy_timeout(3000)
        each.execute("BEGIN IMMEDIATE; UPDATE t SET v = v + 1; COMMIT")
    assert balances(connect) == (101, 102)
