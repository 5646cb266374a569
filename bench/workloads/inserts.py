"""Inserts: one row a commit into a table per writer or into one table, and bulk loads."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import apsw

from bench.targets import Target
from bench.workloads.base import Client, Evidence, Workload, expect, payloads, scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserts(Workload):
    """Autocommit inserts with automatic row ids, all at the right edge of a table."""

    own_table: bool
    """Whether each writer has a table of its own."""
    rows: int = 1_000
    """In each table before the start."""
    row_bytes: int = 100

    def load(self, connection: apsw.Connection, processes: int) -> None:
        texts = payloads(random.Random(self.name), self.row_bytes)
        for index in range(processes if self.own_table else 1):
            connection.execute(f"CREATE TABLE t{index} (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")
            with connection:
                connection.executemany(
                    f"INSERT INTO t{index} (payload) VALUES (?)",
                    ((text,) for text in itertools.islice(itertools.cycle(texts), self.rows)),
                )

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return InsertClient(target, connection, index if self.own_table else 0, payloads(rng, self.row_bytes))

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        if self.own_table:
            for index, committed in enumerate(evidence):
                found = scalar(connection, f"SELECT count(*) FROM t{index}")
                expect(f"rows in t{index}", found, self.rows + committed)
        else:
            found = scalar(connection, "SELECT count(*) FROM t0")
            expect("rows in t0", found, self.rows + sum(evidence))


class InsertClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, table: int, texts: list[str]) -> None:
        self._target, self._connection = target, connection
        self._statement = f"INSERT INTO t{table} (payload) VALUES (?)"
        self._texts = itertools.cycle(texts)
        self._committed = 0

    def operate(self) -> int:
        tries = self._target.autocommit(self._connection, self._statement, (next(self._texts),))
        self._committed += 1
        return tries

    def evidence(self) -> Evidence:
        return self._committed


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomInserts(Workload):
    """Autocommit inserts with random keys into one large table; all rounds go on with it.

    Its leaves are about 70 % full, as those of a table that grew by random keys are: straight after a load
    in the order of the keys they are full, and for a while every insert would split one."""

    lasting: ClassVar[bool] = True
    rows: int = 1_000_000
    """Before the first round."""
    row_bytes: int = 100

    def small(self) -> Self:
        return replace(self, rows=2_000)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        rng = random.Random(self.rows)
        texts = payloads(rng, self.row_bytes)
        keys = sorted({random_key(rng) for _ in range(self.rows * 10 // 7)})
        connection.execute("CREATE TABLE t0 (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")
        with connection:
            connection.executemany("INSERT INTO t0 VALUES (?, ?)", zip(keys, itertools.cycle(texts)))
            gone = set(rng.sample(range(len(keys)), len(keys) - self.rows))
            connection.executemany(
                "DELETE FROM t0 WHERE id = ?", ((key,) for row, key in enumerate(keys) if row in gone)
            )

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return RandomInsertClient(target, connection, payloads(rng, self.row_bytes))

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """Each client counted the rows before the start: now there are more, by all that were inserted."""
        ((before, *others),) = [{count for count, _ in evidence}]
        expect("counts before the start that differ", others, [])
        keys = [key for _, inserted in evidence for key in inserted]
        expect("rows", scalar(connection, "SELECT count(*) FROM t0"), before + len(keys))
        for key in keys:
            found = connection.execute("SELECT count(*) FROM t0 WHERE id = ?", (key,)).get
            expect(f"rows with key {key}", found, 1)


class RandomInsertClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, texts: list[str]) -> None:
        self._target, self._connection = target, connection
        self._rng = random.Random()  # other keys in every round: they all stay
        self._texts = itertools.cycle(texts)
        self._before = 0
        self._inserted: list[int] = []

    def warm(self) -> None:
        self._before = scalar(self._connection, "SELECT count(*) FROM t0")

    def operate(self) -> int:
        key = random_key(self._rng)
        tries = self._target.autocommit(
            self._connection, "INSERT INTO t0 VALUES (?, ?)", (key, next(self._texts))
        )
        self._inserted.append(key)
        return tries

    def evidence(self) -> Evidence:
        return [self._before, self._inserted]


def random_key(rng: random.Random) -> int:
    return rng.getrandbits(62)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkLoad(Workload):
    """Transactions of many rows into one table that starts empty."""

    unit: ClassVar[str] = "rows"
    batch: int = 10_000
    """Rows a transaction."""
    row_bytes: int = 100

    @property
    def units(self) -> int:
        return self.batch

    def small(self) -> Self:
        return replace(self, batch=500)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        connection.execute("CREATE TABLE t0 (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return BulkClient(target, connection, self.batch, payloads(rng, self.row_bytes))

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        found = scalar(connection, "SELECT count(*) FROM t0")
        expect("rows in t0", found, sum(evidence) * self.batch)


class BulkClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, batch: int, texts: list[str]) -> None:
        self._target, self._connection = target, connection
        self._rows = [(text,) for text in itertools.islice(itertools.cycle(texts), batch)]
        self._committed = 0

    def operate(self) -> int:
        tries = self._target.transaction(self._connection, self._insert)
        self._committed += 1
        return tries

    def _insert(self) -> None:
        self._connection.executemany("INSERT INTO t0 (payload) VALUES (?)", self._rows)

    def evidence(self) -> Evidence:
        return self._committed
