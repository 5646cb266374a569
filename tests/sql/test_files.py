"""Whole databases: VACUUM, VACUUM INTO, backup, ATTACH, page sizes, encodings, extensions."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest

from mvvfs.options import to_uri
from tests.conftest import Connect
from tests.sql.conftest import MakeTwins
from tests.sql.twins import Twins, dump, image, is_intact, rows, value

FILL = (
    "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {0}) "
    "INSERT INTO t SELECT i, 'row ' || i, zeroblob(i % 300) FROM n"
)
URI = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


def fill(connection: apsw.Connection, count: int = 2000) -> None:
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, data BLOB); CREATE INDEX t_x ON t(x)")
    connection.execute(FILL.format(count))


def plain_uri(path: Path) -> str:
    return f"file:{quote(str(path))}?vfs=unix"


# ---- VACUUM ----


def test_vacuum(twins: Twins) -> None:
    twins.both(fill)
    twins("DELETE FROM t WHERE id % 3")
    twins("VACUUM")
    twins.reopen()  # a connection that writes is shown its lease as free pages
    twins("PRAGMA page_count")
    assert twins("PRAGMA freelist_count") == [(0,)]
    twins.check()


def test_vacuum_of_an_empty_database(twins: Twins) -> None:
    twins("VACUUM")
    twins("CREATE TABLE t(x); DROP TABLE t; VACUUM")
    twins.check()


def test_vacuum_keeps_the_past(connect: Connect) -> None:
    connection = connect()
    fill(connection)
    version = value(connection, "PRAGMA mv_version")
    before = dump(connection)
    connection.execute("DELETE FROM t WHERE id > 10; VACUUM")
    past = connect(at=version)
    assert dump(past) == before
    is_intact(past)


def test_vacuum_cannot_change_the_page_size(connect: Connect) -> None:
    connection = connect()
    fill(connection)
    before = dump(connection)
    connection.execute("PRAGMA page_size = 8192")
    with pytest.raises(apsw.Error, match="page size"):
        connection.execute("VACUUM")
    assert dump(connect()) == before
    assert value(connection, "PRAGMA page_size") == 4096
    connection.execute("DELETE FROM t WHERE id = 1")
    is_intact(connection)


def test_vacuum_into_a_plain_file(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    fill(connection)
    connection.execute("DELETE FROM t WHERE id % 3")
    target = tmp_path / "copy.sqlite"
    connection.execute("VACUUM INTO ?", (plain_uri(target),))
    with apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY) as copy:
        is_intact(copy)
        assert rows(copy, "SELECT * FROM t") == rows(connection, "SELECT * FROM t")


def test_vacuum_into_of_a_past_version(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    fill(connection)
    version = value(connection, "PRAGMA mv_version")
    before = rows(connection, "SELECT * FROM t")
    connection.execute("DELETE FROM t")
    target = tmp_path / "copy.sqlite"
    connect(at=version).execute("VACUUM INTO ?", (plain_uri(target),))
    with apsw.Connection(str(target)) as copy:
        is_intact(copy)
        assert rows(copy, "SELECT * FROM t") == before


def test_vacuum_into_another_mv_database(connect: Connect, store: str) -> None:
    connection = connect()
    fill(connection)
    connection.execute("VACUUM INTO ?", (to_uri("other", store=store),))
    assert dump(connect("other")) == dump(connection)
    is_intact(connect("other"))
    connection.execute("DELETE FROM t WHERE id = 1")
    is_intact(connection)


def test_vacuum_of_a_past_version_into_another_mv_database(connect: Connect, store: str) -> None:
    connection = connect()
    fill(connection)
    version = value(connection, "PRAGMA mv_version")
    before = rows(connection, "SELECT * FROM t")
    connection.execute("DELETE FROM t WHERE id % 3")
    connect(at=version).execute("VACUUM INTO ?", (to_uri("other", store=store),))
    other = connect("other")
    is_intact(other)
    assert rows(other, "SELECT * FROM t") == before


def test_vacuum_of_a_plain_file_into_an_mv_database(connect: Connect, store: str, tmp_path: Path) -> None:
    plain = apsw.Connection(plain_uri(tmp_path / "plain.sqlite"), flags=URI)
    fill(plain)
    connect().close()  # registers the VFS
    plain.execute("VACUUM INTO ?", (to_uri("copied", store=store),))
    copied = connect("copied")
    is_intact(copied)
    assert dump(copied) == dump(plain)


# ---- backup ----


def copied(connection: apsw.Connection) -> list[bytes]:
    """The pages, without the schema cookie, which a backup moves on."""
    first, *others = image(connection)
    return [first[:40] + bytes(4) + first[44:], *others]


@pytest.mark.parametrize("pages", [-1, 7])
def test_backup_to_a_plain_file(connect: Connect, tmp_path: Path, pages: int) -> None:
    connection = connect()
    fill(connection)
    copy = apsw.Connection(str(tmp_path / "copy.sqlite"))
    steps = 0
    with copy.backup("main", connection, "main") as backup:
        while not backup.done:
            backup.step(pages)
            steps += 1
            assert steps < 1000, "it starts over at every step"
    assert steps == 1 if pages < 0 else steps > 10
    is_intact(copy)
    assert copied(copy) == copied(connection)


@pytest.mark.parametrize("pages", [-1, 7])
def test_backup_from_a_plain_file(connect: Connect, tmp_path: Path, pages: int) -> None:
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    fill(plain)
    connection = connect()
    with connection.backup("main", plain, "main") as backup:
        while not backup.done:
            backup.step(pages)
    for each in (connection, connect()):
        is_intact(each)
        assert dump(each) == dump(plain)
    assert copied(connect()) == copied(plain)


def test_backup_over_what_was_there_and_back_in_time(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    fill(connection, 3000)
    version = value(connection, "PRAGMA mv_version")
    before = dump(connection)
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    plain.execute("CREATE TABLE small(x); INSERT INTO small VALUES(1)")
    with connection.backup("main", plain, "main") as backup:
        backup.step(-1)
    assert dump(connect()) == dump(plain)
    is_intact(connection)
    assert dump(connect(at=version)) == before


def test_a_stepped_backup_starts_over_when_someone_writes(connect: Connect, tmp_path: Path) -> None:
    connection, writer = connect(), connect()
    fill(connection)
    copy = apsw.Connection(str(tmp_path / "copy.sqlite"))
    with copy.backup("main", connection, "main") as backup:
        backup.step(7)
        writer.execute("UPDATE t SET x = 'changed' WHERE id = 1")
        while not backup.done:
            backup.step(7)
    is_intact(copy)
    assert dump(copy) == dump(writer)


def test_backup_of_a_database_in_wal_mode(connect: Connect, tmp_path: Path) -> None:
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    plain.execute("PRAGMA journal_mode = WAL")
    fill(plain)
    connection = connect()
    with connection.backup("main", plain, "main") as backup:
        backup.step(-1)
    again = connect()
    assert value(again, "PRAGMA journal_mode") == "delete"
    again.execute("DELETE FROM t WHERE id = 1")
    assert value(connection, "SELECT count(*) FROM t") == 1999
    is_intact(again)


def test_backup_of_another_page_size_into_one_that_has_its_own(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    fill(connection, 10)
    before = dump(connection)
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    plain.execute("PRAGMA page_size = 1024")
    fill(plain, 100)
    with pytest.raises(apsw.Error), connection.backup("main", plain, "main") as backup:
        backup.step(-1)
    assert dump(connect()) == before


def test_serialize_and_deserialize(connect: Connect) -> None:
    connection = connect()
    fill(connection)
    memory = apsw.Connection(":memory:")
    memory.deserialize("main", connection.serialize("main"))
    is_intact(memory)
    assert dump(memory) == dump(connection)


# ---- ATTACH ----


def test_attach_an_ordinary_file(connect: Connect, tmp_path: Path) -> None:
    connection = connect()
    fill(connection, 100)
    path = tmp_path / "plain file.sqlite"
    connection.execute("ATTACH ? AS plain", (plain_uri(path),))
    connection.execute("CREATE TABLE plain.copy AS SELECT * FROM main.t")
    connection.execute("UPDATE plain.copy SET x = 'there'")
    connection.execute("INSERT INTO main.t SELECT id + 1000, x, data FROM plain.copy")
    with apsw.Connection(str(path)) as plain:
        assert value(plain, "SELECT count(*) FROM copy WHERE x = 'there'") == 100
    assert value(connect(), "SELECT count(*) FROM t WHERE x = 'there'") == 100
    connection.execute("DETACH plain")
    is_intact(connection)


def test_a_transaction_over_an_ordinary_file_and_an_mv_database_is_refused_whole(
    connect: Connect, tmp_path: Path
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t(x)")
    path = tmp_path / "plain.sqlite"
    connection.execute("ATTACH ? AS plain", (plain_uri(path),))
    connection.execute("CREATE TABLE plain.p(x)")
    connection.execute("BEGIN; INSERT INTO t VALUES(1); INSERT INTO p VALUES(1)")
    with pytest.raises(apsw.Error, match="atomic"):
        connection.execute("COMMIT")
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    assert value(connection, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM p)") == 0
    connection.execute("INSERT INTO t VALUES(2)")
    connection.execute("INSERT INTO p VALUES(2)")
    assert value(connect(), "SELECT count(*) FROM t") == 1
    with apsw.Connection(str(path)) as plain:
        assert value(plain, "SELECT count(*) FROM p") == 1


def test_attach_a_past_version_beside_the_present(connect: Connect, store: str) -> None:
    connection = connect()
    fill(connection, 100)
    version = value(connection, "PRAGMA mv_version")
    connection.execute("DELETE FROM t WHERE id % 2")
    connection.execute("ATTACH ? AS past", (to_uri("app", store=store, at=version),))
    assert rows(connection, "SELECT id FROM past.t EXCEPT SELECT id FROM main.t") == [
        (i,) for i in range(1, 100, 2)
    ]
    connection.execute(
        "INSERT INTO main.t SELECT * FROM past.t WHERE id = 1"
    )  # reads the past, writes the present
    assert value(connect(), "SELECT count(*) FROM t") == 51
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("DELETE FROM past.t")


def test_attach_an_mv_database_to_memory(connect: Connect, store: str) -> None:
    fill(connect(), 100)
    memory = apsw.Connection(":memory:", flags=URI)
    memory.execute("ATTACH ? AS mv", (to_uri("app", store=store),))
    memory.execute("DELETE FROM mv.t WHERE id > 10")
    assert value(connect(), "SELECT count(*) FROM t") == 10
    memory.close()


# ---- page sizes, encodings, extensions ----


@pytest.mark.parametrize("size", PAGE_SIZES)
@pytest.mark.parametrize("by", ["option", "pragma"])
def test_page_size(make_twins: MakeTwins, size: int, by: str) -> None:
    twins = make_twins(**({"page_size": size} if by == "option" else {}))
    twins.plain.execute(f"PRAGMA page_size = {size}")
    if by == "pragma":
        twins.mv.execute(f"PRAGMA page_size = {size}")
    twins("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, data BLOB)")
    twins("CREATE INDEX t_x ON t(x)")
    assert twins("PRAGMA page_size") == [(size,)]
    for _ in range(2):
        twins(FILL.format(1000))
        twins("UPDATE t SET data = zeroblob(id * 3) WHERE id % 7 = 0")
        twins("SELECT count(*), sum(length(data)) FROM t")
        twins("DELETE FROM t WHERE id % 2")
        twins("VACUUM")
        twins("DELETE FROM t")
    twins(FILL.format(300))
    twins.check()


def test_page_size_is_decided_once(connect: Connect) -> None:
    first, second = connect(), connect()
    first.execute("PRAGMA page_size = 512; CREATE TABLE t(x)")
    second.execute("PRAGMA page_size = 8192; CREATE TABLE u(x)")
    for each in (first, second, connect(page_size=1024)):
        assert value(each, "PRAGMA page_size") == 512
        is_intact(each)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be", "UTF-8"])
def test_encoding(make_twins: MakeTwins, encoding: str) -> None:
    twins = make_twins()
    twins(f"PRAGMA encoding = '{encoding}'")
    twins("CREATE TABLE t(x TEXT UNIQUE)")
    for text in ("", "plain", "é", "\u5b57", "\U0001f600" * 3000):
        twins("INSERT INTO t VALUES(?)", (text,))
    twins("SELECT x, hex(substr(x, 1, 2)) FROM t ORDER BY x")
    assert twins("PRAGMA encoding") == [(encoding,)]
    twins.check()


@pytest.mark.parametrize("mode", ["FULL", "INCREMENTAL"])
def test_auto_vacuum_is_refused(connect: Connect, tmp_path: Path, mode: str) -> None:
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    plain.execute(f"PRAGMA auto_vacuum = {mode}")
    fill(plain)
    connection = connect()
    with pytest.raises(apsw.Error), connection.backup("main", plain, "main") as backup:
        backup.step(-1)
    assert "auto_vacuum" in value(connection, "PRAGMA mv_last_error")
    assert dump(connection) == []
    other = connect()
    other.execute("CREATE TABLE t(x)")
    is_intact(other)


def test_user_version_and_application_id(twins: Twins) -> None:
    twins("PRAGMA user_version = -7")
    twins("PRAGMA application_id = 0x6d760001")
    assert twins("PRAGMA user_version") == [(-7,)]
    twins("BEGIN; PRAGMA user_version = 8; ROLLBACK")
    assert twins("PRAGMA user_version") == [(-7,)]
    twins.check()


def test_an_empty_database(make_twins: MakeTwins, connect: Connect, tmp_path: Path) -> None:
    twins = make_twins()
    for sql in (
        "PRAGMA page_count",
        "PRAGMA freelist_count",
        "PRAGMA schema_version",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM nothing",
        "PRAGMA quick_check",
        "BEGIN IMMEDIATE; ROLLBACK",
        "BEGIN IMMEDIATE; COMMIT",
    ):
        twins(sql)
    twins.check()
    connection = connect()
    copy = apsw.Connection(str(tmp_path / "copy.sqlite"))
    with copy.backup("main", connection, "main") as backup:
        backup.step(-1)
    assert dump(copy) == []


@pytest.mark.parametrize("way", ["sql", "api"])
def test_a_loaded_extension(connect: Connect, tmp_path: Path, way: str) -> None:
    library = build_extension(tmp_path)
    connection = connect()
    connection.enable_load_extension(True)
    if way == "sql":
        connection.execute("SELECT load_extension(?, 'sqlite3_twice_init')", (str(library),))
    else:
        connection.load_extension(str(library), "sqlite3_twice_init")
    connection.execute("CREATE TABLE t(x, y AS (twice(x))); INSERT INTO t(x) VALUES(21)")
    assert rows(connection, "SELECT y FROM t") == [(42,)]


EXTENSION = """
/* Without SQLite's headers: routines by their place in sqlite3_api_routines of sqlite3ext.h. */
#include <stdint.h>
enum { CREATE_FUNCTION = 45, RESULT_INT64 = 83, VALUE_INT64 = 107, UTF8 = 1, DETERMINISTIC = 0x800 };
typedef int create_function(void *, const char *, int, int, void *, void (*)(void *, int, void **),
                            void *, void *);
static void **api;
static void twice(void *context, int n, void **values) {
  (void)n;
  int64_t x = ((int64_t (*)(void *))api[VALUE_INT64])(values[0]);
  ((void (*)(void *, int64_t))api[RESULT_INT64])(context, 2 * x);
}
int sqlite3_twice_init(void *db, char **error, void **routines) {
  (void)error;
  api = routines;
  return ((create_function *)api[CREATE_FUNCTION])(db, "twice", 1, UTF8 | DETERMINISTIC, 0, twice, 0, 0);
}
"""


def build_extension(tmp_path: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "twice.c", tmp_path / "twice.so"
    source.write_text(EXTENSION)
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


def test_stock_sqlite_reads_what_was_copied_out(connect: Connect, tmp_path: Path) -> None:
    import sqlite3

    connection = connect()
    fill(connection)
    target = tmp_path / "copy.sqlite"
    with apsw.Connection(str(target)) as copy, copy.backup("main", connection, "main") as backup:
        backup.step(-1)
    stock = sqlite3.connect(target)
    assert stock.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert stock.execute("SELECT count(*), sum(length(data)) FROM t").fetchall() == rows(
        connection, "SELECT count(*), sum(length(data)) FROM t"
    )
    stock.close()
