"""The rules of docs/design/sqlite-vfs.md, each by its number."""

from __future__ import annotations

import itertools
import json
import sqlite3
import time

import apsw
import pytest

import mvvfs
from mvvfs import ConflictError
from pagestore.api import Lease, NamespaceId
from pagestore.store import PageStore
from tests.conftest import NAME, Connect, refused_at
from tests.process.place import roll_back
from tests.sql.twins import value

BUSY, BUSY_SNAPSHOT = apsw.SQLITE_BUSY, apsw.SQLITE_BUSY_SNAPSHOT


def filled(connect: Connect, rows: int = 100, **options: object) -> apsw.Connection:
    connection = connect(**options)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    many_rows(connection, rows)
    return connection


def many_rows(connection: apsw.Connection, count: int, size: int = 0) -> None:
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        "INSERT INTO t(v) SELECT CASE WHEN ? THEN randomblob(?) ELSE i END FROM n",
        (count, size, size),
    )


def stats(connection: apsw.Connection) -> dict[str, int]:
    found: dict[str, int] = json.loads(value(connection, "PRAGMA mv_stats"))
    return found


def test_1_a_snapshot_lasts_from_shared_to_none(connect: Connect) -> None:
    a, b = filled(connect), connect()
    b.execute("BEGIN")
    assert value(b, "SELECT sum(v) FROM t") == 5050
    a.execute("UPDATE t SET v = 0")
    assert value(b, "SELECT sum(v) FROM t") == 5050
    b.execute("COMMIT")
    assert value(b, "SELECT sum(v) FROM t") == 0


def test_2_no_update_is_lost_between_two_that_take_turns(connect: Connect) -> None:
    """A commit of its own moves SQLite's counter by one: a new snapshot has to look like another."""
    a, b = filled(connect, 1), connect()
    for _ in range(20):
        for connection in (a, b):
            connection.execute("UPDATE t SET v = v + 1")
    assert value(a, "SELECT v FROM t") == value(b, "SELECT v FROM t") == 41


def test_3_warm_reads_stay_in_sqlites_cache(connect: Connect) -> None:
    a = filled(connect)
    value(a, "SELECT v FROM t WHERE id = 5")
    before = stats(a)["pages_read"]
    for _ in range(50):
        value(a, "SELECT v FROM t WHERE id = 5")
    assert stats(a)["pages_read"] - before <= 60  # the counter's look at page 1 and no more


def test_3_what_sqlites_cache_served_counts_as_read(connect: Connect, store: str) -> None:
    """T1 reads x from SQLite's own cache and writes y; T2 writes x meanwhile: T1 must not commit."""
    a = connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v); INSERT INTO x VALUES (1); INSERT INTO y VALUES (1)")
    b = connect()
    for _ in range(3):
        value(a, "SELECT v FROM x")  # kept
    a.execute("BEGIN")
    seen = value(a, "SELECT v FROM x")
    b.execute("UPDATE x SET v = v + 1")
    last = refused_at(a, store, f"UPDATE y SET v = {seen} + 1")
    with pytest.raises(apsw.BusyError):
        a.execute(last)
    roll_back(a)
    assert value(b, "SELECT v FROM y") == 1


def test_3_data_version_stands_still_without_commits(connect: Connect) -> None:
    a, b = filled(connect), connect()
    first = value(b, "PRAGMA data_version")
    assert [value(b, "PRAGMA data_version") for _ in range(5)] == [first] * 5
    a.execute("UPDATE t SET v = 7 WHERE id = 1")
    assert value(b, "PRAGMA data_version") != first


@pytest.mark.parametrize("direction", ["out", "in"])
def test_3_stepped_backups_finish(connect: Connect, direction: str) -> None:
    a = filled(connect, 3000)
    plain = apsw.Connection(":memory:")
    source, target = (a, plain) if direction == "out" else (plain, a)
    if direction == "in":
        plain.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        many_rows(plain, 7000)
    with target.backup("main", source, "main") as backup:
        for _ in range(1000):
            if backup.step(3):
                break
        assert backup.done
    assert value(target, "SELECT count(*) FROM t") == (3000 if direction == "out" else 7000)
    assert value(target, "PRAGMA integrity_check") == "ok"


