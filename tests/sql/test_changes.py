"""`mvvfs.diff` and `mvvfs.changes`: what they tell.  (How many pages they read: test_diff_pages.py.)"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import errors
from mvvfs.compare import comparison
from mvvfs.compare.changes import RowChange, SchemaChange
from mvvfs.compare.script import name, script
from mvvfs.transfer import import_file
from pagestore.api import parse_version
from pagestore.opener import open_store

from ..conftest import NAME, Connect


@pytest.fixture
def db(store: str, connect: Connect) -> apsw.Connection:
    return connect()


@pytest.fixture(params=["guided", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to find changed pages, whatever their number."""
    if request.param == "walked":
        monkeypatch.setattr(comparison, "_GUIDED_BYTES", 0)
    return str(request.param)


@pytest.fixture
def diff(store: str, db: apsw.Connection, way: str) -> Callable[..., list[Any]]:
    """`diff(sql)`: the differences that some SQL makes."""

    def diff(*statements: str, table: str | None = None) -> list[Any]:
        before = db.pragma("mv_version")
        for statement in statements:
            db.execute(statement)
        return list(mvvfs.diff(NAME, before, store=store, table=table))

    return diff


def rows(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(c.table, c.op, c.key, c.old, c.new) for c in found if isinstance(c, RowChange)]


def schema(found: list[Any]) -> list[tuple[str, ...]]:
    return [(c.op, c.kind, c.name) for c in found if isinstance(c, SchemaChange)]


def test_inserted_updated_deleted(db, diff):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    found = diff(
        "DELETE FROM t WHERE id = 1; UPDATE t SET a = 'zwei' WHERE id = 2; INSERT INTO t VALUES (3, NULL)"
    )
    assert rows(found) == [
        ("t", "delete", (1,), {"id": 1, "a": "one"}, None),
        ("t", "update", (2,), {"id": 2, "a": "two"}, {"id": 2, "a": "zwei"}),
        ("t", "insert", (3,), None, {"id": 3, "a": None}),
    ]
    assert len(found) == 3


def test_the_other_way_round(db, store):
    db.execute("CREATE TABLE t(a)")
    before = db.pragma("mv_version")
    db.execute("INSERT INTO t VALUES (1)")
    assert [c.op for c in mvvfs.diff(NAME, before, store=store)] == ["insert"]
    assert [c.op for c in mvvfs.diff(NAME, "HEAD", before, store=store)] == ["delete"]
    assert list(mvvfs.diff(NAME, before, before, store=store)) == []


def test_an_update_that_changes_nothing_is_none(db, diff):
    db.execute("CREATE TABLE t(a, b REAL); INSERT INTO t VALUES (1, 2), (x'00', 0.5)")
    assert diff("UPDATE t SET a = a") == []
    assert [row[1] for row in rows(diff("UPDATE t SET a = 1.0 WHERE a = 1"))] == ["update"]


def test_rows_that_balancing_moved_are_not_shown(db, diff):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE w(k PRIMARY KEY, a) WITHOUT ROWID")
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
    for table in ("t", "w"):
        db.execute(f"{series} INSERT INTO {table} SELECT i * 2, randomblob(100) FROM n")
    for table in ("t", "w"):
        found = rows(
            diff(f"INSERT INTO {table} SELECT i, zeroblob(900) FROM (SELECT 501 AS i UNION SELECT 503)")
        )
        assert [row[:3] for row in found] == [(table, "insert", (501,)), (table, "insert", (503,))]
    assert [row[1] for row in rows(diff("VACUUM"))] == []


def test_identity_without_rowid_is_the_primary_key(db, diff):
    db.execute(
        "CREATE TABLE w(a, b, c, PRIMARY KEY(c DESC, a)) WITHOUT ROWID; INSERT INTO w VALUES (1, 2, 3)"
    )
    assert rows(diff("UPDATE w SET b = 5"))[0][:3] == ("w", "update", (3, 1))
    assert [row[1:3] for row in rows(diff("UPDATE w SET a = 1.0"))] == [
        ("delete", (3, 1)),
        ("insert", (3, 1.0)),
    ]


