"""The schema of a database at one version: what is in `sqlite_schema`, and what differs between two.

Called by `comparison`; calls `walk` for the rows and `shapes` for what they mean.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mvvfs.compare.changes import SchemaChange
from mvvfs.compare.pages import Snapshot, payloads
from mvvfs.compare.records import Damaged, Value, values
from mvvfs.compare.shapes import Shapes, load
from mvvfs.compare.walk import Tree

NAME = "sqlite_schema"
ROOT = 1
_SETTINGS = {"user_version": slice(60, 64), "application_id": slice(68, 72)}
"""Pragmas that page 1 holds the value of."""


class Entry(NamedTuple):
    """A row of `sqlite_schema`: https://www.sqlite.org/schematab.html."""

    kind: str
    """table, index, view or trigger."""
    name: str
    table: str
    """The table that it belongs to."""
    root: int
    """0: no tree of its own (a view, a trigger, a virtual table)."""
    sql: str | None
    """None: an index that a constraint made."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies it; names differ by more than case."""
        return self.kind, fold(self.name)


class Schema:
    """Everything that a database consists of."""

    def __init__(
        self, entries: list[Entry], pages: frozenset[int], settings: dict[str, int], of: Snapshot
    ) -> None:
        self.entries = entries
        """In the order in which they were made (more or less: that of their rowids)."""
        self.pages = pages
        """On which it stands."""
        self.settings = settings
        self._encoding = of.encoding
        self._schema_format = of.schema_format
        self._snapshot = of

    @functools.cached_property
    def shapes(self) -> Shapes:
        """The tables and indexes that have a tree.  Raises CorruptPageError."""
        try:
            rows = [(e.kind, e.name, e.table, e.root, e.sql) for e in self.entries if e.root]
            return load(rows, self._encoding, self._schema_format)
        except Damaged as exc:
            raise self._snapshot.corrupt(ROOT, exc) from exc

    def of_table(self, name: str, *kinds: str) -> list[Entry]:
        """What belongs to a table, of these kinds."""
        return [e for e in self.entries if e.kind in kinds and fold(e.table) == fold(name)]


def fold(name: str) -> str:
    """A name as SQLite compares names: without regard to the case of ASCII letters."""
    return name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def read(snapshot: Snapshot) -> Schema:
    """Raises CorruptPageError and what `Store.read` raises."""
    if snapshot.is_empty:
        return Schema([], frozenset((ROOT,)), dict.fromkeys(_SETTINGS, 0), snapshot)
    pages: set[int] = set()
    tree = Tree(snapshot, ROOT, False)
    held = list(tree.cells(tree.leaves(None, on_page=pages.add)))
    entries = []
    for (number, _), payload in zip(held, payloads(snapshot, held), strict=True):
        pages.update(payload.pages)
        try:
            entries.append(_entry(values(payload.data, snapshot.encoding)))
        except Damaged as exc:
            raise snapshot.corrupt(number, exc) from exc
    first = snapshot.read([ROOT], "every database has it")[0]
    settings = {name: int.from_bytes(first[at], "big", signed=True) for name, at in _SETTINGS.items()}
    return Schema(entries, frozenset(pages), settings, snapshot)


def _entry(row: list[Value]) -> Entry:
    if len(row) == 5:
        kind, name, table, root, sql = row
        if (
            isinstance(kind, str)
            and isinstance(name, str)
            and isinstance(table, str)
            and (root is None or (isinstance(root, int) and 0 <= root < 1 << 32))
            and (sql is None or isinstance(sql, str))
        ):
            return Entry(kind, name, table, root or 0, sql)
    raise Damaged("a row that does not belong into sqlite_schema")


def differences(old: Schema, new: Schema, renamed: Mapping[str, str]) -> Iterator[SchemaChange]:
    """What was dropped, added, renamed and altered; first what concerns the database as a whole.

    `renamed`: tables that are new by name only, and their former names.  Another root page alone is no
    difference."""
    for name, value in new.settings.items():
        if value != old.settings[name]:
            yield SchemaChange("pragma", name, "", "altered", str(old.settings[name]), str(value))
    before, after = ({e.key: e for e in schema.entries if e.sql is not None} for schema in (old, new))
    former = {("table", fold(name)): ("table", fold(was)) for name, was in renamed.items()}
    for key, entry in before.items():
        if key not in after and key not in former.values():
            yield SchemaChange(entry.kind, entry.name, entry.table, "dropped", entry.sql, None)
    for key, entry in after.items():
        was = before.get(former.get(key, key))
        if was is None:
            yield SchemaChange(entry.kind, entry.name, entry.table, "added", None, entry.sql)
        elif key in former:
            yield SchemaChange(entry.kind, entry.name, was.name, "renamed", was.sql, entry.sql)
        elif (was.sql, was.name, was.table) != (entry.sql, entry.name, entry.table):
            yield SchemaChange(entry.kind, entry.name, entry.table, "altered", was.sql, entry.sql)