def test_4_a_row_loop_may_update_what_it_reads(connect: Connect, store: str) -> None:
    rows = 500 if store.startswith("fdb:") else 2000
    a = filled(connect, rows)
    for id_, v in a.execute("SELECT id, v FROM t"):
        a.execute("UPDATE t SET v = ? WHERE id = ?", (v + 1, id_))
    assert value(a, "SELECT sum(v) FROM t") == rows * (rows + 1) // 2 + rows


def test_4_an_open_cursor_never_mixes_two_snapshots(connect: Connect) -> None:
    b, a = filled(connect, 5000), connect()
    cursor = iter(a.execute("SELECT id, v FROM t ORDER BY id"))
    next(cursor)
    b.execute("UPDATE t SET v = -1 WHERE id = 4999")  # far ahead of the cursor
    a.execute("CREATE TABLE other(v)")  # commits with the cursor open, past b's commit
    seen = 1
    with pytest.raises(apsw.BusyError):  # noqa: PT012 (somewhere on the way)
        for _, v in cursor:
            assert v != -1
            seen += 1
    assert seen < 5000
    assert value(a, "SELECT v FROM t WHERE id = 4999") == -1


def test_4_after_a_refused_commit_nothing_goes_until_the_cursor_is_closed(connect: Connect) -> None:
    a, b = filled(connect, 2000), connect()
    cursor = a.execute("SELECT id FROM t")
    next(cursor)
    a.execute("BEGIN; UPDATE t SET v = v + 1 WHERE id = 1")
    b.execute("UPDATE t SET v = v + 1 WHERE id = 1")
    with pytest.raises(apsw.BusyError):
        a.execute("COMMIT")
    assert not a.in_transaction
    with pytest.raises(apsw.BusyError) as caught:
        a.execute("UPDATE t SET v = v + 1 WHERE id = 1")
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    assert "cursor" in value(a, "PRAGMA mv_last_error")
    cursor.close()
    a.execute("UPDATE t SET v = v + 1 WHERE id = 1")
    assert value(b, "SELECT v FROM t WHERE id = 1") == 3


def test_5_two_that_create_the_first_table_conflict(connect: Connect) -> None:
    a, b = connect(), connect()
    a.execute("BEGIN; CREATE TABLE t(a)")
    b.execute("CREATE TABLE t(b)")
    with pytest.raises(apsw.BusyError):
        a.execute("COMMIT")
    assert value(a, "SELECT sql FROM sqlite_schema") == "CREATE TABLE t(b)"


def test_5_blind_writes_conflict(connect: Connect) -> None:
    """Both let their table grow by pages that neither of them ever read."""
    a = connect()
    a.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    b = connect()
    a.execute("BEGIN; INSERT INTO t(v) VALUES (randomblob(50000))")
    b.execute("INSERT INTO t(v) VALUES (randomblob(50000))")
    with pytest.raises(apsw.BusyError):
        a.execute("COMMIT")
    assert value(b, "SELECT count(*) FROM t") == 1
    assert value(b, "PRAGMA integrity_check") == "ok"


def test_6_begin_immediate_starts_at_the_newest_version(connect: Connect) -> None:
    a, b = filled(connect, 1), connect()
    for _ in range(10):
        a.execute("BEGIN IMMEDIATE; UPDATE t SET v = v + 1; COMMIT")
        b.execute("BEGIN IMMEDIATE; UPDATE t SET v = v + 1; COMMIT")
    assert value(a, "SELECT v FROM t") == 21


