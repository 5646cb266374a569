"""`mvvfs.diff` and `mvvfs.changes`: how many pages they read for what they tell."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

import mvvfs
from mvvfs.compare import comparison
from mvvfs.compare.changes import Difference, RowChange
from mvvfs.compare.comparison import Comparison
from pagestore.api import Change, NamespaceId, PageNumber, StoredPage, Version, parse_version
from pagestore.opener import open_store
from pagestore.store import PageStore

from ..conftest import NAME, Connect

ROWS = 100_000
"""In the large tables: three levels deep."""

SCHEMA_PAGES = 1


@pytest.fixture
def db(store: str, connect: Connect) -> apsw.Connection:
    return connect()


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of the pages that are read from the store."""
    read: list[int] = []
    original = PageStore.read

    def counting(
        self: PageStore, namespace: NamespaceId, version: Version, numbers: list[PageNumber]
    ) -> list[StoredPage | None]:
        read.extend(numbers)
        return original(self, namespace, version, numbers)

    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "read", counting)
        yield read


def depth(connection: apsw.Connection, table: str) -> int:
    """Levels, with that of the leaves."""
    paths = connection.execute("SELECT path FROM dbstat WHERE name = ?", (table,)).fetchall()
    return max(path.count("/") for (path,) in paths if "+" not in path)


def pages_of(connection: apsw.Connection, *trees: str) -> set[int]:
    names = ", ".join("?" for _ in trees)
    found = connection.execute(f"SELECT pageno FROM dbstat WHERE name IN ({names})", trees)
    return {number for (number,) in found}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, apsw.Connection]]:
    url = f"memory:{tmp_path_factory.mktemp('large')}"
    opened = open_store(url, create=True)
    db = mvvfs.connect(NAME, store=url)
    series = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
    for statement in (
        "CREATE TABLE big(id INTEGER PRIMARY KEY, name TEXT, n INT)",
        f"{series} INSERT INTO big SELECT i, 'name of ' || i, i * 7 FROM n",
        "CREATE TABLE keyed(k TEXT PRIMARY KEY, v, n) WITHOUT ROWID",
        f"{series} INSERT INTO keyed SELECT printf('key %08d', i), 'value of ' || i, i FROM n",
        "CREATE TABLE quiet(id INTEGER PRIMARY KEY, a, b, c, d)",
        f"{series} INSERT INTO quiet SELECT i, i, i, i, i FROM n",
        "CREATE TABLE small(x)",
    ):
        db.execute(statement)
    yield url, db
    db.close()
    opened.close()


def between(url: str, before: str, after: str) -> Comparison:
    store = open_store(url, create=False)
    return comparison.compare(store, store.open(NAME), parse_version(before), parse_version(after))


class Told(NamedTuple):
    """What a diff told, and took."""

    changes: list[Difference]
    read: list[int]
    """Page numbers, of either version."""
    written: set[int]
    """Pages that the commits wrote."""


def told(
    url: str, db: apsw.Connection, monkeypatch: pytest.MonkeyPatch, *statements: str, table: str | None = None
) -> Told:
    """The difference that some SQL makes."""
    before = db.pragma("mv_version")
    for statement in statements:
        db.execute(statement)
    with counted(monkeypatch) as read:
        compared = between(url, before, db.pragma("mv_version"))
        changes = list(compared.differences(table))
    return Told(changes, list(read), set(compared.changed))


ONE_ROW = [
    ("big", "UPDATE big SET name = 'changed' WHERE id = 55555"),
    ("big", "DELETE FROM big WHERE id = 77777"),
    ("big", f"INSERT INTO big VALUES ({ROWS + 1}, 'new', 1)"),
    ("keyed", "UPDATE keyed SET v = 'changed' WHERE k = 'key 00055555'"),
    ("keyed", "DELETE FROM keyed WHERE k = 'key 00077777'"),
    ("keyed", "INSERT INTO keyed VALUES ('key 00011111+', 'new', 1)"),
]


@pytest.mark.parametrize(("table", "sql"), ONE_ROW)
def test_one_row_costs_a_few_pages(large, monkeypatch, table, sql):
    url, db = large
    before = db.pragma("mv_version")
    db.execute(sql)
    after = db.pragma("mv_version")
    assert depth(db, table) == 3
    for only in (None, table):
        for a, b in ((before, after), (after, before)):
            with counted(monkeypatch) as read:
                found = list(between(url, a, b).differences(only))
            assert len(found) == 1
            assert len(read) <= 4 * 3 + SCHEMA_PAGES, read
    for other in {"small", "quiet", "big", "keyed"} - {table}:
        with counted(monkeypatch) as read:
            assert list(between(url, before, after).differences(other)) == []
        assert not pages_of(db, other) & set(read)