def test_a_collation_that_only_the_program_knows(db, diff):
    db.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    db.execute("CREATE TABLE w(k TEXT COLLATE backwards PRIMARY KEY, a) WITHOUT ROWID")
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
    db.execute(f"{series} INSERT INTO w SELECT printf('%04d', i), zeroblob(100) FROM n")
    found = rows(diff("DELETE FROM w WHERE k IN ('0100', '0399'); INSERT INTO w VALUES ('0100x', 1)"))
    assert {(row[1], row[2]) for row in found} == {
        ("delete", ("0100",)),
        ("delete", ("0399",)),
        ("insert", ("0100x",)),
    }
    assert len(found) == 3


def test_written_in_place_through_a_blob_handle(db, store, way):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)")
    for i in range(5):
        db.execute(f"INSERT INTO t VALUES ({i}, zeroblob(100000))")
    before = db.pragma("mv_version")
    with db.blob_open("main", "t", "a", 3, True) as blob:
        blob.seek(99_990)
        blob.write(b"changed")
    for table in (None, "t"):
        (change,) = mvvfs.diff(NAME, before, store=store, table=table)
        assert (change.op, change.key) == ("update", (3,))
        assert change.new["a"].rstrip(b"\0").endswith(b"changed")
        assert change.old["a"] == bytes(100_000)


# ---- the schema ----


def test_what_is_added_altered_and_dropped(db, diff):
    found = diff(
        "CREATE TABLE t(a)",
        "CREATE INDEX i ON t(a)",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "PRAGMA user_version = 7",
        "INSERT INTO t VALUES (1)",
    )
    assert set(schema(found)) == {
        ("altered", "pragma", "user_version"),
        ("added", "table", "t"),
        ("added", "index", "i"),
        ("added", "view", "v"),
        ("added", "trigger", "g"),
    }
    assert [row[1] for row in rows(found)] == ["insert"]
    found = diff("DROP VIEW v", "DROP TRIGGER g", "DROP INDEX i; CREATE INDEX i ON t(a DESC)")
    assert set(schema(found)) == {
        ("dropped", "view", "v"),
        ("dropped", "trigger", "g"),
        ("altered", "index", "i"),
    }
    found = diff("DROP TABLE t")
    assert schema(found) == [("dropped", "table", "t"), ("dropped", "index", "i")]
    assert rows(found) == [("t", "delete", (1,), {"a": 1}, None)]


def test_a_table_made_anew_is_compared_by_content(db, diff):
    db.execute("CREATE TABLE first(x); CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)")
    found = diff("DROP TABLE first; DROP TABLE t; CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (4)")
    assert rows(found) == [("t", "update", (3,), {"a": 3}, {"a": 4})]
    assert schema(found) == [("dropped", "table", "first")]


def test_tables_that_change_names(db, diff):
    db.execute("CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)")
    found = diff("ALTER TABLE a RENAME TO c")
    assert [(c.op, c.table, c.name) for c in found] == [("renamed", "a", "c")]
    found = diff("ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b")
    assert {row[:2] for row in rows(found)} >= {("b", "update")}


def test_columns_that_come_and_go(db, diff):
    db.execute("CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2), (3, 4)")
    found = diff("ALTER TABLE t ADD COLUMN c REAL DEFAULT 5", "UPDATE t SET b = 9 WHERE a = 3")
    assert schema(found) == [("altered", "table", "t")]
    assert rows(found) == [("t", "update", (2,), {"a": 3, "b": 4}, {"a": 3, "b": 9, "c": 5.0})]
    found = diff("ALTER TABLE t DROP COLUMN b")
    assert (schema(found), rows(found)) == ([("altered", "table", "t")], [])


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("c", None),
        ("c INT DEFAULT '7'", 7),
        ("c TEXT DEFAULT 7", "7"),
        ("c DEFAULT -1.5", -1.5),
        ("c DEFAULT 'x''y'", "x'y"),
    ],
)
def test_short_rows_have_their_defaults(db, diff, declared, expected):
    db.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
    db.execute(f"ALTER TABLE t ADD COLUMN {declared}")
    ((_, _, _, old, new),) = rows(diff("UPDATE t SET a = 2"))
    assert old == {"a": 1, "c": expected} == new | {"a": 1}
    assert type(old["c"]) is type(expected)
    assert db.execute("SELECT c FROM t").get == expected