@pytest.mark.parametrize(
    "sql", ["BEGIN IMMEDIATE", " ;/* why */ -- because\n begin immediate", "BEGIN EXCLUSIVE"]
)
def test_6_who_asks_for_the_lock_waits_within_its_busy_timeout(connect: Connect, sql: str) -> None:
    a, b = filled(connect, 1), connect()
    b.set_busy_timeout(300)
    a.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(apsw.BusyError) as caught:
        b.execute(sql)
    assert 0.2 < time.monotonic() - started < 1.5
    assert caught.value.extendedresult == BUSY
    a.execute("ROLLBACK")  # gives the turn up
    b.execute(f"{sql}; UPDATE t SET v = v + 1; COMMIT")
    assert value(a, "SELECT v FROM t") == 2


def test_6_who_does_not_ask_does_not_wait(connect: Connect) -> None:
    a, b = filled(connect), connect()
    a.execute("BEGIN IMMEDIATE")
    b.execute("UPDATE t SET v = 0 WHERE id = 1")
    b.execute("BEGIN; UPDATE t SET v = 0 WHERE id = 2; COMMIT")
    a.execute("ROLLBACK")


def test_6_a_transaction_that_read_what_changed_is_told_before_it_writes(
    connect: Connect, store: str
) -> None:
    a, b = filled(connect), connect()
    a.execute("BEGIN")
    value(a, "SELECT v FROM t WHERE id = 1")
    b.execute("UPDATE t SET v = 0 WHERE id = 1")
    last = refused_at(a, store, "UPDATE t SET v = v + 1 WHERE id = 1")
    with pytest.raises(apsw.BusyError) as caught:
        a.execute(last)
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    roll_back(a)
    assert value(b, "SELECT v FROM t WHERE id = 1") == 0


def test_6_a_transaction_that_has_read_keeps_its_snapshot(connect: Connect) -> None:
    b = connect()
    b.execute("CREATE TABLE x(v); CREATE TABLE y(v); INSERT INTO x VALUES (1); INSERT INTO y VALUES (1)")
    a = connect()
    a.execute("BEGIN")
    value(a, "SELECT v FROM x")
    b.execute("UPDATE y SET v = 2")
    a.execute("UPDATE x SET v = 5")
    assert value(a, "SELECT v FROM y") == 1
    with pytest.raises(apsw.BusyError):
        a.execute("COMMIT")


@pytest.mark.parametrize("attached", [False, True])
def test_7_exclusive_locking_mode_is_harmless(connect: Connect, store: str, attached: bool) -> None:
    a = filled(connect)
    b = connect()
    if attached:
        flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        a = apsw.Connection("file::memory:?vfs=unix", flags=flags)
        a.execute(f"ATTACH 'file:{NAME}?vfs=mv&store={store}' AS m")
        a.set_busy_timeout(0)
    a.execute("PRAGMA locking_mode = EXCLUSIVE")
    for _ in range(3):
        try:
            a.execute("UPDATE t SET v = v + 1 WHERE id = 1")
        except apsw.Error:
            break
        b.execute("UPDATE t SET v = v + 1 WHERE id = 1")
    a.close(True)
    assert value(b, "PRAGMA integrity_check") == "ok"
    changed = value(b, "SELECT v FROM t WHERE id = 1")
    assert changed >= 2


@pytest.mark.parametrize("parameter", ["nolock=1", "immutable=1"])
def test_7_nolock_and_immutable_are_refused(connect: Connect, store: str, parameter: str) -> None:
    filled(connect)
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(f"file:{NAME}?vfs=mv&store={store}&{parameter}", flags=flags)


def test_8_a_refused_commit_leaves_no_open_transaction(connect: Connect) -> None:
    a, b = filled(connect), connect()
    a.execute("BEGIN; UPDATE t SET v = 7 WHERE id = 1")
    b.execute("UPDATE t SET v = 2 WHERE id = 1")
    with pytest.raises(ConflictError) as caught:
        a.execute("COMMIT")
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    assert caught.value.pages
    assert caught.value.version is not None
    assert not a.in_transaction
    assert value(a, "SELECT v FROM t WHERE id = 1") == 2
    a.execute("UPDATE t SET v = 3 WHERE id = 1")
    assert value(b, "SELECT v FROM t WHERE id = 1") == 3


