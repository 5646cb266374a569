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
from pagestore.api import NameTakenError
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


def test_an_import_takes_little_memory(tmp_path: Path) -> None:
    """Of 60 MB no more than a part is ever in memory."""
    source = tmp_path / "big.sqlite"
    plain = sqlite3.connect(source)
    plain.execute("CREATE TABLE t(v BLOB)")
    plain.execute(
        "INSERT INTO t SELECT randomblob(8000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n WHERE i < 7500) SELECT i FROM n)"
    )
    plain.commit()
    plain.close()
    script = (
        "import resource, sys; from mvvfs.transfer import import_file;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "import_file(sys.argv[1], 'app', store=sys.argv[2]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "store")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown * (1 if sys.platform == "darwin" else 1024) < 30e6
    connection = mvvfs.connect("app", store=str(tmp_path / "store"))
    assert connection.execute("SELECT sum(length(v)) FROM t").get == 60_000_000
    connection.close()
