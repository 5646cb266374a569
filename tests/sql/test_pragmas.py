"""Pragmas: SQLite's that must do no harm, and our own."""

from __future__ import annotations

import json
import logging

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.conftest import NAME, Connect
from tests.sql.twins import is_intact, rows, value

JOURNAL_MODES = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", "WAL"]


def work(connection: apsw.Connection) -> None:
    """Commits, a rollback after spilled pages, a statement that is undone, a savepoint."""
    connection.execute("PRAGMA cache_size = 10")
    connection.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x TEXT CHECK (x != 'bad'))")
    connection.execute("BEGIN; DELETE FROM t")
    connection.executemany("INSERT INTO t VALUES(?, printf('%.300c', 'x'))", [(i,) for i in range(500)])
    connection.execute("COMMIT")


def check(connection: apsw.Connection, others: apsw.Connection) -> None:
    for each in (connection, others):
        assert value(each, "SELECT count(*) FROM t") == 500
        is_intact(each)


@pytest.mark.parametrize("mode", JOURNAL_MODES)
def test_journal_mode_is_answered_and_harmless(connect: Connect, mode: str) -> None:
    connection = connect()
    assert value(connection, f"PRAGMA journal_mode = {mode}") == "delete"
    work(connection)
    assert value(connection, f"PRAGMA journal_mode = {mode}") == "delete"
    connection.execute("BEGIN; DELETE FROM t; ROLLBACK")
    connection.execute("BEGIN; SAVEPOINT s; UPDATE t SET x = id; ROLLBACK TO s; COMMIT")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("UPDATE t SET x = iif(id > 400, 'bad', 'good')")
    check(connection, connect())
    assert value(connection, "SELECT count(*) FROM t WHERE length(x) = 300") == 500


@pytest.mark.parametrize("mode", JOURNAL_MODES)
def test_journal_mode_of_an_attached_database(connect: Connect, store: str, mode: str) -> None:
    """SQLite applies an unqualified journal_mode to attached files without asking them."""
    memory = apsw.Connection(":memory:", flags=apsw.SQLITE_OPEN_URI | 6)
    connect().close()
    memory.execute("ATTACH ? AS mv", (to_uri(NAME, store=store),))
    memory.execute(f"PRAGMA journal_mode = {mode}")
    memory.execute("CREATE TABLE mv.t(id INTEGER PRIMARY KEY, x)")
    for i in range(3):
        memory.execute("BEGIN")
        memory.executemany(
            "INSERT INTO mv.t VALUES(?, printf('%.300c', 'x'))", [(1000 * i + j,) for j in range(200)]
        )
        memory.execute("COMMIT")
        if mode != "OFF":  # SQLite can't roll back without a journal
            memory.execute("BEGIN; DELETE FROM mv.t; ROLLBACK")
    other = connect()
    assert value(other, "SELECT count(*) FROM t") == value(memory, "SELECT count(*) FROM mv.t") == 600
    is_intact(other)
    memory.close()


def test_a_rollback_without_a_journal_leaves_the_database_as_it_was(connect: Connect, store: str) -> None:
    connection = connect()
    work(connection)
    memory = apsw.Connection(":memory:", flags=apsw.SQLITE_OPEN_URI | 6)
    memory.execute("ATTACH ? AS mv", (to_uri(NAME, store=store),))
    memory.execute("PRAGMA journal_mode = OFF; PRAGMA mv.cache_size = 10")
    memory.execute("BEGIN; UPDATE mv.t SET x = 'gone'; ROLLBACK")
    memory.close()
    check(connection, connect())
    assert value(connection, "SELECT count(*) FROM t WHERE length(x) = 300") == 500


@pytest.mark.parametrize(
    "pragma", ["PRAGMA locking_mode = EXCLUSIVE", "PRAGMA main.locking_mode = EXCLUSIVE"]
)
def test_exclusive_locking_is_answered_and_harmless(connect: Connect, pragma: str) -> None:
    connection, other = connect(), connect()
    assert value(connection, pragma) == "normal"
    work(connection)
    other.execute("UPDATE t SET x = 'other' WHERE id = 1")
    connection.execute("UPDATE t SET x = 'one' WHERE id = 2")
    check(connection, other)
    assert rows(connection, "SELECT x FROM t WHERE id IN (1, 2)") == [("other",), ("one",)]