def test_8_autocommit_statements_are_refused_whole(connect: Connect) -> None:
    a, b = filled(connect), connect()
    a.create_scalar_function("meanwhile", lambda: b.execute("UPDATE t SET v = -1 WHERE id = 100").get, 0)
    with pytest.raises(apsw.BusyError):
        a.execute("UPDATE t SET v = coalesce(meanwhile(), v + 1) RETURNING v").fetchall()
    assert value(a, "SELECT sum(v) FROM t") == 5050 - 100 - 1


def test_9_a_rollback_after_spilled_pages_commits_nothing(connect: Connect) -> None:
    a, b = filled(connect), connect()
    before = value(b, "PRAGMA mv_version"), value(b, "SELECT count(*) FROM t")
    a.execute("PRAGMA cache_size = 5; BEGIN")
    many_rows(a, 2000, 500)
    a.execute("UPDATE t SET v = 0 WHERE id < 50")
    a.execute("ROLLBACK")
    assert stats(a)["rollbacks"] == 1  # SQLite did write back
    assert value(b, "SELECT count(*) FROM t") == before[1]
    assert value(a, "SELECT sum(v) FROM t") == 5050
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_9_a_commit_after_spilled_pages_commits_all(connect: Connect) -> None:
    a, b = filled(connect), connect()
    a.execute("PRAGMA cache_size = 5; BEGIN")
    many_rows(a, 2000, 500)
    a.execute("SAVEPOINT s; DELETE FROM t WHERE id < 1000; ROLLBACK TO s; COMMIT")
    assert value(b, "SELECT count(*) FROM t") == 2100
    assert value(b, "PRAGMA integrity_check") == "ok"


def test_10_never_plain_busy_from_a_commit(connect: Connect, store: str) -> None:
    """With the standard module: after a refused COMMIT the next one must not pretend success."""
    filled(connect)
    mvvfs.register()
    a = sqlite3.connect(f"file:{NAME}?vfs=mv&store={store}", uri=True, isolation_level=None)
    b = connect()
    a.execute("BEGIN")
    a.execute("UPDATE t SET v = 7 WHERE id = 1")
    b.execute("UPDATE t SET v = 2 WHERE id = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        a.execute("COMMIT")
    assert caught.value.sqlite_errorcode == BUSY_SNAPSHOT
    with pytest.raises(sqlite3.OperationalError, match="no transaction"):
        a.execute("COMMIT")
    assert a.execute("SELECT v FROM t WHERE id = 1").fetchone() == (2,)
    a.close()


def test_11_the_page_count_shrinks_with_vacuum(connect: Connect) -> None:
    a, b = filled(connect, 3000, page_size=512), connect()
    many = value(b, "PRAGMA page_count")
    a.execute("DELETE FROM t WHERE id > 10; VACUUM")
    assert value(b, "PRAGMA page_count") < many / 5
    assert value(b, "PRAGMA freelist_count") == 0
    assert value(b, "SELECT count(*) FROM t") == 10
    assert value(b, "PRAGMA integrity_check") == "ok"
    many_rows(b, 3000)
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_12_transactions_that_leave_page_1_alone_do_not_meet_there(connect: Connect) -> None:
    a = connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v); INSERT INTO x VALUES (1); INSERT INTO y VALUES (1)")
    b = connect()
    a.execute("BEGIN; UPDATE x SET v = 2")
    b.execute("BEGIN; UPDATE y SET v = 2")
    a.execute("COMMIT")
    b.execute("COMMIT")
    assert (value(a, "SELECT v FROM x"), value(a, "SELECT v FROM y")) == (2, 2)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE x SET v = v",
        "DELETE FROM none",
        "BEGIN; INSERT INTO y VALUES (2); DELETE FROM y WHERE v = 2; COMMIT",
        "BEGIN; SAVEPOINT s; INSERT INTO y VALUES (zeroblob(50000)); DROP TABLE x; ROLLBACK TO s; COMMIT",
    ],
)
def test_12_what_is_written_as_it_was_is_no_commit(connect: Connect, sql: str) -> None:
    a = connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v); CREATE TABLE none(v)")
    a.execute("INSERT INTO x VALUES (1); DELETE FROM none")
    a.execute("INSERT INTO y VALUES (2); DELETE FROM y")  # the bytes that are left over from a row
    other = connect()
    other.execute("BEGIN; INSERT INTO y SELECT v FROM x UNION SELECT v FROM none")
    before = value(a, "PRAGMA mv_version")
    a.execute(sql)
    assert value(a, "PRAGMA mv_version") == before
    other.execute("COMMIT")
    assert value(a, "SELECT v FROM y") == 1
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_12_what_is_written_as_it_was_counts_as_read(connect: Connect) -> None:
    a, b = connect(), connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v); INSERT INTO x VALUES (1); INSERT INTO y VALUES (1)")
    a.execute("BEGIN; UPDATE x SET v = 1; UPDATE y SET v = 2")
    b.execute("UPDATE x SET v = 5")
    with pytest.raises(ConflictError):
        a.execute("COMMIT")
    a.execute("BEGIN; UPDATE x SET v = 5")  # alone: it comes before the other
    b.execute("UPDATE x SET v = 6")
    a.execute("COMMIT")
    assert (value(a, "SELECT v FROM x"), value(a, "SELECT v FROM y")) == (6, 1)


