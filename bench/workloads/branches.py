"""What branches cost: beside a commit of one row, of small and large databases, as a way to make new ones."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import apsw

from bench.targets import MvTarget, Target
from bench.workloads.base import Client, Evidence, Workload, expect, scalar
from bench.workloads.history import UPDATE
from bench.workloads.updates import CounterWorkload
from mvvfs.stores import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches(CounterWorkload):
    """Branches of a database as it is now; without `MvTarget.branches`, commits of one row."""

    unit: ClassVar[str] = "branches or commits"

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        assert isinstance(target, MvTarget)
        if target.branches:
            return BranchClient(target, path)
        return CommitClient(target, connection, self.rows, rng)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """Commits are all there; branches have changed nothing (each client has looked for its own)."""
        expect("commits", scalar(connection, "SELECT sum(value) FROM counters"), sum(evidence))


class CommitClient(Client):
    def __init__(self, target: Target, connection: apsw.Connection, rows: int, rng: random.Random) -> None:
        self._target, self._connection, self._rows, self._rng = target, connection, rows, rng
        self._committed = 0

    def warm(self) -> None:
        self._connection.execute("SELECT sum(length(payload)) FROM counters").fetchall()

    def operate(self) -> int:
        tries = self._target.autocommit(self._connection, UPDATE, (self._rng.randint(1, self._rows),))
        self._committed += 1
        return tries

    def evidence(self) -> Evidence:
        return self._committed


class BranchClient(Client):
    def __init__(self, target: MvTarget, path: Path) -> None:
        self._target, self._path = target, path
        self._prefix = f"branch-{secrets.token_hex(4)}-"
        self._made = 0
        self._store = open_store(target.url(path), create=False)
        self._of = self._store.open("main").id
        self._version = self._store.begin(self._of).version

    def operate(self) -> int:
        self._store.branch(self._of, f"{self._prefix}{self._made}", self._version)
        self._made += 1
        return 1

    def evidence(self) -> Evidence:
        """After a look at what was made.  (No commits.)"""
        names = [one.name for one in self._store.list() if one.name.startswith(self._prefix)]
        expect("branches", len(names), self._made)
        if names:
            connection, parent = (self._target.connect_to(self._path, n) for n in (names[-1], "main"))
            content = "SELECT count(*), sum(value), sum(length(payload)) FROM counters"
            expect("rows", connection.execute(content).fetchall(), parent.execute(content).fetchall())
            connection.close()
            parent.close()
        self._store.close()
        return 0


TABLES, ROWS = 20, 20
SCRIPT = "".join(
    f"CREATE TABLE t{n}(id INTEGER PRIMARY KEY, name TEXT, n INT); CREATE INDEX t{n}_name ON t{n}(name);"
    f"WITH RECURSIVE i(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM i WHERE k < {ROWS})"
    f" INSERT INTO t{n} SELECT k, 'name ' || k, k * 7 FROM i;"
    for n in range(TABLES)
)
"""What every new database has: a small application's tables, with what they begin with."""

CONTENT = " UNION ALL ".join(f"SELECT count(*), sum(n), max(name) FROM t{n}" for n in range(TABLES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates(Workload):
    """A new database with tables in it, and a look at one: as a branch of a template, or by a script."""

    unit: ClassVar[str] = "databases"

    def load(self, connection: apsw.Connection, processes: int) -> None:
        _fill(connection)

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        assert isinstance(target, MvTarget)
        return TemplateClient(target, path)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """The template is what it was (each client has looked at what it made)."""
        expect("tables", connection.execute(CONTENT).fetchall(), _content())


def _fill(connection: apsw.Connection) -> None:
    with connection:
        for statement in filter(None, SCRIPT.split(";")):
            connection.execute(statement)


def _content() -> list[tuple[int, int, str]]:
    return [(ROWS, 7 * ROWS * (ROWS + 1) // 2, "name 9")] * TABLES


class TemplateClient(Client):
    def __init__(self, target: MvTarget, path: Path) -> None:
        self._target, self._path = target, path
        self._prefix = f"tenant-{secrets.token_hex(4)}-"
        self._made = 0
        self._store = open_store(target.url(path), create=False)
        self._template = self._store.open("main").id
        self._version = self._store.begin(self._template).version

    def operate(self) -> int:
        name = f"{self._prefix}{self._made}"
        if self._target.branches:
            self._store.branch(self._template, name, self._version)
        connection = self._target.connect_to(self._path, name)
        if not self._target.branches:
            _fill(connection)
        expect("row", connection.execute("SELECT name FROM t7 WHERE id = 7").fetchall(), [("name 7",)])
        connection.close()
        self._made += 1
        return 1

    def evidence(self) -> Evidence:
        names = [one.name for one in self._store.list() if one.name.startswith(self._prefix)]
        expect("databases", len(names), self._made)
        for name in names[:3]:
            connection = self._target.connect_to(self._path, name)
            expect("tables", connection.execute(CONTENT).fetchall(), _content())
            connection.close()
        self._store.close()
        return self._made
