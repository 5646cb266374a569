"""Several databases: what can't be one transaction, and those that have to run again."""

from __future__ import annotations

import time
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.conftest import Connect
from tests.sql.attached import MAINS, MODES, Open, balances, plain_uri, transfer
from tests.sql.twins import rows

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
