"""Histories of many processes are strictly serializable; with a rule knocked out they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.checker import Status, Transaction, check, save
from tests.conftest import LONG_ON_CLUSTER, on_cluster
from tests.process import crew, lists
from tests.process.lists import AttachedLists, Job
from tests.process.place import VARIANTS, Place, Variant, value


def record(
    place: Place,
    kind: str,
    seed: int,
    *,
    processes: int,
    transactions: int,
    threads: int = 1,
    seconds: float = 90,
    knocked_out: Sequence[str | None] = (),
) -> list[Transaction]:
    """The history of that many processes; `knocked_out` names a rule for each of the first ones."""
    lists.create(place, kind)
    broken = [*knocked_out, *[None] * processes][:processes]
    jobs = [
        Job(place, kind, i, seed, transactions, threads=threads, knocked_out=broken[i])
        for i in range(processes)
    ]
    history = [t for part in crew.run(lists.work, [(job,) for job in jobs], seconds=seconds) for t in part]
    keys = {operation.key for t in history for operation in t.operations}
    return [*history, lists.read_all(place, kind, keys)]


def assert_serializable(history: list[Transaction], tmp_path: Path) -> None:
    anomalies = check(history)
    if anomalies:
        save(tmp_path / "history.jsonl", history)
    assert not anomalies, f"{len(anomalies)} in {tmp_path}/history.jsonl:\n" + "\n".join(
        map(str, anomalies[:5])
    )


def assert_busy(history: list[Transaction], variant: Variant | None = None) -> None:
    """That the processes met at all."""
    assert sum(t.status is Status.OK for t in history) >= 100
    if variant is None or not variant.takes_turns:
        assert sum(t.status is Status.FAILED for t in history) >= 20


def assert_intact(place: Place) -> None:
    assert value(place.connect(), "PRAGMA integrity_check") == "ok"


@LONG_ON_CLUSTER
@pytest.mark.parametrize("kind", lists.SINGLE)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_processes(shared: str, tmp_path: Path, seed: int, kind: str, variant: Variant) -> None:
    place = Place(shared, variant)
    history = record(place, kind, seed, processes=4, transactions=150)
    assert_busy(history, variant)
    assert_serializable(history, tmp_path)
    assert_intact(place)


@LONG_ON_CLUSTER
@pytest.mark.parametrize("kind", lists.SINGLE)
def test_threads_of_processes(shared: str, tmp_path: Path, seed: int, kind: str) -> None:
    """Connections of one process share a page cache."""
    place = Place(shared)
    history = record(place, kind, seed, processes=2, threads=3, transactions=100)
    assert_busy(history)
    assert_serializable(history, tmp_path)
    assert_intact(place)


SOME = ("deferred", "immediate", "small caches", "durable reads")


@pytest.mark.parametrize(
    ("shared", "variant"),
    [
        *(("folder", variant) for variant in SOME),
        *(on_cluster(variant, long=variant != "deferred") for variant in SOME),
    ],
    indirect=["shared"],
)
def test_attached_databases(shared: str, tmp_path: Path, seed: int, variant: str) -> None:
    place = Place(shared, VARIANTS[variant], attached=AttachedLists.SCHEMAS[1:])
    history = record(place, "attached", seed, processes=3, threads=2, transactions=80)
    assert_busy(history, VARIANTS[variant])
    assert_serializable(history, tmp_path)
    connection = place.connect()
    for name in AttachedLists.SCHEMAS:
        assert value(connection, f"PRAGMA {name}.integrity_check") == "ok"


@pytest.mark.parametrize("kind", lists.SINGLE)
def test_threads_of_this_process(store: str, tmp_path: Path, seed: int, kind: str) -> None:
    place = Place(store)
    lists.create(place, kind)
    history = lists.work(Job(place, kind, 0, seed, transactions=80, threads=6))
    keys = {operation.key for t in history for operation in t.operations}
    history.append(lists.read_all(place, kind, keys))
    assert_busy(history)
    assert_serializable(history, tmp_path)
    assert_intact(place)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("shared", "transactions"), [("folder", 400), on_cluster(60)], indirect=["shared"])
@pytest.mark.parametrize("kind", lists.SINGLE)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_many_processes(
    shared: str, tmp_path: Path, seed: int, kind: str, variant: Variant, transactions: int
) -> None:
    place = Place(shared, variant)
    history = record(place, kind, seed, processes=8, threads=2, transactions=transactions, seconds=500)
    assert_busy(history, variant)
    assert_serializable(history, tmp_path)
    assert_intact(place)


# ---- the proof that it can fail ----

TRIES = 8
"""Runs within which a broken rule must show."""


def broken_runs(folder: str, seed: int, rule: str, *, of: int, kind: str = "texts") -> Iterator[set[str]]:
    """What is found in histories of three processes, `of` of which ignore a rule.

    The pages are so large that each table is one: what gets lost is rows, and the b-trees stay whole."""
    for i in range(TRIES):
        attached = AttachedLists.SCHEMAS[1:] if kind == "attached" else ()
        variant = Variant(options={"page_size": 65536, "durability": "normal"})
        place = Place(f"{folder}-{i}", variant, attached=attached)
        history = record(place, kind, seed + i, processes=3, transactions=120, knocked_out=[rule] * of)
        yield {anomaly.kind for anomaly in check(history)}


@pytest.mark.parametrize("of", [3, 1])
def test_without_the_conflict_check_updates_get_lost(folder: str, seed: int, of: int) -> None:
    runs = broken_runs(folder, seed, "conflict check", of=of)
    assert any(kinds & {"lost-update", "lost-append"} for kinds in runs)


def test_without_the_read_set_writes_skew(folder: str, seed: int) -> None:
    seen = set()
    for kinds in broken_runs(folder, seed, "read set", of=3):
        assert kinds <= {"G2", "G2-realtime"}  # what was written is still checked
        seen |= kinds
        if seen:
            break
    assert seen


def test_without_one_read_set_writes_skew_between_databases(folder: str, seed: int) -> None:
    seen = set()
    for kinds in broken_runs(folder, seed, "one read set", of=3, kind="attached"):
        assert kinds <= {"G2", "G2-realtime"}
        seen |= kinds
        if seen:
            break
    assert seen


def test_without_a_look_at_the_head_word_reads_are_stale(folder: str, seed: int) -> None:
    seen = set()
    for kinds in broken_runs(folder, seed, "head word", of=1):
        assert all(kind.endswith("-realtime") for kind in kinds - {"lost-append"})
        seen |= kinds - {"lost-append"}
        if seen:
            break
    assert seen
