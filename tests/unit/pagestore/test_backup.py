"""Embedded stores to one file and back, and what comes back to those who knew the store."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from pagestore.api import (
    CorruptPageError,
    FormatError,
    NoSuchStoreError,
    StoreUnavailableError,
)
from pagestore.embedded import backup, is_store, restore
from pagestore.opener import open_store
from tests.pages import Pages, content
from tests.unit.pagestore.folders import empty, foreign, make, text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


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
    for damage in (text, foreign, empty):
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


def _move_a_version(db: apsw.Connection) -> None:
    """The newest version of a page becomes one of days to come, which nobody would see."""
    (key,) = db.execute("SELECT max(k) FROM kv WHERE k > x'70' AND k < x'71'").fetchone()
    assert key[5:10] == b"\x33" + bytes(3) + b"\x01", "its version does not begin there"
    db.execute("UPDATE kv SET k = ? WHERE k = ?", (key[:6] + b"\x20" + key[7:], key))


def _damage_log(db: apsw.Connection) -> None:
    db.execute("UPDATE kv SET v = x'03' WHERE k = (SELECT min(k) FROM kv WHERE k > x'6c')")


@pytest.mark.parametrize("damage", [_damage_blob, _lose_a_version, _move_a_version, _damage_log])
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
