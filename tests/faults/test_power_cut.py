"""A power cut, played: of the log only what was flushed is left, and perhaps, torn, some of the rest.

Each fdatasync of the log is caught, and the log as it is at that moment put aside.  A power cut at any
later moment leaves at least that.  What was acknowledged by then must be in it.  (Checkpoints are kept
out of this: what SQLite flushes when it copies the log to the main file is SQLite's own promise.)
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest

import mvvfs
from pagestore.engines import clock, sqlite_connection
from pagestore.opener import open_store
from tests.faults.test_crash import verify
from tests.faults.victim import COMMITS, state
from tests.pages import Pages

LOG = "store.sqlite-wal"


class Disk:
    """What a folder would hold after a power cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start: Path | None = None
        self.flushed = b""
        self.flushes = 0

    def flush(self, fd: int) -> None:
        os.fdatasync(fd)
        self.flushed = (self.folder / LOG).read_bytes()
        self.flushes += 1

    def cut_power(self, copy: Path, chance: random.Random) -> None:
        """Make the folder as it may look when the machine is up again."""
        written = (self.folder / LOG).read_bytes()
        rest = bytearray(written[len(self.flushed) :])
        for page in range(0, len(rest), 512):
            if chance.random() < 0.5:
                rest[page : page + 512] = bytes(len(rest[page : page + 512]))
        assert self.start is not None
        shutil.copytree(self.start, copy)
        (copy / "store.sqlite-shm").unlink(missing_ok=True)
        (copy / LOG).write_bytes(self.flushed + rest[: chance.randrange(len(rest) + 1)])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A store that nobody has open, with its log in the main file."""
    folder = tmp_path / "store"
    store = open_store(str(folder), create=True)
    Pages(store, store.create("main").id).commit(state(1), message="1", durability="full")
    store.close()
    disk = Disk(folder)
    disk.start = tmp_path / "start"
    shutil.copytree(folder, disk.start)
    monkeypatch.setattr(sqlite_connection, "sync_data", disk.flush)
    return disk


def test_what_was_acknowledged_survives(
    disk: Disk, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    store = open_store(str(disk.folder), create=False)
    pages = Pages(store, store.open("main").id)
    acknowledged = 1
    for n in range(2, 2 * COMMITS):
        full = chance.random() < 0.5
        done = pages.commit(state(n), message=str(n), durability="full" if full else "normal")
        acknowledged = n if full else acknowledged
        copy = tmp_path / f"cut{n}"
        disk.cut_power(copy, chance)
        with monkeypatch.context() as after:
            after.setattr(clock, "boot_id", lambda: b"the next boot id")
            again = open_store(str(copy), create=False)
            log = list(again.changelog(pages.id))
            assert acknowledged <= len(log) <= n
            for change in log[-3:]:
                assert change in list(store.changelog(pages.id))
                found = {page: Pages(again, pages.id).read(page, change.version) for page in state(1)}
                assert found == state(int(change.message))
            new = Pages(again, pages.id).commit(state(len(log) + 1), message=str(len(log) + 1)).version
            assert new > done.version  # a lost commit's version is not given to another
            assert new[:4] > done.version[:4]
            verify(again, len(log) + 1)
            again.close()
    store.close()
    assert disk.flushes


def test_sync_and_outcome_make_durable_what_they_tell(disk: Disk, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = open_store(str(disk.folder), create=False)
    pages = Pages(store, store.open("main").id)
    pages.commit(state(2), message="2", durability="normal")
    store.sync()
    disk.cut_power(tmp_path / "synced", chance)
    pages.commit(state(3), message="3", durability="normal", token=b"t" * 16)
    assert store.outcome(pages.id, b"t" * 16) is not None
    disk.cut_power(tmp_path / "asked", chance)
    store.close()
    for name, commits in (("synced", 2), ("asked", 3)):
        again = open_store(str(tmp_path / name), create=False)
        assert verify(again, commits) == commits
        again.close()


def test_a_commit_that_changes_nothing_makes_durable_what_it_found(
    disk: Disk, tmp_path: Path, seed: int
) -> None:
    """Else it would have told that the table is empty, and after the cut it is not."""
    with (
        contextlib.closing(mvvfs.connect("app", store=str(disk.folder), durability="normal")) as other,
        contextlib.closing(mvvfs.connect("app", store=str(disk.folder), durability="full")) as connection,
    ):
        connection.execute("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
        other.execute("DELETE FROM t")
        flushes, before = disk.flushes, connection.pragma("mv_version")
        connection.execute("DELETE FROM t")
        assert connection.pragma("mv_version") > before  # it saw the other's
        assert connection.pragma("mv_version") == other.pragma("mv_version")
        assert disk.flushes == flushes + 1
        connection.execute("DELETE FROM t")
        assert disk.flushes == flushes + 1
        disk.cut_power(tmp_path / "cut", random.Random(seed))
    with contextlib.closing(mvvfs.connect("app", store=str(tmp_path / "cut"), mode="ro")) as again:
        assert again.execute("SELECT count(*) FROM t").get == 0
