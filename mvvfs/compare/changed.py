"""The pages that changed between two versions, and what the changelog says of them.

Called by `comparison` and `api`; calls `pages` and `btree`.

What need not be read: a page that was not there; and an index's page, which holds no rows, unless it held
some in the earlier version.  Why `with_rows` finds those: a page leaves a table's tree only if its parent is
written, which had its number.  The parent may have left the tree as well; its own parent was written then,
and so on, up to the root, which is a table's page in both versions (if not, the tables are compared whole).
"""

from __future__ import annotations

from mvvfs.compare.btree import FIRST_AMBIGUOUS_PAGE, TABLE_INTERIOR, kind_of, table_interior
from mvvfs.compare.pages import PageBits, Snapshot
from mvvfs.compare.records import Damaged
from pagestore.api import Change
from pagestore.batches import in_batches


class Changed:
    """Page numbers, by what became of the pages."""

    def __init__(self) -> None:
        self.pages = PageBits()
        """All that were written, allocated or freed."""
        self.index_pages = PageBits()
        """Those known to be an index's in the later version."""
        self.fresh = PageBits()
        """Those that are not there in the earlier version."""
        self.gone = PageBits()
        """Those that are not there in the later version."""

    def add(self, change: Change) -> None:
        """The next commit; oldest first."""
        self.fresh.update(number for number in change.allocated if number not in self.pages)
        self.pages.update(change.pages)
        self.index_pages.remove(change.pages)
        self.index_pages.update(change.index_pages)
        self.gone.remove(change.allocated)
        self.gone.update(change.freed)


def everything(highest: int) -> Changed:
    """For want of a changelog: all pages, of which nothing is known."""
    changed = Changed()
    changed.pages.update(range(1, highest + 1))
    return changed


def with_rows(changed: Changed, earlier: Snapshot, highest: int) -> PageBits:
    """Those that may belong to a table's tree in either version, or be the tail of a row.

    `earlier`: the older version.  Reads of it what is found.  Raises CorruptPageError and what
    `Store.read` raises."""
    if not changed.index_pages or highest >= FIRST_AMBIGUOUS_PAGE:
        return changed.pages
    found = PageBits(number for number in changed.pages if number not in changed.index_pages)
    left = list(found)
    while left:
        children = {
            child
            for window in in_batches(left, earlier.batch)
            for child in _children(window, earlier)
            if child in changed.index_pages and child not in found
        }
        found.update(children)
        left = sorted(children)
    return found


def _children(numbers: list[int], snapshot: Snapshot) -> list[int]:
    """The pages that those which are a table's interior pages lead to."""
    found: list[int] = []
    for number, content in zip(numbers, snapshot.find(numbers), strict=True):
        if content is None or kind_of(number, content) != TABLE_INTERIOR:
            continue
        try:
            found += table_interior(number, content, snapshot.usable).children
        except Damaged as exc:
            raise snapshot.corrupt(number, exc) from exc
    return found
