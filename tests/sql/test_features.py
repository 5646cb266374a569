"""SQL features: the scripts below give the same answers, and leave the same pages, as on a plain file."""

from __future__ import annotations

import random

import apsw
import pytest

from tests.sql.conftest import MakeTwins
from tests.sql.twins import Twins, rows

NUMBERS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {})"

SCRIPTS = {
    "fts5": (
        "CREATE VIRTUAL TABLE docs USING fts5(title, body, tokenize = 'porter')",
        f"INSERT INTO docs {NUMBERS.format(300)} "
        "SELECT 'title ' || i, 'running number ' || i % 7 || ' of many' FROM n",
        "SELECT rowid, title FROM docs WHERE docs MATCH 'run AND 3' ORDER BY rank, rowid LIMIT 5",
        "UPDATE docs SET body = 'flown ' || body WHERE rowid % 10 = 0",
        "DELETE FROM docs WHERE rowid % 3 = 0",
        "SELECT count(*), highlight(docs, 1, '<', '>') FROM docs WHERE docs MATCH 'flown'",
        "INSERT INTO docs(docs) VALUES('optimize')",
        "INSERT INTO docs(docs) VALUES('integrity-check')",
        "SELECT count(*) FROM docs WHERE docs MATCH 'number'",
    ),
    "rtree": (
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +label)",
        f"INSERT INTO boxes {NUMBERS.format(500)} "
        "SELECT i, i % 50, i % 50 + 2, i / 50, i / 50 + 1, 'box ' || i FROM n",
        "SELECT id, label FROM boxes WHERE x0 >= 10 AND x1 <= 14 AND y0 > 3 ORDER BY id",
        "UPDATE boxes SET x1 = x1 + 100 WHERE id % 5 = 0",
        "DELETE FROM boxes WHERE y0 < 2",
        "SELECT count(*), sum(id) FROM boxes WHERE x1 > 60",
        "SELECT rtreecheck('boxes')",
    ),
    "json": (
        "CREATE TABLE j(id INTEGER PRIMARY KEY, doc TEXT, bin BLOB)",
        'INSERT INTO j VALUES(1, json(\'{"a": [1, 2, {"b": null}]}\'), jsonb(\'{"k": 1.5}\'))',
        "UPDATE j SET doc = json_set(doc, '$.a[2].b', json_array(7, 8)), bin = jsonb_insert(bin, '$.m', 'x')",
        "SELECT json_extract(doc, '$.a[2].b[1]'), doc ->> '$.a[0]', json(bin) FROM j",
        "SELECT key, value, type FROM j, json_each(doc, '$.a')",
        "CREATE INDEX j_first ON j(doc ->> '$.a[0]')",
        "SELECT id FROM j WHERE doc ->> '$.a[0]' = 1",
    ),
    "generated columns": (
        "CREATE TABLE g(a INT, b INT, "
        "total INT GENERATED ALWAYS AS (a + b) STORED, text AS ('#' || a) VIRTUAL)",
        "INSERT INTO g(a, b) VALUES(1, 2), (3, 4)",
        "CREATE INDEX g_text ON g(text)",
        "UPDATE g SET a = a * 10",
        "SELECT * FROM g WHERE text > '#10' ORDER BY total",
        "ALTER TABLE g ADD COLUMN half AS (total / 2)",
        "SELECT half FROM g",
        "INSERT INTO g(total) VALUES(3)",
    ),
    "triggers": (
        "CREATE TABLE stock(item TEXT PRIMARY KEY, n INT CHECK (n >= 0)); CREATE TABLE log(what TEXT)",
        "CREATE TRIGGER taken AFTER UPDATE OF n ON stock WHEN new.n < old.n BEGIN "
        "INSERT INTO log VALUES(new.item || ' -' || (old.n - new.n)); END",
        "CREATE TRIGGER keep BEFORE DELETE ON stock BEGIN SELECT RAISE(ABORT, 'never'); END",
        "CREATE VIEW low AS SELECT item FROM stock WHERE n < 3",
        "CREATE TRIGGER refill INSTEAD OF DELETE ON low BEGIN "
        "UPDATE stock SET n = 10 WHERE item = old.item; END",
        "INSERT INTO stock VALUES('nut', 5), ('bolt', 2)",
        "UPDATE stock SET n = n - 1",
        "DELETE FROM stock",
        "UPDATE stock SET n = n - 3",
        "DELETE FROM low WHERE item = 'bolt'",
        "SELECT * FROM stock ORDER BY item",
        "SELECT * FROM log",
    ),
    "foreign keys": (
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, "
        "p INT REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL)",
        "CREATE TABLE strictly(p INT REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO parent VALUES(1), (2), (3)",
        "INSERT INTO child VALUES(10, 1), (20, 2), (30, 3)",
        "INSERT INTO child VALUES(40, 4)",
        "DELETE FROM parent WHERE id = 1",
        "UPDATE parent SET id = 9 WHERE id = 2",
        "SELECT * FROM child",
        "INSERT INTO strictly VALUES(9)",
        "SELECT * FROM strictly",
    ),
    "without rowid": (
        "CREATE TABLE w(a TEXT, b INT, c BLOB, PRIMARY KEY(a, b DESC)) WITHOUT ROWID",
        f"INSERT INTO w {NUMBERS.format(400)} SELECT 'k' || i % 20, i, zeroblob(i % 90) FROM n",
        "CREATE INDEX w_b ON w(b)",
        "DELETE FROM w WHERE b % 4 = 1",
        "UPDATE w SET a = a || '!' WHERE b % 7 = 0",
        "SELECT a, b, length(c) FROM w WHERE a >= 'k5' LIMIT 20",
        "INSERT INTO w VALUES('k1', 381, NULL)",
        "SELECT count(*), sum(b), sum(length(c)) FROM w",
    ),
    "strict tables and upserts": (
        "CREATE TABLE s(id INTEGER PRIMARY KEY, n INT, t TEXT UNIQUE) STRICT",
        "INSERT INTO s VALUES(1, 1, 'a') ON CONFLICT(t) DO UPDATE SET n = n + 1",
        "INSERT INTO s VALUES(2, 1, 'a') ON CONFLICT(t) DO UPDATE SET n = n + 10 RETURNING id, n",
        "INSERT INTO s VALUES(3, 'x', 'b')",
        "REPLACE INTO s VALUES(4, 4, 'a')",
        "SELECT * FROM s",
    ),
    "big blobs": (
        "CREATE TABLE b(id INTEGER PRIMARY KEY, data BLOB)",
        "INSERT INTO b VALUES(1, zeroblob(3000000)), (2, CAST(printf('%.*c', 500000, 'x') AS BLOB))",
        "UPDATE b SET data = data || X'01' WHERE id = 2",
        "SELECT id, length(data), substr(data, -3) FROM b",
        "DELETE FROM b WHERE id = 1",
        "INSERT INTO b VALUES(3, zeroblob(1234567))",
        "SELECT id, length(data) FROM b",
    ),
    "indexes": (
        "CREATE TABLE t(a, b, c)",
        f"INSERT INTO t {NUMBERS.format(2000)} SELECT i * 7919 % 2003, 'text ' || i, i % 13 FROM n",
        "CREATE UNIQUE INDEX t_a ON t(a); CREATE INDEX t_cb ON t(c, b) WHERE c > 5",
        "CREATE INDEX t_e ON t(abs(a - 1000))",
        "ANALYZE",
        "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY idx",
        "DELETE FROM t WHERE a BETWEEN 100 AND 900",
        "REINDEX",
        "SELECT count(*), min(b), max(b) FROM t WHERE c = 7",
        "DROP INDEX t_cb",
        "INSERT INTO t VALUES(5, 'double', 0)",
        "SELECT a FROM t WHERE abs(a - 1000) < 5 ORDER BY a",
    ),
    "alter and drop": (
        "CREATE TABLE old(a INTEGER PRIMARY KEY AUTOINCREMENT, b, c)",
        f"INSERT INTO old(b, c) {NUMBERS.format(1500)} SELECT i, zeroblob(50) FROM n",
        "ALTER TABLE old RENAME TO new",
        "ALTER TABLE new DROP COLUMN c",
        "ALTER TABLE new RENAME COLUMN b TO beta",
        "ALTER TABLE new ADD COLUMN d DEFAULT 'd'",
        "SELECT count(*), sum(beta), min(d) FROM new",
        "SELECT * FROM sqlite_sequence",
        "CREATE TABLE copy AS SELECT * FROM new WHERE a % 2",
        "DROP TABLE new",
        "SELECT count(*) FROM copy",
    ),
    "temporary tables": (
        "CREATE TABLE real_one(x)",
        "CREATE TEMP TABLE passing(x)",
        f"INSERT INTO passing {NUMBERS.format(3000)} SELECT i FROM n",
        "INSERT INTO real_one SELECT x FROM passing WHERE x % 100 = 0",
        "CREATE TEMP TRIGGER watch AFTER INSERT ON real_one BEGIN DELETE FROM passing WHERE x = new.x; END",
        "INSERT INTO real_one VALUES(7)",
        "SELECT count(*) FROM passing",
        "SELECT sum(x) FROM real_one",
    ),
    "window functions and recursion": (
        "CREATE TABLE m(d INT, v INT)",
        f"INSERT INTO m {NUMBERS.format(60)} SELECT i, i * i % 17 FROM n",
        "SELECT d, sum(v) OVER (ORDER BY d ROWS 3 PRECEDING), "
        "rank() OVER (PARTITION BY v ORDER BY d) FROM m LIMIT 20",
        "UPDATE m SET v = t.v FROM (SELECT d + 1 AS d, v FROM m) t WHERE t.d = m.d",
        "SELECT group_concat(v) FROM m",
    ),
}


