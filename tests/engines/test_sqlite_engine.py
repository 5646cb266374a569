"""The sqlite engine's own rules: the flush, epochs, the log's bound, locks, forks, full disks, odd files."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from pagestore import embedded
from pagestore.api import (
    HeadWord,
    NamespaceId,
    OutcomeUnknownError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines import clock, heads, sqlite, sqlite_connection
from pagestore.engines.base import Transaction
from pagestore.engines.sqlite import SqliteEngine
from pagestore.faults import armed

FIRST_EPOCH, SECOND_EPOCH = b"\0\0\0\1", b"\0\0\0\2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The engine's file in a new store."""
    folder = tmp_path / "store"
    embedded.open_folder(str(folder), create=True, read_only=False, timeout=5).close()
    return folder / embedded.ENGINE_FILE


@pytest.fixture
def open_engine(path: Path) -> Iterator[Callable[..., SqliteEngine]]:
    opened = []

    def open_one(path: Path = path, **options: Any) -> SqliteEngine:
        opened.append(SqliteEngine(str(path), **options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def put(engine: SqliteEngine, value: bytes = b"1", **options: Any) -> Version:
    def work(tx: Transaction) -> None:
        tx.set(b"k", value)
        tx.announce(NamespaceId(1))

    version = engine.transact(work, **options).version
    assert version is not None
    return version


def get(engine: SqliteEngine) -> bytes | None:
    return engine.read(lambda tx: tx.get(b"k"))


# ---- the flush ----


def test_flush_comes_after_commit_outside_the_lock_and_before_the_answer(
    open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = open_engine(), open_engine()
    seen = []

    def flush(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        seen.append((Path(name).name, get(other)))
        put(other, b"meanwhile", durability="normal", timeout=0)  # nobody holds the lock

    monkeypatch.setattr(sqlite_connection, "sync_data", flush)
    put(engine, b"1")
    assert seen == [("store.sqlite-wal", b"1")]
    put(engine, b"2", durability="normal")
    assert len(seen) == 1
    engine.sync()
    assert len(seen) == 2


def test_a_failed_flush_closes_the_engine(
    open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = open_engine(), open_engine()
    flushes = []

    def flush(fd: int) -> None:
        flushes.append(fd)
        raise OSError(5, "Input/output error")

    put(engine, b"0")
    monkeypatch.setattr(sqlite_connection, "sync_data", flush)
    with pytest.raises(OutcomeUnknownError, match="Input/output error"):
        put(engine)
    assert not engine.usable()
    calls: list[Callable[[], object]] = [lambda: put(engine), lambda: get(engine), engine.sync]
    for call in calls:
        with pytest.raises(StoreUnavailableError, match="can't be used any more: flush failed"):
            call()
    assert len(flushes) == 1
    with pytest.raises(StoreUnavailableError, match="flush failed"):
        other.sync()
    assert not other.usable()


def test_a_replaced_log_is_noticed(path: Path, open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    put(engine)
    log = Path(f"{path}-wal")
    content = log.read_bytes()
    log.unlink()
    log.write_bytes(content)
    with pytest.raises(OutcomeUnknownError, match="replaced"):
        put(engine)
    assert not engine.usable()


def test_every_connection_flushes_before_checkpoints(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    with engine.standing_still() as first, engine.standing_still() as second:
        for db in (first, second):
            assert db.pragma("synchronous") == 1
            assert db.pragma("journal_mode") == "wal"
            assert db.wal_autocheckpoint(0) is None


def test_the_log_outlives_its_connections(path: Path, open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    put(engine)
    inode = os.stat(f"{path}-wal").st_ino
    engine.close()
    again = open_engine()
    assert get(again) == b"1"
    assert os.stat(f"{path}-wal").st_ino == inode


# ---- versions ----


def test_a_boot_raises_the_epoch(
    open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    versions = [put(engine), put(engine)]
    assert [version[:4] for version in versions] == [FIRST_EPOCH] * 2
    engine.close()
    monkeypatch.setattr(clock, "boot_id", lambda: b"another boot id!")
    again = open_engine()
    assert again.read(lambda tx: tx.read_version()) == versions[-1]
    assert put(again) == SECOND_EPOCH + bytes(5) + b"\1"
    assert put(again) == SECOND_EPOCH + bytes(5) + b"\2"


def test_a_copy_raises_the_epoch(
    path: Path, tmp_path: Path, open_engine: Callable[..., SqliteEngine]
) -> None:
    engine = open_engine()
    put(engine)
    engine.close()
    shutil.copytree(path.parent, tmp_path / "copy")
    copy = open_engine(tmp_path / "copy" / path.name)
    assert put(copy)[:4] == SECOND_EPOCH
    assert put(open_engine())[:4] == FIRST_EPOCH


def test_moving_the_folder_changes_nothing(
    path: Path, tmp_path: Path, open_engine: Callable[..., SqliteEngine]
) -> None:
    engine = open_engine()
    put(engine)
    engine.close()
    os.rename(path.parent, tmp_path / "moved")
    assert put(open_engine(tmp_path / "moved" / path.name))[:4] == FIRST_EPOCH


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_nobody_can_open_any_more_takes_no_commits(
    path: Path, tmp_path: Path, open_engine: Callable[..., SqliteEngine], replaced: bool
) -> None:
    """A store that is removed, or put back from a backup, under who uses it."""
    engine, reader = open_engine(), open_engine(read_only=True)
    put(engine)
    shutil.copytree(path.parent, tmp_path / "copy")
    shutil.rmtree(path.parent)
    if replaced:
        shutil.move(tmp_path / "copy", path.parent)
    for one in (engine, reader):
        with pytest.raises(StoreUnavailableError, match="removed, or another file put there"):
            one.read(lambda tx: tx.read_version())
        assert not one.usable()
    with pytest.raises(StoreUnavailableError, match="removed, or another file put there"):
        put(engine)
    if replaced:
        assert put(open_engine())[:4] == SECOND_EPOCH


def test_a_copy_is_known_until_its_first_commit(
    path: Path, tmp_path: Path, open_engine: Callable[..., SqliteEngine]
) -> None:
    def is_copied(engine: SqliteEngine) -> bool:
        return engine.read(engine.is_copied)

    engine = open_engine()
    assert not is_copied(engine)  # nothing was committed yet
    put(engine)
    assert not is_copied(engine)
    engine.close()
    shutil.copytree(path.parent, tmp_path / "copy")
    copy = open_engine(tmp_path / "copy" / path.name)
    assert is_copied(copy)
    put(copy)
    assert not is_copied(copy)


# ---- head words ----


def word(engine: SqliteEngine, namespace: int = 1) -> HeadWord:
    found = engine.head_word(NamespaceId(namespace))
    assert found is not None
    return found


def test_head_words_are_odd_around_the_commit(open_engine: Callable[..., SqliteEngine]) -> None:
    engine, other = open_engine(), open_engine()
    address = word(other).address
    before = heads.load(address)
    seen = []

    def look() -> None:
        seen.append((heads.load(address), get(other)))

    with armed("commit.before_commit", look), armed("commit.after_commit", look):
        put(engine)
    assert seen == [(before + 1, None), (before + 1, b"1")]
    assert heads.load(address) == before + 2


def test_a_dead_committers_word_is_mended_by_the_next(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    address = word(engine).address
    assert heads.load(address) == 2
    assert heads.begin(address) == 3  # and then it dies
    put(engine)
    assert heads.load(address) == 6
    heads.end(address, 3)  # or it was only slow
    assert heads.load(address) == 6


def test_words_of_overlapping_committers(open_engine: Callable[..., SqliteEngine]) -> None:
    address = word(open_engine()).address
    first, second = heads.begin(address), heads.begin(address)
    heads.end(address, first)
    assert heads.load(address) == second
    heads.end(address, second)
    assert heads.load(address) == second + 1


def test_many_words(path: Path, open_engine: Callable[..., SqliteEngine]) -> None:
    engine, other = open_engine(), open_engine()
    for namespace in (1, 2, 8191, 8192, 100_000):
        before = heads.load(word(other, namespace).address)
        odd = heads.begin(word(engine, namespace).address)
        assert heads.load(word(other, namespace).address) == odd == before + 1
    assert os.stat(path.parent / "heads").st_size % 65536 == 0


# ---- the log's bound ----


def test_the_log_is_bounded(
    path: Path, open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_LOG_FRAMES", 50)
    engine = open_engine()
    for n in range(200):
        put(engine, bytes([n]) * 4000, durability="normal")
    assert os.stat(f"{path}-wal").st_size < 80 * 4120
    assert get(engine) == bytes([199]) * 4000


def test_a_reader_delays_the_bound_and_nobody_else(
    path: Path, open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_LOG_FRAMES", 20)
    engine, other = open_engine(), open_engine()
    put(engine, b"old")
    with other.standing_still() as db:
        started = time.monotonic()
        for n in range(50):
            put(engine, bytes([n]) * 4000, durability="normal")
        assert time.monotonic() - started < 2
        assert db.execute("SELECT v FROM kv WHERE k = ?", (b"k",)).get == b"old"
    for _ in range(20):
        put(engine, bytes(4000), durability="normal")
    before = os.stat(f"{path}-wal").st_size
    for _ in range(200):
        put(engine, bytes(4000), durability="normal")
    assert os.stat(f"{path}-wal").st_size == before


def test_what_ails_a_checkpoint_does_not_touch_the_commit(
    open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_LOG_FRAMES", 1)

    def full() -> None:
        raise apsw.FullError("database or disk is full")

    def broken() -> None:
        raise apsw.IOError("disk I/O error")

    engine = open_engine()
    with armed("checkpoint.before", full):
        put(engine, b"1")
    put(engine, b"2")
    with armed("checkpoint.copied", broken):
        assert put(engine, bytes(9000))
    assert not engine.usable()
    assert get(open_engine()) == bytes(9000)


# ---- locks, forks, full disks, permissions ----


@pytest.mark.parametrize("lost", [False, True])
def test_who_waits_for_the_lock_is_told_when_it_is_free(
    open_engine: Callable[..., SqliteEngine], monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """With naps that would last much longer than that.  `lost`: the holder fails instead of committing."""
    monkeypatch.setattr(sqlite_connection, "_LONGEST_NAP", 8.0)
    engine, other = open_engine(), open_engine()
    let_go, waited = 0.0, threading.Event()
    waiter = threading.Thread(target=lambda: (put(other, timeout=60), waited.set()))

    def hold() -> None:
        nonlocal let_go
        waiter.start()
        time.sleep(0.3)
        let_go = time.monotonic()
        if lost:
            raise KeyError

    with armed("commit.before_commit", hold), suppress(KeyError):
        put(engine)
    assert waited.wait(30)
    assert time.monotonic() - let_go < 2
    waiter.join()


def test_a_lock_that_stays_is_unavailable(open_engine: Callable[..., SqliteEngine]) -> None:
    engine, other = open_engine(), open_engine()

    def work(tx: Transaction) -> None:
        tx.set(b"k", b"2")
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="locked"):
            put(other, timeout=0.05)
        assert 0.04 < time.monotonic() - started < 1

    engine.transact(work)
    put(other, timeout=0.05)


def test_a_lock_that_falls_is_waited_for(open_engine: Callable[..., SqliteEngine]) -> None:
    engine, other = open_engine(), open_engine()
    inside, done = threading.Event(), []

    def work(tx: Transaction) -> None:
        tx.set(b"k", b"first")
        inside.set()
        time.sleep(0.05)

    def second() -> None:
        inside.wait()
        done.append(put(other, b"second"))

    thread = threading.Thread(target=second)
    thread.start()
    first = engine.transact(work).version
    thread.join()
    assert first is not None
    assert first < done[0]
    assert get(engine) == b"second"


def _in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 (told by the exit code)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork(path: Path, open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    put(engine)

    def child() -> None:
        calls: list[Callable[[], object]] = [lambda: get(engine), lambda: put(engine), engine.sync]
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="before fork"):
                call()
        engine.close()
        own = SqliteEngine(str(path))
        put(own, b"child")
        own.close()

    assert _in_child(child) == 0
    assert get(engine) == b"child"
    put(engine, b"parent")


def test_a_full_file_system(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    put(engine, b"before")
    with engine.standing_still() as db:
        db.execute("PRAGMA max_page_count = 10")  # the connection that is used next

    def large(tx: Transaction) -> None:
        tx.set(b"k", b"lost")
        tx.set_versioned_key(b"v", b"", bytes(100_000))

    with pytest.raises(StoreFullError, match="no space"):
        engine.transact(large)
    assert engine.usable()
    assert get(engine) == b"before"
    put(engine, b"small")


def test_limits_on_file_sizes_are_a_full_disk(path: Path) -> None:
    def child() -> None:
        import resource

        engine = SqliteEngine(str(path))
        put(engine, b"before")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        with pytest.raises(StoreFullError):  # noqa: PT012 (at one of them)
            for _ in range(100):
                put(engine, os.urandom(4000))
        assert len(get(engine) or b"") == 4000

    assert _in_child(child) == 0
    engine = SqliteEngine(str(path))
    assert len(get(engine) or b"") == 4000
    put(engine, b"after")
    engine.close()


def test_read_only(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    put(engine)
    reader = open_engine(read_only=True)
    assert get(reader) == b"1"
    with pytest.raises(StoreReadOnlyError):
        put(reader)
    put(engine, b"2")
    assert get(reader) == b"2"
    reader.sync()
    assert heads.load(word(reader).address) == heads.load(word(engine).address)
    assert reader.head_word(NamespaceId(10**6)) is None


def test_clearing_gives_back_what_lay_apart(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()
    for _ in range(10):
        engine.transact(lambda tx: tx.set_versioned_key(b"v", b"", bytes(3000)))
    with engine.standing_still() as db:
        assert db.execute("SELECT count(*) FROM large").get == 10
    engine.transact(lambda tx: tx.clear_range(b"v", b"w"))
    with engine.standing_still() as db:
        assert db.execute("SELECT count(*) FROM large").get == 0


def test_an_interrupt_leaves_the_connection_usable(open_engine: Callable[..., SqliteEngine]) -> None:
    engine = open_engine()

    def interrupt() -> None:
        raise KeyboardInterrupt

    for point, kept in (("commit.before_commit", None), ("commit.before_sync", b"1")):
        with armed(point, interrupt), pytest.raises(KeyboardInterrupt):
            put(engine)
        assert get(engine) == kept
        assert heads.load(word(engine).address) % 2 == 0
    put(engine, b"2")
