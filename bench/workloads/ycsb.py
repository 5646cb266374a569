"""YCSB's core workloads A, B and C: zipfian reads and updates of records of ten fields of 100 bytes.

After Cooper et al., Benchmarking cloud serving systems with YCSB (2010); keys are integers here, and an
update also counts itself in its record, so that a lost one shows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import apsw

from bench.distributions import zipfian
from bench.targets import Target
from bench.workloads.base import Client, Evidence, Workload, expect, integers, payloads

FIELDS = tuple(f"field{number}" for number in range(10))
FIELD_BYTES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ycsb(Workload):
    """Each operation is a transaction of its own: a read of a whole record or an update of one field."""

    reads: float
    """The share of operations that read: A 0.5, B 0.95, C 1."""
    rows: int = 10_000

    def small(self) -> Self:
        return replace(self, rows=200)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        columns = ", ".join(f"{field} TEXT NOT NULL" for field in FIELDS)
        connection.execute(
            f"CREATE TABLE usertable (key INTEGER PRIMARY KEY, updates INTEGER NOT NULL, {columns})"
        )
        texts = payloads(random.Random(self.rows), FIELD_BYTES)
        marks = ", ".join("?" for _ in FIELDS)
        with connection:
            connection.executemany(
                f"INSERT INTO usertable VALUES (?, 0, {marks})",
                (
                    (row, *(texts[(row + i) % len(texts)] for i in range(len(FIELDS))))
                    for row in range(1, self.rows + 1)
                ),
            )

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return YcsbClient(self, target, connection, rng)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        wanted: Counter[int] = Counter()
        for committed in evidence:
            wanted.update(dict(committed))
        found = integers(connection, "SELECT key, updates FROM usertable WHERE updates <> 0")
        expect("updates by record", found, dict(wanted))


class YcsbClient(Client):
    def __init__(self, load: Ycsb, target: Target, connection: apsw.Connection, rng: random.Random) -> None:
        self._target, self._connection, self._rng = target, connection, rng
        self._reads = load.reads
        self._pick = zipfian(load.rows, rng)
        self._texts = payloads(rng, FIELD_BYTES)
        self._updates = [
            f"UPDATE usertable SET {field} = ?, updates = updates + 1 WHERE key = ?" for field in FIELDS
        ]
        self._committed: Counter[int] = Counter()

    def warm(self) -> None:
        self._connection.execute("SELECT sum(length(field9)) FROM usertable").fetchall()

    def operate(self) -> int:
        row = self._pick()
        if self._rng.random() < self._reads:
            (found,) = self._connection.execute("SELECT * FROM usertable WHERE key = ?", (row,)).fetchall()
            expect("key", found[0], row)
            return 1
        tries = self._target.autocommit(
            self._connection, self._rng.choice(self._updates), (self._rng.choice(self._texts), row)
        )
        self._committed[row] += 1
        return tries

    def evidence(self) -> Evidence:
        return list(self._committed.items())
