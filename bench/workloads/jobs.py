"""A queue in a table: every worker takes the first job that nobody has, in a transaction of its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import apsw

from bench.targets import Target
from bench.workloads.base import Client, Evidence, Workload, expect, integers


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimJobs(Workload):
    """SELECT the first open job, UPDATE it to be one's own: a job claimed twice shows in the evidence."""

    jobs: int = 50_000
    """More than can be claimed in a round."""

    def small(self) -> Self:
        return replace(self, jobs=5_000)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY, worker INTEGER, task TEXT NOT NULL)")
        connection.execute("CREATE INDEX open_jobs ON jobs (id) WHERE worker IS NULL")
        with connection:
            connection.executemany(
                "INSERT INTO jobs (task) VALUES (?)", ((f"task {job}",) for job in range(self.jobs))
            )

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        return ClaimClient(target, connection, index)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        times = Counter(job for claimed in evidence for job in claimed)
        expect("jobs claimed twice", [job for job, count in times.items() if count > 1], [])
        wanted = {job: index for index, claimed in enumerate(evidence) for job in claimed}
        found = integers(connection, "SELECT id, worker FROM jobs WHERE worker IS NOT NULL")
        expect("claims", found, wanted)
        expect("claimed jobs behind an open one", sorted(found), list(range(1, len(found) + 1)))


class ClaimClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, index: int) -> None:
        self._target, self._connection, self._index = target, connection, index
        self._job = 0
        self._claimed: list[int] = []

    def operate(self) -> int:
        tries = self._target.transaction(self._connection, self._claim)
        self._claimed.append(self._job)
        return tries

    def _claim(self) -> None:
        self._job = first_open(self._connection)
        take(self._connection, self._job, self._index)

    def evidence(self) -> Evidence:
        return self._claimed


def first_open(connection: apsw.Connection) -> int:
    job = connection.execute("SELECT id FROM jobs WHERE worker IS NULL ORDER BY id LIMIT 1").get
    expect("an open job is an integer", type(job), int)
    return int(job)


def take(connection: apsw.Connection, job: int, worker: int) -> None:
    connection.execute("UPDATE jobs SET worker = ? WHERE id = ?", (worker, job))