def test_generated_columns_are_left_out(db, diff):
    db.execute("CREATE TABLE t(a, v AS (a * 2), s AS (a * 3) STORED, b)")
    assert rows(diff("INSERT INTO t(a, b) VALUES (1, 2)"))[0][4] == {"a": 1, "b": 2}


def test_strict_tables_and_unknown_functions(db, diff):
    db.create_scalar_function("known_here", lambda x: x, deterministic=True)
    db.execute("CREATE TABLE t(a INT CHECK (known_here(a) = a), b ANY, c REAL) STRICT")
    db.execute("CREATE INDEX i ON t(known_here(b))")
    assert rows(diff("INSERT INTO t VALUES (1, '2', 3)"))[0][4] == {"a": 1, "b": "2", "c": 3.0}


def test_virtual_tables_by_their_shadow_tables(db, diff):
    found = diff("CREATE VIRTUAL TABLE f USING fts5(x)", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)")
    assert {("added", "table", "f"), ("added", "table", "f_data"), ("added", "table", "r_node")} <= set(
        schema(found)
    )
    found = diff("INSERT INTO f VALUES ('some words'); INSERT INTO r VALUES (1, 2, 3)")
    assert {row[0] for row in rows(found)} >= {"f_content", "f_data", "r_rowid", "r_node"}
    found = diff("INSERT INTO f VALUES ('other words'); INSERT INTO r VALUES (2, 2, 3)", table="F")
    assert {row[0] for row in rows(found)} >= {"f_content", "f_data"}
    assert {row[0][0] for row in rows(found)} == {"f"}


def test_of_one_table(db, diff):
    db.execute("CREATE TABLE t(a); CREATE TABLE u(a); CREATE INDEX i ON u(a)")
    statements = ("INSERT INTO t VALUES (1); INSERT INTO u VALUES (2)", "DROP INDEX i")
    assert rows(diff(*statements, table="T")) == [("t", "insert", (1,), None, {"a": 1})]
    assert len(diff("INSERT INTO t VALUES (3)", table="u")) == 0
    with pytest.raises(errors.OptionError, match="no table 'nothing'"):
        diff(table="nothing")


@pytest.mark.parametrize("a", ["HEAD~9", "v1" + "0" * 19, "2999-01-01"])
def test_moments_that_do_not_exist(db, store, a):
    db.execute("CREATE TABLE t(a)")
    with pytest.raises(errors.NoSuchVersionError):
        mvvfs.diff(NAME, a, store=store)
    with pytest.raises(errors.NoSuchVersionError):
        mvvfs.changes(NAME, a, store=store)


def test_no_such_database(store):
    with pytest.raises(errors.NoSuchDatabaseError):
        mvvfs.diff("nothing", "HEAD", store=store)
    with pytest.raises(errors.NoSuchDatabaseError):
        mvvfs.changes("nothing", store=store)


# ---- commit by commit ----


def test_changes_from_the_beginning_and_from_anywhere(db, store):
    db.execute("CREATE TABLE t(a)")
    for i in range(6):
        db.execute("INSERT INTO t VALUES (?)", (i,))
    everything = [(commit.version, len(list(commit))) for commit in mvvfs.changes(NAME, store=store)]
    assert [count for _, count in everything] == [1] * 7
    for at, (version, _) in enumerate(everything):
        rest = mvvfs.changes(NAME, since=version, store=store)
        assert [commit.version for commit in rest] == [version for version, _ in everything[at + 1 :]]
    by_bytes = mvvfs.changes(NAME, since=parse_version(everything[4][0]), store=store)
    assert [[change.new for change in commit.rows()] for commit in by_bytes] == [[{"a": 4}], [{"a": 5}]]


def test_a_commit_can_be_asked_again_and_late(db, store):
    db.execute("CREATE TABLE t(a)")
    start = db.pragma("mv_version")
    for i in range(5):
        db.execute("INSERT INTO t VALUES (?)", (i,))
    commits = list(mvvfs.changes(NAME, since=start, store=store))
    for at in (3, 0, 4, 4, 1):
        assert [change.new for change in commits[at].rows()] == [{"a": at}]
    iterators = [iter(commit) for commit in commits]
    assert [[change.new for change in iterator] for iterator in iterators] == [[{"a": i}] for i in range(5)]


