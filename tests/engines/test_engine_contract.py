"""What every engine promises (pagestore/engines/base.py), rule by rule."""

from __future__ import annotations

import random
import threading
import time

import pytest

from pagestore.api import NamespaceId, Version
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from tests.engines.conftest import OpenEngine


class Refused(Exception):
    pass


def put(engine: Engine, **rows: bytes) -> Version:
    def work(tx: Transaction) -> None:
        for key, value in rows.items():
            tx.set(key.encode(), value)

    version = engine.transact(work, durability="normal").version
    assert version is not None
    return version


def scan(engine: Engine, begin: bytes, end: bytes, limit: int = 0, reverse: bool = False) -> list[bytes]:
    wanted = KeyRange(begin, end, limit, reverse)
    return engine.read(lambda tx: [key for key, _ in tx.scan(wanted)])


def get(engine: Engine, key: bytes) -> bytes | None:
    return engine.read(lambda tx: tx.get(key))


def test_get_and_set(engine: Engine) -> None:
    assert get(engine, b"k") is None
    put(engine, k=b"1")
    assert get(engine, b"k") == b"1"
    put(engine, k=b"")
    assert get(engine, b"k") == b""


@pytest.mark.parametrize("size", [0, 1, 499, 500, 501, 4096, 65600, 1_000_000])
def test_values_of_any_size(engine: Engine, size: int) -> None:
    if engine.limits.max_value_bytes:
        size = min(size, engine.limits.max_value_bytes)
    value = random.Random(size).randbytes(size)
    version = engine.transact(lambda tx: tx.set_versioned_key(b"v", b"", value)).version
    assert version is not None
    put(engine, plain=value)
    assert get(engine, b"v" + version) == value
    assert get(engine, b"plain") == value
    assert engine.read(lambda tx: list(tx.scan(KeyRange(b"v", b"w")))) == [(b"v" + version, value)]


def test_scans(engine: Engine) -> None:
    put(engine, **{f"a{n}": b"" for n in range(200)}, b=b"")
    everything = sorted(f"a{n}".encode() for n in range(200))
    assert scan(engine, b"a", b"b") == everything
    assert scan(engine, b"a", b"b", reverse=True) == everything[::-1]
    assert scan(engine, b"a", b"b", limit=3) == everything[:3]
    assert scan(engine, b"a", b"b", limit=70, reverse=True) == everything[::-1][:70]
    assert scan(engine, b"a100", b"a101") == [b"a100"]
    assert scan(engine, b"b", b"a") == []


def test_keys_are_ordered_as_bytes(engine: Engine) -> None:
    keys = [b"a", b"a\0", b"a\0\0", b"a\x7f", b"a\x80", b"a\xff", b"b"]
    for key in random.Random(1).sample(keys, len(keys)):
        engine.transact(lambda tx, key=key: tx.set(key, b""))  # type: ignore[misc]
    assert scan(engine, b"a", b"c") == keys


def test_many_scans_each_stopped_early(engine: Engine) -> None:
    put(engine, **{f"{letter}{n}": b"" for letter in "abc" for n in range(100)})

    def work(tx: Snapshot) -> list[bytes]:
        ranges = [KeyRange(x, x + b"\xff", 0, True) for x in (b"a", b"b", b"c", b"d")]
        return [next(rows, (b"none", b""))[0] for rows in tx.scan_many(ranges)]

    assert engine.read(work) == [b"a99", b"b99", b"c99", b"none"]


def test_clear(engine: Engine) -> None:
    put(engine, a=b"1", b=bytes(1000), c=b"3", d=b"4")

    def work(tx: Transaction) -> None:
        tx.set(b"b", b"set, then cleared")
        tx.clear_range(b"b", b"d")
        tx.set(b"c", b"cleared, then set")
        tx.clear(b"d")
        tx.clear(b"never there")

    assert engine.transact(work).version is not None
    rows = engine.read(lambda tx: list(tx.scan(KeyRange(b"a", b"e"))))
    assert rows == [(b"a", b"1"), (b"c", b"cleared, then set")]


def test_versions_are_ordered_and_known_only_afterwards(engine: Engine) -> None:
    seen = [put(engine, k=b"") for _ in range(5)]
    assert seen == sorted(set(seen))
    assert all(len(version) == 10 for version in seen)

    def work(tx: Transaction) -> Version:
        tx.set_versioned_key(b"x", b"y", b"z")
        tx.set_versioned_value(b"value", b"<", b">")
        return tx.read_version()

    before, version = engine.transact(work)
    assert version is not None
    assert version > before >= seen[-1]
    assert get(engine, b"x" + version + b"y") == b"z"
    assert get(engine, b"value") == b"<" + version + b">"
    assert engine.read(lambda tx: tx.read_version()) >= version


