"""Processes that use a store through a service: serializable, and not to be shaken by what happens to it."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs import errors
from tests.checker import check, save
from tests.conftest import FOLDER_ONLY, LONG_ON_CLUSTER
from tests.process import counters, crew, lists
from tests.process.lists import AttachedLists, Job
from tests.process.place import Place, Variant, roll_back, value
from tests.process.served import Served, serving
from tests.process.test_serializable import assert_busy, assert_serializable, record

BOUND_MS = 200
ATTACHED = {"texts": (), "rows": (), "attached": AttachedLists.SCHEMAS[1:]}


@pytest.fixture
def served(shared: str) -> Iterator[Served]:
    with serving(shared) as served:
        yield served


# ---- serializable ----


@LONG_ON_CLUSTER
@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        *(pytest.param(kind, Variant(), id=f"{kind}, deferred") for kind in lists.KINDS),
        pytest.param("texts", Variant(begin="BEGIN IMMEDIATE"), id="texts, immediate"),
        *(pytest.param(kind, Variant(runs=True), id=f"{kind}, run") for kind in lists.SINGLE),
    ],
)
def test_histories_are_strictly_serializable(
    served: Served, tmp_path: Path, seed: int, kind: str, variant: Variant
) -> None:
    place = Place(served.url, variant, attached=ATTACHED[kind])
    history = record(place, kind, seed, processes=3, threads=2, transactions=40)
    assert_busy(history, Variant(begin="BEGIN IMMEDIATE"))
    assert_serializable(history, tmp_path)
    assert value(place.connect(), "PRAGMA integrity_check") == "ok"


@pytest.mark.long
@FOLDER_ONLY
def test_who_believes_every_try_is_found_out(served: Served, seed: int) -> None:
    found: set[str] = set()
    for i in range(5):
        place = Place(served.url, Variant(runs=True), name=f"app{i}")
        history = record(
            place,
            "texts",
            seed + i,
            processes=3,
            threads=2,
            transactions=80,
            knocked_out=["confirmation"] * 3,
        )
        found |= {anomaly.kind for anomaly in check(history)}
        assert all(kind.endswith("-realtime") for kind in found)  # what was committed is checked all the same
        if found:
            break
    assert found


@LONG_ON_CLUSTER
@pytest.mark.parametrize("kind", ["texts", "attached"])
def test_bounded_histories_are_serializable(served: Served, tmp_path: Path, seed: int, kind: str) -> None:
    """A transaction may begin a little in the past; apart from that, nothing may be amiss."""
    latest = Place(served.url, attached=ATTACHED[kind])
    bounded = replace(latest, variant=Variant(options={"freshness": f"bounded:{BOUND_MS}"}))
    lists.create(latest, kind)
    jobs = [Job(bounded, kind, i, seed, 40, threads=2) for i in range(3)]
    history = [t for part in crew.run(lists.work, [(job,) for job in jobs], seconds=90) for t in part]
    time.sleep(2 * BOUND_MS / 1000)
    keys = {operation.key for t in history for operation in t.operations}
    history.append(lists.read_all(latest, kind, keys))
    assert_busy(history, Variant(begin="BEGIN IMMEDIATE"))
    found = [anomaly for anomaly in check(history) if not anomaly.kind.endswith("-realtime")]
    if found:
        save(tmp_path / "history.jsonl", history)
    assert not found, "\n".join(map(str, found[:5]))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", lists.KINDS)
def test_long_histories_are_strictly_serializable(
    served: Served, tmp_path: Path, seed: int, kind: str
) -> None:
    history = record(
        Place(served.url, attached=ATTACHED[kind]),
        kind,
        seed,
        processes=8,
        threads=2,
        transactions=300,
        seconds=500,
    )
    assert_busy(history)
    assert_serializable(history, tmp_path)


@LONG_ON_CLUSTER
def test_several_workers_at_one_address(shared: str, seed: int) -> None:
    with serving(shared, "--workers", "2") as served:
        place = Place(served.url)
        counters.create(place)
        work = [(place, seed + i, 1.0) for i in range(4)]
        done: Counter[int] = sum(crew.run(counters.increment, work, seconds=60), Counter())
        assert counters_of(place) == done


def counters_of(place: Place) -> Counter[int]:
    connection = place.connect()
    found = Counter(dict(connection.execute("SELECT id, n FROM counters WHERE n > 0").fetchall()))
    connection.close()
    return found


# ---- a service that is killed ----


@dataclass
class Told:
    """What a writer was told of its transactions, by number."""

    done: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    """When (`time.monotonic()`) the service had answered a commit, whether done or lost to another one."""


def write(place: Place, writer: int, seed: int, until: str) -> Told:
    """Transactions with numbers of their own, until the file `until` is there.

    Each writer notes them in a table of its own: they meet in the totals only, so nobody loses for seconds.
    """
    rng = random.Random(seed)
    told = Told()
    connection = place.connect(timeout=30.0)
    number = 0
    while not os.path.exists(until):
        number += 1
        try:
            with mvvfs.transaction(connection):
                connection.execute(f"INSERT INTO done{writer} VALUES(?)", (number,))
                connection.execute("UPDATE total SET n = n + 1 WHERE shard = ?", (rng.randrange(20),))
        except errors.OutcomeUnknownError:
            told.unknown.append(number)
        except errors.StoreUnavailableError:
            told.refused.append(number)
        except apsw.BusyError:
            told.refused.append(number)
            told.answers.append(time.monotonic())
        else:
            told.done.append(number)
            told.answers.append(time.monotonic())
        roll_back(connection)
    return told


@LONG_ON_CLUSTER
@pytest.mark.parametrize(
    ("writers", "kills", "seconds", "goes_on_within"),
    [
        pytest.param(4, 2, 3.0, 10.0, id="short"),
        pytest.param(8, 5, 60.0, 1.0, id="long", marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
def test_a_service_that_is_killed(
    shared: str, tmp_path: Path, seed: int, writers: int, kills: int, seconds: float, goes_on_within: float
) -> None:
    """Every commit that was acknowledged is there once, none that was refused is, and writers go on."""
    until = tmp_path / "enough"
    restarted: list[float] = []
    with serving(shared) as served:
        place = Place(served.url)
        connection = place.connect()
        connection.execute(
            "CREATE TABLE total(shard INTEGER PRIMARY KEY, n INT, pad BLOB);"
            + "".join(f"CREATE TABLE done{i}(n INTEGER PRIMARY KEY);" for i in range(writers))
        )
        connection.executemany("INSERT INTO total VALUES(?, 0, zeroblob(3000))", ((i,) for i in range(20)))
        workers = [crew.Worker(write, place, i, seed + i, str(until)) for i in range(writers)]
        for _ in range(kills):
            time.sleep(seconds / (kills + 1))
            served.kill()
            served.start()
            restarted.append(time.monotonic())
        time.sleep(seconds / (kills + 1))
        until.touch()
        told = crew.results(workers, seconds=90)
        found = [{n for (n,) in connection.execute(f"SELECT n FROM done{i}")} for i in range(writers)]
        assert value(connection, "SELECT sum(n) FROM total") == sum(map(len, found))
        assert value(connection, "PRAGMA integrity_check") == "ok"
        connection.close()
    for one, there in zip(told, found, strict=True):
        assert set(one.done) <= there
        assert not there & set(one.refused)
        assert there <= set(one.done) | set(one.unknown)
        assert len(one.done) > kills
    waits = [min(t for t in one.answers if t > moment) - moment for moment in restarted for one in told]
    print(f"longest wait after a restart: {max(waits):.2f} s; unknown: {sum(len(t.unknown) for t in told)}")
    assert max(waits) < goes_on_within


# ---- several addresses, fork ----


@FOLDER_ONLY
def test_addresses_are_tried_in_turn(shared: str) -> None:
    with serving(shared) as first, serving(shared) as second:
        connection = mvvfs.connect("app", store=f"grpc://127.0.0.1:1,{first.address},{second.address}")
        connection.execute("CREATE TABLE t(a)")
        first.kill()
        started = time.monotonic()
        connection.execute("INSERT INTO t VALUES(1)")
        second.kill()
        first.start()
        connection.execute("INSERT INTO t VALUES(2)")
        assert time.monotonic() - started < 30
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
        connection.close()


@FOLDER_ONLY
def test_a_service_that_is_restarted_while_nobody_calls(served: Served) -> None:
    connection = mvvfs.connect("app", store=served.url, freshness="bounded:100")
    connection.execute("CREATE TABLE t(a)")
    for i in range(3):
        connection.execute("INSERT INTO t VALUES(?)", (i,))
        (served.stop if i % 2 else served.kill)()
        served.start()
        assert connection.execute("SELECT count(*) FROM t").get == i + 1
    connection.close()


def _in_child(place: Place, inherited: apsw.Connection) -> None:
    with pytest.raises(apsw.Error):
        inherited.execute("SELECT count(*) FROM t").fetchall()
    own = place.connect(timeout=30.0)
    own.execute("INSERT INTO t VALUES(2)")
    assert value(own, "SELECT count(*) FROM t WHERE a = 2") in (1, 2)
    own.close()


def fork_and_go_on(place: Place) -> tuple[list[int], int, float]:
    """Two children, one after the other: their exit codes, how many rows there are, and seconds."""
    connection = place.connect()
    connection.execute("CREATE TABLE t(a)")
    started = time.monotonic()
    codes = []
    for _ in range(2):
        for _ in range(20):
            connection.execute("SELECT * FROM t").fetchall()
        pid = os.fork()
        if pid == 0:
            try:
                _in_child(place, connection)
                os._exit(0)
            finally:
                os._exit(1)
        connection.execute("INSERT INTO t VALUES(1)")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    count = value(connection, "SELECT count(*) FROM t")
    connection.close()
    assert isinstance(count, int)
    return codes, count, time.monotonic() - started


@FOLDER_ONLY
@pytest.mark.parametrize("freshness", ["latest", "bounded:200"])
def test_fork(served: Served, freshness: str) -> None:
    """A child makes a channel of its own, also while its parent's is in use."""
    place = Place(served.url, Variant(options={"freshness": freshness}))
    codes, count, seconds = crew.Worker(fork_and_go_on, place).result(60)
    assert (codes, count) == ([0, 0], 4 if freshness == "latest" else pytest.approx(4, abs=1))
    print(f"{seconds:.2f} s")
