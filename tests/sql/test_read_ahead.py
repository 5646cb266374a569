"""Read-ahead: how many calls a statement costs where the store is distant, and that it answers the same."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence

import apsw
import pytest

from pagestore.opener import open_store
from tests.conftest import Connect
from tests.distant import Distance
from tests.sql.twins import value

ROWS = 6000
TREES = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, body TEXT);
    CREATE INDEX by_k ON t(k);
    CREATE TABLE large(id INTEGER PRIMARY KEY, body BLOB);
"""
FILL = """
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?)
    INSERT INTO t SELECT x, printf('%08x', (x * 2654435761) % 4294967296), hex(zeroblob(40 + x % 60)) FROM n
"""


def key_of(row: int) -> str:
    return f"{row * 2654435761 % 4294967296:08x}"


@pytest.fixture
def distance(monkeypatch: pytest.MonkeyPatch) -> Distance:
    return Distance(monkeypatch)


@pytest.fixture
def cold(connect: Connect, distance: Distance) -> Callable[..., apsw.Connection]:
    """Connects with nothing in the page cache, to tables of about 1300 pages."""
    connection = connect(page_size=1024)
    with connection:
        connection.execute(TREES)
        connection.execute(FILL, (ROWS,))
        for row in range(1, 101):
            connection.execute("INSERT INTO large VALUES (?, zeroblob(?))", (row, row * 97 % 6000))
    connection.close()

    def again(**options: object) -> apsw.Connection:
        fresh = connect(**options)
        fresh.execute("SELECT 1 FROM sqlite_schema")
        distance.start()
        return fresh

    return again


SCANS = [
    "SELECT sum(length(body)) FROM t",
    "SELECT sum(length(body)) FROM (SELECT body FROM t ORDER BY id DESC)",
    "SELECT count(k) FROM t ORDER BY k",
    "SELECT count(k) FROM (SELECT k FROM t ORDER BY k DESC)",
    "SELECT sum(length(hex(body))) FROM large",
    "PRAGMA integrity_check",
]


@pytest.mark.parametrize("sql", SCANS)
def test_a_scan_costs_few_calls(cold: Callable[..., apsw.Connection], distance: Distance, sql: str) -> None:
    connection = cold()
    first = value(connection, sql)
    ahead, pages = list(distance.reads), distance.pages
    connection.close()
    connection = cold(read_ahead="off")
    assert value(connection, sql) == first
    assert all(len(numbers) == 1 for numbers in distance.reads)
    needed = set(distance.pages)
    assert needed <= set(pages)
    assert len(set(pages)) == len(pages)  # nothing twice
    assert len(pages) <= len(needed) * 1.5 + 8
    assert len(ahead) <= 8 + len(needed) / 16


def test_a_look_up_fetches_its_path_only(cold: Callable[..., apsw.Connection], distance: Distance) -> None:
    connection = cold(read_ahead="off")
    for sql in ("SELECT body FROM t WHERE id = 3000", f"SELECT body FROM t WHERE k = '{key_of(4000)}'"):
        connection.close()
        connection = cold(read_ahead="off")
        value(connection, sql)
        path, size = list(distance.reads), distance.bytes
        connection.close()
        connection = cold()
        value(connection, sql)
        assert distance.reads == path
        assert distance.bytes == size


def test_random_look_ups_fetch_little_more_than_they_need(
    cold: Callable[..., apsw.Connection], distance: Distance, seed: int
) -> None:
    rows = random.Random(seed).sample(range(1, ROWS), 150)
    connection = cold(read_ahead="off")
    for row in rows:
        value(connection, "SELECT body FROM t WHERE id = ?", (row,))
    needed = len(distance.pages)
    connection.close()
    connection = cold()
    for row in rows:
        value(connection, "SELECT body FROM t WHERE id = ?", (row,))
    assert len(distance.pages) <= 2 * needed


def test_a_scan_that_stops_early(cold: Callable[..., apsw.Connection], distance: Distance) -> None:
    connection = cold(read_ahead="off")
    assert len(connection.execute("SELECT * FROM t LIMIT 500").fetchall()) == 500
    needed = len(distance.pages)
    connection.close()
    connection = cold()
    assert len(connection.execute("SELECT * FROM t LIMIT 500").fetchall()) == 500
    assert len(distance.pages) <= 2 * needed + 2


def test_several_cursors_do_not_disturb_each_other(
    cold: Callable[..., apsw.Connection], distance: Distance
) -> None:
    connection = cold()
    cursors: list[Iterator[object]] = [
        connection.execute("SELECT body FROM t ORDER BY id"),
        connection.execute("SELECT body FROM t ORDER BY id DESC"),
        connection.execute("SELECT k FROM t ORDER BY k"),
        connection.execute("SELECT body FROM t WHERE id > 2000"),
    ]
    assert sum(1 for row in itertools.chain(*itertools.zip_longest(*cursors)) if row) == 4 * ROWS - 2000
    assert len(distance.reads) <= 40 + len(distance.pages) / 16


