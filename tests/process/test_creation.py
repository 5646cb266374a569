"""Processes that create the same database, or the same store, at the same moment."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

import mvvfs
from tests.process import crew
from tests.process.place import Place, value

PROCESSES = 4
ROUNDS = 15


def place_of(base: str, kind: str, i: int, who: int) -> Place:
    match kind:
        case "store":
            return Place(f"{base}/store-{i}")
        case "database":
            return Place(f"{base}/store", name=f"database-{i}")
        case _:
            return Place(f"{base}/store-{i}", name=f"mine-{who}")


def create(base: str, kind: str, who: int, barrier: Barrier) -> int:
    """In each round all open the same new database together, make the table, and add a row each."""
    for i in range(ROUNDS):
        barrier.wait(60)
        connection = place_of(base, kind, i, who).connect()

        def fill(connection: object = connection) -> None:
            assert hasattr(connection, "execute")
            connection.execute("CREATE TABLE IF NOT EXISTS t(who INTEGER PRIMARY KEY, pad)")
            connection.execute("INSERT INTO t VALUES(?, zeroblob(5000))", (who,))

        mvvfs.transaction(connection, tries=100).run(fill)
        connection.close()
    return ROUNDS


@pytest.mark.parametrize("kind", ["store", "database", "databases of a new store"])
def test_at_the_same_moment(tmp_path: Path, kind: str) -> None:
    barrier = crew.processes.Barrier(PROCESSES)
    work = [(str(tmp_path), kind, who, barrier) for who in range(PROCESSES)]
    assert crew.run(create, work, seconds=90) == [ROUNDS] * PROCESSES
    for i in range(ROUNDS):
        for name, members in expected(kind, i).items():
            connection = place_of(str(tmp_path), kind, i, members[0]).connect(mode="rw")
            assert [who for (who,) in connection.execute("SELECT who FROM t").fetchall()] == members, name
            assert value(connection, "PRAGMA integrity_check") == "ok"
            connection.close()


def expected(kind: str, i: int) -> dict[str, list[int]]:
    """Which processes met in which database in round `i`."""
    everyone = list(range(PROCESSES))
    if kind == "databases of a new store":
        return {f"mine-{who} of store-{i}": [who] for who in everyone}
    return {f"{kind} {i}": everyone}
