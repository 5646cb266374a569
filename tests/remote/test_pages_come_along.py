"""Clients whose page caches are carried forward by begins see what is stored, whoever commits and how."""

from __future__ import annotations

import random
from collections.abc import Iterator

import apsw
import pytest

import mvvfs
from mvvfs._shim import ffi, lib
from mvvfs.told import ToldPages
from tests.sql.twins import is_intact

STEPS = 120


@pytest.fixture
def clients(service: str, url: str, folder: str) -> Iterator[list[apsw.Connection]]:
    """Two of the service, each with a page cache of its own, one of them small, and one that goes past it."""
    opened = [
        mvvfs.connect("app", store=f"grpc+{service}", cache_bytes=40_000),
        mvvfs.connect("app", store=url),
        mvvfs.connect("app", store=folder),
    ]
    yield opened
    for connection in opened:
        connection.close(True)


def change(connection: apsw.Connection, rng: random.Random) -> None:
    key, size = rng.randrange(200), rng.choice([10, 10, 10, 300, 3000])
    statement = rng.choice(
        [
            "UPDATE t SET v = randomblob(:size) WHERE id = :key",
            "UPDATE t SET k = k + 1 WHERE id = :key",
            "INSERT OR REPLACE INTO t VALUES (:key, :size, randomblob(:size))",
            "DELETE FROM t WHERE id = :key",
            "UPDATE t SET k = :size WHERE id BETWEEN :key AND :key + 30",
        ]
    )
    connection.execute(statement, {"key": key, "size": size})


@pytest.mark.parametrize("seed_", range(4))
def test_all_see_the_same(clients: list[apsw.Connection], seed_: int) -> None:
    rng = random.Random(seed_)
    clients[0].execute("CREATE TABLE t(id INTEGER PRIMARY KEY, k, v); CREATE INDEX t_k ON t(k)")
    with clients[0]:
        for _ in range(200):
            change(clients[0], rng)
    for _ in range(STEPS):
        writer = rng.choices(clients, [5, 5, 1])[0]
        if rng.random() < 0.2:
            with mvvfs.transaction(writer):
                for _ in range(rng.randrange(5)):
                    change(writer, rng)
        else:
            change(writer, rng)
        readers = rng.sample(clients, rng.randrange(4))
        seen = [tuple(each.execute("SELECT count(*), sum(k), max(v) FROM t").fetchall()) for each in readers]
        assert len(set(seen)) <= 1
    for each in clients:
        is_intact(each)
    (rows,) = {tuple(each.execute("SELECT * FROM t ORDER BY id").fetchall()) for each in clients}
    assert rows


def test_what_came_along_was_used(clients: list[apsw.Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would say nothing."""
    told: list[int] = []
    real = ToldPages.keep

    def keep(self: ToldPages) -> None:
        states = [page.state for page in ffi.unpack(self._told.pages, self._told.count)]
        told.append(states.count(lib.MV_TOLD_FORWARD) + states.count(lib.MV_TOLD_WHOLE))
        real(self)

    monkeypatch.setattr(ToldPages, "keep", keep)
    test_all_see_the_same(clients, 1)
    assert sum(told) > STEPS / 2