def test_13_a_long_journal_moves_to_a_file_and_back(connect: Connect) -> None:
    a = filled(connect)
    many_rows(a, 6000, 2000)
    total = value(a, "SELECT sum(length(v)) FROM t")
    a.execute("BEGIN; SAVEPOINT s; UPDATE t SET v = randomblob(2000); ROLLBACK TO s; COMMIT")
    assert value(a, "SELECT sum(length(v)) FROM t") == total
    with pytest.raises(apsw.ConstraintError):  # a statement's own rollback
        a.execute("INSERT INTO t SELECT id + (CASE id WHEN 6000 THEN 0 ELSE 10000 END), v FROM t")
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_14_a_database_called_like_a_journal_is_left_alone(connect: Connect) -> None:
    a, journal, wal = filled(connect), connect(f"{NAME}-journal"), connect(f"{NAME}-wal")
    for connection in (journal, wal):
        connection.execute("CREATE TABLE mine(v); INSERT INTO mine VALUES (1)")
    a.execute("PRAGMA cache_size = 5; BEGIN")
    many_rows(a, 2000, 500)
    a.execute("COMMIT; UPDATE t SET v = 0")
    for connection in (journal, wal):
        assert value(connection, "SELECT v FROM mine") == 1


def accounts_for_every_page(connection: apsw.Connection) -> bool:
    """Page count, freelist and dbstat agree: each page is in a b-tree or free."""
    pages = value(connection, "PRAGMA page_count")
    free = value(connection, "PRAGMA freelist_count")
    used = value(connection, "SELECT count(*) FROM dbstat")
    return bool(pages - free == used and value(connection, "PRAGMA integrity_check") == "ok")


def test_18_the_whole_truth_is_shown_to_everybody_at_every_version(connect: Connect) -> None:
    """In a transaction and out of it, to those with a lease, without one, and in the past."""
    a, b = connect(), connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v)")
    versions = []
    for _ in range(5):
        for connection, table in ((a, "x"), (b, "y")):
            connection.execute(f"INSERT INTO {table} VALUES (zeroblob(30000))")
            versions.append(value(connection, "PRAGMA mv_version"))
    a.execute("DELETE FROM x WHERE rowid < 4; DROP TABLE y")
    for each in (a, b, connect(), *(connect(at=version) for version in versions)):
        assert accounts_for_every_page(each)
    a.execute("BEGIN; CREATE TABLE z(v); INSERT INTO z VALUES (zeroblob(100000)); DROP TABLE x")
    assert accounts_for_every_page(a)
    a.execute("SAVEPOINT s; INSERT INTO z VALUES (zeroblob(300000)); ROLLBACK TO s")
    assert accounts_for_every_page(a)
    a.execute("ROLLBACK")
    assert accounts_for_every_page(a)


