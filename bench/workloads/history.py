"""What history costs: commits and uncached reads of a database that has had many commits, or few.

Both sides are mvvfs here: the baseline's database has a short history, the candidate's a long one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import apsw

from bench.targets import PastTarget, Target
from bench.workloads.base import Client, Evidence, expect, scalar
from bench.workloads.updates import CounterWorkload
from mvvfs.when import format_time
from pagestore.api import format_version
from pagestore.opener import open_store

_MOMENTS = 200

UPDATE = "UPDATE counters SET value = value + 1 WHERE id = ?"


def grow(connection: apsw.Connection, commits: int, rows: int, rng: random.Random) -> None:
    """That many single-row update commits on random rows of `counters`."""
    for _ in range(commits):
        connection.execute(UPDATE, (rng.randint(1, rows),))


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryWorkload(CounterWorkload):
    """The sum of the counters is the number of commits that its database has had."""

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        expect("rows", scalar(connection, "SELECT count(*) FROM counters"), self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCommits(HistoryWorkload):
    """Single-row updates, autocommit."""

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return UpdateClient(target, connection, self.rows, rng)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """Each client saw the counters' sum before its first commit: now it is larger by its commits."""
        before = min(start for start, _ in evidence)
        committed = sum(count for _, count in evidence)
        expect("increments", scalar(connection, "SELECT sum(value) FROM counters"), before + committed)


class UpdateClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, rows: int, rng: random.Random) -> None:
        self._target, self._connection, self._rows, self._rng = target, connection, rows, rng
        self._before = 0
        self._committed = 0

    def warm(self) -> None:
        self._before = scalar(self._connection, "SELECT sum(value) FROM counters")

    def operate(self) -> int:
        tries = self._target.autocommit(self._connection, UPDATE, (self._rng.randint(1, self._rows),))
        self._committed += 1
        return tries

    def evidence(self) -> Evidence:
        return [self._before, self._committed]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryReads(HistoryWorkload):
    """Point reads that each fetch a page from the store: no cache is large enough for the table's leaves."""

    kind: ClassVar[Literal["write", "read"]] = "read"
    unit: ClassVar[str] = "reads"

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        connection.execute("PRAGMA cache_size = 1")
        return UncachedReadClient(connection, self.rows, rng)


class UncachedReadClient(Client):
    def __init__(self, connection: apsw.Connection, rows: int, rng: random.Random) -> None:
        self._connection, self._rows, self._rng = connection, rows, rng

    def operate(self) -> int:
        row = self._rng.randint(1, self._rows)
        found = self._connection.execute("SELECT id FROM counters WHERE id = ?", (row,)).fetchall()
        expect("row", found, [(row,)])
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPast(HistoryWorkload):
    """Open a connection, read one row, close it: now, or at a random moment of the past (`PastTarget.by`)."""

    kind: ClassVar[Literal["write", "read"]] = "read"
    unit: ClassVar[str] = "opens"

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        connection.close()
        return OpenPastClient(target, path, self.rows, rng)


class OpenPastClient(Client):
    def __init__(self, target: Target, path: Path, rows: int, rng: random.Random) -> None:
        self._target, self._path, self._rows, self._rng = target, path, rows, rng
        self._moments: list[str] = []

    def warm(self) -> None:
        """Look up some moments of the past, so that no time goes into choosing them."""
        if not isinstance(self._target, PastTarget):
            return
        store = open_store(str(self._path), create=False)
        namespace = store.open("main").id
        first, last = (
            next(store.changelog(namespace, newest_first=newest, limit=1)).time_us for newest in (False, True)
        )
        connection = self._target.connect(self._path)
        commits = scalar(connection, "SELECT sum(value) FROM counters")  # and those that made the table
        connection.close()
        for _ in range(_MOMENTS):
            time_us = self._rng.randint(first, last)
            version = store.version_at(namespace, time_us)
            match self._target.by:
                case "time":
                    moment = format_time(time_us)
                case "version":
                    moment = format_version(version)
                case "tag":
                    moment = f"tag:{store.tag(namespace, format_version(version), version).name}"
                case "back":
                    moment = f"HEAD~{self._rng.randint(0, commits)}"
            self._moments.append(moment)
        store.close()

    def operate(self) -> int:
        connection = self._open()
        row = self._rng.randint(1, self._rows)
        found = connection.execute("SELECT id FROM counters WHERE id = ?", (row,)).fetchall()
        connection.close()
        expect("rows", len(found) <= 1, True)  # (the very first moment may be before the table's last rows)
        return 1

    def _open(self) -> apsw.Connection:
        if not isinstance(self._target, PastTarget):
            return self._target.connect(self._path)
        return self._target.connect_at(self._path, self._rng.choice(self._moments))
