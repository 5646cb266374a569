"""A snapshot held while many commits pass still reads its own state, to the byte."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest

import mvvfs
from tests.conftest import on_cluster, refused_at
from tests.process import crew
from tests.process.place import Place, Variant, roll_back, value

ROWS = 400
SMALL_CACHE = 100_000
"""Bytes; the table has some 350 KB, so a snapshot must ask the store for pages of its version."""


def create(place: Place) -> None:
    connection = place.connect()
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, pad BLOB); CREATE INDEX t_n ON t(n)")
    with connection:
        connection.executemany("INSERT INTO t VALUES(?, 0, randomblob(800))", ((i,) for i in range(ROWS)))
    connection.close()


def churn(place: Place, first: int, step: int, commits: int) -> int:
    """So many commits; each changes one row in `step`, and now and then rows come and go."""
    connection = place.connect()
    for i in range(commits):
        row = (first + i * step) % ROWS

        def change(row: int = row, i: int = i) -> None:
            connection.execute("UPDATE t SET n = n + 1, pad = randomblob(800) WHERE id = ?", (row,))
            if i % 20 == 0:
                connection.execute("DELETE FROM t WHERE id = ?", (ROWS + first,))
                connection.execute("INSERT INTO t VALUES(?, ?, randomblob(3000))", (ROWS + first, i))

        mvvfs.transaction(connection, tries=1000).run(change)
    connection.close()
    return commits


def content(connection: apsw.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM t").fetchall()


def sample(connection: apsw.Connection, before: list[tuple[object, ...]], i: int) -> None:
    """A few reads by different ways, against what was there before."""
    row = before[i % len(before)]
    found = connection.execute("SELECT * FROM t WHERE id = ?", (row[0],)).fetchall()
    assert found == [row]
    assert value(connection, "SELECT count(*) FROM t WHERE n = 0") == ROWS
    assert value(connection, "SELECT sum(n) FROM t") == 0


@pytest.mark.parametrize(
    ("shared", "commits"),
    [
        ("folder", 3_000),
        pytest.param("folder", 100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
        on_cluster(20_000, long=True),
    ],
    indirect=["shared"],
)
def test_snapshots_hold(shared: str, commits: int) -> None:
    place = Place(shared, Variant(options={"cache_bytes": SMALL_CACHE}, cache_size=20))
    writing = Place(shared, Variant(options={"durability": "normal"}))
    create(place)
    reader, late, past = place.connect(), place.connect(), place.connect(at="HEAD")
    before = content(reader)
    reader.execute("BEGIN")
    assert content(reader) == before
    late.execute("BEGIN")
    assert (
        value(late, "SELECT n FROM t WHERE id = 1") == 0
    )  # its snapshot begins; the rest is read much later
    version = value(reader, "PRAGMA mv_version")

    writers = [crew.Worker(churn, writing, i, 7, commits // 2) for i in range(2)]
    with ThreadPoolExecutor(1) as waiting:
        done = waiting.submit(crew.results, writers, seconds=commits / 50 + 60)
        looks = 0
        while not done.done():
            sample(reader, before, looks)
            sample(past, before, looks)
            looks += 1
            time.sleep(0.01)
        assert sum(done.result()) == commits
    assert looks > 3

    for held in (reader, late, past):
        assert content(held) == before
        assert value(held, "PRAGMA integrity_check") == "ok"
        assert value(held, "PRAGMA mv_version") == version
    reader.execute("COMMIT")
    late.execute("COMMIT")
    for moved in (reader, late):
        assert value(moved, f"SELECT sum(n) FROM t WHERE id < {ROWS}") == commits
        assert value(moved, "PRAGMA integrity_check") == "ok"
    assert content(past) == before


def test_a_snapshot_that_tries_to_write_loses_and_a_new_one_wins(shared: str) -> None:
    place = Place(shared)
    create(place)
    reader = place.connect()
    reader.execute("BEGIN")
    assert value(reader, "SELECT n FROM t WHERE id = 0") == 0
    crew.run(churn, [(place, 0, 1, ROWS)], seconds=60)
    last = refused_at(reader, shared, "UPDATE t SET n = 100 WHERE id = 0")
    with pytest.raises(apsw.BusyError) as caught:
        reader.execute(last)
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    if reader.in_transaction:
        assert value(reader, "SELECT sum(n) FROM t") == 0
    roll_back(reader)
    reader.execute("UPDATE t SET n = 100 WHERE id = 0")
    assert value(place.connect(), f"SELECT sum(n) FROM t WHERE id < {ROWS}") == ROWS + 99
