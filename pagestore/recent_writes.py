"""What the newest commits wrote, for who serves a store: a begin can bring along the pages that changed.

Called by `service`, which tells of the commits that it makes and asks at begins; calls `told`.

1. What a commit wrote is told whole or not at all.  Who is told applies it only to a page of which he knows
   every version since his own: deltas are made against the version right before (`pagestore.encoding`).
2. What is not known, or too much, is left out: the caller then reads it, as it would have without.
3. What a commit wrote is told only of versions that the store had told, so nobody sees it before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from pagestore import told
from pagestore.api import Changes, NamespaceId, PageWrite, Version

MOST_COMMITS = 64
"""A caller that is further behind than this reads what it needs."""

MOST_TOLD_BYTES = 16_384
"""In one answer."""

_MOST_KEPT_BYTES = 8 << 20
"""Of all commits."""

_COMMIT_BYTES = 400
"""What a commit takes beside that, roughly."""


class Told(NamedTuple):
    """As `Begin.told` has it, and of how many pages it tells."""

    packed: bytes
    pages: int

    @property
    def size(self) -> int:
        """Bytes that a commit takes here."""
        return _COMMIT_BYTES + len(self.packed)


class RecentWrites:
    """See the head of this file.  Belongs to one event loop."""

    def __init__(self, most_bytes: int = _MOST_KEPT_BYTES) -> None:
        self._commits: OrderedDict[tuple[NamespaceId, Version], Told] = OrderedDict()
        self._bytes = 0
        self._most_bytes = most_bytes

    def add(self, namespace: NamespaceId, version: Version, writes: Sequence[PageWrite]) -> None:
        """All that a commit has written in a namespace."""
        size = sum(len(write.blob) for write in writes)
        if size > MOST_TOLD_BYTES or (namespace, version) in self._commits:
            return
        commit = Told(told.pack(version, writes), len(writes))
        self._commits[namespace, version] = commit
        self._bytes += commit.size
        while self._bytes > self._most_bytes:
            _, oldest = self._commits.popitem(last=False)
            self._bytes -= oldest.size

    def told(self, namespace: NamespaceId, changes: Changes, own: Version | None = None) -> Told:
        """What is known of these commits, but for `own`, the caller's: the newest, as far as they fit in."""
        found: list[Told] = []
        left = MOST_TOLD_BYTES
        if len(changes) <= MOST_COMMITS:
            for version in reversed(changes.versions()):
                commit = self._commits.get((namespace, version))
                if commit is None or version == own:
                    continue
                left -= len(commit.packed)
                if left < 0:
                    break
                found.append(commit)
        return Told(b"".join(each.packed for each in reversed(found)), sum(each.pages for each in found))