@pytest.mark.parametrize("how", ["autocommit", "one transaction"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(make_twins: MakeTwins, name: str, how: str) -> None:
    twins = make_twins("PRAGMA foreign_keys = ON", "PRAGMA recursive_triggers = OFF")
    if how == "one transaction":
        twins("BEGIN")
    for sql in SCRIPTS[name]:
        twins(sql)
    if how == "one transaction":
        twins("COMMIT")
    twins.check()


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_with_page_cache_of_ten_pages(make_twins: MakeTwins, name: str) -> None:
    """Pages spill to the VFS in mid-transaction, and both caches evict."""
    twins = make_twins("PRAGMA cache_size = 10", "PRAGMA foreign_keys = ON", cache_bytes=40_000)
    twins("BEGIN")
    for sql in SCRIPTS[name]:
        twins(sql)
    twins("COMMIT")
    twins.check()


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_that_is_rolled_back_leaves_nothing(make_twins: MakeTwins, name: str) -> None:
    twins = make_twins("PRAGMA cache_size = 10", cache_bytes=40_000)
    twins("CREATE TABLE before(x); INSERT INTO before VALUES(1)")
    twins("BEGIN")
    for sql in SCRIPTS[name]:
        twins(sql)
    twins("ROLLBACK")
    assert rows(twins.mv, "SELECT name FROM sqlite_schema") == [("before",)]
    twins.check()


def test_savepoints(twins: Twins) -> None:
    twins("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    fill = f"INSERT INTO t(x) {NUMBERS.format(2000)} SELECT printf('%.50c', 'x') FROM n"
    twins("BEGIN")
    twins("INSERT INTO t VALUES(1, 'kept')")
    twins("SAVEPOINT outer")
    twins(fill)
    twins("SAVEPOINT inner")
    twins("UPDATE t SET x = 'changed'")
    twins("ROLLBACK TO inner")
    twins("SELECT count(*), count(DISTINCT x) FROM t")
    twins("DELETE FROM t WHERE id % 2")
    twins("RELEASE inner")
    twins("ROLLBACK TO outer")
    assert twins("SELECT * FROM t") == [(1, "kept")]
    twins(fill)
    twins("RELEASE outer")
    twins("COMMIT")
    twins("SAVEPOINT alone")
    twins("DELETE FROM t WHERE id > 100")
    twins("RELEASE alone")
    twins.check()


def test_a_statement_that_fails_halfway_undoes_only_itself(twins: Twins) -> None:
    twins("CREATE TABLE t(x INTEGER PRIMARY KEY CHECK (x != 700))")
    twins("BEGIN")
    twins("INSERT INTO t VALUES(-1)")
    kind, _ = twins(f"INSERT INTO t {NUMBERS.format(1000)} SELECT i FROM n")
    assert kind == "error"
    twins("INSERT INTO t VALUES(-2)")
    twins("COMMIT")
    assert twins("SELECT x FROM t") == [(-2,), (-1,)]
    twins.check()


def test_incremental_blobs(make_twins: MakeTwins, seed: int) -> None:
    twins = make_twins(cache_bytes=40_000)
    size = 300_000
    twins("CREATE TABLE b(id INTEGER PRIMARY KEY, data BLOB)")
    twins("INSERT INTO b VALUES(1, zeroblob(?)), (2, zeroblob(?))", (size, size))

    def work(connection: apsw.Connection) -> list[bytes]:
        rng = random.Random(seed)
        read = []
        with connection, connection.blob_open("main", "b", "data", 1, True) as blob:
            for _ in range(200):
                data = rng.randbytes(rng.randrange(1, 9000))
                at = rng.randrange(size)
                blob.seek(at)
                if rng.random() < 0.5:
                    blob.write(data[: size - at])
                else:
                    read.append(blob.read(len(data)))
            blob.reopen(2)
            blob.write(b"two")
        with connection.blob_open("main", "b", "data", 2, False) as blob:
            read.append(blob.read(5))
        return read

    twins.both(work)
    twins.check()


def test_a_hundred_tables_and_a_wide_one(twins: Twins) -> None:
    for i in range(100):
        twins(f"CREATE TABLE t{i}(a, b UNIQUE)")
    columns = [f"c{i}" for i in range(500)]
    twins(f"CREATE TABLE wide({', '.join(columns)})")
    twins(f"INSERT INTO wide VALUES({', '.join('?' * 500)})", list(range(500)))
    for i in range(0, 100, 3):
        twins(f"DROP TABLE t{i}")
    twins.check()


@pytest.mark.long_on_cluster
def test_random_statements(make_twins: MakeTwins, seed: int) -> None:
    """Inserts, updates, deletes, index changes and vacuums in random order, some rolled back."""
    rng = random.Random(seed)
    twins = make_twins(cache_bytes=200_000)
    twins("CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, data BLOB)")
    for _ in range(120):
        match rng.randrange(8):
            case 0 | 1 | 2:
                numbers, size = NUMBERS.format(rng.randrange(1, 60)), rng.randrange(2000)
                sql = f"INSERT INTO t(k, data) {numbers} SELECT i, zeroblob({size}) FROM n"
            case 3:
                size = rng.randrange(6000)
                sql = f"UPDATE t SET k = k + 1, data = zeroblob({size}) WHERE id % 11 = {rng.randrange(11)}"
            case 4:
                sql = f"DELETE FROM t WHERE id % 5 = {rng.randrange(5)}"
            case 5:
                sql = "CREATE INDEX IF NOT EXISTS t_k ON t(k)"
            case 6:
                sql = "DROP INDEX IF EXISTS t_k"
            case _:
                sql = "VACUUM"
        rolled_back = rng.random() < 0.2 and sql != "VACUUM"
        if rolled_back:
            twins("BEGIN")
        twins(sql)
        if rolled_back:
            twins("ROLLBACK")
        twins("SELECT count(*), sum(id), sum(k), sum(length(data)) FROM t")
    twins.check()
