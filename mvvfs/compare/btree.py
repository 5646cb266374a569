"""SQLite's B-tree pages: cells, children, and where the rest of a long payload is.

Called by `walk`, `locate` and `rows`; calls `records`.  The format is that of
https://www.sqlite.org/fileformat2.html#b_tree_pages.

1. Every offset and size is checked against the page; what does not fit is `Damaged`.
2. A page is parsed on its own: whether its keys fit its place in the tree is the walker's to check.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import NamedTuple

from mvvfs.compare.records import MAX_PAYLOAD, Damaged, signed, varint

INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 5, 10, 13
KINDS = frozenset((INDEX_INTERIOR, TABLE_INTERIOR, INDEX_LEAF, TABLE_LEAF))
_NAMES = {
    INDEX_INTERIOR: "an interior index page",
    TABLE_INTERIOR: "an interior table page",
    INDEX_LEAF: "an index leaf",
    TABLE_LEAF: "a table leaf",
}
_HEADER_OF_FILE = 100
_MOST_LOCAL_SHARE, _LEAST_LOCAL_SHARE = 64, 32  # of 255

FIRST_AMBIGUOUS_PAGE = 0x02000000
"""An overflow page begins with the number of the next one, a B-tree page with its kind, 2 or more.  So the
first byte tells one from the other where no page number is as high as this (128 GiB of 4 KiB pages)."""


class Cell(NamedTuple):
    """A row, or an index entry, as far as it lies on the page."""

    rowid: int
    """0 in an index."""
    size: int
    """Bytes of the whole payload."""
    local: bytes
    """Its beginning, or all of it."""
    overflow: int
    """The page on which it goes on; 0: nowhere."""


class Interior(NamedTuple):
    children: list[int]
    """One more than there are cells."""
    keys: list[int]
    """Of a table: the largest rowid below each child but the last."""
    cells: list[Cell]
    """Of an index: the entries between the children."""


def kind_of(number: int, content: bytes) -> int:
    """The byte that tells what a B-tree page is."""
    return content[_HEADER_OF_FILE if number == 1 else 0]


def _pointers(number: int, content: bytes, usable: int, wanted: int) -> tuple[list[int], int]:
    """Where the cells are, and the right-most child (0 on a leaf)."""
    start = _HEADER_OF_FILE if number == 1 else 0
    kind = content[start]
    if kind != wanted:
        what = _NAMES.get(kind, f"a page that begins with {kind}")
        raise Damaged(f"{what}, where {_NAMES[wanted]} belongs")
    count = content[start + 3] << 8 | content[start + 4]
    interior = wanted in (INDEX_INTERIOR, TABLE_INTERIOR)
    array = start + (12 if interior else 8)
    end = array + 2 * count
    if end > usable:
        raise Damaged(f"{count} cells, more than fit the page")
    found = [content[i] << 8 | content[i + 1] for i in range(array, end, 2)]
    if found and not (end <= min(found) and max(found) < usable):
        raise Damaged("a cell that lies outside of the page's cell area")
    right = int.from_bytes(content[start + 8 : start + 12], "big") if interior else 0
    return found, right


def _child(number: int) -> int:
    if number < 2:
        raise Damaged(f"page {number} as a child")
    return number


class Sizes(NamedTuple):
    """How much of a payload lies on a page: https://www.sqlite.org/fileformat2.html#cell_payload."""

    usable: int
    """Bytes of a page that SQLite uses: the page size without the reserved bytes."""
    most_table: int
    most_index: int
    least: int

    def local(self, size: int, most: int) -> int:
        if size <= most:
            return size
        surplus = self.least + (size - self.least) % (self.usable - 4)
        return surplus if surplus <= most else self.least


@functools.cache
def sizes(usable: int) -> Sizes:
    return Sizes(
        usable,
        usable - 35,
        (usable - 12) * _MOST_LOCAL_SHARE // 255 - 23,
        (usable - 12) * _LEAST_LOCAL_SHARE // 255 - 23,
    )


