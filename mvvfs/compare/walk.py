"""One B-tree at one version: its changed parts in key order, without reading the others.

Called by `schema`, `locate` and `merge`; calls `btree` and `pages`.

1. Pages are read level by level in batches, and no more than a batch of each level is held.
2. A page that has not changed is not read if it is a leaf; if it is an interior page, only when a changed
   page may lie below it.  Which ones these are is said by keys, where somebody knows them (`Guide`).
3. A tree is at most `MAX_DEPTH` deep, all leaves at the same level; no interior page comes twice, and in a
   table no key lies outside of its parent's bounds.  So a damaged tree is an error and never an endless walk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple, TypeAlias

from mvvfs.compare.btree import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    Interior,
    index_interior,
    index_leaf,
    kind_of,
    table_interior,
    table_leaf,
)
from mvvfs.compare.pages import Snapshot
from mvvfs.compare.records import Damaged

_MOST_ITEMS = 50_000
"""Children and entries in one batch."""

_KEYS_WORTH_A_SEARCH = 8
"""A page with more children than so many for each key is searched; else all its bounds are looked at."""

MAX_DEPTH = 20
"""As SQLite's own cursors (BTCURSOR_MAX_DEPTH): 20 levels hold more than 2**31 pages."""

Key: TypeAlias = Any
"""What the keys of one tree compare as: a rowid, or what `KeyOrder.key` makes."""


class _UnknownKeyError(Exception):
    """A key that goes on on another page."""


class Guide:
    """The keys near which the changed pages of a tree lie."""

    def __init__(self, keys: list[Key], key_of: Callable[[Cell], Key | None] | None = None) -> None:
        """`key_of`: the key of an index entry, None where it can't be told; for an index only."""
        self.keys = sorted(keys)
        self.key_of = key_of

    def has(self, low: Key | None, high: Key | None) -> bool:
        """Whether there is one in a child's range; None: no bound."""
        first, end = self._range(low, high)
        return first < end

    def within(self, low: Key | None, high: Key | None) -> list[Key]:
        """Those in a child's range, ascending."""
        first, end = self._range(low, high)
        return self.keys[first:end]

    def _range(self, low: Key | None, high: Key | None) -> tuple[int, int]:
        end = len(self.keys)
        first = 0 if low is None else bisect_right(self.keys, low)
        if high is not None:
            # a table's separator is the largest row below it; an index's is an entry of its own
            end = (bisect_left if self.key_of else bisect_right)(self.keys, high)
        return first, end


class Child(NamedTuple):
    number: int
    low: Key | None
    """What every key below it is greater than; None: not known."""
    high: Key | None
    """What no key below it is greater than; None: not known."""


class Held(NamedTuple):
    """A cell and the page that holds it."""

    number: int
    cell: Cell


