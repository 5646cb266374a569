"""Hot rows and long transactions: everybody gets a turn, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import ClassVar

import apsw
import pytest

import mvvfs
from mvvfs import retry
from tests.conftest import LONG_ON_CLUSTER, on_cluster
from tests.process import crew
from tests.process.place import Place, Variant, value

SECONDS = 2.0


def hot(place: Place) -> None:
    connection = place.connect()
    connection.execute("CREATE TABLE hot(id INTEGER PRIMARY KEY, n); INSERT INTO hot VALUES (1, 0)")
    connection.execute("CREATE TABLE own(id INTEGER PRIMARY KEY, n)")
    connection.close()


def increment(connection: apsw.Connection) -> None:
    ((n,),) = connection.execute("SELECT n FROM hot WHERE id = 1").fetchall()
    connection.execute("UPDATE hot SET n = ? WHERE id = 1", (n + 1,))


def increments(place: Place, how: str) -> tuple[int, int]:
    """How many in the given time, and the most tries that one of them took."""
    connection = place.connect(durability="normal")
    done = most = tries = 0

    def once() -> None:
        nonlocal tries
        tries += 1
        increment(connection)

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        tries = 0
        if how == "transaction":
            mvvfs.transaction(connection).run(once)
        elif how == "begin":
            connection.execute(place.variant.begin)
            once()
            connection.execute("COMMIT")
        else:
            connection.execute("UPDATE hot SET n = n + 1 WHERE id = 1")
        done, most = done + 1, max(most, tries)
    connection.close()
    return done, most


WAYS = {
    "transaction": ("transaction", Variant()),
    "immediate": ("begin", Variant(begin="BEGIN IMMEDIATE")),
    "autocommit": ("autocommit", Variant()),
    "queued": ("autocommit", Variant(options={"concurrency": "queued"})),
}
QUICK = ("transaction", "queued")


@pytest.mark.parametrize(
    ("shared", "how", "variant"),
    [
        *(
            pytest.param("folder", *way, id=name, marks=[] if name in QUICK else [pytest.mark.long])
            for name, way in WAYS.items()
        ),
        *(on_cluster(*way, long=name != "transaction", id=f"cluster, {name}") for name, way in WAYS.items()),
    ],
    indirect=["shared"],
)
def test_eight_writers_of_one_row(shared: str, how: str, variant: Variant) -> None:
    place = Place(shared, variant)
    hot(place)
    found = crew.run(increments, [(place, how)] * 8, seconds=60)
    connection = place.connect()
    assert value(connection, "SELECT n FROM hot") == sum(done for done, _ in found)
    assert max(most for _, most in found) <= 10
    assert min(done for done, _ in found) > 0
    assert value(connection, "PRAGMA integrity_check") == "ok"


def hold_and_stop(place: Place) -> None:
    """Take the turn, read, write, and never go on."""
    connection = place.connect()
    connection.execute("BEGIN IMMEDIATE")
    increment(connection)
    connection.execute("PRAGMA mv_turn = 'all 5'").fetchall()
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_stopped_holder_delays_nobody_for_long(shared: str) -> None:
    place = Place(shared)
    hot(place)
    stopped = crew.Worker(hold_and_stop, place)
    try:
        deadline = time.monotonic() + 30
        while "(stopped)" not in Path(f"/proc/{stopped.process.pid}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection = place.connect(timeout=20.0)
        started = time.monotonic()
        mvvfs.transaction(connection).run(increment, connection)
        assert time.monotonic() - started < 10
        for _ in range(50):
            mvvfs.transaction(connection).run(increment, connection)
        assert time.monotonic() - started < 10
        assert value(connection, "SELECT n FROM hot") == 51
        connection.close()
    finally:
        stopped.kill()


INDEX = "SELECT 1 FROM sqlite_schema WHERE name = 'own_n'"


def insert_until_indexed(place: Place, started: Barrier) -> int:
    connection = place.connect(durability="normal", timeout=30.0)
    done = 0
    while not connection.execute(INDEX).fetchall():
        mvvfs.transaction(connection, tries=50).run(
            connection.execute, "INSERT INTO own(n) VALUES (abs(random()))"
        )
        done += 1
        if done == 1:
            started.wait(60)
    connection.close()
    return done


class WatchedTurns(retry._Turns):
    """Those of this process's transactions."""

    ends = 0.0
    """Until when it is the transaction's turn, at least: `time.monotonic()`."""
    failures: ClassVar[list[str]] = []

    def wait(self, lost: int, seconds: float) -> bool:
        if time.monotonic() < self.ends:
            self.failures.append(f"try {lost} was lost although it had its turn")
        came = super().wait(lost, seconds)
        if not came:
            self.failures.append(f"no turn came after try {lost}")
        return came

    def _pragma(self, value: str) -> object:
        asked = time.monotonic()
        answer = super()._pragma(value)
        self.ends = asked + float(value.strip("'").split()[1]) if answer == "taken" else 0.0
        return answer


def index_it(place: Place, started: Barrier) -> list[str]:
    """What was wrong with the turns of CREATE INDEX, which asks for one as soon as it has lost."""
    retry._Turns = WatchedTurns  # type: ignore[misc]
    connection = place.connect(timeout=30.0)
    started.wait(60)
    mvvfs.transaction(connection, turn_seconds=0.0).run(connection.execute, "CREATE INDEX own_n ON own(n)")
    connection.close()
    return WatchedTurns.failures


@LONG_ON_CLUSTER
def test_a_long_transaction_wins_with_its_second_try(shared: str) -> None:
    """Whatever others write; or, if that took longer than its turn, which is longer than its first try was,
    with a later one."""
    place = Place(shared)
    hot(place)
    connection = place.connect()
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)"
        "INSERT INTO own(n) SELECT abs(random()) FROM n"
    )
    started = crew.processes.Barrier(5)
    writers = [crew.Worker(insert_until_indexed, place, started) for _ in range(4)]
    assert crew.Worker(index_it, place, started).result(120) == []
    done = crew.results(writers, seconds=60)
    assert value(connection, "SELECT count(*) FROM own") == 150_000 + sum(done)
    assert value(connection, "SELECT count(*) FROM own INDEXED BY own_n WHERE n >= 0") == 150_000 + sum(done)
    assert value(connection, "PRAGMA integrity_check") == "ok"