def test_exclusive_locking_of_an_attached_database_loses_nothing(connect: Connect, store: str) -> None:
    """SQLite then never unlocks it: a second commit must fail or be whole, never be lost."""
    connect().execute("CREATE TABLE t(x)")
    memory = apsw.Connection(":memory:", flags=apsw.SQLITE_OPEN_URI | 6)
    memory.execute("ATTACH ? AS mv", (to_uri(NAME, store=store),))
    memory.execute("PRAGMA locking_mode = EXCLUSIVE")
    acknowledged = 0
    for i in range(5):
        try:
            memory.execute("INSERT INTO mv.t VALUES(?)", (i,))
            acknowledged += 1
        except apsw.Error:
            if memory.in_transaction:
                memory.execute("ROLLBACK")
        connect().execute("INSERT INTO t VALUES('other')")
    assert value(connect(), "SELECT count(*) FROM t WHERE x != 'other'") == acknowledged
    assert value(connect(), "SELECT count(*) FROM t WHERE x = 'other'") == 5
    is_intact(connect())
    memory.close()


@pytest.mark.parametrize(
    "pragma",
    [
        "synchronous = OFF",
        "synchronous = EXTRA",
        "fullfsync = ON",
        "mmap_size = 100000000",
        "cache_spill = OFF",
        "temp_store = MEMORY",
        "secure_delete = ON",
        "cell_size_check = ON",
        "wal_checkpoint",
        "optimize",
        "wal_autocheckpoint = 10",
        "journal_size_limit = 1000",
        "automatic_index = OFF",
        "shrink_memory",
    ],
)
def test_other_pragmas_do_no_harm(connect: Connect, pragma: str) -> None:
    connection = connect()
    connection.execute(f"PRAGMA {pragma}")
    work(connection)
    connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN; UPDATE t SET x = 'gone'; ROLLBACK")
    check(connection, connect())


def test_data_version_stays_until_someone_else_commits(connect: Connect) -> None:
    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t(x)")
    first = value(connection, "PRAGMA data_version")
    assert [value(connection, "PRAGMA data_version") for _ in range(3)] == [first] * 3
    connection.execute("INSERT INTO t VALUES(1)")
    assert value(connection, "PRAGMA data_version") == first
    other.execute("INSERT INTO t VALUES(2)")
    second = value(connection, "PRAGMA data_version")
    assert second != first
    assert value(connection, "PRAGMA data_version") == second


def test_a_schema_change_reaches_prepared_statements(connect: Connect) -> None:
    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t(x)")
    assert rows(other, "SELECT * FROM t") == []
    connection.execute("ALTER TABLE t ADD COLUMN y DEFAULT 5; INSERT INTO t(x) VALUES(1)")
    assert rows(other, "SELECT * FROM t") == [(1, 5)]
    connection.execute("DROP TABLE t")
    with pytest.raises(apsw.SQLError, match="no such table"):
        other.execute("SELECT * FROM t")


# ---- ours ----


def lose(loser: apsw.Connection, winner: apsw.Connection) -> None:
    """A conflict at COMMIT: both change what the loser has read."""
    loser.execute("BEGIN")
    rows(loser, "SELECT * FROM t")
    loser.execute("UPDATE t SET x = 3")
    winner.execute("UPDATE t SET x = 2")
    with pytest.raises(mvvfs.ConflictError) as caught:
        loser.execute("COMMIT")
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    assert caught.value.pages == (2,)
    assert caught.value.version is not None
    assert not loser.in_transaction


@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_a_conflict_that_shows_before_the_commit(connect: Connect) -> None:
    """The write lock is refused to a transaction that could only lose."""
    winner, loser = connect(), connect()
    winner.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    loser.execute("BEGIN")
    rows(loser, "SELECT * FROM t")
    winner.execute("UPDATE t SET x = 2")
    with pytest.raises(apsw.BusyError) as caught:
        loser.execute("UPDATE t SET x = 3")
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    assert rows(loser, "SELECT * FROM t") == [(1,)]  # it may go on reading
    loser.execute("ROLLBACK")
    loser.execute("UPDATE t SET x = x + 1")
    assert value(winner, "SELECT x FROM t") == 3


