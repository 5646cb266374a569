"""Overflow pages that were written over in place: rows that changed on a page that did not.

Called by `comparison`; calls `walk` and `pages`.  SQLite writes a row over in place if its size stays
(`btreeOverwriteCell`, and incremental blob I/O).  Then the tail of a long row may change, and nothing on the
leaf that holds its beginning.  In every other case the page that refers to a new or freed overflow page has
changed itself.

1. Suspicious is a page that has changed and is an overflow page in both versions, with other content.
2. Those that a changed page's cells lead to are explained: these cells are compared anyway.
3. For the rest the owner has to be looked for among all rows that have overflow pages: slow, but rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mvvfs.compare.btree import FIRST_AMBIGUOUS_PAGE, KINDS, cells_of
from mvvfs.compare.pages import PageBits, Snapshot, payloads
from mvvfs.compare.records import Damaged
from mvvfs.compare.walk import Held, Tree

_PAYLOAD_BATCH = 1 << 20


def may_be_overflow(number: int, content: bytes, highest: int) -> bool:
    """Whether a page can be one, in a database of `highest` pages."""
    return number != 1 and (content[0] not in KINDS or highest >= FIRST_AMBIGUOUS_PAGE)


def _in_windows(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    window = []
    for number in numbers:
        window.append(number)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def suspicious(old: Snapshot, new: Snapshot, changed: PageBits, highest: int) -> PageBits:
    """Overflow pages with other content than before.  Reads every changed page once."""
    found = PageBits()
    for window in _in_windows(changed, new.batch):
        after = {
            number: content
            for number, content in zip(window, new.find(window), strict=True)
            if content is not None and may_be_overflow(number, content, highest)
        }
        for number, before in zip(after, old.find(list(after)), strict=True):
            if before is not None and before != after[number] and may_be_overflow(number, before, highest):
                found.add(number)
    return found


def without_explained(pages: PageBits, snapshot: Snapshot, changed: PageBits) -> PageBits:
    """Those that no cell of a changed page leads to.  For databases in which every page tells its kind."""
    left = PageBits(pages)
    for window in _in_windows(changed, snapshot.batch):
        for number, content in zip(window, snapshot.find(window), strict=True):
            if content is None or (number != 1 and content[0] not in KINDS):
                continue
            try:
                cells = cells_of(number, content, snapshot.usable)
            except Damaged as exc:
                raise snapshot.corrupt(number, exc) from exc
            for _, chain in chains(snapshot, (Held(number, cell) for cell in cells)):
                for page in chain:
                    left.discard(page)
            if not left:
                return left
    return left


def owners(pages: PageBits, tree: Tree) -> Iterator[Held]:
    """The rows of a tree whose overflow pages are among these; each is taken out.  Walks the whole tree."""
    for held, chain in chains(tree.snapshot, tree.cells(tree.leaves(None))):
        if any(page in pages for page in chain):
            for page in chain:
                pages.discard(page)
            yield held
        if not pages:
            return


def chains(snapshot: Snapshot, cells: Iterable[Held]) -> Iterator[tuple[Held, list[int]]]:
    """The overflow pages of those cells that have any, in batches of bounded size."""
    batch: list[Held] = []
    size = 0
    for held in cells:
        if held.cell.overflow:
            batch.append(held)
            size += held.cell.size
        if size >= _PAYLOAD_BATCH:
            yield from _chains(snapshot, batch)
            batch, size = [], 0
    yield from _chains(snapshot, batch)


def _chains(snapshot: Snapshot, batch: list[Held]) -> Iterator[tuple[Held, list[int]]]:
    for held, payload in zip(batch, payloads(snapshot, batch), strict=True):
        yield held, payload.pages