def test_nothing_written_is_no_version(engine: Engine) -> None:
    before = put(engine, k=b"1")
    rows = engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xff"))))
    assert engine.transact(lambda tx: tx.get(b"k")) == (b"1", None)
    assert engine.read(lambda tx: tx.read_version()) >= before
    assert engine.read(lambda tx: list(tx.scan(KeyRange(b"", b"\xff")))) == rows


def test_an_exception_rolls_back_and_comes_out_as_it_is(engine: Engine) -> None:
    def work(tx: Transaction) -> None:
        tx.set(b"k", b"1")
        tx.set_versioned_key(b"k", b"", bytes(5000))
        tx.clear_range(b"a", b"b")
        raise Refused

    put(engine, a=b"1")
    with pytest.raises(Refused):
        engine.transact(work)
    assert scan(engine, b"g", b"z") == []
    assert get(engine, b"a") == b"1"
    with pytest.raises(Refused):
        engine.read(lambda _tx: (_ for _ in ()).throw(Refused))
    put(engine, k=b"2")


def test_reads_do_not_see_own_sets(engine: Engine) -> None:
    def work(tx: Transaction) -> bytes | None:
        tx.set(b"k", b"1")
        return tx.get(b"k")

    assert engine.transact(work).value is None


def test_a_snapshot_stands_still(engine: Engine, open_engine: OpenEngine) -> None:
    put(engine, a=b"1", b=b"1")
    other = open_engine()

    def work(tx: Snapshot) -> tuple[bytes | None, Version, bytes | None, Version]:
        first, version = tx.get(b"a"), tx.read_version()
        put(other, a=b"2", b=b"2")
        return first, version, tx.get(b"b"), tx.read_version()

    first, version, second, still = engine.read(work)
    assert (first, second) == (b"1", b"1")
    assert version == still
    assert get(engine, b"b") == b"2"


def test_increments_by_many_threads_are_all_there(open_engine: OpenEngine) -> None:
    engines = [open_engine() for _ in range(2)]

    def work(tx: Transaction) -> None:
        tx.add_read_conflict(b"n", b"n\0")
        tx.set(b"n", str(int(tx.get(b"n") or b"0") + 1).encode())

    def count(engine: Engine) -> None:
        for _ in range(25):
            engine.transact(work, durability="normal")

    threads = [threading.Thread(target=count, args=(engine,)) for engine in engines * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert get(engines[0], b"n") == b"100"
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("named", ["read", "blind"])
def test_named_conflicts_are_noticed(engine: Engine, open_engine: OpenEngine, named: str) -> None:
    """Keys that nobody writes serve as conflict keys: what a commit read against what others wrote."""
    other = open_engine()
    runs = 0

    def theirs(tx: Transaction) -> None:
        tx.set(b"theirs", b"")
        tx.add_write_conflict(b"x5", b"x5\0")

    def ours(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.read_version()  # a snapshot begins with the first read
        if runs == 1 and tx.optimistic:
            other.transact(theirs)
        tx.add_read_conflict(*((b"x1", b"x9") if named == "read" else (b"x6", b"x9")))
        tx.set(b"ours", b"")

    optimistic = engine.transact(lambda tx: tx.optimistic).value
    rehearsed = getattr(engine, "_twice", False)
    engine.transact(ours)
    assert runs == 1 + rehearsed + (optimistic and named == "read" and not rehearsed)


def test_recorded_times_do_not_go_back(engine: Engine) -> None:
    if engine.operations() is not None:
        pytest.skip("to know the last time recorded would make all commits to a cluster meet")

    def record(now_us: int) -> int:
        def work(tx: Transaction) -> int:
            tx.set(b"k", b"")
            return tx.commit_time(now_us)

        return engine.transact(work).value

    assert [record(1000), record(3000), record(2000), record(4000)] == [1000, 3000, 3000, 4000]


def test_head_words_move_with_what_is_announced(engine: Engine) -> None:
    word = engine.head_word(NamespaceId(3))
    if word is None:
        pytest.skip("this engine has no head words")
    from pagestore.engines.heads import load

    def announce(namespace: int) -> None:
        def work(tx: Transaction) -> None:
            tx.set(b"k", b"")
            tx.announce(NamespaceId(namespace))

        engine.transact(work)

    before = load(word.address)
    announce(4)
    assert load(word.address) == before
    announce(3)
    assert load(word.address) > before
    assert load(word.address) % 2 == before % 2 == 0


def test_reopening_finds_what_was_committed(open_engine: OpenEngine) -> None:
    engine = open_engine()
    put(engine, k=b"1")
    engine.sync()
    engine.close()
    again = open_engine()
    assert get(again, b"k") == b"1"
    again.close()


def test_readers_do_not_wait_for_a_writer(engine: Engine, open_engine: OpenEngine) -> None:
    other = open_engine()
    put(engine, k=b"1")

    def work(tx: Transaction) -> float:
        tx.set(b"k", b"2")
        started = time.monotonic()
        assert get(other, b"k") == b"1"
        return time.monotonic() - started

    assert engine.transact(work).value < 1
    other.close()
