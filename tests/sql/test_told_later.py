"""Commits whose answer leaves out what others did meanwhile: on distant stores, the next begin tells.

In each test `other` commits between the begin and the commit of `one`, to pages that `one` does not use.
"""

from __future__ import annotations

import apsw
import pytest

from pagestore.api import CommitRequest, Committed
from pagestore.store import PageStore
from tests.conftest import Connect, on_cluster

pytestmark = pytest.mark.parametrize("store", ["memory", on_cluster()], indirect=True)


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each commit, whether its answer told of others."""
    told: list[bool] = []
    commit = PageStore.commit

    def note(self: PageStore, request: CommitRequest) -> Committed:
        done = commit(self, request)
        told.append(done.others is not None)
        return done

    monkeypatch.setattr(PageStore, "commit", note)
    return told


@pytest.fixture
def one(connect: Connect) -> apsw.Connection:
    connection = connect()
    for table in "abc":
        connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, v)")
        connection.execute(f"INSERT INTO {table} VALUES(1, 0), (2, zeroblob(9000))")
    assert rows(connection, "SELECT v FROM b WHERE id = 1") == [(0,)]
    return connection


@pytest.fixture
def other(one: apsw.Connection, connect: Connect) -> apsw.Connection:
    return connect()


def rows(connection: apsw.Connection, sql: str) -> list[tuple[object, ...]]:
    return list(connection.execute(sql))


def drop_cache(other: apsw.Connection) -> None:
    """What SQLite has in its cache counts as read: so let it be dropped, because of a commit before."""
    other.execute("UPDATE c SET v = v + 1 WHERE id = 1")


def meet(one: apsw.Connection, other: apsw.Connection, theirs: str) -> None:
    """`theirs` between the begin and the commit of an update of `a`."""
    drop_cache(other)
    one.execute("BEGIN")
    one.execute("UPDATE a SET v = v + 1 WHERE id = 1")
    other.execute(theirs)
    one.execute("COMMIT")


def test_the_next_transaction_sees_what_others_did(
    one: apsw.Connection, other: apsw.Connection, answers: list[bool]
) -> None:
    for n in range(1, 5):
        meet(one, other, "UPDATE b SET v = v + 10 WHERE id = 1")
        assert answers[-1] is False
        assert rows(one, "SELECT a.v, b.v FROM a JOIN b USING (id) WHERE id = 1") == [(n, 10 * n)]
        assert rows(other, "SELECT a.v, b.v FROM a JOIN b USING (id) WHERE id = 1") == [(n, 10 * n)]


def test_pages_that_others_allocated_are_theirs(one: apsw.Connection, other: apsw.Connection) -> None:
    for n in range(3, 9):
        meet(one, other, f"INSERT INTO b VALUES({n}, zeroblob(9000))")
        one.execute(f"INSERT INTO a VALUES({n}, zeroblob(9000))")
    assert rows(one, "SELECT count(*) FROM a UNION ALL SELECT count(*) FROM b") == [(8,), (8,)]
    assert rows(one, "PRAGMA integrity_check") == [("ok",)]


def test_a_table_that_others_made(one: apsw.Connection, other: apsw.Connection) -> None:
    drop_cache(other)
    one.execute("BEGIN")
    one.execute("UPDATE a SET v = v + 1 WHERE id = 1")
    other.execute("CREATE TABLE d(x); INSERT INTO d VALUES(7)")
    with pytest.raises(apsw.BusyError):  # the schema was read
        one.execute("COMMIT")
    assert rows(one, "SELECT x FROM d") == [(7,)]


def test_sqlites_cache_stays_where_nobody_else_committed(one: apsw.Connection, answers: list[bool]) -> None:
    one.execute("UPDATE a SET v = 5 WHERE id = 1")
    rows(one, "SELECT v FROM b WHERE id = 1")
    before = one.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0]
    for n in range(5):
        one.execute(f"UPDATE a SET v = {n} WHERE id = 1")
        assert answers[-1] is False
        assert rows(one, "SELECT v FROM b WHERE id = 1") == [(0,)]
    assert one.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)[0] == before


def test_who_reads_on_is_told_at_once(
    one: apsw.Connection, other: apsw.Connection, answers: list[bool]
) -> None:
    """A cursor that is open across COMMIT goes on in what it saw."""
    drop_cache(other)
    one.execute("BEGIN")
    cursor = iter(one.execute("SELECT id, v FROM a ORDER BY id"))
    assert next(cursor) == (1, 0)
    one.execute("UPDATE a SET v = 1 WHERE id = 1")
    other.execute("UPDATE b SET v = 10 WHERE id = 1")
    one.execute("COMMIT")
    assert answers[-1] is True
    assert next(cursor)[0] == 2
    with pytest.raises(apsw.BusyError):  # what they changed is not of this snapshot
        rows(one, "SELECT v FROM b")
    assert list(cursor) == []
    assert rows(one, "SELECT v FROM b WHERE id = 1") == [(10,)]


def test_statements_that_commit_by_themselves(
    one: apsw.Connection, other: apsw.Connection, answers: list[bool]
) -> None:
    for n in range(1, 4):
        assert rows(one, "UPDATE a SET v = v + 1 WHERE id = 1 RETURNING v") == [(n,)]
        assert answers[-1] is False
        other.execute("UPDATE a SET v = v + 0 WHERE id = 1")
        assert rows(other, "SELECT v FROM a WHERE id = 1") == [(n,)]
