"""Several databases are read at one version: rule 17 of docs/design/sqlite-vfs.md."""

from __future__ import annotations

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from tests.conftest import Connect
from tests.sql.attached import MAINS, Open, refused, table_a, transfer
from tests.sql.twins import rows, value


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


def test_17_what_was_written_as_it_was_refuses_nobody(open_all: Open) -> None:
    """The other's statement begins after b was joined, and leaves b as it is."""
    connection, other = open_all(), open_all()
    other.execute("DELETE FROM b.t")
    connection.execute("BEGIN; INSERT INTO main.t SELECT 2, count(*) FROM b.t")
    other.execute("DELETE FROM b.t")
    connection.execute("INSERT INTO b.t SELECT id, v FROM main.t; COMMIT")
    assert rows(other, "SELECT id, v FROM b.t") == [(1, 100), (2, 0)]


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
