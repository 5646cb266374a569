"""Overflow pages that were written over in place: rows that changed on a page that did not.

Called by `comparison`; calls `walk` and `pages`.  SQLite writes a row over in place if its size stays
(`btreeOverwriteCell`, and incremental blob I/O).  Then the tail of a long row may change, and nothing on the
leaf that holds its beginning.  In every other case the page that refers to a new or freed overflow page has
changed itself.

1. Suspicious is a page that has changed and is an overflow page in both versions, with other content.
2. Those that a changed page's cells lead to are explained: these cells are compared anyway.
3. For the rest the owner is looked for nearby: the pages of a chain mostly follow one another, and the row
   lies not far from its chain.  Whatever is found that way is followed from the row to the page.
4. What is not found is looked for among all rows that have overflow pages: slow, and rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mvvfs.compare.btree import FIRST_AMBIGUOUS_PAGE, KINDS, Cell, cells_of
from mvvfs.compare.pages import PageBits, Snapshot, payloads
from mvvfs.compare.records import Damaged
from mvvfs.compare.walk import Held, Tree
from pagestore.batches import in_batches

_PAYLOAD_BATCH = 1 << 20
_NEARBY = (16, 64, 256, 1024)
"""How many page numbers to either side are looked at for what refers to a page, one after the other."""
_MOST_BACK = 64
"""How many pages to look at together on the way back along a chain whose pages follow one another."""


def may_be_overflow(number: int, content: bytes, highest: int) -> bool:
    """Whether a page can be one, in a database of `highest` pages."""
    return number != 1 and (content[0] not in KINDS or highest >= FIRST_AMBIGUOUS_PAGE)


def suspicious(old: Snapshot, new: Snapshot, changed: PageBits, highest: int) -> PageBits:
    """Overflow pages with other content than before.  Reads every changed page once."""
    found = PageBits()
    for window in in_batches(changed, new.batch):
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
    for window in in_batches(changed, snapshot.batch):
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


def nearby_owners(pages: PageBits, snapshot: Snapshot) -> Iterator[tuple[Held, list[int]]]:
    """Rows that these pages belong to, with all their overflow pages, as far as they are found near them.

    For databases in which every page tells its kind.  Takes nothing out of `pages`."""
    left = PageBits(pages)
    for page in pages:
        if page not in left:
            continue
        held = _owner_of(page, snapshot)
        if held is None:
            continue
        for _, chain in _chains(snapshot, [held]):
            for number in chain:
                left.discard(number)
            if page in chain:
                yield held, chain


def _owner_of(page: int, snapshot: Snapshot) -> Held | None:
    """The cell that a chain starts from, found by going back along it."""
    seen = {page}
    back = 1
    while True:
        number, cell = _referrer(page, snapshot, back)
        if cell is not None:
            return Held(number, cell)
        if not number or number in seen:
            return None
        back = min(2 * back, _MOST_BACK) if number == page - 1 else 1
        seen.add(number)
        page = number


def _referrer(page: int, snapshot: Snapshot, back: int) -> tuple[int, Cell | None]:
    """The overflow page, or the page and cell, that goes on at this page; 0: it was not found.

    First among the `back` pages before it."""
    ranges = [range(page - 1, max(page - 1 - back, 0), -1)]
    ranges += [range(max(page - reach, 1), page + reach + 1) for reach in _NEARBY]
    for numbers in ranges:
        for number, content in zip(numbers, snapshot.find(numbers), strict=True):
            if content is None:
                continue
            if number != 1 and content[0] not in KINDS:
                if int.from_bytes(content[:4], "big") == page:
                    return number, None
                continue
            try:
                cells = cells_of(number, content, snapshot.usable)
            except Damaged as exc:
                raise snapshot.corrupt(number, exc) from exc
            for cell in cells:
                if cell.overflow == page:
                    return number, cell
    return 0, None


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
