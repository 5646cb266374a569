"""Reads everything that a store holds and verifies it.

Called by `embedded` on a backup, before it is said to be one, and on what is restored, before it becomes
a store.  Reads one engine snapshot, so for a large store only an engine without time limits will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge

from pagestore import bulk, changelog, drops, encoding, format, images, keys, snapshot
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    StoredPage,
    Version,
)
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.namespaces import Record, find_any

_TELL_EVERY = 1000


def verify(tx: Snapshot, progress: Callable[[int, int], None]) -> None:
    """Decode every version of every page, every changelog record and every allocation image.  Above the
    horizon compare which page versions there are; below it, retention may have removed some.

    `progress` is told page numbers done and page numbers in all (roughly: numbers may be unused).
    Raises FormatError, CorruptPageError."""
    format.check(tx)
    ids = [NamespaceId(int.from_bytes(value, "big")) for _, value in tx.scan(KeyRange(*keys.all_names()))]
    ids += [keys.namespace_of_dropped(key) for key, _ in tx.scan(KeyRange(*keys.all_old()))]
    highest = {id_: _highest_page(tx, id_) for id_ in ids}
    total, before = sum(highest.values()), 0
    for id_ in ids:
        namespace = find_any(tx, id_)
        images.verify(tx, id_, MAX_VERSION)
        missing = difference = 0
        for key, record in tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, MAX_VERSION))):
            change = changelog.change_of(tx, id_, key, record)
            if change.version > namespace.horizon:
                missing += len(change.pages)
                for number in change.pages:
                    difference ^= hash((number, change.version))
        for told, page in enumerate(_pages(tx, id_, namespace), start=1):
            if not encoding.is_freed(page.blobs[0]):
                encoding.decode(page, namespace.page_size)
            if page.version > namespace.horizon:
                missing -= 1
                difference ^= hash((page.number, page.version))
            if told % _TELL_EVERY == 0:
                progress(before + page.number, total)
        if (missing or difference) and not drops.only_for_branches(tx, id_):
            raise CorruptPageError(
                f"namespace {id_}: the changelog tells of {missing} more page versions"
                if missing
                else f"namespace {id_}: the changelog tells of other page versions"
            )
        before += highest[id_]
    progress(total, total)


def _highest_page(tx: Snapshot, id_: NamespaceId) -> int:
    rows = tx.scan(KeyRange(*keys.all_pages(id_), 1, reverse=True))
    return next((keys.number_of_page(key) for key, _ in rows), 0)


def _pages(tx: Snapshot, id_: NamespaceId, record: Record) -> Iterator[StoredPage]:
    """Every version of every page, each with the older blobs that it needs."""
    number: PageNumber | None = None
    blobs: tuple[bytes, ...] = ()
    staged = [bulk.staged_rows(tx, id_, one) for one in bulk.unfolded(tx, id_)]
    for found, version, blob in merge(_rows(tx, id_), *staged):  # of each page, the oldest version first
        if found != number:
            number = found
            blobs = _of_parent(tx, record, number) if encoding.chain_of(blob) else ()
        blobs = (blob, *blobs) if encoding.chain_of(blob) else (blob,)
        yield StoredPage(number, version, blobs)


def _rows(tx: Snapshot, id_: NamespaceId) -> Iterator[tuple[PageNumber, Version, bytes]]:
    for key, blob in tx.scan(KeyRange(*keys.all_pages(id_))):
        yield keys.number_of_page(key), keys.version_of(key), blob


def _of_parent(tx: Snapshot, record: Record, number: PageNumber) -> tuple[bytes, ...]:
    """What the first version of a page in a branch is a delta of."""
    if not record.ancestors:
        return ()
    parent, *others = record.ancestors
    (page,) = snapshot.read_pages(tx, parent.id, parent.version, [number], others)
    return () if page is None else page.blobs
