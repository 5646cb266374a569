"""A small and a large database for the cases whose cost must not go with the size; pages that a diff reads.

Called by `cli`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from bench.results import Finding
from bench.targets import MvTarget
from bench.workloads import WORKLOADS
from bench.workloads.base import expect
from bench.workloads.branches import Branches
from bench.workloads.diffs import APART, DiffRow
from mvvfs.compare.comparison import compare
from mvvfs.stores import open_store
from pagestore.api import NamespaceId, PageNumber, Store, StoredPage, Version

CHANGES = 100
"""Of each kind, of which pages are counted."""

SMALL, LARGE = 1_000, 1_000_000
"""Rows."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Two databases, else alike."""

    small: Path
    large: Path


def branches(directory: Path, quick: bool) -> Sizes:
    """With tables of counters."""
    workload = WORKLOADS["branch-large"]
    assert isinstance(workload, Branches)
    return _built(directory, [replace(workload, rows=rows) for rows in _rows(quick)])


def diffs(directory: Path, quick: bool) -> Sizes:
    """With tables of which one row changed last."""
    workload = WORKLOADS["diff-row"]
    assert isinstance(workload, DiffRow)
    return _built(directory, [replace(workload, rows=rows) for rows in _rows(quick)])


def _rows(quick: bool) -> tuple[int, int]:
    return (SMALL // 10, SMALL * 5) if quick else (SMALL, LARGE)


def _built(directory: Path, workloads: list[Branches] | list[DiffRow]) -> Sizes:
    target = MvTarget(durability="normal")
    paths = []
    for name, workload in zip(("small", "large"), workloads, strict=True):
        (directory / name).mkdir(parents=True)
        paths.append(target.place(directory / name))
        connection = target.connect(paths[-1])
        workload.load(connection, 1)
        connection.close()
    return Sizes(*paths)


# Pages -------------------------------------------------------------------------------------------------


class _Counted:
    """A store that counts the pages that are read from it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pages = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read(
        self, namespace: NamespaceId, version: Version, numbers: list[PageNumber]
    ) -> list[StoredPage | None]:
        self.pages += len(numbers)
        return self._store.read(namespace, version, numbers)


def pages_read(path: Path) -> list[Finding]:
    """By the difference that one changed row makes, in the larger table of `diffs`: the most of `CHANGES`."""
    connection = MvTarget(durability="normal").connect(path)
    store = open_store(str(path), create=False)
    counted = _Counted(store)
    rows = connection.execute("SELECT count(*) FROM items").get
    depth = connection.execute(
        "SELECT max(length(path) - length(replace(path, '/', ''))) FROM dbstat"
        " WHERE name = 'items' AND path NOT LIKE '%+%'"
    ).get
    found = []
    for what, statements in _kinds(random.Random(1), rows):
        most = 0
        for statement in statements:
            before = store.begin(store.open("main").id).version
            connection.execute(statement)
            most = max(most, _pages(counted, before))
        schema_pages = 1
        found.append(
            Finding(
                "run -w diff-row",
                f"pages a diff of one row reads, of {rows:,} ({depth} levels): {what}, most of {CHANGES}",
                most,
                4 * depth + schema_pages,
                "pages",
            )
        )
    connection.close()
    store.close()
    return found


def _pages(counted: _Counted, before: Version) -> int:
    store = cast(Store, counted)
    namespace = store.open("main")
    counted.pages = 0
    compared = compare(store, namespace, before, store.begin(namespace.id).version)
    expect("changes", len(list(compared.differences())), 1)
    return counted.pages


def _kinds(rng: random.Random, rows: int) -> Iterator[tuple[str, list[str]]]:
    ids = [number * APART for number in rng.sample(range(1, rows + 1), 3 * CHANGES)]
    some, more, rest = ids[:CHANGES], ids[CHANGES : 2 * CHANGES], ids[2 * CHANGES :]
    yield "update", [f"UPDATE items SET payload = 'new' WHERE id = {row}" for row in some]
    yield (
        "update of indexed columns",
        [f"UPDATE items SET n = {row % 997}, name = 'a{row}' WHERE id = {row}" for row in more],
    )
    yield "insert", [f"INSERT INTO items VALUES ({row + 1}, 'new {row}', {row}, 'x')" for row in some]
    yield "delete", [f"DELETE FROM items WHERE id = {row}" for row in rest]
    neighbours = (ids[0] + 2 + n for n in range(CHANGES))
    yield (
        "insert of neighbours",
        [f"INSERT INTO items VALUES ({n}, 'name of 5{n}', 5, 'x')" for n in neighbours],
    )
