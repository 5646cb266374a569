"""What a transaction writes beyond `spill_bytes` lies in a temporary file until it commits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.conftest import Connect
from tests.sql.conftest import MakeTwins
from tests.sql.test_features import NUMBERS
from tests.sql.twins import Twins, is_intact, rows, value

ROWS = 400
SPILLED = [pytest.param(0, id="all"), pytest.param(200_000, id="some")]


def small_caches(make_twins: MakeTwins, spill_bytes: int) -> Twins:
    return make_twins("PRAGMA cache_size = 5", spill_bytes=spill_bytes, cache_bytes=200_000)


@pytest.mark.parametrize("spill_bytes", SPILLED)
def test_a_transaction_reads_what_it_wrote(make_twins: MakeTwins, spill_bytes: int) -> None:
    twins = small_caches(make_twins, spill_bytes)
    twins("CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, data BLOB)")
    twins("BEGIN")
    twins(f"INSERT INTO t {NUMBERS.format(ROWS)} SELECT i, i * 7 % 31, zeroblob(1500 + i) FROM n")
    twins("CREATE INDEX t_k ON t(k)")
    twins("SELECT k, count(*), sum(length(data)) FROM t GROUP BY k ORDER BY k")
    twins("SAVEPOINT s")
    twins("UPDATE t SET k = k + 1, data = zeroblob(200) WHERE id % 3 = 0")
    twins("DELETE FROM t WHERE id % 5 = 0")
    twins("SELECT count(*), sum(k), sum(length(data)) FROM t")
    twins("ROLLBACK TO s")
    twins("SELECT count(*), sum(k), sum(length(data)) FROM t")
    twins("UPDATE t SET data = zeroblob(3000) WHERE id % 7 = 0")
    twins("COMMIT")
    twins.check()
    twins("BEGIN")
    twins("DELETE FROM t")
    twins("ROLLBACK")
    twins("SELECT count(*), sum(k), sum(length(data)) FROM t")
    twins("VACUUM")
    twins.check()


@pytest.mark.parametrize("spill_bytes", SPILLED)
def test_what_was_cached_before_is_replaced(connect: Connect, spill_bytes: int) -> None:
    """By the connection's own commit, and for the others of its process."""
    writer, reader = connect(spill_bytes=spill_bytes), connect()
    writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v INT, pad BLOB)")
    writer.execute(f"INSERT INTO t {NUMBERS.format(ROWS)} SELECT i, 0, zeroblob(2000) FROM n")
    for round_ in (1, 2, 3):
        for each in (writer, reader):
            assert rows(each, "SELECT count(*), sum(v) FROM t") == [(ROWS, ROWS * (round_ - 1))]
        with writer:
            writer.execute("UPDATE t SET v = v + 1")
    for each in (writer, reader):
        assert rows(each, "SELECT count(*), sum(v) FROM t") == [(ROWS, 3 * ROWS)]
        is_intact(each)


def test_free_pages_are_found_in_the_order_in_which_they_were_left(make_twins: MakeTwins) -> None:
    """Trunks of the freelist were spilled, and a cursor keeps the lock across the commit (rule 21)."""
    twins = small_caches(make_twins, 0)
    twins("CREATE TABLE kept(x)")
    twins("INSERT INTO kept VALUES(1), (2), (3)")
    twins("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
    twins(f"INSERT INTO t {NUMBERS.format(2 * ROWS)} SELECT i, zeroblob(5000) FROM n")
    cursors = [each.cursor().execute("SELECT x FROM kept") for each in (twins.mv, twins.plain)]
    assert [next(cursor) for cursor in cursors] == [(1,), (1,)]
    twins("DELETE FROM t WHERE id % 4")
    for size in (3000, 9000, 60000):
        twins(f"INSERT INTO t(data) {NUMBERS.format(20)} SELECT zeroblob({size}) FROM n")
        twins("DELETE FROM t WHERE id % 9 = 0")
    assert [list(cursor) for cursor in cursors] == [[(2,), (3,)], [(2,), (3,)]]
    twins.check()


def test_one_that_lost_leaves_nothing(connect: Connect) -> None:
    one, other = connect(spill_bytes=0), connect()
    one.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    one.execute(f"INSERT INTO t {NUMBERS.format(ROWS)} SELECT i, zeroblob(2000) FROM n")
    one.execute("BEGIN")
    one.execute("UPDATE t SET v = zeroblob(1000)")
    other.execute("UPDATE t SET v = zeroblob(500) WHERE id = 7")
    with pytest.raises(apsw.BusyError):
        one.execute("COMMIT")
    assert value(one, "SELECT sum(length(v)) FROM t") == (ROWS - 1) * 2000 + 500
    one.execute("UPDATE t SET v = zeroblob(100)")
    for each in (one, other):
        assert value(each, "SELECT sum(length(v)) FROM t") == ROWS * 100
        is_intact(each)


_IN_LITTLE_MEMORY = """
import sys
import mvvfs
from bench.memory import peak

connection = mvvfs.connect("app", store=sys.argv[1], spill_bytes="4MiB", cache_bytes="4MiB")
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
before = peak()
with connection:
    connection.execute(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 9000) "
        "INSERT INTO t SELECT i, randomblob(4000) FROM n"
    )
with connection:
    connection.execute("UPDATE t SET v = randomblob(4000) WHERE id % 2")
assert connection.execute("SELECT count(*), sum(length(v)) FROM t").fetchall() == [(9000, 36000000)]
assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells how much memory was used")
def test_a_large_transaction_takes_little_memory(folder: str) -> None:
    """One of 36 MB, and one of 18 MB."""
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY, folder], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 55_000_000  # 34 MB, and 90 MB without the file


_FULL = """
import os, resource, sys
import apsw
import mvvfs

connection = mvvfs.connect("app", store=sys.argv[1], spill_bytes=100_000)
connection.execute("PRAGMA cache_size = 5")
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
connection.execute("INSERT INTO t VALUES(1, zeroblob(100))")
usual = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, usual[1]))
try:
    connection.execute("INSERT INTO t VALUES(2, randomblob(3000000))")
except apsw.FullError as error:
    print("full:", connection.execute("PRAGMA mv_last_error").fetchall())
resource.setrlimit(resource.RLIMIT_FSIZE, usual)
connection.execute("INSERT INTO t VALUES(3, randomblob(3000000))")
print(connection.execute("SELECT id, length(v) FROM t").fetchall())
print(connection.execute("PRAGMA integrity_check").fetchall())
"""


def test_no_room_for_the_file_is_a_full_disk(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", _FULL, folder], check=True, capture_output=True, text=True)
    full, content, intact = done.stdout.splitlines()
    assert full.startswith("full:")
    assert "no room in the folder for temporary files" in full
    assert content == "[(1, 100), (3, 3000000)]"
    assert intact == "[('ok',)]"
