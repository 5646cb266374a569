"""Reads: points, scans, and the first read after opening."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import apsw

from bench.targets import Target
from bench.workloads.base import Client, Evidence, Workload, expect, payloads, scalar

FACTOR = 7
"""A row's value is its id times this, so that every read can be checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWorkload(Workload):
    """A table `items` that nobody writes."""

    kind: ClassVar[Literal["write", "read"]] = "read"
    unit: ClassVar[str] = "reads"
    rows: int = 10_000
    row_bytes: int = 100

    def small(self) -> Self:
        return replace(self, rows=500)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        texts = payloads(random.Random(self.rows), self.row_bytes)
        connection.execute(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, value INTEGER NOT NULL, payload TEXT NOT NULL)"
        )
        with connection:
            connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?)",
                ((row, row * FACTOR, texts[row % len(texts)]) for row in range(1, self.rows + 1)),
            )

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        expect("rows", scalar(connection, "SELECT count(*) FROM items"), self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointReads(ReadWorkload):
    """Autocommit SELECTs of one row by its key, all pages read once before the clock starts."""

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return PointReadClient(connection, self.rows, rng)


class PointReadClient(Client):
    def __init__(self, connection: apsw.Connection, rows: int, rng: random.Random) -> None:
        self._connection, self._rows, self._random = connection, rows, rng.random

    def warm(self) -> None:
        self._connection.execute("SELECT sum(length(payload)) FROM items").fetchall()

    def operate(self) -> int:
        row = int(self._random() * self._rows) + 1
        read_row(self._connection, row)
        return 1


def read_row(connection: apsw.Connection, row: int) -> None:
    """SELECT it by its key; raises CheckFailedError if it is not what was loaded."""
    found = connection.execute("SELECT value, payload FROM items WHERE id = ?", (row,)).fetchall()
    if len(found) != 1 or found[0][0] != row * FACTOR:
        expect(f"row {row}", found, f"one row with value {row * FACTOR}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FullScan(ReadWorkload):
    """One aggregate over the whole table, all in C: rows that fit the page cache."""

    unit: ClassVar[str] = "scans"
    cache_kib: int = 0
    """PRAGMA cache_size on both sides, in KiB; 0 leaves SQLite's default (2,000)."""

    def small(self) -> Self:
        return replace(self, rows=2_000)

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        if self.cache_kib:
            connection.execute(f"PRAGMA cache_size = -{self.cache_kib}")
        return ScanClient(connection, self.rows)


class ScanClient(Client):
    def __init__(self, connection: apsw.Connection, rows: int) -> None:
        self._connection = connection
        self._wanted = [(rows, FACTOR * rows * (rows + 1) // 2)]

    def warm(self) -> None:
        self.operate()

    def operate(self) -> int:
        found = self._connection.execute("SELECT count(payload), sum(value) FROM items").fetchall()
        expect("scan", found, self._wanted)
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAndRead(ReadWorkload):
    """Open a connection, read one row, close it; no other connection of the process is open."""

    unit: ClassVar[str] = "opens"

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        connection.close()
        return OpenClient(target, path, self.rows, rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdScan(ReadWorkload):
    """Open a connection, scan the whole table, close it: nothing is in a page cache."""

    unit: ClassVar[str] = "scans"

    def small(self) -> Self:
        return replace(self, rows=2_000)

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        connection.close()
        return ColdScanClient(target, path, self.rows)


class ColdScanClient(Client):
    def __init__(self, target: Target, path: Path, rows: int) -> None:
        self._target, self._path, self._rows = target, path, rows

    def operate(self) -> int:
        connection = self._target.connect(self._path)
        ScanClient(connection, self._rows).operate()
        connection.close()
        return 1


class OpenClient(Client):
    def __init__(self, target: Target, path: Path, rows: int, rng: random.Random) -> None:
        self._target, self._path, self._rows, self._rng = target, path, rows, rng

    def operate(self) -> int:
        connection = self._target.connect(self._path)
        read_row(connection, self._rng.randint(1, self._rows))
        connection.close()
        return 1
