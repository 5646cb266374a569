"""`cache_dir`: pages of a distant store on disk, for the next process."""

from __future__ import annotations

import gc
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs import transfer
from mvvfs.cli import app
from mvvfs.errors import OptionError
from mvvfs.near import file as near_file
from pagestore.opener import open_store
from tests import cluster
from tests.conftest import FOLDER_ONLY, Connect
from tests.distant import Distance
from tests.sql.twins import value

FILL = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT);
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
    INSERT INTO t SELECT x, hex(randomblob(60)) FROM n
"""
ALL = "SELECT group_concat(body) FROM t"


@pytest.fixture
def distance(monkeypatch: pytest.MonkeyPatch) -> Distance:
    return Distance(monkeypatch)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "cache")
    forget_files()


def forget_files() -> None:
    """As if this process had ended."""
    gc.collect()
    for file in near_file._files.values():
        file.close()
    near_file._files.clear()


Run = Callable[..., object]


@pytest.fixture
def run(shared: str, cache_dir: str, distance: Distance) -> Run:
    """A statement in a process of its own, as it were: what it answers."""

    def run(sql: str, *, near: bool = True, **options: object) -> object:
        connection = mvvfs.connect(
            "app", store=shared, **({"cache_dir": cache_dir} if near else {}), **options
        )
        distance.start()
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
            if near:
                forget_files()

    run(FILL, near=False, page_size=1024)
    return run


def page_file(cache_dir: str) -> Path:
    (path,) = Path(cache_dir).glob("pages-*.sqlite")
    return path


def test_what_was_read_is_not_fetched_again(run: Run, distance: Distance) -> None:
    everything = run(ALL)
    pages = len(distance.pages)
    assert pages > 100
    assert run(ALL) == everything
    assert distance.pages == []
    assert distance.calls["changelog"] <= 1
    assert run("SELECT count(*) FROM t") == [(2000,)]
    assert distance.pages == []


def test_only_what_changed_is_fetched(run: Run, distance: Distance) -> None:
    run(ALL)
    run("UPDATE t SET body = 'new' WHERE id = 1000", near=False)
    run("UPDATE t SET body = 'newer' WHERE id = 1500", near=False)
    everything = run(ALL)
    assert 1 <= len(distance.pages) <= 3
    assert everything == run(ALL, near=False)
    assert run(ALL) == everything
    assert run(ALL) == everything
    assert distance.pages == []


def test_own_commits_are_noticed(shared: str, cache_dir: str, run: Run, distance: Distance) -> None:
    run(ALL)
    connection = mvvfs.connect("app", store=shared, cache_dir=cache_dir, cache_bytes=0)
    other = mvvfs.connect("app", store=shared)
    for i in range(20):
        mvvfs.transaction(connection).run(
            lambda i=i: connection.execute("UPDATE t SET body = ? WHERE id = ?", (i, 100 * i))
        )
        mvvfs.transaction(other).run(
            lambda i=i: other.execute("UPDATE t SET body = -? WHERE id = ?", (i, 100 * i + 50))
        )
        assert value(connection, ALL) == value(other, ALL)
    connection.close()
    other.close()
    forget_files()
    assert run(ALL) == run(ALL, near=False)


def test_too_far_behind_to_catch_up(run: Run, monkeypatch: pytest.MonkeyPatch, distance: Distance) -> None:
    run(ALL)
    for i in range(5):
        run(f"UPDATE t SET body = 'new' WHERE id = {1 + 300 * i}", near=False)
    monkeypatch.setattr("mvvfs.near.cache._LEAST_CAUGHT_UP", 0)
    monkeypatch.setattr(near_file.PageFile, "numbers", lambda _self, _origin: set())
    assert run(ALL) == run(ALL, near=False)
    monkeypatch.undo()


def test_a_database_of_the_same_name(shared: str, cache_dir: str, run: Run) -> None:
    run(ALL)
    store = open_store(shared, create=False)
    store.drop("app")
    store.close()
    run(FILL, near=False, page_size=1024)
    assert run(ALL) == run(ALL, near=False)
    assert len(near_file.open_file(cache_dir, 1).databases()) == 1


@FOLDER_ONLY
def test_a_store_that_was_put_back(
    shared: str, cache_dir: str, run: Run, tmp_path: Path, distance: Distance
) -> None:
    """The versions after the backup are others than those that were seen before."""
    backup = str(tmp_path / "backup")
    transfer.backup_store(shared, backup)
    for i in range(3):
        run(f"UPDATE t SET body = 'lost' WHERE id = {1 + 400 * i}", near=False)
    assert "lost" in str(run(ALL))
    shutil.rmtree(shared)
    transfer.restore_store(backup, shared)
    for i in range(4):
        run(f"UPDATE t SET body = 'found' WHERE id = {1900 + i}", near=False)
        assert run(ALL) == run(ALL, near=False)
    assert "lost" not in str(run(ALL))
    assert distance.pages == []


def test_another_store_at_the_same_place(shared: str, run: Run) -> None:
    run(ALL)
    if shared.startswith("fdb:"):
        cluster.clear(shared)
    else:
        shutil.rmtree(shared)
    run(FILL, near=False, page_size=1024)
    assert run(ALL) == run(ALL, near=False)


def test_damaged_rows_are_fetched_again(
    cache_dir: str, run: Run, distance: Distance, caplog: pytest.LogCaptureFixture
) -> None:
    everything = run(ALL)
    db = apsw.Connection(str(page_file(cache_dir)))
    db.execute("UPDATE pages SET blobs = substr(blobs, 1, length(blobs) - 1) || x'00' WHERE key % 7 = 0")
    db.execute("UPDATE pages SET version = x'00000000000000000001' WHERE key % 7 = 1")
    (damaged,) = db.execute("SELECT count(*) FROM pages WHERE key % 7 < 2").fetchall()[0]
    db.close()
    with caplog.at_level(logging.WARNING):
        assert run(ALL) == everything
    assert "damaged" in caplog.text
    assert damaged / 2 <= len(distance.pages) <= 2 * damaged
    assert run(ALL) == everything
    assert distance.pages == []


def test_a_damaged_position(cache_dir: str, run: Run) -> None:
    run(ALL)
    run("UPDATE t SET body = 'new'", near=False)
    db = apsw.Connection(str(page_file(cache_dir)))
    db.execute("UPDATE databases SET version = x'ffff0000000000000000'")
    db.close()
    assert run(ALL) == run(ALL, near=False)


@pytest.mark.parametrize("columns", ["id", "version", "token", "digest", "name"])
def test_a_row_that_holds_nothing(cache_dir: str, run: Run, columns: str) -> None:
    """As damage can make it, whatever the schema says."""
    everything = run(ALL)
    db = apsw.Connection(str(page_file(cache_dir)))
    ((schema,),) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'databases'")
    loose = schema.replace(" NOT NULL", "").replace("INTEGER PRIMARY KEY", "INTEGER")
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'databases'", (loose,))
    db.execute("PRAGMA writable_schema = RESET")
    db.execute(f"UPDATE databases SET {columns} = NULL")
    db.close()
    assert run(ALL) == everything


@pytest.mark.parametrize("what", ["cut", "zeros", "noise", "bits", "empty", "gone", "pointer", "log"])
def test_a_damaged_file(cache_dir: str, run: Run, what: str, seed: int) -> None:
    chance = random.Random(seed)
    everything = run(ALL)
    path = page_file(cache_dir)
    content = bytearray(path.read_bytes())
    match what:
        case "cut":
            path.write_bytes(content[: len(content) // 3])
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "noise":
            path.write_bytes(chance.randbytes(len(content)))
        case "bits":
            for _ in range(200):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "pointer":
            (path.parent / "current-1").write_bytes(b"../../etc/passwd")
        case "log":
            Path(f"{path}-wal").write_bytes(chance.randbytes(100_000))
    assert run(ALL) == everything
    assert run(ALL) == everything


def test_it_stays_within_its_size(shared: str, cache_dir: str, run: Run, distance: Distance) -> None:
    run("INSERT INTO t SELECT id + 2000, hex(randomblob(1000)) FROM t", near=False)
    everything = run(ALL, near=False)
    needed = len(set(distance.pages))
    for _ in range(3):
        assert run(ALL, cache_dir_size=1 << 20) == everything
        assert page_file(cache_dir).stat().st_size <= 1.1 * (1 << 20)
    assert len(set(distance.pages)) < needed  # some were near


@FOLDER_ONLY
def test_what_is_not_flushed_does_not_enter(shared: str, cache_dir: str, run: Run) -> None:
    run(ALL)
    store = open_store(shared, create=False)
    before = store.begin(store.open("app").id).version
    store.close()
    connection = mvvfs.connect("app", store=shared, cache_dir=cache_dir, durability="normal")
    connection.execute("UPDATE t SET body = 'perhaps' WHERE id = 7")
    connection.close()
    (kept,) = near_file.open_file(cache_dir, 1).databases()
    assert kept.version <= before


def test_a_cache_that_fails_is_a_slower_one(
    shared: str, cache_dir: str, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    everything = run(ALL)

    def full(*_args: object, **_keywords: object) -> None:
        raise apsw.FullError("disk full")

    monkeypatch.setattr(near_file.PageFile, "find", full)
    with caplog.at_level(logging.WARNING):
        assert run(ALL) == everything
    assert "without the cache" in caplog.text


def test_a_folder_that_cannot_be(shared: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cache_dir"):
        mvvfs.connect("app", store=shared, cache_dir=str(tmp_path / "file"))
    assert run(ALL, near=False)


def test_nobody_else_may_look(cache_dir: str, run: Run) -> None:
    run(ALL)
    assert os.stat(cache_dir).st_mode & 0o077 == 0
    assert page_file(cache_dir).stat().st_mode & 0o077 == 0


def test_near_stores_keep_nothing(connect_folder: Connect, tmp_path: Path) -> None:
    connection = connect_folder(cache_dir=str(tmp_path / "cache"))
    connection.execute(FILL)
    assert not (tmp_path / "cache").exists()


def test_the_past_comes_from_it_as_well(shared: str, run: Run, distance: Distance) -> None:
    run(ALL)
    run("UPDATE t SET body = 'new' WHERE id < 50", near=False)
    run(ALL)
    old = run(ALL, at="HEAD~1")
    assert 1 <= len(distance.pages) <= 10
    assert old == run(ALL, near=False, at="HEAD~1")


def mvctl(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = app.run(arguments)
    forget_files()
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_filling(
    shared: str, cache_dir: str, run: Run, distance: Distance, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--cache-dir", cache_dir)
    assert mvctl(capsys, "cache", "info", *where) == (3, f"mvctl: there is no cache at {cache_dir}\n")
    fill = ("cache", "fill", "app", "--store", shared, *where)
    code, first = mvctl(capsys, *fill)
    assert code == 0
    assert mvctl(capsys, *fill)[1].endswith("0 of them came now\n")
    everything = run(ALL)
    assert distance.pages == []
    assert everything == run(ALL, near=False)
    code, info = mvctl(capsys, "cache", "info", *where)
    assert code == 0
    assert info.startswith("app ")
    assert mvctl(capsys, "cache", "clear", "other", *where)[0] == 3
    code, cleared = mvctl(capsys, "cache", "clear", "app", *where)
    assert cleared.split()[1] == first.split(": ")[1].split()[0]
    assert run(ALL) == everything
    assert distance.pages


def test_filling_what_has_no_room(
    shared: str, cache_dir: str, run: Run, distance: Distance, capsys: pytest.CaptureFixture[str]
) -> None:
    run("INSERT INTO t SELECT id + 2000, hex(randomblob(1000)) FROM t", near=False)
    distance.start()
    code, text = mvctl(
        capsys, "cache", "fill", "app", "--store", shared, "--cache-dir", cache_dir, "--size", "1MiB"
    )
    assert code == 0
    assert "the cache is full at 1.0 MiB" in text
    assert len(distance.pages) < 2000


def test_no_cache_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MV_CACHE_DIR", raising=False)
    code, text = mvctl(capsys, "cache", "clear")
    assert code == 2
    assert "MV_CACHE_DIR" in text
