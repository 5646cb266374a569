"""Commits that are larger than a store takes in one: their pages are staged as they come.

Called by whoever makes commits (`joint`, `transfer`, `copying` in `mvvfs`; `revert`); calls `Store.stage`.

1. What is held in memory is bounded: some megabytes of blobs, and page numbers as runs.
2. A commit is staged whole or not at all.
3. A blob may be a delta only of the version that it replaces.  So whoever comes to know of a newer version
   has the page looked at again; and what was staged once stays a part of the commit, also if there is nothing
   to change in it any more.
"""

from __future__ import annotations

from pagestore.api import (
    CommitPart,
    NamespaceId,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    RunSet,
    Store,
    StoredPage,
)
from pagestore.encoding import FREED, Base, chain_of, decode, encode

_STAGED_AT_ONCE = 4_000_000
"""Bytes: what is held in memory, and sent, at a time."""

_HELD = 64 << 20
"""Bytes that are held in memory where the store takes them at once, unless somebody says otherwise."""

_NOTHING = PageRuns()

_PAGE_BYTES = 128
"""What a page takes beside its blob."""


class Pile:
    """The pages of one commit on their way to the store."""

    def __init__(
        self,
        store: Store,
        namespace: NamespaceId,
        token: bytes,
        *,
        parts: int = 1,
        memory: int = _HELD,
        stage: bool = False,
    ) -> None:
        """`parts`: of the commit, of which this is one.  `memory`: bytes that may be held at a time, at
        least 4 MB.  `stage`: whatever there is."""
        self._store = store
        self._namespace = namespace
        self._token = token
        self.writes: list[PageWrite] = []
        """What goes with the commit itself."""
        self._staged: RunSet | None = None
        self._bytes = 0
        memory = _STAGED_AT_ONCE if stage else max(memory, _STAGED_AT_ONCE)
        self._limit = min(memory, store.max_commit_bytes // parts) if store.max_commit_bytes else memory
        self._always = stage

    def add(self, write: PageWrite) -> None:
        """Each page once.  Raises what `Store.stage` does."""
        self.writes.append(write)
        self._bytes += len(write.blob) + _PAGE_BYTES
        if self._bytes > self._limit:
            self._stage()

    def end(self) -> None:
        """No more are to come: a commit that was begun to be staged is staged whole."""
        if self.writes and (self._staged is not None or self._always):
            self._stage()

    def _stage(self) -> None:
        self._store.stage(self._namespace, self._token, self.writes)
        self._staged = self._staged or RunSet()
        self._staged.update(sorted(write.number for write in self.writes))
        self.writes = []
        self._bytes = 0

    @property
    def staged(self) -> PageRuns:
        return _NOTHING if self._staged is None else self._staged.numbers()


class Replacement:
    """A commit after which a namespace has other pages, whatever it had: a revert, an import over something.

    The schema cookie (https://www.sqlite.org/fileformat2.html#schema_cookie) never goes back: a connection
    that knew another schema by the same number would not notice."""

    _PAGE_1 = 1
    _COOKIE = slice(40, 44)

    def __init__(
        self, store: Store, namespace: NamespaceId, token: bytes, page_size: int, *, foreign: bool = False
    ) -> None:
        """`foreign`: the new pages come from elsewhere, and the same cookie says nothing."""
        self._store = store
        self._namespace = namespace
        self._token = token
        self.page_size = page_size
        self._foreign = foreign
        self._writes: dict[PageNumber, PageWrite] = {}
        self._bytes = 0
        self._limit = min(_STAGED_AT_ONCE, store.max_commit_bytes or _STAGED_AT_ONCE)
        self._staged = RunSet()
        self._allocated = RunSet()
        self._freed = RunSet()
        self._only_the_cookie = False
        """Whether page 1 would differ from what it is in nothing else."""

    def is_staged(self, number: PageNumber) -> bool:
        return number in self._staged

    def become(self, number: PageNumber, wanted: bytes | None, now: StoredPage | None) -> None:
        """The page, which is `now`, has to be `wanted`; None: no page.  To be called again for a page that
        has changed since.  Raises what `Store.stage` does."""
        self.keep(number)
        if wanted is None and now is not None:
            self.free(number)
        elif wanted is not None and now is None:
            self._allocated.update((number,))
            self._put(number, encode(number, wanted, None, moves=False).blob)
        elif wanted is not None and now is not None:
            replaced = decode(now, self.page_size)
            if number == self._PAGE_1:
                wanted = self._with_cookie(wanted, replaced)
            if wanted != replaced or self.is_staged(number):
                base = Base(replaced, chain_of(now.blobs[0]))
                self._put(number, encode(number, wanted, base, moves=self._store.takes_moves).blob)
        elif self.is_staged(number):
            self._put(number, FREED)

    def keep(self, number: PageNumber) -> None:
        """The page is as it should be: forget what was found out before, but for what is staged."""
        old = self._writes.pop(number, None)
        if old is not None:
            self._bytes -= _size(old)
        for marked in (self._allocated, self._freed):
            if number in marked:
                marked.difference_update((number,))

    def free(self, number: PageNumber) -> None:
        """There is such a page, and is not to be."""
        self._freed.update((number,))
        self._put(number, FREED)

    def _put(self, number: PageNumber, blob: bytes) -> None:
        write = self._writes[number] = PageWrite(number, blob)
        self._bytes += _size(write)
        if self._bytes > self._limit:
            self._stage()

    def _stage(self) -> None:
        numbers = sorted(self._writes)
        self._store.stage(self._namespace, self._token, [self._writes[number] for number in numbers])
        self._staged.update(numbers)
        self._writes.clear()
        self._bytes = 0

    def _with_cookie(self, wanted: bytes, replaced: bytes) -> bytes:
        self._only_the_cookie = wanted[:40] + wanted[44:] == replaced[:40] + replaced[44:]
        cookie = int.from_bytes(replaced[self._COOKIE], "big")
        if self._foreign or wanted[self._COOKIE] != replaced[self._COOKIE]:
            cookie = (cookie + 1) & 0xFFFFFFFF
        return wanted[:40] + cookie.to_bytes(4, "big") + wanted[44:]

    @property
    def changes_nothing(self) -> bool:
        """But perhaps the cookie."""
        if self._staged:
            return False
        return not self._writes or (self._only_the_cookie and list(self._writes) == [self._PAGE_1])

    def part(self) -> CommitPart:
        """Of a commit under the token, based on the version at which every page was looked at."""
        if self._staged and self._writes:
            self._stage()
        return CommitPart(
            self._namespace,
            PageSet(),
            [self._writes[number] for number in sorted(self._writes)],
            self.page_size,
            self._allocated.numbers(),
            self._freed.numbers(),
            reads_all=True,
            staged=self._staged.numbers(),
        )


def _size(write: PageWrite) -> int:
    return len(write.blob) + _PAGE_BYTES