class Tree(NamedTuple):
    """A B-tree of one version."""

    snapshot: Snapshot
    root: int
    is_index: bool
    """An index, or a WITHOUT ROWID table, which is stored like one."""

    def depth(self, guide: Guide | None = None) -> int:
        """Levels above the leaves.  Descends once, to where the guide's first key would be."""
        at, depth = Child(self.root, None, None), 0
        leaf, interior = (INDEX_LEAF, INDEX_INTERIOR) if self.is_index else (TABLE_LEAF, TABLE_INTERIOR)
        while True:
            content = self._read([at.number])[0]
            kind = kind_of(at.number, content)
            if kind == leaf:
                return depth
            if kind != interior or depth >= MAX_DEPTH:
                what = f"begins with {kind}" if kind != interior else f"lies {MAX_DEPTH} levels deep"
                raise self.snapshot.corrupt(at.number, f"it {what}, in the tree of page {self.root}")
            depth += 1
            page = self._interior(at, content)
            at = next(self._children(at, page, guide), Child(page.children[0], None, None))

    def leaves(
        self,
        changed: Container[int] | None,
        guide: Guide | None = None,
        on_page: Callable[[int], None] | None = None,
    ) -> Iterator[Child | Held]:
        """The changed leaves, unread, and the entries on changed interior pages, in key order.

        `changed` None: all of them.  `on_page` is told each changed page.  Raises CorruptPageError and
        what `Store.read` raises."""
        level: Iterator[Child | Held] = iter([Child(self.root, None, None)])
        seen: set[int] = set()
        for _ in range(self.depth(guide)):
            level = self._expand(level, changed, guide, seen, on_page)
        for item in level:
            if isinstance(item, Held):
                yield item
            elif changed is None or item.number in changed:
                if on_page is not None:
                    on_page(item.number)
                yield item

    def cells(self, leaves: Iterator[Child | Held]) -> Iterator[Held]:
        """The cells of leaves as `leaves` gives them, with those that it gives itself."""
        parse = index_leaf if self.is_index else table_leaf
        for batch in _batches(leaves, self.snapshot.batch):
            contents = iter(self._read([item.number for item in batch if isinstance(item, Child)]))
            for item in batch:
                if isinstance(item, Held):
                    yield item
                    continue
                try:
                    cells = parse(item.number, next(contents), self.snapshot.usable)
                    self._check(item, [cell.rowid for cell in cells])
                except Damaged as exc:
                    raise self.snapshot.corrupt(item.number, exc) from exc
                for cell in cells:
                    yield Held(item.number, cell)

    def _read(self, numbers: list[int]) -> list[bytes]:
        return self.snapshot.read(numbers, f"the tree of page {self.root} holds it")

    def _expand(
        self,
        level: Iterator[Child | Held],
        changed: Container[int] | None,
        guide: Guide | None,
        seen: set[int],
        on_page: Callable[[int], None] | None,
    ) -> Iterator[Child | Held]:
        """The next level: for each interior page its children, and its entries if it has changed."""
        for batch in _batches(level, self.snapshot.batch):
            contents = iter(self._read([item.number for item in batch if isinstance(item, Child)]))
            for item in batch:
                if isinstance(item, Held):
                    yield item
                    continue
                if item.number in seen:
                    raise self.snapshot.corrupt(item.number, "it stands in its tree twice")
                seen.add(item.number)
                page = self._interior(item, next(contents))
                is_changed = changed is None or item.number in changed
                if is_changed and on_page is not None:
                    on_page(item.number)
                yield from self._in_order(item, page, guide, with_cells=is_changed)

    def _in_order(
        self, parent: Child, page: Interior, guide: Guide | None, *, with_cells: bool
    ) -> Iterator[Child | Held]:
        if not (with_cells and page.cells):
            yield from self._children(parent, page, guide)
            return
        wanted = iter(self._children(parent, page, guide))
        child = next(wanted, None)
        for at, number in enumerate(page.children):
            if child is not None and child.number == number:
                yield child
                child = next(wanted, None)
            if at < len(page.cells):
                yield Held(parent.number, page.cells[at])

    def _children(self, parent: Child, page: Interior, guide: Guide | None) -> Iterator[Child]:
        """Those that the guide leads to, in order."""
        if guide is None:
            bounds: list[Key | None] = [None] * len(page.cells) if self.is_index else list(page.keys)
            yield from self._bounded(parent, page, bounds)
            return
        keys = guide.within(parent.low, parent.high)
        if len(keys) * _KEYS_WORTH_A_SEARCH < len(page.children):
            try:
                yield from self._searched(parent, page, guide, keys)
                return
            except _UnknownKeyError:
                pass
        bounds = [guide.key_of(cell) for cell in page.cells] if guide.key_of else list(page.keys)
        for child in self._bounded(parent, page, bounds):
            if guide.has(child.low, child.high):
                yield child

    def _bounded(self, parent: Child, page: Interior, bounds: list[Key | None]) -> Iterator[Child]:
        low = parent.low
        for number, high in zip(page.children, [*bounds, parent.high], strict=True):
            yield Child(number, low, high)
            low = high

    def _searched(self, parent: Child, page: Interior, guide: Guide, keys: list[Key]) -> list[Child]:
        """The children in which a few keys lie; raises _UnknownKeyError where that can't be told."""
        count = len(page.children) - 1

        def bound(at: int) -> Key:
            key = guide.key_of(page.cells[at]) if guide.key_of else page.keys[at]
            if key is None:
                raise _UnknownKeyError
            return key

        found: dict[int, Child] = {}
        for key in keys:
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                if bound(middle) < key:
                    low = middle + 1
                else:
                    high = middle
            if guide.key_of and low < count and not key < bound(low):
                continue  # the entry itself, on this page
            if low not in found:
                least = bound(low - 1) if low else parent.low
                most = bound(low) if low < count else parent.high
                found[low] = Child(page.children[low], least, most)
        return list(found.values())

    def _interior(self, at: Child, content: bytes) -> Interior:
        parse = index_interior if self.is_index else table_interior
        try:
            page = parse(at.number, content, self.snapshot.usable)
            self._check(at, page.keys)
            if len(page.children) < 2 and at.number != self.root:
                raise Damaged("an interior page without cells")
        except Damaged as exc:
            raise self.snapshot.corrupt(at.number, exc) from exc
        return page

    def _check(self, page: Child, rowids: list[int]) -> None:
        if self.is_index or not rowids:
            return
        if (page.low is not None and rowids[0] <= page.low) or (
            page.high is not None and rowids[-1] > page.high
        ):
            raise Damaged(f"rows {rowids[0]} to {rowids[-1]} outside of its parent's bounds")


def _batches(items: Iterator[Child | Held], size: int) -> Iterator[list[Child | Held]]:
    """Lists with up to `size` children each, and what lies between them."""
    batch: list[Child | Held] = []
    pages = 0
    for item in items:
        batch.append(item)
        pages += isinstance(item, Child)
        if pages >= size or len(batch) >= _MOST_ITEMS:
            yield batch
            batch, pages = [], 0
    if batch:
        yield batch
