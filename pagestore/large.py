"""Commits that are larger than a store takes in one: their pages are staged as they come.

Called by whoever makes commits (`joint`, `transfer`, `copying` in `mvvfs`; `revert`); calls `Store.stage`.
"""

from __future__ import annotations

from pagestore.api import NamespaceId, PageRuns, PageWrite, RunSet, Store

_STAGED_AT_ONCE = 4_000_000
"""Bytes: what is held in memory, and sent, at a time."""

_PAGE_BYTES = 128
"""What a page takes beside its blob."""


class Pile:
    """The pages of one commit on their way to the store."""

    def __init__(
        self, store: Store, namespace: NamespaceId, token: bytes, *, parts: int = 1, stage: bool = False
    ) -> None:
        """`parts`: of the commit, of which this is one.  `stage`: whatever the store takes, so that not all
        of them are ever held in memory."""
        self._store = store
        self._namespace = namespace
        self._token = token
        self.writes: list[PageWrite] = []
        """What goes with the commit itself."""
        self._staged = RunSet()
        self._bytes = 0
        self._limit = _STAGED_AT_ONCE if stage else store.max_commit_bytes // parts
        self._always = stage

    def add(self, write: PageWrite) -> None:
        """Each page once.  Raises what `Store.stage` does."""
        self.writes.append(write)
        self._bytes += len(write.blob) + _PAGE_BYTES
        if self._limit and self._bytes > self._limit:
            self._stage()

    def end(self) -> None:
        """No more are to come: a commit that was begun to be staged is staged whole."""
        if self.writes and (self._staged or self._always):
            self._stage()

    def _stage(self) -> None:
        self._store.stage(self._namespace, self._token, self.writes)
        self._staged.update(sorted(write.number for write in self.writes))
        self.writes = []
        self._bytes = 0

    @property
    def staged(self) -> PageRuns:
        return self._staged.numbers()
