"""Opening: names, modes, versions, refused parameters, and Python's own sqlite3 module."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs import errors
from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.conftest import Connect, refused_at
from tests.sql.twins import dump, is_intact, rows, value

NAMES = [
    "with space",
    "q?mark",
    "hash#tag",
    "50%",
    "%41",
    "a&b=c",
    "it's",
    'dou"ble',
    "semi;colon",
    "back\\slash",
    "plus+",
    "new\nline",
    "été",
    "\u6570\u636e\u5e93",
    "\U0001f600",
    "-rf",
    "..",
    "trailing.",
    "CON",
    "app-journal",
    "app-wal",
    "file:inner?mode=ro",
    "x" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_database_of_any_name(connect: Connect, store: str, name: str) -> None:
    first = connect(name)
    first.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert value(connect(name, mode="rw"), "SELECT x FROM t") == 1
    opened = open_store(store, create=False)
    try:
        assert [each.name for each in opened.list()] == [name]
    finally:
        opened.close()


@pytest.mark.parametrize(
    "uri", ["%ff?vfs=mv&store={}", "app?vfs=mv&store={}&at=%fe", "app?vfs=mv&store={}%ff"]
)
def test_what_is_not_utf_8_is_refused(folder: str, uri: str) -> None:
    mvvfs.register(sqlite3=False)
    flags = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    with pytest.raises(errors.OptionError, match="not UTF-8"):
        apsw.Connection("file:" + uri.format(folder), flags=flags)
    assert not Path(folder).exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name != ".."])
def test_a_store_folder_of_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    connection = mvvfs.connect(str(path))
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert value(mvvfs.connect(str(path), mode="ro"), "SELECT x FROM t") == 1
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert path.is_dir()


def test_a_bare_name_is_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    connection = mvvfs.connect("app.db")
    connection.execute("CREATE TABLE t(x)")
    monkeypatch.chdir("/")
    connection.execute("INSERT INTO t VALUES(1)")
    assert value(mvvfs.connect(str(tmp_path / "app.db"), mode="ro"), "SELECT x FROM t") == 1


def test_a_program_that_forgets_the_vfs_cannot_open_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    mvvfs.connect(str(path)).execute("CREATE TABLE t(x)")
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        sqlite3.connect(path).execute("SELECT 1 FROM sqlite_master")
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(str(path))


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_what_is_missing_is_not_created(tmp_path: Path, mode: str) -> None:
    with pytest.raises(errors.NoSuchDatabaseError):
        mvvfs.connect(str(tmp_path / "app.db"), mode=mode)
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(f"file:{tmp_path / 'app.db'}?vfs=mv&mode={mode}", flags=apsw.SQLITE_OPEN_URI | 6)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_missing_database_of_a_store_is_not_created(connect: Connect, store: str, mode: str) -> None:
    with pytest.raises(errors.NoSuchDatabaseError):
        connect("nothing", mode=mode)
    opened = open_store(store, create=False)
    assert opened.list() == []
    opened.close()


def test_read_only(connect: Connect) -> None:
    writer = connect()
    writer.execute("CREATE TABLE t(x)")
    reader = connect(mode="ro")
    assert reader.readonly("main")
    for sql in ("INSERT INTO t VALUES(1)", "CREATE TABLE u(x)", "PRAGMA user_version = 1", "VACUUM"):
        with pytest.raises(apsw.ReadOnlyError):
            reader.execute(sql)
    writer.execute("INSERT INTO t VALUES(2)")
    assert rows(reader, "SELECT x FROM t") == [(2,)]
    reader.execute("CREATE TEMP TABLE mine AS SELECT * FROM t")
    assert rows(reader, "SELECT x FROM mine") == [(2,)]


def test_a_past_version_is_read_only(connect: Connect) -> None:
    writer = connect()
    writer.execute("CREATE TABLE t(x)")
    past = connect(at=value(writer, "PRAGMA mv_version"))
    assert past.readonly("main")
    for sql in ("INSERT INTO t VALUES(1)", "DROP TABLE t", "VACUUM"):
        with pytest.raises(apsw.ReadOnlyError):
            past.execute(sql)
    writer.execute("INSERT INTO t VALUES(2)")
    assert rows(past, "SELECT x FROM t") == []
    assert past.pragma("mv_version") == value(connect(at="HEAD~1"), "PRAGMA mv_version")


def test_every_version_can_be_read(connect: Connect) -> None:
    writer = connect(message="loading")
    versions: dict[str, object] = {}
    writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    for i in range(40):
        writer.execute("INSERT INTO t VALUES(?, zeroblob(? * 100))", (i, i))
        if i % 3 == 0:
            writer.execute("DELETE FROM t WHERE id % 5 = 4")
        if i % 10 == 9:
            writer.execute("VACUUM")
        versions[value(writer, "PRAGMA mv_version")] = dump(writer)
    assert len(versions) == 40
    for version, content in versions.items():
        past = connect(at=version)
        assert value(past, "PRAGMA mv_version") == version
        assert dump(past) == content
        is_intact(past)
    assert dump(connect(at="HEAD")) == dump(writer)


@pytest.mark.parametrize("at", ["v" + "f" * 20, "2099-01-01", "nonsense", "HEAD~99"])
def test_versions_that_are_not_there(connect: Connect, at: str) -> None:
    connect().execute("CREATE TABLE t(x)")
    with pytest.raises(mvvfs.Error):
        connect(at=at)


def test_a_version_of_a_database_that_does_not_exist(connect: Connect) -> None:
    with pytest.raises(errors.NoSuchDatabaseError):
        connect("nothing", at="HEAD")


@pytest.mark.parametrize("parameter", ["nolock=1", "immutable=1", "nolock=yes"])
def test_parameters_that_would_be_unsafe(folder: str, parameter: str) -> None:
    mvvfs.register()
    with pytest.raises(apsw.CantOpenError, match=parameter.partition("=")[0]):
        apsw.Connection(f"file:app?vfs=mv&store={folder}&{parameter}", flags=apsw.SQLITE_OPEN_URI | 6)


@pytest.mark.parametrize(
    "wrong",
    ["mode=sometimes", "durability=perhaps", "cache_bytes=-1", "timeout=soon", "page_size=1000", "reads=no"],
)
def test_options_that_make_no_sense(folder: str, wrong: str) -> None:
    mvvfs.register()
    with pytest.raises(apsw.Error, match=wrong.partition("=")[0]):
        apsw.Connection(f"file:app?vfs=mv&store={folder}&{wrong}", flags=apsw.SQLITE_OPEN_URI | 6)


# ---- the standard library's sqlite3 ----


def test_a_timeout_of_0_waits_for_nobody_else(connect_shared: Connect) -> None:
    """For the store it does: a cluster's answers take their time."""
    one, other = connect_shared(timeout=0), connect_shared(timeout=0)
    one.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    assert value(other, "SELECT x FROM t") == 1
    one.execute("BEGIN IMMEDIATE")
    with pytest.raises(apsw.BusyError):
        other.execute("BEGIN IMMEDIATE")
    one.execute("UPDATE t SET x = 2; COMMIT")
    other.execute("BEGIN IMMEDIATE; UPDATE t SET x = x + 1; COMMIT")
    assert value(one, "SELECT x FROM t") == 3


