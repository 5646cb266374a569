"""Transfers that are interrupted, that meet others, or that see commits go by."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs.transfer import backup_store, export_file, import_file, restore_store
from pagestore import large
from pagestore.api import Change, ConflictError, NameTakenError
from pagestore.opener import open_store

ROWS = 60_000


@pytest.fixture
def source(tmp_path) -> str:
    """An SQLite file of some hundred pages: more than one step of a copy."""
    path = tmp_path / "source.sqlite"
    fill(path, ROWS)
    return str(path)


def fill(path: Path, rows: int) -> str:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(i INTEGER PRIMARY KEY, text)")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO t SELECT i, 'row number ' || i || ' of this table' FROM n",
        (rows,),
    )
    connection.close()
    return str(path)


@pytest.fixture
def store(tmp_path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def names(store) -> Callable[[], list[str]]:
    def names() -> list[str]:
        opened = open_store(store, create=False)
        try:
            return [namespace.name for namespace in opened.list()]
        finally:
            opened.close()

    return names


@pytest.fixture
def connection(source, store) -> Iterator[apsw.Connection]:
    """To a database "app" that holds the source."""
    import_file(source, "app", store=store)
    connection = mvvfs.connect("app", store=store)
    yield connection
    connection.close(force=True)


def count(path: str) -> int:
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
        return connection.execute("SELECT count(*) FROM t").get
    finally:
        connection.close()


class Interrupt:
    """A progress report that stops the transfer at its first call."""

    def __call__(self, done: int, total: int) -> None:
        assert 0 < done < total
        raise KeyboardInterrupt


def test_progress_is_reported_in_pages(source, store):
    seen: list[tuple[int, int]] = []
    copied = import_file(source, "app", store=store, progress=lambda *report: seen.append(report))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (copied.pages, copied.pages)
    assert copied.bytes == os.path.getsize(source)


def test_an_interrupted_import_takes_its_folder_with_it(source, store):
    with pytest.raises(KeyboardInterrupt):
        import_file(source, "app", store=store, progress=Interrupt())
    assert not os.path.exists(store)


def test_an_interrupted_import_leaves_other_databases(source, store, names):
    mvvfs.connect("other", store=store).close()
    with pytest.raises(KeyboardInterrupt):
        import_file(source, "app", store=store, progress=Interrupt())
    assert names() == ["other"]


def test_an_interrupted_import_over_a_database_changes_nothing(connection, source, store, names):
    connection.execute("DELETE FROM t")
    with pytest.raises(KeyboardInterrupt):
        import_file(source, "app", store=store, force=True, progress=Interrupt())
    assert names() == ["app"]
    assert connection.execute("SELECT count(*) FROM t").get == 0


def test_of_two_imports_at_once_one_wins_whole(tmp_path, source, store, names):
    other = fill(tmp_path / "other.sqlite", 7)

    def overtake(done: int, total: int) -> None:
        if "app" in names() and not overtaken:
            overtaken.append(import_file(other, "app", store=store))

    overtaken: list[object] = []
    with pytest.raises((mvvfs.ConflictError, NameTakenError)):
        import_file(source, "app", store=store, progress=overtake)
    assert len(overtaken) == 1
    assert names() == ["app"]
    connection = mvvfs.connect("app", store=store, mode="rw")
    assert connection.execute("SELECT count(*) FROM t").get == 7
    connection.close()


def test_an_import_into_an_empty_database_needs_no_force(source, store):
    mvvfs.connect("app", store=store).close()
    import_file(source, "app", store=store)
    with pytest.raises(NameTakenError):
        import_file(source, "app", store=store)


def test_an_interrupted_export_leaves_nothing(connection, tmp_path, store):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        export_file("app", str(tmp_path / "copy.sqlite"), store=store, progress=Interrupt())
    assert sorted(os.listdir(tmp_path)) == before


def test_an_interrupted_export_keeps_the_old_file(connection, tmp_path, store):
    target = fill(tmp_path / "copy.sqlite", 3)
    with pytest.raises(KeyboardInterrupt):
        export_file("app", target, store=store, force=True, progress=Interrupt())
    assert count(target) == 3
    export_file("app", target, store=store, force=True)
    assert count(target) == ROWS


def test_an_export_is_of_one_moment(connection, tmp_path, store):
    target = str(tmp_path / "copy.sqlite")

    def write(done: int, total: int) -> None:
        connection.execute("DELETE FROM t WHERE i = (SELECT max(i) FROM t)")

    before = connection.pragma("mv_version")
    copied = export_file("app", target, store=store, progress=write)
    assert connection.execute("SELECT count(*) FROM t").get < ROWS
    assert count(target) == ROWS
    assert copied.moment is not None
    assert str(copied.moment).startswith(before)


def test_a_file_that_appears_meanwhile_is_not_overwritten(connection, tmp_path, store):
    target = tmp_path / "copy.sqlite"

    def appear(done: int, total: int) -> None:
        target.write_text("precious")

    with pytest.raises(FileExistsError):
        export_file("app", str(target), store=store, progress=appear)
    assert target.read_text() == "precious"


def test_a_store_in_memory(source, tmp_path):
    store = f"memory:{tmp_path}"
    import_file(source, "app", store=store)
    export_file("app", str(tmp_path / "copy.sqlite"), store=store)
    assert count(str(tmp_path / "copy.sqlite")) == ROWS


def test_backup_over_a_file_needs_force(connection, tmp_path, store):
    target = tmp_path / "backup"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        backup_store(store, str(target))
    assert target.read_text() == "precious"
    backup_store(store, str(target), force=True)
    restore_store(str(target), str(tmp_path / "back"))
    export_file("app", str(tmp_path / "copy.sqlite"), store=str(tmp_path / "back"))
    assert count(str(tmp_path / "copy.sqlite")) == ROWS


def test_a_failed_restore_leaves_no_folder(source, tmp_path):
    with pytest.raises(Exception, match="not a store"):
        restore_store(source, str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


# ---- over a database ----


def changes(store: str) -> list[Change]:
    opened = open_store(store, create=False)
    try:
        return list(opened.changelog(opened.open("app").id))
    finally:
        opened.close()


def test_an_import_over_a_database_writes_what_differs(connection, tmp_path, source, store):
    watching = mvvfs.connect("app", store=store, mode="rw")
    assert watching.execute("SELECT count(*) FROM t").get == ROWS
    first = connection.pragma("mv_version")
    plain = apsw.Connection(source)
    plain.execute("UPDATE t SET text = 'changed' WHERE i = 7")
    plain.execute("CREATE TABLE u(a); INSERT INTO u VALUES('new')")
    plain.close()
    copied = import_file(source, "app", store=store, force=True)
    *_, last = changes(store)
    assert copied.moment is not None
    assert (copied.moment.version, last.message) == (last.version, "import of source.sqlite")
    assert len(last.pages) == 3, "page 1, a leaf of t, all of u"
    assert (len(last.allocated), last.freed) == (1, ())
    for each in (watching, connection):
        assert each.execute("SELECT text, (SELECT a FROM u) FROM t WHERE i = 7").fetchall() == [
            ("changed", "new")
        ]
        assert each.pragma("integrity_check") == "ok"
    past = mvvfs.connect("app", store=store, at=first)
    assert past.execute("SELECT count(*) FROM sqlite_schema").get == 1
    assert past.execute("SELECT text FROM t WHERE i = 7").get == "row number 7 of this table"
    for each in (past, watching):
        each.close()


def test_an_import_of_less_frees_the_rest(connection, tmp_path, store):
    small = fill(tmp_path / "small.sqlite", 7)
    export_file("app", str(tmp_path / "before.sqlite"), store=store)
    for source, rows in ((small, 7), (str(tmp_path / "before.sqlite"), ROWS)):
        import_file(source, "app", store=store, force=True)
        assert connection.execute("SELECT count(*) FROM t").get == rows
        assert connection.pragma("integrity_check") == "ok"
    _, shrunk, grown = changes(store)
    assert shrunk.freed == grown.allocated
    assert len(shrunk.freed) > 100
    connection.execute("INSERT INTO t VALUES(?, 'one more')", (ROWS + 1,))


def test_an_import_of_an_empty_file(connection, tmp_path, store):
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    import_file(str(empty), "app", store=store, force=True)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    connection.execute("CREATE TABLE again(a)")
    assert connection.pragma("integrity_check") == "ok"


def test_a_statement_prepared_before_an_import_meets_the_new_schema(connection, tmp_path, store):
    """Both schemas have the same cookie, as one statement made each of them."""
    connection.execute("SELECT text FROM t WHERE i = 3").fetchall()
    other = tmp_path / "other.sqlite"
    plain = apsw.Connection(str(other))
    plain.execute("CREATE TABLE t(x, text, i)")
    plain.execute("INSERT INTO t VALUES('x', 'y', 3)")
    plain.close()
    import_file(str(other), "app", store=store, force=True)
    assert connection.execute("SELECT text FROM t WHERE i = 3").get == "y"
    assert connection.execute("SELECT * FROM t").fetchall() == [("x", "y", 3)]


@pytest.mark.parametrize("at_once", [1000, 4_000_000])
def test_a_commit_during_an_import_over_a_database(
    connection, tmp_path, store, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    """Also one to a page that the import does not change."""
    monkeypatch.setattr(large, "_STAGED_AT_ONCE", at_once)
    source = fill(tmp_path / "other.sqlite", 1000)

    def write(done: int, total: int) -> None:
        if done == total:
            connection.execute("INSERT INTO t VALUES(-1, 'by somebody else')")

    with pytest.raises(ConflictError):
        import_file(source, "app", store=store, force=True, progress=write)
    assert connection.execute("SELECT count(*) FROM t").get == ROWS + 1
    import_file(source, "app", store=store, force=True)
    assert connection.execute("SELECT count(*) FROM t").get == 1000
    assert connection.pragma("integrity_check") == "ok"


# ---- memory ----

_GROWN = """
import sys
from bench.memory import peak
from mvvfs.transfer import import_file
from pagestore.opener import open_store

