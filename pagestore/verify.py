"""Reads everything that a store holds and verifies it.

Called by `embedded` on a backup, before it is said to be one, and on what is restored, before it becomes
a store.  Reads one engine snapshot, so for a large store only an engine without time limits will do.
"""

from __future__ import annotations

from collections.abc import Callable

from pagestore import changelog, encoding, format, keys
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    StoredPage,
    format_version,
)
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.namespaces import find

_TELL_EVERY = 1000


def verify(tx: Snapshot, progress: Callable[[int, int], None]) -> None:
    """Decode every version of every page, and every changelog record.

    `progress` is told namespaces done and namespaces in all.  Raises FormatError, CorruptPageError."""
    for _, value in tx.scan(KeyRange(*keys.all_names())):
        id_ = NamespaceId(int.from_bytes(value, "big"))
        page_size = find(tx, id_).page_size
        for key, record in tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, MAX_VERSION))):
            changelog.read(keys.version_of(key), record)
        pages = _verify_pages(tx, id_, page_size, pages, verified)
    verified(pages)


def _verify_pages(
    tx: Snapshot, id_: NamespaceId, page_size: int, pages: int, verified: Callable[[int], None]
) -> int:
    number: PageNumber | None = None
    blobs: tuple[bytes, ...] = ()
    for key, blob in tx.scan(KeyRange(*keys.all_pages(id_))):  # of each page, the oldest version first
        if keys.number_of_page(key) != number:
            number, blobs = keys.number_of_page(key), ()
        if encoding.is_freed(blob):
            blobs = ()
            continue
        blobs = (blob, *blobs) if encoding.chain_of(blob) else (blob,)
        page = StoredPage(number, keys.version_of(key), blobs)
        if encoding.chain_of(blob) != len(blobs) - 1:
            raise CorruptPageError(
                f"page {number} of version {format_version(page.version)}: its chain of deltas is broken"
            )
        encoding.decode(page, page_size)
        pages += 1
        if pages % _TELL_EVERY == 0:
            verified(pages)
    return pages
