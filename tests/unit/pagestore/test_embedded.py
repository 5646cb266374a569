"""Embedded stores as folders: what becomes one, what is refused, backup and restore, and the opener."""

from __future__ import annotations

import os
import shutil
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
    CorruptPageError,
    FormatError,
    NoSuchNamespaceError,
    NoSuchStoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from pagestore.embedded import backup, is_store, restore
from pagestore.faults import InjectedFault, armed, fail
from pagestore.opener import open_store
from tests.pages import Pages, content

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


def make(folder: Path, commits: int = 1) -> Pages:
    """A store that stays open, with a database of some history."""
    store = open_store(str(folder), create=True)
    pages = Pages(store, store.create("main").id)
    for n in range(commits):
        pages.commit({1: content(n), 2 + n % 5: content(n)})
    return pages


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


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _text(file: Path) -> None:
    file.write_text("This is not a database, but longer than the header of one. " * 10)


def _foreign(file: Path) -> None:
    file.unlink()
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE kv (k BLOB PRIMARY KEY, v) WITHOUT ROWID")
    db.close()


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
    "damage", [_truncate, _halve_header, _empty, _text, _foreign, _no_table, _newer, _feature]
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


# ---- backup and restore ----


def test_there_and_back(folder: Path, tmp_path: Path) -> None:
    pages = make(folder, commits=40)
    other = pages.store.create("other", page_size=4096)
    Pages(pages.store, other.id, 4096).commit({n: content(n, 1, 4096) for n in range(1, 300)})
    pages.store.drop("other", now=True)
    pages.store.create("empty")
    told: list[tuple[int, int]] = []
    file = tmp_path / "backup"
    backup(str(folder), str(file), lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert sorted(os.listdir(tmp_path)) == ["app.db", "backup"]
    pages.commit({1: content("after the backup")})

    restore(str(file), str(tmp_path / "again"), lambda done, total: told.append((done, total)))
    assert os.listdir(tmp_path / "again") == ["store.sqlite"]
    restored = open_store(str(tmp_path / "again"), create=False)
    assert [n.name for n in restored.list()] == ["empty", "main"]
    log = list(restored.changelog(pages.id))
    assert log == list(pages.store.changelog(pages.id))[:-1]
    for change in log:
        for number in range(8):
            assert Pages(restored, pages.id).read(number, change.version) == pages.read(
                number, change.version
            )
    new = Pages(restored, pages.id).commit({1: content("elsewhere")}).version
    assert new[:4] > log[-1].version[:4]  # not to be confused with what the original went on with
    restored.close()
    pages.store.close()


def test_backup_while_others_write(folder: Path, tmp_path: Path) -> None:
    pages = make(folder)
    stop = threading.Event()
    done = []

    def write() -> None:
        while not stop.is_set():
            n = len(done)
            done.append(pages.commit({1: content(n), 2: content(n)}).version)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for n in range(3):
            before = pages.version()
            backup(str(folder), str(tmp_path / f"{n}"))
            restore(str(tmp_path / f"{n}"), str(tmp_path / f"r{n}"))
            restored = open_store(str(tmp_path / f"r{n}"), create=False)
            there = Pages(restored, pages.id)
            assert before <= there.version() <= pages.version()
            assert there.read(2) == pages.read(2, there.version())
            restored.close()
    finally:
        stop.set()
        thread.join()
    pages.store.close()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    make(folder).store.close()
    file = tmp_path / "backup"
    file.write_text("precious")
    with pytest.raises(FileExistsError):
        backup(str(folder), str(file))
    assert file.read_text() == "precious"
    file.unlink()
    backup(str(folder), str(file))
    for taken in (folder, tmp_path / "other"):
        taken.mkdir(exist_ok=True)
        (taken / "precious").touch()
    before = sorted(os.listdir(folder))
    with pytest.raises(FileExistsError):
        restore(str(file), str(folder))
    with pytest.raises(FormatError):
        restore(str(file), str(tmp_path / "other"))
    with pytest.raises(FormatError):
        restore(str(file), str(file))
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(tmp_path / "other") == ["precious"]


def test_what_is_no_backup_is_not_restored(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(NoSuchStoreError):
        backup(str(folder), str(file))
    for damage in (_text, _foreign, _empty):
        file.touch()
        damage(file)
        with pytest.raises(FormatError):
            restore(str(file), str(folder))
    assert not is_store(str(folder))


def _damage_blob(db: apsw.Connection) -> None:
    key, value = db.execute(
        "SELECT k, v FROM kv WHERE k > x'70' AND k < x'71' AND typeof(v) = 'blob' LIMIT 1"
    ).get
    db.execute("UPDATE kv SET v = ? WHERE k = ?", (value[:-1] + bytes([value[-1] ^ 1]), key))


def _lose_a_version(db: apsw.Connection) -> None:
    db.execute("DELETE FROM kv WHERE k = (SELECT min(k) FROM kv WHERE k > x'70' AND k < x'71')")


def _damage_log(db: apsw.Connection) -> None:
    db.execute("UPDATE kv SET v = x'03' WHERE k = (SELECT min(k) FROM kv WHERE k > x'6c')")


@pytest.mark.parametrize("damage", [_damage_blob, _lose_a_version, _damage_log])
def test_a_damaged_page_spoils_backup_and_restore(
    folder: Path, tmp_path: Path, damage: Callable[[apsw.Connection], None]
) -> None:
    make(folder, commits=5).store.close()
    good, bad = tmp_path / "good", tmp_path / "bad"
    backup(str(folder), str(good))
    shutil.copy(good, bad)
    for file in (bad, folder / "store.sqlite"):
        db = apsw.Connection(str(file))
        damage(db)
        db.close()
    with pytest.raises(CorruptPageError):
        restore(str(bad), str(tmp_path / "new"))
    assert not is_store(str(tmp_path / "new"))
    with pytest.raises(CorruptPageError):
        backup(str(folder), str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_a_restored_store_is_another_incarnation(folder: Path, tmp_path: Path) -> None:
    store = open_store(str(folder), create=True)
    assert store.incarnation() == 0
    backup(str(folder), str(tmp_path / "backup"))
    found = []
    for name in ("one", "two"):
        restore(str(tmp_path / "backup"), str(tmp_path / name))
        restored = open_store(str(tmp_path / name), create=False)
        assert restored.store_id() == store.store_id()
        found.append(restored.incarnation())
        restored.close()
    assert len({0, *found}) == 3
    assert all(0 < each < 1 << 31 for each in found)
    store.close()


def test_a_copied_store_is_renewed_once(folder: Path, tmp_path: Path) -> None:
    store = open_store(str(folder), create=True)
    store.create("app")
    assert not store.renew(only_if_copied=True)
    store.close()
    shutil.copytree(folder, tmp_path / "copy")
    copy = open_store(str(tmp_path / "copy"), create=False)
    assert copy.renew(only_if_copied=True)
    assert not copy.renew(only_if_copied=True)
    assert copy.incarnation() != 0
    copy.close()


def test_a_store_is_put_back_under_who_uses_it(folder: Path, tmp_path: Path) -> None:
    """What it would commit now, nobody could ever read; who opens it anew has the store that is there."""
    store = open_store(str(folder), create=True)
    before = Pages(store, store.create("app").id)
    before.commit({1: content(1)})
    backup(str(folder), str(tmp_path / "backup"))
    before.commit({1: content(2)})
    shutil.rmtree(folder)
    restore(str(tmp_path / "backup"), str(folder))
    with pytest.raises(StoreUnavailableError, match="another file put there"):
        before.commit({1: content(3)})
    anew = open_store(str(folder), create=False)
    assert anew is not store
    after = Pages(anew, anew.open("app").id)
    assert after.read(1, after.version()) == content(1)
    anew.close()
    store.close()