def test_in_the_order_of_an_index(cold: Callable[..., apsw.Connection], distance: Distance) -> None:
    """The index is scanned in between look-ups all over the table: its pages still come together."""
    connection = cold()
    connection.execute(
        "SELECT count(body) FROM (SELECT body FROM t INDEXED BY by_k WHERE k > '8' LIMIT 300)"
    ).fetchall()
    connection.close()
    connection = cold()
    connection.execute("SELECT count(body) FROM t INDEXED BY by_k WHERE k > ''").fetchall()
    reads = list(distance.reads)
    index = {number for (number,) in connection.execute("SELECT pageno FROM dbstat WHERE name = 'by_k'")}
    reads = [numbers for numbers in reads if index & set(numbers)]
    assert len(reads) < len(index) / 3


def test_off_near_the_store(connect_folder: Connect) -> None:
    connection = connect_folder()
    connection.execute(TREES)
    connection.execute(FILL, (1000,))
    connection.close()
    for options, alone in (({}, True), ({"read_ahead": "on"}, False)):
        fresh = connect_folder(**options)
        value(fresh, "SELECT sum(length(body)) FROM t")
        stats = json.loads(value(fresh, "PRAGMA mv_stats"))
        assert (stats["fetches"] == stats["pages_fetched"]) is alone
        fresh.close()


def test_what_came_ahead_was_not_read(
    cold: Callable[..., apsw.Connection], connect: Connect, store: str, distance: Distance
) -> None:
    """A commit to a page that was fetched ahead, but that SQLite never read, is no conflict."""
    connection, other = cold(), connect()
    connection.execute("BEGIN")
    assert len(connection.execute("SELECT id, body FROM t LIMIT 600").fetchall()) == 600
    ahead = set(distance.reads[-1][1:])
    changed: set[int] = set()
    row = 630  # not on the leaf of row 600
    while not ahead & changed:
        assert row < ROWS
        row += 3
        other.execute("UPDATE t SET body = upper(body) || 'x' WHERE id = ?", (row,))
        opened = open_store(store, create=False)
        (change,) = opened.changelog(opened.open("app").id, newest_first=True, limit=1)
        changed = set(change.pages)
        opened.close()
    connection.execute("UPDATE t SET body = 'own' WHERE id = 1")
    connection.execute("COMMIT")
    assert connection.execute("SELECT body FROM t WHERE id = ?", (row,)).fetchall()[0][0].endswith("x")


@pytest.mark.parametrize("cache_bytes", [20_000, 300_000])
def test_commits_during_a_fetch_are_not_lost(
    cold: Callable[..., apsw.Connection], connect: Connect, distance: Distance, cache_bytes: int, seed: int
) -> None:
    """While pages are under way, somebody changes them: this snapshot sees none of it, the next one all."""
    chance = random.Random(seed)
    connection = cold(cache_bytes=cache_bytes)  # smaller than the table
    other = connect(cache_bytes=cache_bytes)
    bodies = dict(connection.execute("SELECT id, body FROM t"))
    newest = dict(bodies)
    quiet = False

    def commit(_numbers: Sequence[int]) -> None:
        nonlocal quiet
        if quiet or (newest != bodies and chance.random() < 0.5):
            return
        quiet = True  # what this reads and commits itself
        with other:
            for row in chance.sample(range(1, ROWS), 5):
                newest[row] = f"{chance.random()}"
                other.execute("UPDATE t SET body = ? WHERE id = ?", (newest[row], row))
        quiet = False

    distance.before_answer = commit
    for order in ("id", "id DESC", "k", "id"):
        expected = dict(newest)
        assert dict(connection.execute(f"SELECT id, body FROM t ORDER BY {order}")) == expected
    assert newest != bodies


@pytest.mark.long
def test_a_cold_scan_of_100_000_pages(connect_shared: Connect, distance: Distance) -> None:
    connection = connect_shared(page_size=512, durability="normal")
    connection.execute("CREATE TABLE large(id INTEGER PRIMARY KEY, body BLOB)")
    rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000)"
    for _ in range(20):
        connection.execute(f"{rows} INSERT INTO large(body) SELECT zeroblob(460) FROM n")
    connection.close()
    connection = connect_shared()
    connection.execute("SELECT 1 FROM sqlite_schema")
    distance.start()
    assert value(connection, "SELECT sum(length(body)) FROM large") == 100_000 * 460
    assert len(set(distance.pages)) >= 100_000
    assert len(distance.pages) >= 32 * len(distance.reads)