def test_a_half_read_commit_next_to_another(db, store):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    start = db.pragma("mv_version")
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    db.execute(f"{series} INSERT INTO t SELECT i, 'first' FROM n")
    db.execute("UPDATE t SET a = 'second'")
    first, second = mvvfs.changes(NAME, since=start, store=store)
    slow = first.rows()
    assert next(slow).new == {"id": 1, "a": "first"}
    assert {(change.old["a"], change.new["a"]) for change in second.rows()} == {("first", "second")}
    assert {change.new["a"] for change in slow} == {"first"}


def test_follow_waits_for_commits(db, store, connect):
    db.execute("CREATE TABLE t(a)")
    since = db.pragma("mv_version")
    seen: list[Any] = []
    enough = threading.Event()

    def follow() -> None:
        for commit in mvvfs.changes(NAME, since=since, store=store, follow=True):
            seen.extend(change.new["a"] for change in commit.rows())
            if len(seen) == 3:
                enough.set()
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    for i in range(3):
        db.execute("INSERT INTO t VALUES (?)", (i,))
    assert enough.wait(30)
    thread.join(30)
    assert seen == [0, 1, 2]


# ---- as a script ----


@pytest.mark.parametrize(
    "statements",
    [
        [
            "CREATE TABLE u(a UNIQUE, b); INSERT INTO u VALUES (1, 'x'), (2, 'y'), (3, 'z')",
            "UPDATE u SET a = -a; UPDATE u SET a = 1 + (3 + a) % 3",
        ],
        [
            "CREATE TABLE t(a); CREATE TABLE seen(a)",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (new.a); END;"
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (2); CREATE VIEW v AS SELECT * FROM t",
            "CREATE TRIGGER h INSTEAD OF INSERT ON v BEGIN SELECT 1; END; DROP TRIGGER g;"
            "INSERT INTO t VALUES (3)",
        ],
        [
            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p ON DELETE CASCADE)",
            "INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1), (2)",
            "DELETE FROM p WHERE id = 1",
        ],
        [
            "CREATE TABLE t(a DEFAULT 'a, b', CHECK (a <> '(')); INSERT INTO t VALUES (1)",
            "ALTER TABLE t ADD COLUMN b; ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'x)'; UPDATE t SET b = a",
        ],
        [
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2); CREATE INDEX i ON t(b)",
            "ALTER TABLE t RENAME COLUMN b TO c",
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t RENAME TO s",
        ],
        ["CREATE TABLE t(i INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (100)", "DELETE FROM t"],
        [
            "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('some words')",
            "INSERT INTO f VALUES ('other words'); CREATE VIRTUAL TABLE r USING rtree(id, a, b)",
            "INSERT INTO r VALUES (1, 2, 3); DROP TABLE f",
        ],
        [
            "CREATE TABLE t(a, b); INSERT INTO t VALUES (1e999, -1e999), (x'', '');"
            "INSERT INTO t VALUES ('a' || char(0) || 'b', 0.1)",
            "UPDATE t SET a = -9223372036854775808, b = CAST(x'ff41' AS TEXT)",
            "INSERT INTO t VALUES (5e-324, 1e300)",
        ],
        [
            'CREATE TABLE "a ""b"" c"("x y" PRIMARY KEY, rowid, "select") WITHOUT ROWID',
            """INSERT INTO "a ""b"" c" VALUES (1, 2, 'it''s')""",
            """UPDATE "a ""b"" c" SET "select" = NULL""",
        ],
        ["CREATE TABLE t(rowid, oid, a); INSERT INTO t VALUES (5, 6, 7)", "UPDATE t SET a = 8"],
        ["PRAGMA user_version = 3", "PRAGMA application_id = -5"],
        [
            "CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1); ANALYZE",
            "DROP TABLE sqlite_stat1",
        ],
    ],
)
def test_scripts_lead_from_each_version_to_each(store, db, statements):
    versions = [start(db)]
    for statement in statements:
        db.execute(statement)
        versions.append(db.pragma("mv_version"))
    opened = open_store(store, create=False)
    namespace = opened.open(NAME)
    for a in versions:
        for b in versions:
            compared = comparison.compare(opened, namespace, parse_version(a), parse_version(b))
            with copied(store, a) as one, copied(store, b) as other:
                for statement in script(compared):
                    one.execute(statement)
                assert content(one) == content(other), (a, b)
                assert one.pragma("integrity_check") == "ok"
    opened.close()


