"""Embedded stores as folders: what becomes one, what is refused, and the opener."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from pagestore import embedded
from pagestore.api import (
    FormatError,
    NoSuchNamespaceError,
    NoSuchStoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from pagestore.embedded import is_store
from pagestore.faults import InjectedFault, armed, fail
from pagestore.opener import open_store
from tests.pages import Pages, content
from tests.unit.pagestore.folders import empty, foreign, make, text

ODD_FOLDERS = [
    "plain",
    "with space",
    "100%",
    "ünï\u0301 データ 🐘",
    "quote'\"",
    "new\nline",
    "a?b#c&d=e",
    "x" * 200,
    "-",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


# ---- what is a store ----


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    url = str(tmp_path / name)
    assert not is_store(url)
    pages = make(Path(url))
    assert is_store(url)
    assert sorted(os.listdir(url)) == [
        "heads",
        "recent",
        "store.sqlite",
        "store.sqlite-shm",
        "store.sqlite-wal",
    ]
    pages.store.close()
    again = open_store(url, create=False)
    assert Pages(again, again.open("main").id).read(1) == content(0)
    again.close()


def test_an_empty_folder_becomes_a_store(folder: Path) -> None:
    folder.mkdir()
    assert not is_store(str(folder))
    make(folder).store.close()
    assert is_store(str(folder))


def test_no_store_there(folder: Path) -> None:
    with pytest.raises(NoSuchStoreError, match="no store at"):
        open_store(str(folder), create=False)
    with pytest.raises(NoSuchNamespaceError):
        open_store(str(folder), create=True, read_only=True)
    assert not folder.exists()
    with pytest.raises(StoreUnavailableError):
        open_store(str(folder / "parent" / "is" / "missing"), create=True)


def test_a_folder_with_other_things_is_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "letters").mkdir()
    for create in (True, False):
        with pytest.raises(FormatError, match=r"not a store, and not empty \(it holds 'letters'\)"):
            open_store(str(folder), create=create)
    assert os.listdir(folder) == ["letters"]


def test_a_log_without_its_file_is_refused(folder: Path) -> None:
    """SQLite would play it into whatever file of that name came next."""
    make(folder, commits=5)
    (folder / "store.sqlite").unlink()
    with pytest.raises(FormatError, match="not a store, and not empty"):
        embedded.open_folder(str(folder), create=True, read_only=False, timeout=1)


@pytest.mark.parametrize("kind", ["sqlite", "text", "link"])
def test_a_file_is_refused_and_left_alone(folder: Path, kind: str) -> None:
    target = folder.with_suffix(".target") if kind == "link" else folder
    if kind == "text":
        target.write_text("hello")
    else:
        with sqlite3.connect(target) as db:
            db.execute("CREATE TABLE t (x)")
        db.close()
    if kind == "link":
        folder.symlink_to(target)
    before = target.read_bytes()
    for create in (True, False):
        with pytest.raises(FormatError, match="mvctl import FILE NAME"):
            open_store(str(folder), create=create)
    assert target.read_bytes() == before


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _halve_header(file: Path) -> None:
    os.truncate(file, 50)


def _no_table(file: Path) -> None:
    db = apsw.Connection(str(file))
    db.execute("DROP TABLE kv")
    db.close()


def _newer(file: Path) -> None:
    db = apsw.Connection(str(file))
    db.execute("UPDATE kv SET v = ? WHERE k = ?", (b'{"format": 2, "features": []}', b"f"))
    db.close()


def _feature(file: Path) -> None:
    db = apsw.Connection(str(file))
    db.execute("UPDATE kv SET v = ? WHERE k = ?", (b'{"format": 1, "features": ["x-ray"]}', b"f"))
    db.close()


@pytest.mark.parametrize(
    "damage", [_truncate, _halve_header, empty, text, foreign, _no_table, _newer, _feature]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_engine_files_that_are_none(folder: Path, damage: Callable[[Path], None], read_only: bool) -> None:
    make(folder, commits=200).store.close()
    for companion in ("-wal", "-shm"):
        (folder / f"store.sqlite{companion}").unlink()
    damage(folder / "store.sqlite")
    with pytest.raises(FormatError, match=r"app\.db is not a store that this release can read: ") as caught:
        open_store(str(folder), create=True, read_only=read_only)
    if damage is _newer:
        assert "format 2; this release reads format 1" in str(caught.value)
    if damage is _feature:
        assert "x-ray" in str(caught.value)


def test_file_modes_follow_the_umask(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        make(folder).store.close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(folder)} == {0o640}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


# ---- creating at once ----


def test_threads_create_at_once(folder: Path) -> None:
    barrier = threading.Barrier(8)
    made: list[bool] = []

    def create() -> None:
        barrier.wait()
        store = embedded.open_folder(str(folder), create=True, read_only=False, timeout=10)
        made.append(is_store(str(folder)))
        store.close()

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 8
    assert not [name for name in os.listdir(folder) if ".new" in name]


_CREATE = """
import sys
from pagestore.api import NameTakenError
from pagestore.opener import open_store
sys.stdin.readline()
store = open_store(sys.argv[1], create=True)
try:
    store.create("main")
