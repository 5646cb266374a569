"""Read-modify-write: a transaction reads a counter and writes it back one larger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, cast

import apsw

from bench.distributions import DISTRIBUTIONS
from bench.targets import Target
from bench.workloads.base import Client, Evidence, Workload, expect, integers, payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterWorkload(Workload):
    """On a table `counters`, all 0 to begin with, with ids from 1."""

    rows: int = 10_000
    row_bytes: int = 100

    def small(self) -> Self:
        return replace(self, rows=min(self.rows, 500))

    def load(self, connection: apsw.Connection, processes: int) -> None:
        texts = payloads(random.Random(self.rows), self.row_bytes)
        connection.execute(
            "CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL, payload TEXT NOT NULL)"
        )
        with connection:
            connection.executemany(
                "INSERT INTO counters (value, payload) VALUES (0, ?)",
                ((texts[row % len(texts)],) for row in range(self.rows)),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModifyWrite(CounterWorkload):
    """SELECT a row's value, UPDATE it to that value plus one: a lost update shows in the sum."""

    distribution: str
    """A key of `bench.distributions.DISTRIBUTIONS`."""

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return ReadModifyWriteClient(target, connection, DISTRIBUTIONS[self.distribution](self.rows, rng))

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        check_counters(connection, evidence)


class ReadModifyWriteClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, pick: Callable[[], int]) -> None:
        self._target, self._connection, self._pick = target, connection, pick
        self._row = 0
        self._committed: Counter[int] = Counter()

    def warm(self) -> None:
        self._connection.execute("SELECT sum(length(payload)) FROM counters").fetchall()

    def operate(self) -> int:
        self._row = self._pick()
        tries = self._target.transaction(self._connection, self._increment)
        self._committed[self._row] += 1
        return tries

    def _increment(self) -> None:
        select = self._connection.execute("SELECT value FROM counters WHERE id = ?", (self._row,))
        ((value,),) = cast(list[tuple[int]], select.fetchall())
        self._connection.execute("UPDATE counters SET value = ? WHERE id = ?", (value + 1, self._row))

    def evidence(self) -> Evidence:
        return list(self._committed.items())


def check_counters(connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
    """Every row's counter is the number of increments of it that the clients committed."""
    wanted: Counter[int] = Counter()
    for committed in evidence:
        wanted.update(dict(committed))
    found = integers(connection, "SELECT id, value FROM counters WHERE value <> 0")
    expect("increments", sum(found.values()), sum(wanted.values()))
    expect(
        "rows whose counter is wrong", {row for row in found | wanted if found.get(row) != wanted[row]}, set()
    )
