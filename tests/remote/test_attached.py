"""Transactions across databases of a store behind a service."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs.options import to_uri
from tests.checker import Status, check
from tests.process import lists
from tests.process.lists import AttachedLists, Job
from tests.process.place import Place, Variant


@pytest.fixture
def where(shared: str) -> str:
    return shared


def both(url: str, **options: object) -> apsw.Connection:
    connection = mvvfs.connect("a", store=url, **options)
    connection.execute("ATTACH ? AS b", (to_uri("b", store=url, **options),))
    return connection


@pytest.fixture
def made(url: str) -> str:
    connection = both(url)
    connection.execute("BEGIN; CREATE TABLE main.x(v); CREATE TABLE b.y(v); INSERT INTO x VALUES(1); COMMIT")
    connection.execute("INSERT INTO y VALUES(1)")
    connection.close()
    return url


def test_write_skew(made: str) -> None:
    one, two = both(made), both(made)
    one.execute("BEGIN; UPDATE x SET v = 1 + (SELECT v FROM y)")
    two.execute("BEGIN; UPDATE y SET v = 1 + (SELECT v FROM x)")
    one.execute("COMMIT")
    with pytest.raises(mvvfs.ConflictError) as caught:
        two.execute("COMMIT")
    assert caught.value.schema == "main"
    assert two.execute("SELECT x.v, y.v FROM x, y").fetchall() == [(2, 1)]


@pytest.mark.parametrize("freshness", ["latest", "bounded:60000"])
def test_own_commits_are_seen_in_every_database(made: str, freshness: str) -> None:
    options = {"freshness": freshness}
    connection, other = both(made, **options), both(made, **options)
    for n in range(2, 8):
        connection.execute("UPDATE y SET v = ?", (n,))
        other.execute("UPDATE x SET v = ?", (n,))
        connection.execute("BEGIN")
        assert connection.execute("SELECT v FROM x").fetchall() == [(n,)]
        other.execute("UPDATE x SET v = -v")
        assert connection.execute("SELECT v FROM y").fetchall() == [(n,)]
        connection.execute("COMMIT")


def test_a_history_is_serializable(url: str, tmp_path: Path, seed: int) -> None:
    place = Place(url, Variant(options={"durability": "normal"}), attached=AttachedLists.SCHEMAS[1:])
    lists.create(place, "attached")
    history = lists.work(Job(place, "attached", 0, seed, transactions=40, threads=4))
    keys = {operation.key for t in history for operation in t.operations}
    history.append(lists.read_all(place, "attached", keys))
    assert sum(t.status is Status.OK for t in history) >= 40
    assert check(history) == []