def revert(store, version):
    opened = open_store(store, create=False)
    opened.revert(opened.open("app").id, bytes.fromhex(version))
    opened.close()

what, store, argument = sys.argv[1:]
before = peak()
if what == "revert":
    revert(store, argument)
else:
    import_file(argument, "app", store=store, force=what == "force")
print(peak() - before)
"""


def blobs(path: Path, sql: str) -> str:
    """A file of 40 MB."""
    plain = sqlite3.connect(path)
    plain.execute("CREATE TABLE t(v BLOB)")
    plain.execute(
        f"INSERT INTO t SELECT {sql} FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n)"
    )
    plain.commit()
    plain.close()
    return str(path)


def grown(*arguments: str) -> int:
    """Bytes that a process takes in which this is done."""
    command = [sys.executable, "-c", _GROWN, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.long
def test_what_is_large_takes_little_memory(tmp_path: Path) -> None:
    """Of 40 MB no more than a part is ever in memory."""
    store = str(tmp_path / "store")
    assert grown("import", store, blobs(tmp_path / "big.sqlite", "randomblob(8000)")) < 24e6
    connection = mvvfs.connect("app", store=store, mode="rw")
    first = connection.pragma("mv_version").removeprefix("v")
    assert grown("force", store, blobs(tmp_path / "other.sqlite", "hex(zeroblob(4000))")) < 24e6
    assert connection.execute("SELECT count(DISTINCT v), sum(length(v)) FROM t").fetchall() == [
        (1, 40_000_000)
    ]
    assert grown("revert", store, first) < 24e6
    assert connection.execute("SELECT count(DISTINCT v), sum(length(v)) FROM t").fetchall() == [
        (5000, 40_000_000)
    ]
    connection.close()