def test_18_those_who_grow_the_database_do_not_meet(connect: Connect) -> None:
    """Overlapping transactions that allocate, each in its own table: no conflict once both have leases."""
    a, b = connect(), connect()
    a.execute("CREATE TABLE x(v); CREATE TABLE y(v)")
    for connection, table in ((a, "x"), (b, "y")):
        connection.execute(f"INSERT INTO {table} VALUES (zeroblob(20000))")
    for _ in range(30):
        a.execute("BEGIN; INSERT INTO x VALUES (zeroblob(20000))")
        b.execute("BEGIN; INSERT INTO y VALUES (zeroblob(20000))")
        a.execute("COMMIT")
        b.execute("COMMIT")
    assert stats(a)["conflicts"] == stats(b)["conflicts"] == 0
    assert accounts_for_every_page(a)


@pytest.mark.parametrize("page_size", [512, 65536])
def test_19_the_lock_byte_page_is_never_used(connect: Connect, page_size: int) -> None:
    """A database that reaches beyond 1 GiB would meet it; see test_large.py."""
    a = connect(page_size=page_size)
    a.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    many_rows(a, 500, 3000)
    assert value(a, "PRAGMA page_size") == page_size
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_20_the_freelist_is_never_larger_than_the_file(connect: Connect) -> None:
    a, b = filled(connect, 3000, page_size=512), connect()
    a.execute("DELETE FROM t WHERE id < 2900")
    assert 0 < value(b, "PRAGMA freelist_count") < value(b, "PRAGMA page_count")
    assert value(b, "PRAGMA integrity_check") == "ok"
    many_rows(b, 3000)
    assert value(a, "SELECT count(*) FROM t") == 3101
    assert value(a, "PRAGMA integrity_check") == "ok"


def test_21_a_freelist_that_grew_without_a_commit_is_read_as_it_was_left(connect: Connect) -> None:
    """Two pages are allocated and freed again, and every other page is what it was."""
    through_two_pages = "BEGIN; INSERT INTO t VALUES (1, zeroblob(9000)); DELETE FROM t; COMMIT"
    connect(leases="off").execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, v); {through_two_pages}")
    a = connect(leases="off")
    before = value(a, "PRAGMA mv_version")
    a.execute(through_two_pages)
    assert value(a, "PRAGMA mv_version") == before
    assert value(a, "PRAGMA freelist_count") == 2
    a.execute("PRAGMA shrink_memory")  # SQLite asks for the trunk again
    assert value(a, "PRAGMA integrity_check") == "ok"
    a.execute("INSERT INTO t VALUES (2, zeroblob(30000))")
    assert value(a, "PRAGMA integrity_check") == "ok"


@pytest.mark.long_on_cluster
def test_22_a_writer_that_is_quick_leases_more_at_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    real = PageStore.lease

    def lease(
        self: PageStore, namespace: NamespaceId, want: int, seconds: float, replaces: bytes | None = None
    ) -> Lease:
        wanted.append(want)
        return real(self, namespace, want, seconds, replaces)

    monkeypatch.setattr(PageStore, "lease", lease)
    connection = filled(connect, durability="normal")
    for _ in range(300):
        connection.execute("INSERT INTO t(v) VALUES (randomblob(3000))")
    doubled = [max(here, after) // min(here, after) for here, after in itertools.pairwise(wanted)]
    assert wanted[0] == 16
    assert set(doubled) <= {1, 2}  # 1: the largest, or this machine took a second for the last one
    assert max(wanted) <= 128
    assert len(wanted) < 300 // 16 or max(wanted) < 128
    assert value(connection, "PRAGMA integrity_check") == "ok"