except NameTakenError:
    pass
print(store.open("main").id)
"""


def test_processes_create_at_once(folder: Path) -> None:
    command = [sys.executable, "-c", _CREATE, str(folder)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=30)[0] for process in running] == ["1\n"] * 4


def test_what_a_dead_creator_left_is_no_obstacle(folder: Path) -> None:
    for point in ("create.folder_made", "create.engine_built"):
        with armed(point, fail), pytest.raises(InjectedFault):
            open_store(str(folder), create=True)
        assert not folder.exists()  # who fails takes away what it made; who dies does not
    folder.mkdir()
    old, young = folder / "store.sqlite.aaaa.new", folder / "store.sqlite.bbbb.new-journal"
    for left in (old, young):
        left.write_text("half")
    os.utime(old, (0, 0))
    make(folder).store.close()
    assert not old.exists()
    assert young.exists()


# ---- read-only ----


def test_read_only(folder: Path) -> None:
    pages = make(folder)
    reader = open_store(str(folder), create=False, read_only=True)
    assert Pages(reader, pages.id).read(1) == content(0)
    with pytest.raises(StoreReadOnlyError):
        reader.create("other")
    with pytest.raises(StoreReadOnlyError):
        Pages(reader, pages.id).commit({1: content(2)})
    pages.commit({1: content(3)})
    assert Pages(reader, pages.id).read(1) == content(3)
    reader.close()
    pages.store.close()


_READ_AS_NOBODY = """
import os, sys
from pagestore.api import StoreReadOnlyError
from pagestore.opener import open_store
os.setgid(65534); os.setuid(65534)
folder = sys.argv[1]
for create in (True, False):
    try:
        open_store(folder, create=create)
    except StoreReadOnlyError as exc:
        print("refused:", "may not write" in str(exc))
try:
    open_store(os.path.join(folder, "new"), create=True)
except StoreReadOnlyError as exc:
    print("no new one:", "denied" in str(exc))
print([namespace.name for namespace in open_store(folder, create=False, read_only=True).list()])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_where_one_may_not_write(folder: Path) -> None:
    make(folder).store.close()
    for parent in folder.parents[:4]:
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _READ_AS_NOBODY, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["refused: True"] * 2 + ["no new one: True", "['main']"], done.stderr


# ---- one store object per folder ----


def test_opening_twice_gives_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_store(str(folder), create=True, timeout=1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    others = [open_store(url, create=False, timeout=9) for url in ("app.db", "./link", f"file://{folder}")]
    assert all(other is first for other in others)
    assert first.url == str(folder)
    for store in (first, *others[:-1]):
        store.close()
    assert others[-1].list() == []
    others[-1].close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        first.list()
    again = open_store(str(folder), create=False)
    assert again is not first
    again.close()


def test_a_store_that_gave_up_is_opened_anew(folder: Path) -> None:
    pages = make(folder)

    def broken() -> None:
        raise OSError(5, "Input/output error")

    from pagestore.api import OutcomeUnknownError

    with armed("commit.before_sync", broken), pytest.raises(OutcomeUnknownError) as caught:
        pages.commit({1: content(9)}, durability="full", token=b"t" * 16)
    assert caught.value.token == b"t" * 16
    with pytest.raises(StoreUnavailableError):
        pages.read(1)
    again = open_store(str(folder), create=False)
    assert again is not pages.store
    version = again.outcome(pages.id, b"t" * 16)
    assert version == Pages(again, pages.id).version()
    again.close()
    pages.store.close()


def test_other_urls() -> None:
    for url in ("grpc://host:1", "grpcs://host:1"):
        with pytest.raises(FormatError, match="this release"):
            open_store(url, create=True)
    with pytest.raises(NoSuchStoreError):
        open_store("memory:test_other_urls", create=False)
    store = open_store("memory:test_other_urls", create=True)
    store.create("x")
    store.close()
    assert [n.name for n in open_store("memory:test_other_urls", create=False).list()] == ["x"]


# ---- drop ----


def test_an_interrupted_drop_is_finished_by_the_next_opener(folder: Path) -> None:
    pages = make(folder, commits=30)
    with armed("drop.name_removed", fail), pytest.raises(InjectedFault):
        pages.store.drop("main", now=True)
    assert pages.store.list() == []
    pages.store.close()
    open_store(str(folder), create=False).close()
    db = apsw.Connection(str(folder / "store.sqlite"))
    left = sorted(key for (key,) in db.execute("SELECT k FROM kv"))
    assert [key[:1] for key in left] == [b"c", b"f", b"\xff"]
    assert db.execute("SELECT count(*) FROM large").get == 0
    db.close()