def test_mv_version(connect: Connect) -> None:
    connection = connect()
    empty = value(connection, "PRAGMA mv_version")
    connection.execute("CREATE TABLE t(x)")
    first = value(connection, "PRAGMA mv_version")
    connection.execute("INSERT INTO t VALUES(1)")
    second = value(connection, "PRAGMA mv_version")
    assert empty < first < second
    assert all(
        len(each) == 21 and each[0] == "v" and int(each[1:], 16) >= 0 for each in (empty, first, second)
    )
    other = connect()
    other.execute("BEGIN")
    assert value(other, "SELECT x FROM t") == 1
    connection.execute("INSERT INTO t VALUES(2)")
    assert value(other, "PRAGMA mv_version") == second
    other.execute("COMMIT")
    assert value(other, "SELECT count(*) FROM t") == 2
    assert value(other, "PRAGMA mv_version") == value(connection, "PRAGMA mv_version") > second


def test_mv_stats_count(connect: Connect) -> None:
    def stats(connection: apsw.Connection) -> dict[str, int]:
        found: dict[str, int] = json.loads(value(connection, "PRAGMA mv_stats"))
        return found

    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert stats(connection)["commits"] == 2
    assert stats(connection)["conflicts"] == stats(other)["commits"] == 0
    lose(other, connection)
    assert stats(other)["conflicts"] == 1
    before = stats(connection)
    reader = connect()
    reader.execute("SELECT * FROM t").fetchall()
    seen = stats(reader)
    assert seen["pages_read"] > 0
    assert seen["cache_hits"] > 0  # the writer's pages
    assert stats(connection) == before  # they are the connection's own


def test_mv_last_error(connect: Connect) -> None:
    connection, other = connect(), connect()
    assert value(connection, "PRAGMA mv_last_error") == ""
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    lose(other, connection)
    assert "changed" in value(other, "PRAGMA mv_last_error")
    assert value(connection, "PRAGMA mv_last_error") == ""


def test_mv_message_goes_into_the_changelog(connect: Connect, store: str) -> None:
    connection = connect(message="first words")
    connection.execute("CREATE TABLE t(x)")
    assert value(connection, "PRAGMA mv_message") == "first words"
    text = "it's 5 o'clock \u2013 \u6570\u636e"
    connection.execute(f"PRAGMA mv_message = {apsw.format_sql_value(text)}")
    connection.execute("INSERT INTO t VALUES(1)")
    connection.execute("PRAGMA mv_message = ''")
    connection.execute("INSERT INTO t VALUES(2)")
    opened = open_store(store, create=False)
    changes = list(opened.changelog(opened.open(NAME).id))
    opened.close()
    assert [change.message for change in changes] == ["first words", text, ""]


def test_a_message_that_is_too_long(connect: Connect) -> None:
    connection = connect()
    with pytest.raises(ValueError, match="4096"):
        connection.execute(f"PRAGMA mv_message = '{'x' * 5000}'")


def test_an_unknown_pragma_of_ours_is_unknown_as_any(connect: Connect) -> None:
    assert rows(connect(), "PRAGMA mv_nonsense") == []


def test_slow_transactions_are_logged(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    connection = connect(slow_ms=0.001)
    with caplog.at_level(logging.WARNING, "mvvfs.slow"):
        connection.execute("CREATE TABLE t(x)")
        caplog.clear()
        connection.execute("BEGIN; INSERT INTO t VALUES('needle'); COMMIT")
        (record,) = caplog.records
        message = record.getMessage()
        assert record.name == "mvvfs.slow"
        assert "INSERT INTO t" in message
        assert "committed" in message
        assert message.startswith(NAME)


def test_quick_transactions_are_not(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mvvfs.slow"):
        for slow_ms in (0, 100_000):
            connection = connect(slow_ms=slow_ms)
            connection.execute("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)")
    assert caplog.records == []
