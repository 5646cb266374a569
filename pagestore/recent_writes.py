"""What the newest commits wrote, for who serves a store: a begin can bring along the pages that changed.

Called by `service`, which tells of the commits that it makes and asks at begins.

1. A page goes along only if every commit that changed it since the caller's version is known here.  Then
   what these wrote, one after the other, leads from the page as the caller has it to the page at the
   begin's version: deltas are made against the version right before (`pagestore.encoding`).
2. What is not known, or too much, is left out: the caller then reads it, as it would have without.
3. What a commit wrote is told only of versions that the store had told, so nobody sees it before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from pagestore.api import (
    VERSION_SIZE,
    Changes,
    NamespaceId,
    PackedChanges,
    PageNumber,
    PageWrite,
    StoredPage,
    Version,
    split_packed,
)
from pagestore.encoding import chain_of, is_freed

MOST_COMMITS = 64
"""A caller that is further behind than this reads what it needs."""

MOST_TOLD_BYTES = 16_384
"""Of blobs in one answer."""

_MOST_KEPT_BYTES = 8 << 20
"""Of all commits."""

_MOST_COMMIT_BYTES = 65_536
"""Of one commit."""

_COMMIT_BYTES, _PAGE_BYTES = 400, 150
"""What a commit takes, and a page beside its blob, roughly."""


class RecentWrites:
    """See the head of this file.  Belongs to one event loop."""

    def __init__(self, most_bytes: int = _MOST_KEPT_BYTES) -> None:
        self._commits: OrderedDict[tuple[NamespaceId, Version], Sequence[PageWrite]] = OrderedDict()
        self._bytes = 0
        self._most_bytes = most_bytes

    def add(self, namespace: NamespaceId, version: Version, writes: Sequence[PageWrite]) -> None:
        """All that a commit has written in a namespace."""
        size = _size(writes)
        if size > _MOST_COMMIT_BYTES or (namespace, version) in self._commits:
            return
        self._commits[namespace, version] = writes
        self._bytes += size
        while self._bytes > self._most_bytes:
            _, oldest = self._commits.popitem(last=False)
            self._bytes -= _size(oldest)

    def changed(
        self, namespace: NamespaceId, changes: Changes, own: Version | None = None
    ) -> list[StoredPage]:
        """Pages that were changed by `changes`, which are all commits after the caller's version: see
        `Begin.pages`.  Not those that only the commit `own` has changed, the caller's."""
        if len(changes) > MOST_COMMITS:
            return []
        blobs: dict[PageNumber, list[bytes]] = {}
        newest: dict[PageNumber, Version] = {}
        unknown: set[PageNumber] = set()
        for packed in split_packed(changes.packed):
            version = Version(packed[:VERSION_SIZE])
            writes = self._commits.get((namespace, version))
            if writes is None:
                unknown.update(PackedChanges(packed, 1)[0].pages)
                continue
            for number, blob in writes:
                newest[number] = version
                if chain_of(blob):
                    blobs.setdefault(number, []).append(blob)
                else:
                    blobs[number] = [blob]
                    unknown.discard(number)
        return _bounded(
            StoredPage(number, newest[number], tuple(some[::-1]))
            for number, some in blobs.items()
            if number not in unknown and newest[number] != own and not is_freed(some[-1])
        )


def _size(writes: Sequence[PageWrite]) -> int:
    return _COMMIT_BYTES + sum(len(write.blob) + _PAGE_BYTES for write in writes)


def _bounded(pages: Iterable[StoredPage]) -> list[StoredPage]:
    told: list[StoredPage] = []
    left = MOST_TOLD_BYTES
    for page in pages:
        left -= sum(map(len, page.blobs))
        if left < 0:
            break
        told.append(page)
    return told