def start(db: apsw.Connection) -> str:
    db.execute("CREATE TABLE always(a); INSERT INTO always VALUES (1)")
    return str(db.pragma("mv_version"))


@contextlib.contextmanager
def copied(url: str, at: str) -> Iterator[apsw.Connection]:
    with (
        contextlib.closing(mvvfs.connect(NAME, store=url, at=at)) as origin,
        contextlib.closing(apsw.Connection(":memory:")) as plain,
    ):
        with plain.backup("main", origin, "main") as backup:
            backup.step()
        yield plain


def content(db: apsw.Connection) -> Any:
    """Without what SQLite makes by itself and never drops."""
    own = ("sqlite_autoindex", "sqlite_sequence", "sqlite_stat")
    entries = [e for e in db.execute("SELECT type, name, sql FROM sqlite_schema") if not e[1].startswith(own)]
    found = {e: [] for e in entries}
    for entry in entries:
        if entry[0] == "table" and "VIRTUAL" not in entry[2]:
            found[entry] = dump(db, entry[1])
    return found, db.pragma("user_version"), db.pragma("application_id")


def test_a_rowid_that_no_sql_reaches(store, db):
    db.execute("CREATE TABLE t(rowid, oid, _rowid_, a)")
    before = db.pragma("mv_version")
    db.execute("INSERT INTO t VALUES (1, 2, 3, 4)")
    opened = open_store(store, create=False)
    compared = comparison.compare(
        opened, opened.open(NAME), parse_version(before), parse_version(db.pragma("mv_version"))
    )
    with pytest.raises(errors.UnsupportedError, match="row ids"):
        list(script(compared))
    opened.close()


def dump(db: apsw.Connection, table: str) -> list[Any]:
    """The rows, also where text is no UTF-8."""
    columns = [name(row[1]) for row in db.execute("SELECT * FROM pragma_table_info(?)", (table,))]
    shown = ", ".join(f"typeof({c}), hex({c}), format('%.17g', {c})" for c in columns)
    return db.execute(f"SELECT {shown} FROM {name(table)}").fetchall()


def test_commits_outlive_the_iteration_and_the_store(folder, connect_folder):
    db = connect_folder()
    db.execute("CREATE TABLE t(a)")
    db.execute("INSERT INTO t VALUES (1)")
    db.close()
    commits = list(mvvfs.changes(NAME, store=folder))
    assert [[type(change) for change in commit] for commit in commits] == [[SchemaChange], [RowChange]]


def test_an_import_over_a_database_of_another_encoding(store, db, tmp_path):
    script_ = """CREATE TABLE w(k TEXT PRIMARY KEY, a) WITHOUT ROWID; CREATE TABLE t(a TEXT);
        INSERT INTO w VALUES ('a', 1), ('ab', 2), ('äöü', 3); INSERT INTO t VALUES ('same'), ('other')"""
    db.execute(script_)
    before = db.pragma("mv_version")
    db.close()
    file = str(tmp_path / "plain.sqlite")
    with contextlib.closing(apsw.Connection(file)) as plain:
        plain.execute(
            "PRAGMA encoding = 'UTF-16le'; " + script_ + "; UPDATE t SET a = 'changed' WHERE rowid = 2"
        )
    import_file(file, NAME, store=store, force=True)
    found = rows(list(mvvfs.diff(NAME, before, store=store)))
    assert [row[1:3] for row in found if row[0] == "t"] == [("update", (2,))]
    keys = [("a",), ("ab",), ("äöü",)]
    assert [row[1:3] for row in found if row[0] == "w"] == [
        *(("delete", key) for key in keys),
        *(("insert", key) for key in keys),
    ]


def test_a_key_that_is_ordered_otherwise_makes_other_rows(db, diff):
    db.execute("CREATE TABLE w(k TEXT PRIMARY KEY, a) WITHOUT ROWID; INSERT INTO w VALUES ('a', 1), ('B', 2)")
    found = diff(
        "DROP TABLE w; CREATE TABLE w(k TEXT PRIMARY KEY DESC, a) WITHOUT ROWID",
        "INSERT INTO w VALUES ('a', 1)",
    )
    assert [row[1:3] for row in rows(found)] == [("delete", ("B",)), ("delete", ("a",)), ("insert", ("a",))]
