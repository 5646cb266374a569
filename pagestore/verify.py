"""Reads everything that a store holds and verifies it.

Called by `embedded` on a backup, before it is said to be one, and on what is restored, before it becomes
a store.  Reads one engine snapshot, so for a large store only an engine without time limits will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pagestore import changelog, encoding, format, keys
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    StoredPage,
)
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.namespaces import find

_TELL_EVERY = 1000


def verify(tx: Snapshot, progress: Callable[[int, int], None]) -> None:
    """Decode every version of every page and every changelog record, and compare how many there are.

    `progress` is told page numbers done and page numbers in all (roughly: numbers may be unused).
    Raises FormatError, CorruptPageError."""
    format.check(tx)
    ids = [NamespaceId(int.from_bytes(value, "big")) for _, value in tx.scan(KeyRange(*keys.all_names()))]
    highest = {id_: _highest_page(tx, id_) for id_ in ids}
    total, before = sum(highest.values()), 0
    for id_ in ids:
        missing = sum(
            len(changelog.read(keys.version_of(key), record).pages)
            for key, record in tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, MAX_VERSION)))
        )
        page_size = find(tx, id_).page_size
        for page in _pages(tx, id_):
            if not encoding.is_freed(page.blobs[0]):
                encoding.decode(page, page_size)
            missing -= 1
            if missing % _TELL_EVERY == 0:
                progress(before + page.number, total)
        if missing:
            raise CorruptPageError(f"namespace {id_}: the changelog tells of {missing} more page versions")
        before += highest[id_]
    progress(total, total)


def _highest_page(tx: Snapshot, id_: NamespaceId) -> int:
    rows = tx.scan(KeyRange(*keys.all_pages(id_), 1, reverse=True))
    return next((keys.number_of_page(key) for key, _ in rows), 0)


def _pages(tx: Snapshot, id_: NamespaceId) -> Iterator[StoredPage]:
    """Every version of every page, each with the older blobs that it needs."""
    number: PageNumber | None = None
    blobs: tuple[bytes, ...] = ()
    for key, blob in tx.scan(KeyRange(*keys.all_pages(id_))):  # of each page, the oldest version first
        if keys.number_of_page(key) != number:
            number, blobs = keys.number_of_page(key), ()
        blobs = (blob, *blobs) if encoding.chain_of(blob) else (blob,)
        yield StoredPage(number, keys.version_of(key), blobs)
