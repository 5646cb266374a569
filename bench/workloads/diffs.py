"""What a difference costs: of one changed row, in a small table and in a large one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import apsw

import mvvfs
from bench.targets import MvTarget, Target
from bench.workloads.base import Client, Evidence, Workload, expect, scalar
from mvvfs.stores import open_store
from pagestore.api import format_version

APART = 1000
"""Row ids are so far apart, so that rows can come in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRow(Workload):
    """The difference between the two newest versions of a table with two indexes: one row."""

    kind: ClassVar[Literal["write", "read"]] = "read"
    unit: ClassVar[str] = "diffs"
    rows: int = 1_000_000

    def small(self) -> Self:
        return replace(self, rows=5_000)

    def load(self, connection: apsw.Connection, processes: int) -> None:
        """The table, and a commit that changes the row in its middle."""
        connection.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, n INT, payload TEXT)")
        connection.execute(
            "WITH RECURSIVE i(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM i WHERE k < ?)"
            f" INSERT INTO items SELECT k * {APART}, 'name of ' || k, k * 7919 % 1000003, hex(k * 31) FROM i",
            (self.rows,),
        )
        connection.execute("CREATE INDEX by_n ON items(n); CREATE INDEX by_name ON items(name)")
        connection.execute(
            "UPDATE items SET payload = 'changed' WHERE id = ?", (max(self.rows // 2, 1) * APART,)
        )

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        assert isinstance(target, MvTarget)
        return DiffClient(target.url(path))

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        expect("changed rows", scalar(connection, "SELECT sum(payload = 'changed') FROM items"), 1)


class DiffClient(Client):
    def __init__(self, url: str) -> None:
        self._url = url
        self._store = open_store(url, create=False)  # kept open, as a program that asks often would
        newest = self._store.changelog(self._store.open("main").id, newest_first=True, limit=2)
        self._after, self._before = (format_version(change.version) for change in newest)

    def operate(self) -> int:
        found = list(mvvfs.diff("main", self._before, self._after, store=self._url))
        expect("changes", [(one.op, one.table) for one in found], [("update", "items")])
        return 1

    def evidence(self) -> Evidence:
        self._store.close()
        return None