# ---- trees that change their form ----


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, apsw.Connection]]:
    """A table three levels deep with gaps between its row ids, and two indexes as deep."""
    url = f"memory:{tmp_path_factory.mktemp('indexed')}"
    opened = open_store(url, create=True)
    db = mvvfs.connect(NAME, store=url)
    series = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INT)")
    db.execute(f"{series} INSERT INTO t SELECT i * 1000, 'name of ' || i, (i * 7919) % 1000003 FROM n")
    db.execute("CREATE INDEX by_n ON t(n, name); CREATE INDEX by_name ON t(name)")
    assert [depth(db, tree) for tree in ("t", "by_n", "by_name")] == [3, 3, 3]
    yield url, db
    db.close()
    opened.close()


def until(db: apsw.Connection, statements: Iterator[str], form: Callable[[], int]) -> str:
    """Carries the statements out but for the first that would change the form of a tree."""
    for statement in statements:
        before = form()
        db.execute("BEGIN")
        db.execute(statement)
        changes = form() != before
        db.execute("ROLLBACK" if changes else "COMMIT")
        if changes:
            return statement
    raise AssertionError("none of them did")


def rows_together(first: int, name: str, n: str) -> Iterator[str]:
    for at in range(1, 900):
        yield f"INSERT INTO t VALUES ({first * 1000 + at}, {name.format(at)}, {n.format(at)})"


SPLITS = {
    "table leaf": ("t", rows_together(50_000, "NULL", "NULL")),
    "leaf of one index": ("by_n", rows_together(51_000, "'name of 5000' || {}", "5000")),
    "leaf of the other": ("by_name", rows_together(52_000, "'name of 70000' || {}", "{} * 1009")),
}


@pytest.mark.parametrize("which", SPLITS)
def test_an_insert_that_splits_a_leaf(indexed, monkeypatch, which):
    """However many pages of indexes it writes: none of them is read."""
    url, db = indexed
    tree, statements = SPLITS[which]
    sql = until(db, statements, lambda: len(pages_of(db, tree)))
    found = told(url, db, monkeypatch, sql)
    assert [change.op for change in found.changes] == ["insert"]
    assert len(found.written & pages_of(db, tree)) >= 3
    assert not set(found.read) & pages_of(db, "by_n", "by_name")
    assert len(found.read) <= 4 * 3 + SCHEMA_PAGES


def test_a_delete_that_merges_leaves(indexed, monkeypatch):
    url, db = indexed
    ids = [row for (row,) in db.execute("SELECT id FROM t WHERE id > ? LIMIT 900", (ROWS * 250,))]
    sql = until(db, (f"DELETE FROM t WHERE id = {row}" for row in ids), lambda: len(pages_of(db, "t")))
    found = told(url, db, monkeypatch, sql)
    assert [change.op for change in found.changes] == ["delete"]
    assert not set(found.read) & pages_of(db, "by_n", "by_name")
    assert len(found.read) <= 4 * 3 + SCHEMA_PAGES


def test_an_update_of_indexed_columns(indexed, monkeypatch):
    """It takes an entry out of one place of each index and puts one in another."""
    url, db = indexed
    for step in range(30):
        sql = f"UPDATE t SET name = 'a{step}', n = {step} WHERE id = {70_000_000 + step * 1000}"
        found = told(url, db, monkeypatch, sql)
        assert [change.op for change in found.changes] == ["update"]
        assert len(found.read) == 2 + 2 + SCHEMA_PAGES  # the leaf, both times; what is above it; the schema


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[str, apsw.Connection]]:
    """Of small pages, so that trees are deep."""
    url = f"memory:{tmp_path}"
    opened = open_store(url, create=True)
    db = mvvfs.connect(NAME, store=url)
    db.execute("PRAGMA page_size = 512")
    yield url, db
    db.close()
    opened.close()


@pytest.mark.parametrize("levels", [2, 3])
def test_a_root_that_splits(small, monkeypatch, levels):
    url, db = small
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
    statements = (f"INSERT INTO t VALUES ({row}, hex(zeroblob(90)))" for row in range(500))
    for _ in range(levels - 2):
        db.execute(until(db, statements, lambda: depth(db, "t")))
    found = told(url, db, monkeypatch, until(db, statements, lambda: depth(db, "t")))
    assert [change.op for change in found.changes] == ["insert"]
    assert depth(db, "t") == levels
    assert len(found.read) <= 4 * levels + SCHEMA_PAGES


@pytest.mark.parametrize("keyed", ["", "WITHOUT ROWID"])
def test_no_change_costs_more_than_the_pages_that_it_writes(small, monkeypatch, keyed):
    """The bound that always holds: what was written of the tree, at both versions, and a way down to it.

    One change in some splits or merges pages above the leaves."""
    url, db = small
    chance = random.Random(11)
    db.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT) {keyed};CREATE INDEX by_a ON t(a)")
    trees = (
        ["t"] if not keyed else ["t", "by_a"]
    )  # both are stored as indexes are, and all pages are looked at
    ids = chance.sample(range(100_000), 900)
    db.executemany("INSERT INTO t VALUES (?, ?, hex(zeroblob(20)))", [(i, str(chance.random())) for i in ids])
    over = 0
    for _ in range(200):
        row = chance.choice(ids)
        if chance.random() < 0.5:
            ids.remove(row)
            sql = f"DELETE FROM t WHERE id = {row}"
        else:
            ids.append(row := 100_000 + len(ids) if chance.random() < 0.3 else row * 7919 % 99_991 + 200_000)
            sql = f"INSERT OR REPLACE INTO t VALUES ({row}, '{chance.random()}', hex(zeroblob(20)))"
        before = pages_of(db, *trees)
        found = told(url, db, monkeypatch, sql)
        deep = max(depth(db, tree) for tree in trees)
        written = found.written & (before | pages_of(db, *trees))
        assert len(found.changes) == 1
        assert len(found.read) <= 2 * len(written) + len(trees) * deep + SCHEMA_PAGES
        over += len(found.read) > 4 * deep + SCHEMA_PAGES
    assert over <= (10 if not keyed else 100)


