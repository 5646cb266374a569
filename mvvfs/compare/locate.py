"""Which trees the changed pages belong to.

Called by `comparison`; calls `walk`.  A page does not say whose it is, and SQLite's trees are changed in
place: the parent of a changed page may be as it was.  But a leaf holds a key, and to descend to that key in
the tree that it belongs to leads to the leaf.  That costs the depth of a tree; the tree to descend in is
guessed by the form of the rows, so that mostly the first one is it.

1. Nothing rests on a guess: a page belongs to a tree because a descent has met it there.
2. In a table a descent finds each page that belongs to it.  In an index it does if the keys compare as here;
   if a program may have registered another collation, what is not found is looked for everywhere.
3. A page that is in no tree holds no rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mvvfs.compare.btree import INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF, Cell, cells_of, kind_of
from mvvfs.compare.pages import PageBits, Snapshot
from mvvfs.compare.records import Damaged, serial_types
from mvvfs.compare.schema import Schema
from mvvfs.compare.shapes import Index, Table
from mvvfs.compare.walk import Guide, Key, Tree

_INDEX_PAGES = (INDEX_INTERIOR, INDEX_LEAF)


class Candidate(NamedTuple):
    """A tree that a page may belong to."""

    root: int
    owner: str
    """The table that it is, or belongs to."""
    shape: Table | Index

    @property
    def is_index(self) -> bool:
        return isinstance(self.shape, Index) or self.shape.is_index

    def guide(self, cells: Iterable[Cell]) -> Guide | None:
        """To where these cells would be; None: it can't be told."""
        order = self.shape.order
        if order is None:
            return Guide([cell.rowid for cell in cells])
        if not order.known:
            return None
        keys: list[Key | None] = [order.key_of(cell) for cell in cells]
        return None if None in keys else Guide(keys, order.key_of)

    def misfit(self, cell: Cell) -> int | None:
        """How unlike its own the cell looks; None: it can't be its own."""
        try:
            types, _ = serial_types(cell.local)
        except Damaged:
            return 0  # a header that goes on elsewhere
        if len(types) > self.shape.width:
            return None
        if isinstance(self.shape, Index):
            return 0 if len(types) == self.shape.width else None
        if self.shape.alias is not None:
            at = self.shape.columns[self.shape.alias].field
            if at < len(types) and types[at] != 0:
                return None
        unlike = sum(
            ("CHAR" in column.declared.upper() or "TEXT" in column.declared.upper())
            and 0 < types[column.field] < 12
            for column in self.shape.columns
            if column.field < len(types)
        )
        return self.shape.width - len(types) + 2 * unlike


@dataclass
class Place:
    """The changed pages of one tree, at one version."""

    pages: set[int] = field(default_factory=set)
    cells: list[Cell] = field(default_factory=list)
    """One of each, but of the root."""
    blind: bool = False
    """Whether some are where their keys don't lead."""

    def guide(self, candidate: Candidate) -> Guide | None:
        """How to find them all in the tree; None: by looking at all its interior pages."""
        return None if self.blind else candidate.guide(self.cells)


def candidates(schema: Schema) -> list[Candidate]:
    """All trees but that of the schema itself."""
    shapes = schema.shapes
    tables = [Candidate(root, table.name, table) for root, table in shapes.tables.items()]
    return [*tables, *(Candidate(root, index.table, index) for root, index in shapes.indexes.items())]


class Locator:
    """Finds the trees of changed pages at one version."""

    def __init__(
        self,
        snapshot: Snapshot,
        among: Collection[Candidate],
        contents: Mapping[int, bytes],
        hints: dict[int, int],
    ) -> None:
        """`contents`: of the changed B-tree pages that exist at this version.  `hints`: the root pages of the
        trees that pages belonged to when they were last looked for; kept up to date here."""
        self._snapshot = snapshot
        self._among = among
        self._hints = hints
        self._found: dict[int, Place] = defaultdict(Place)
        self._cells: dict[int, Cell] = {}
        """The first one of each page that is still to be found."""
        roots = {candidate.root for candidate in among}
        sought = {candidate.is_index for candidate in among}
        self._kinds: dict[int, bool] = {}
        """Whether they are pages of an index."""
        for number, content in contents.items():
            kind = kind_of(number, content)
            if number in roots:
                self._found[number].pages.add(number)
            if (kind == TABLE_LEAF and False in sought) or (kind in _INDEX_PAGES and True in sought):
                try:
                    cells = cells_of(number, content, snapshot.usable)
                except Damaged as exc:
                    raise snapshot.corrupt(number, exc) from exc
                if cells and number not in roots:
                    self._cells[number] = cells[0]
                    self._kinds[number] = kind in _INDEX_PAGES

    def locate(self) -> dict[int, Place]:
        """By root page.  Raises CorruptPageError and what `Store.read` raises."""
        untried = {number: self._ranked(number) for number in self._cells}
        while untried:
            groups: dict[Candidate, list[int]] = defaultdict(list)
            for number, choices in list(untried.items()):
                if not choices:
                    del untried[number]
                else:
                    groups[choices.pop()].append(number)
            for candidate, numbers in groups.items():
                wanted = [number for number in numbers if number in self._cells]
                if wanted:
                    self._look(candidate, candidate.guide(self._cells[n] for n in wanted))
            untried = {number: choices for number, choices in untried.items() if number in self._cells}
        self._look_everywhere()
        return self._found

    def _ranked(self, number: int) -> list[Candidate]:
        """The trees that it may belong to, the likeliest last."""
        cell = self._cells[number]
        fitting = [
            (self._hints.get(number) != candidate.root, misfit, -at, candidate)
            for at, candidate in enumerate(self._among)
            if candidate.is_index == self._kinds[number]
            and number != candidate.root
            and (misfit := candidate.misfit(cell)) is not None
        ]
        return [candidate for *_, candidate in sorted(fitting, key=lambda one: one[:3], reverse=True)]

    def _look(self, candidate: Candidate, guide: Guide | None) -> None:
        met: set[int] = set()
        tree = Tree(self._snapshot, candidate.root, candidate.is_index)
        for _ in tree.leaves(PageBits(self._cells), guide, on_page=met.add):
            pass
        if met:
            place = self._found[candidate.root]
            place.pages |= met
            place.cells.extend(self._cells.pop(number) for number in met)
            place.blind |= guide is None
            self._hints.update(dict.fromkeys(met, candidate.root))

    def _look_everywhere(self) -> None:
        for candidate in self._among:
            order = candidate.shape.order
            if order is not None and not order.exact and any(self._kinds[number] for number in self._cells):
                self._look(candidate, None)