def _payload(content: bytes, at: int, size: int, rule: Sizes, most: int, rowid: int) -> Cell:
    if size > MAX_PAYLOAD:
        raise Damaged(f"a payload of {size} bytes")
    local = rule.local(size, most)
    end = at + local
    overflow = 0
    if local < size:
        if end + 4 > rule.usable:
            raise Damaged("a cell that runs past the end of the page")
        overflow = int.from_bytes(content[end : end + 4], "big")
        if overflow < 2:
            raise Damaged(f"page {overflow} as the rest of a payload")
    elif end > rule.usable:
        raise Damaged("a cell that runs past the end of the page")
    return Cell(rowid, size, content[at:end], overflow)


def table_leaf(number: int, content: bytes, usable: int) -> list[Cell]:
    """The rows of a leaf, in order.  Raises Damaged."""
    rule = sizes(usable)
    pointers, _ = _pointers(number, content, usable, TABLE_LEAF)
    most = min(rule.most_table, 0x7F)
    cells = []
    for pointer in pointers:
        size = content[pointer]
        if size <= most:  # the short way for short rows
            at = pointer + 1
        else:
            size, at = varint(content, pointer)
        rowid, at = varint(content, at)
        end = at + size
        if size <= most and end <= usable:
            cells.append(Cell(signed(rowid), size, content[at:end], 0))
        else:
            cells.append(_payload(content, at, size, rule, rule.most_table, signed(rowid)))
    for before, after in pairwise(cells):
        if before.rowid >= after.rowid:
            raise Damaged(f"row {after.rowid} after row {before.rowid}")
    return cells


@functools.lru_cache(maxsize=512)
def table_interior(number: int, content: bytes, usable: int) -> Interior:
    """Raises Damaged."""
    pointers, right = _pointers(number, content, usable, TABLE_INTERIOR)
    children, keys = [], []
    for pointer in pointers:
        if pointer + 5 > usable:
            raise Damaged("a cell that runs past the end of the page")
        children.append(_child(int.from_bytes(content[pointer : pointer + 4], "big")))
        keys.append(signed(varint(content, pointer + 4)[0]))
    for before, after in pairwise(keys):
        if before >= after:
            raise Damaged(f"key {after} after key {before}")
    children.append(_child(right))
    return Interior(children, keys, [])


def index_leaf(number: int, content: bytes, usable: int) -> list[Cell]:
    """The entries of a leaf, in order.  Raises Damaged."""
    rule = sizes(usable)
    pointers, _ = _pointers(number, content, usable, INDEX_LEAF)
    return [_index_cell(content, pointer, rule) for pointer in pointers]


def _index_cell(content: bytes, at: int, rule: Sizes) -> Cell:
    size, at = varint(content, at)
    return _payload(content, at, size, rule, rule.most_index, 0)


@functools.lru_cache(maxsize=512)
def index_interior(number: int, content: bytes, usable: int) -> Interior:
    """Raises Damaged."""
    rule = sizes(usable)
    pointers, right = _pointers(number, content, usable, INDEX_INTERIOR)
    children, cells = [], []
    for pointer in pointers:
        children.append(_child(int.from_bytes(content[pointer : pointer + 4], "big")))
        cells.append(_index_cell(content, pointer + 4, rule))
    children.append(_child(right))
    return Interior(children, [], cells)


def cells_of(number: int, content: bytes, usable: int) -> list[Cell]:
    """The rows or entries that a page of any kind holds; none on an interior table page.  Raises Damaged."""
    kind = kind_of(number, content)
    if kind == TABLE_LEAF:
        return table_leaf(number, content, usable)
    if kind == INDEX_LEAF:
        return index_leaf(number, content, usable)
    if kind == INDEX_INTERIOR:
        return index_interior(number, content, usable).cells
    table_interior(number, content, usable)
    return []
