"""Reading the past: `at=` in `connect` and in `ATTACH`, and `PRAGMA mv_at`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import apsw
import pytest

import mvvfs
from mvvfs import errors
from mvvfs.options import to_uri
from mvvfs.when import format_time
from pagestore import retention
from pagestore.api import Change, Retention, format_version
from pagestore.opener import open_store
from tests.conftest import NAME, Connect
from tests.sql.twins import is_intact, rows, value

Look = Callable[[str], apsw.Connection]
"""Opens the database as of WHEN; its table is `t`."""


@pytest.fixture(params=["connect", "attach", "uri", "pragma"])
def look(request: pytest.FixtureRequest, connect: Connect, store: str) -> Iterator[Look]:
    opened: list[apsw.Connection] = []

    def by_attach(when: str) -> apsw.Connection:
        connection = connect("beside")
        connection.execute(f"ATTACH 'file:{NAME}?vfs=mv&store={quote(store)}&at={quote(when)}' AS past")
        return connection

    def by_uri(when: str) -> apsw.Connection:
        mvvfs.register(sqlite3=False)
        flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE
        opened.append(
            apsw.Connection(f"file:{NAME}?vfs=mv&store={quote(store)}&at={quote(when)}", flags=flags)
        )
        return opened[-1]

    def by_pragma(when: str) -> apsw.Connection:
        connection = connect()
        value(connection, "SELECT count(*) FROM t")
        connection.execute(f"PRAGMA mv_at = '{when}'")
        return connection

    ways: dict[str, Look] = {
        "connect": lambda when: connect(at=when),
        "attach": by_attach,
        "uri": by_uri,
        "pragma": by_pragma,
    }
    yield ways[request.param]
    for connection in opened:
        connection.close(True)


def commits(connect: Connect, store: str, count: int = 5) -> list[Change]:
    """`t` holds 0 .. n after the n-th of them; the first one makes the table."""
    connection = connect(durability="normal")
    connection.execute("CREATE TABLE t(n)")
    for n in range(count):
        time.sleep(0.002)
        connection.execute("INSERT INTO t VALUES(?)", (n,))
    opened = open_store(store, create=False)
    log = list(opened.changelog(opened.open(NAME).id))
    opened.close()
    return log


def seen(connection: apsw.Connection) -> int:
    count: int = value(connection, "SELECT count(*) FROM t")
    return count


def test_a_version_and_a_time(connect: Connect, store: str, look: Look) -> None:
    log = commits(connect, store)
    assert seen(look(format_version(log[2].version))) == 2
    assert seen(look(format_time(log[3].time_us))) == 3
    assert seen(look("HEAD~1")) == 4


def test_a_time_between_two_commits_means_the_earlier_one(connect: Connect, store: str, look: Look) -> None:
    log = commits(connect, store)
    between = (log[2].time_us + log[3].time_us) // 2
    past = look(format_time(between))
    assert seen(past) == 2
    offset = format_time(between + 3_600_000_000).replace("Z", "+01:00")
    assert seen(look(offset)) == 2


def test_what_others_do_meanwhile_is_not_seen(connect: Connect, store: str, look: Look) -> None:
    log = commits(connect, store)
    past = look(format_version(log[3].version))
    connect().execute("DELETE FROM t; CREATE TABLE more(x)")
    assert seen(past) == 3
    is_intact(past)


@pytest.mark.parametrize(
    "sql", ["INSERT INTO {} VALUES(9)", "UPDATE {} SET n = 0", "DELETE FROM {}", "DROP TABLE {}"]
)
def test_the_past_can_not_be_written(connect: Connect, store: str, look: Look, sql: str) -> None:
    log = commits(connect, store)
    past = look(format_version(log[3].version))
    with pytest.raises(apsw.ReadOnlyError) as caught:
        past.execute(sql.format("t"))
    assert caught.value.result == apsw.SQLITE_READONLY
    assert seen(past) == 3
    assert seen(connect()) == 5


@pytest.mark.parametrize("when", ["2099-01-01", "v" + "f" * 20])
def test_the_future_is_an_error(connect: Connect, store: str, look: Look, when: str) -> None:
    commits(connect, store)
    with pytest.raises(errors.NoSuchVersionError, match=r"future|not exist yet"):
        look(when)


@pytest.mark.parametrize("when", ["1970-01-02", "v1", "HEAD~99"])
def test_before_the_first_commit_is_an_error(connect: Connect, store: str, look: Look, when: str) -> None:
    commits(connect, store)
    with pytest.raises(errors.NoSuchVersionError, match=r"before the first|older than"):
        look(when)


def test_nonsense_is_an_error(connect: Connect, store: str, look: Look) -> None:
    commits(connect, store)
    with pytest.raises(errors.OptionError):
        look("last tuesday")


def test_below_the_horizon_is_an_error_that_names_the_horizon(
    connect: Connect, store: str, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = commits(connect, store)
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    opened = open_store(store, create=False)
    id_ = opened.open(NAME).id
    opened.set_retention(id_, Retention(0))
    assert opened.collect(id_).complete
    horizon = opened.open(NAME).horizon
    opened.close()
    for when in (format_version(log[1].version), format_time(log[1].time_us)):
        with pytest.raises(errors.BelowHorizonError) as caught:
            look(when)
        assert caught.value.horizon == horizon
        assert format_version(horizon) in str(caught.value)
    assert seen(look("HEAD")) == 5


# ---- in one query ----


def test_past_and_present_in_one_query(connect: Connect, store: str) -> None:
    commits(connect, store)
    connection = connect()
    connection.execute(f"ATTACH 'file:{NAME}?vfs=mv&store={quote(store)}&at=HEAD~2' AS past")
    sql = "SELECT n FROM main.t EXCEPT SELECT n FROM past.t ORDER BY n"
    assert rows(connection, sql) == [(3,), (4,)]
    connection.execute("INSERT INTO main.t SELECT n + 10 FROM past.t")
    assert rows(connection, sql) == [(3,), (4,), (10,), (11,), (12,)]
    connection.execute(f"ATTACH 'file:{NAME}?vfs=mv&store={quote(store)}&at=HEAD~1' AS later")
    counted = rows(connection, "SELECT (SELECT count(*) FROM past.t), (SELECT count(*) FROM later.t)")
    assert counted == [(3, 5)]


# ---- PRAGMA mv_at ----


def test_mv_at_goes_to_and_fro(connect: Connect, store: str) -> None:
    log = commits(connect, store)
    connection, other = connect(), connect()
    assert value(connection, "PRAGMA mv_at") == ""
    for n in (2, 4, 1, 3):
        version = format_version(log[n].version)
        assert value(connection, f"PRAGMA mv_at = '{version}'") == version
        assert value(connection, "PRAGMA mv_at") == value(connection, "PRAGMA mv_version") == version
        assert seen(connection) == n
        is_intact(connection)
    other.execute("INSERT INTO t VALUES(5)")
    assert seen(connection) == 3
    assert value(connection, "PRAGMA mv_at = ''") == ""
    assert value(connection, "PRAGMA mv_at") == ""
    assert seen(connection) == 6
    connection.execute("INSERT INTO t VALUES(6)")
    assert seen(other) == 7
    connection.execute("PRAGMA mv_at = ''")  # once more does no harm


def test_mv_at_within_a_transaction_is_an_error(connect: Connect, store: str) -> None:
    commits(connect, store)
    connection = connect()
    for before in ("BEGIN", "BEGIN; SELECT * FROM t", "BEGIN IMMEDIATE", "SAVEPOINT s"):
        connection.execute(before).fetchall()
        for sql in ("PRAGMA mv_at = 'HEAD~1'", "PRAGMA mv_at = ''"):
            with pytest.raises(errors.TransactionError, match="between transactions"):
                connection.execute(sql)
        connection.execute("INSERT INTO t VALUES(7); COMMIT")
    cursor = connection.execute("SELECT n FROM t")
    next(iter(cursor))
    with pytest.raises(errors.TransactionError, match="cursors"):
        connection.execute("PRAGMA mv_at = 'HEAD~1'")
    cursor.close()
    assert seen(connection) == 9


def test_mv_at_of_one_that_was_opened_in_the_past(connect: Connect, store: str) -> None:
    commits(connect, store)
    connection = connect(at="HEAD~3")
    assert seen(connection) == 2
    connection.execute("PRAGMA mv_at = 'HEAD~1'")
    assert seen(connection) == 4
    connection.execute("PRAGMA mv_at = ''")
    assert seen(connection) == 5
    connect().execute("DELETE FROM t")
    assert seen(connection) == 0
    with pytest.raises(apsw.ReadOnlyError):  # as SQLite has opened it
        connection.execute("DELETE FROM t")


def test_mv_at_of_an_attached_database(connect: Connect, store: str) -> None:
    commits(connect, store)
    connection = connect("other")
    connection.execute("ATTACH ? AS a", (to_uri(NAME, store=store),))
    connection.execute("PRAGMA a.mv_at = 'HEAD~4'")
    assert seen(connection) == 1
    connection.execute("CREATE TABLE main.copy AS SELECT * FROM a.t")
    connection.execute("PRAGMA a.mv_at = ''").fetchall()
    connection.execute("INSERT INTO a.t SELECT n + 5 FROM main.copy")
    assert seen(connection) == 6


@pytest.mark.parametrize("main", ["mv", "memory"])
@pytest.mark.parametrize("mode", ["DELETE", "PERSIST", "MEMORY", "OFF"])
def test_begin_immediate_beside_the_past(connect: Connect, store: str, main: str, mode: str) -> None:
    """SQLite locks the past with the others; to write it fails, at the first write or at COMMIT."""
    commits(connect, store)
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = connect("other") if main == "mv" else apsw.Connection(":memory:", flags=flags)
    connection.execute("ATTACH ? AS a", (to_uri(NAME, store=store),))
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.execute("CREATE TABLE main.copy(n); INSERT INTO a.t VALUES(5)")
    connection.execute("PRAGMA a.mv_at = 'HEAD~1'").fetchall()
    connection.execute("BEGIN IMMEDIATE; INSERT INTO main.copy SELECT n FROM a.t; COMMIT")
    assert value(connection, "SELECT count(*) FROM main.copy") == 5
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("BEGIN IMMEDIATE; UPDATE a.t SET n = n + 1; COMMIT")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert seen(connect()) == 6
    connection.execute("PRAGMA a.mv_at = ''").fetchall()
    assert rows(connection, "SELECT sum(n) FROM a.t") == [(15,)]
    connection.execute("BEGIN IMMEDIATE; UPDATE a.t SET n = n + 1; COMMIT")
    assert rows(connect(), "SELECT sum(n) FROM t") == [(21,)]
    connection.close(True)


def test_begin_immediate_in_the_past(connect: Connect, store: str) -> None:
    commits(connect, store)
    connection = connect()
    connection.execute("PRAGMA mv_at = 'HEAD~1'").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    assert seen(connection) == 4
    for sql in ("DELETE FROM t", "CREATE TABLE u(x)", "PRAGMA user_version = 7"):
        with pytest.raises(apsw.ReadOnlyError):
            connection.execute(sql)
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert seen(connection) == 4


def test_mv_at_across_page_counts_and_schemas(connect: Connect) -> None:
    writer, reader = connect(), connect()
    writer.execute("CREATE TABLE a(x); INSERT INTO a VALUES(zeroblob(300000))")
    grown = value(writer, "PRAGMA mv_version")
    writer.execute("DROP TABLE a; CREATE TABLE b(y); VACUUM")
    for _ in range(2):
        reader.execute(f"PRAGMA mv_at = '{grown}'")
        assert value(reader, "SELECT length(x) FROM a") == 300000
        is_intact(reader)
        reader.execute("PRAGMA mv_at = ''")
        assert rows(reader, "SELECT * FROM b") == []
        is_intact(reader)
        with pytest.raises(apsw.SQLError):
            reader.execute("SELECT * FROM a")


def test_errors_of_pragmas_in_the_standard_module(connect: Connect, store: str) -> None:
    commits(connect, store)
    mvvfs.register()
    stock = sqlite3.connect(to_uri(NAME, store=store), uri=True)
    with pytest.raises(sqlite3.OperationalError, match="is in the future"):
        stock.execute("PRAGMA mv_at = '2099-01-01'")
    stock.execute("PRAGMA mv_at = 'HEAD~1'")
    assert stock.execute("SELECT count(*) FROM t").fetchone() == (4,)
    assert stock.execute("PRAGMA mv_at = ''").fetchall() == [("",)]
    assert stock.execute("SELECT count(*) FROM t").fetchone() == (5,)
    stock.close()


def test_the_standard_module_keeps_prepared_statements(connect: Connect, store: str) -> None:
    """docs/limits.md says how to go to and fro with the same words."""
    commits(connect, store)
    mvvfs.register()
    stock = sqlite3.connect(to_uri(NAME, store=store), uri=True, cached_statements=0)
    for _ in range(2):
        stock.execute("PRAGMA mv_at = 'HEAD~1'")
        assert stock.execute("SELECT count(*) FROM t").fetchone() == (4,)
        stock.execute("PRAGMA mv_at = ''")
        assert stock.execute("SELECT count(*) FROM t").fetchone() == (5,)
    stock.close()