def test_a_page_of_a_table_that_goes_to_an_index(small):
    """Its rows went, though the page that it became holds none: within one transaction, so that the changelog
    tells of no page that was freed or allocated."""
    url, db = small
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")
    db.execute("CREATE TABLE u(id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX u_a ON u(a)")
    rows = [(i, f"row {i} " + "x" * 60) for i in range(600)]
    db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    db.executemany("INSERT INTO u VALUES (?, ?)", [(i, None) for i in range(600)])
    assert depth(db, "t") == 3
    before, were_rows = db.pragma("mv_version"), pages_of(db, "t")
    db.execute("BEGIN")
    db.execute("DELETE FROM t WHERE id >= 20 AND id < 580")
    db.execute("UPDATE u SET a = hex(randomblob(40)) WHERE id < 200")
    db.execute("COMMIT")
    after = db.pragma("mv_version")
    (change,) = changes_since(url, before)
    turned = were_rows & pages_of(db, "u_a")
    assert len(turned) > 20
    assert turned <= set(change.index_pages)
    assert not turned & {*change.allocated, *change.freed}
    for a, b, op in ((before, after, "delete"), (after, before, "insert")):
        found = [c for c in between(url, a, b).differences("t") if isinstance(c, RowChange)]
        assert [(c.op, c.key) for c in found] == [(op, (i,)) for i in range(20, 580)]
        assert [c.op for c in between(url, a, b).differences("u")] == ["update"] * 200


def changes_since(url: str, since: str) -> list[Change]:
    opened = open_store(url, create=False)
    return list(opened.changelog(opened.open(NAME).id, after=parse_version(since)))


# ---- nothing, and commit by commit ----


def test_the_same_version_costs_the_schema(large, monkeypatch):
    url, db = large
    version = parse_version(db.pragma("mv_version"))
    store = open_store(url, create=False)
    with counted(monkeypatch) as read:
        assert list(comparison.compare(store, store.open(NAME), version, version).differences()) == []
    assert read == [1]


def test_commit_by_commit_a_row_costs_its_page(large, monkeypatch):
    """What the last comparison has read serves the next one."""
    url, db = large
    before = db.pragma("mv_version")
    for i in range(50):
        db.execute("UPDATE big SET n = -n WHERE id = ?", (5000 + i,))
    with counted(monkeypatch) as read:
        commits = list(mvvfs.changes(NAME, since=before, store=url))
        assert [len(list(commit)) for commit in commits] == [1] * 50
    assert len(read) <= 50 + 4 * depth(db, "big")


def test_a_page_is_looked_for_where_it_was_found_before(store, db, monkeypatch):
    """Of two tables that look alike, the one that does not change is not read again and again."""
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    for table in ("one", "other"):
        db.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, a TEXT)")
        db.execute(f"{series} INSERT INTO {table} SELECT i, 'text ' || i FROM n")
    before = db.pragma("mv_version")
    for i in range(10):
        db.execute("UPDATE other SET a = ? WHERE id = 1500", (str(i),))
    with counted(monkeypatch) as read:
        commits = list(mvvfs.changes(NAME, since=before, store=store))
        assert [len(list(commit)) for commit in commits] == [1] * 10
    own = {number for (number,) in db.execute("SELECT pageno FROM dbstat WHERE name = 'one'")}
    assert len([number for number in read if number in own]) <= 2
    assert len(read) <= 10 + 2 + 2 + 2


@pytest.mark.parametrize(("table", "most"), [("t", 60), ("w", 600)])
def test_a_tail_written_in_place_costs_what_is_near(store, db, monkeypatch, table, most):
    """Some 3,000 pages: the owner of an overflow page is looked for nearby first."""
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE w(id PRIMARY KEY, a) WITHOUT ROWID")
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    db.execute(f"{series} INSERT INTO t SELECT i, zeroblob(20000) FROM n")
    db.execute(f"{series} INSERT INTO w SELECT i, zeroblob(20000) FROM n")
    before = db.pragma("mv_version")
    db.execute(
        f"UPDATE {table} SET a = CAST(substr(a, 1, 19990) || x'01020304050607080910' AS BLOB) WHERE id = 150"
    )
    with counted(monkeypatch) as read:
        (change,) = mvvfs.diff(NAME, before, store=store)
    assert (change.table, change.op, change.key) == (table, "update", (150,))
    assert len(read) <= most