def test_the_standard_module(store: str, connect: Connect) -> None:
    mvvfs.register()
    uri = to_uri("app", store=store)
    stock = sqlite3.connect(uri, uri=True)
    with stock:
        stock.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        stock.executemany("INSERT INTO t(x) VALUES(?)", [(f"row {i}",) for i in range(2000)])
    ours = connect()  # through APSW's own copy of SQLite, in the same process
    assert value(ours, "SELECT count(*) FROM t") == 2000
    ours.execute("DELETE FROM t WHERE id % 2")
    assert stock.execute("SELECT count(*) FROM t").fetchall() == [(1000,)]
    with stock:
        stock.execute("UPDATE t SET x = 'stock'")
    assert rows(ours, "SELECT DISTINCT x FROM t") == [("stock",)]
    is_intact(ours)
    stock.close()


def test_a_conflict_in_the_standard_module(store: str) -> None:
    mvvfs.register()
    first, second = (
        sqlite3.connect(to_uri("app", store=store), uri=True, isolation_level=None) for _ in range(2)
    )
    first.execute("CREATE TABLE t(x)")
    first.execute("INSERT INTO t VALUES(0)")
    second.execute("BEGIN")
    (seen,) = second.execute("SELECT x FROM t").fetchone()
    first.execute("UPDATE t SET x = x + 1")
    last = refused_at(second, store, f"UPDATE t SET x = {seen + 1}")
    with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
        second.execute(last)
    assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
    if second.in_transaction:
        second.execute("ROLLBACK")
    second.execute("UPDATE t SET x = x + 1")
    assert first.execute("SELECT x FROM t").fetchall() == [(2,)]
    first.close()
    second.close()


def test_what_went_wrong_can_be_asked_from_the_standard_module(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mvvfs.register()
    stock = sqlite3.connect(to_uri("app", store=folder), uri=True)
    stock.execute("CREATE TABLE t(x)")
    opened = open_store(folder, create=False)

    def broken(*_args: object, **_keywords: object) -> None:
        raise RuntimeError("the cable is out")

    monkeypatch.setattr(type(opened), "commit", broken)
    with pytest.raises(sqlite3.OperationalError), stock:
        stock.execute("INSERT INTO t VALUES(1)")
    assert "the cable is out" in stock.execute("PRAGMA mv_last_error").fetchone()[0]
    monkeypatch.undo()
    assert stock.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    stock.close()
    opened.close()
