"""Revert: a new commit whose pages are those of an older version.

Called by `store`, as an ordinary client of it: what is read and committed here could be done from outside.

1. The pages that changed since are in the changelog; below the horizon, where that has gaps, every page is
   looked at.  A page whose version is the same then and now is left alone, so is one of equal content.
2. Only what stands at the base is undone: any commit after it is a conflict, whatever pages it wrote, as a
   B-tree with pages of two versions would be none.  Then the pages of that commit are looked at as well.
   After some lost tries it takes its turn, and others wait.
3. The schema cookie (https://www.sqlite.org/fileformat2.html#schema_cookie) never goes back: a connection
   that knew another schema by the same number would not notice.
4. The rest of the pages' bookkeeping is as in any commit: what is allocated again, what is freed, and
   deltas against the version that is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pagestore.api import (
    Allocation,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    NamespaceId,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    StoredPage,
    Version,
    new_token,
)
from pagestore.batches import in_batches
from pagestore.encoding import FREED, Base, chain_of, decode, encode
from pagestore.waiting import commit_between_turns

TRIES = 10
_TRIES_BEFORE_TURN = 2
_TURN_SECONDS = 30.0
_LONGEST_WAIT = 60.0
_NAP = 0.002

_CHUNK = 64
"""Pages read at a time."""

_PAGE_1 = 1
_COOKIE = slice(40, 44)


@dataclass(slots=True)
class _Plan:
    """What has to be written for the pages looked at so far."""

    page_size: int
    writes: dict[PageNumber, PageWrite] = field(default_factory=dict)
    allocated: set[PageNumber] = field(default_factory=set)
    freed: set[PageNumber] = field(default_factory=set)
    only_the_cookie: bool = False
    """Whether page 1 would differ from what it is in nothing else."""

    def look(self, number: PageNumber, then: StoredPage | None, now: StoredPage | None) -> None:
        self.writes.pop(number, None)
        self.allocated.discard(number)
        self.freed.discard(number)
        if then is None or now is None:
            if then is not None:
                self.allocated.add(number)
                self._write(number, decode(then, self.page_size), None)
            elif now is not None:
                self.freed.add(number)
                self.writes[number] = PageWrite(number, FREED)
        elif then.version != now.version:
            wanted, replaced = decode(then, self.page_size), decode(now, self.page_size)
            if number == _PAGE_1:
                wanted = self._with_cookie(wanted, replaced)
            if wanted != replaced:
                self._write(number, wanted, Base(replaced, chain_of(now.blobs[0])))

    def _write(self, number: PageNumber, content: bytes, base: Base | None) -> None:
        self.writes[number] = PageWrite(number, encode(number, content, base).blob)

    def _with_cookie(self, wanted: bytes, replaced: bytes) -> bytes:
        self.only_the_cookie = wanted[:40] + wanted[44:] == replaced[:40] + replaced[44:]
        cookie = int.from_bytes(replaced[_COOKIE], "big")
        if wanted[_COOKIE] != replaced[_COOKIE]:
            cookie = (cookie + 1) & 0xFFFFFFFF
        return wanted[:40] + cookie.to_bytes(4, "big") + wanted[44:]

    @property
    def changes_nothing(self) -> bool:
        return not self.writes or (self.only_the_cookie and list(self.writes) == [_PAGE_1])

    def part(self, namespace: NamespaceId) -> CommitPart:
        writes = [self.writes[number] for number in sorted(self.writes)]
        return CommitPart(
            namespace,
            PageSet(),
            writes,
            self.page_size,
            sorted(self.allocated),
            sorted(self.freed),
            reads_all=True,
        )


def revert(
    store: Store, namespace: NamespaceId, to: Version, *, message: str, token: bytes, below_horizon: bool
) -> Committed:
    """See `Store.revert`.  `below_horizon`: the changelog after `to` has gaps."""
    start = store.begin(namespace)
    base, allocation = start.version, start.allocation
    then = store.begin(namespace, at=to).allocation
    plan = _Plan(start.page_size)
    numbers: Iterable[PageNumber]
    if below_horizon and allocation is not None and then is not None:
        numbers = _all_numbers(allocation, then)
    else:
        numbers = _changed(store, namespace, to, base)
    ticket: bytes | None = None
    try:
        for left in reversed(range(TRIES)):
            _look_at(store, namespace, plan, to, base, numbers)
            if plan.changes_nothing:
                return Committed(base, 0)
            request = CommitRequest(token, base, (plan.part(namespace),), message, "full", ticket)
            try:
                done = commit_between_turns(store, request, _LONGEST_WAIT, lambda: _NAP)
            except ConflictError:
                if not left:
                    raise
                if TRIES - left >= _TRIES_BEFORE_TURN and ticket is None:
                    ticket = _turn(store, namespace)
                newest = store.begin(namespace, base).version
                numbers, base = _changed(store, namespace, base, newest), newest
            else:
                ticket = None  # given up with the commit
                return done
    finally:
        if ticket is not None:
            store.leave_turn(namespace, ticket)
    raise AssertionError("the last try raises")


def _all_numbers(*allocations: Allocation) -> Iterable[PageNumber]:
    return map(PageNumber, range(1, max(one.highest for one in allocations) + 1))


def _changed(store: Store, namespace: NamespaceId, after: Version, until: Version) -> set[PageNumber]:
    return {page for change in store.changelog(namespace, after=after, until=until) for page in change.pages}


def _look_at(
    store: Store,
    namespace: NamespaceId,
    plan: _Plan,
    to: Version,
    base: Version,
    numbers: Iterable[PageNumber],
) -> None:
    for some in in_batches(numbers if isinstance(numbers, map) else sorted(numbers), _CHUNK):
        pages = zip(some, store.read(namespace, to, some), store.read(namespace, base, some), strict=True)
        for number, then, now in pages:
            plan.look(number, then, now)


def _turn(store: Store, namespace: NamespaceId) -> bytes:
    ticket = new_token()
    deadline = time.monotonic() + _LONGEST_WAIT
    while not store.take_turn(namespace, ticket, None, _TURN_SECONDS) and time.monotonic() < deadline:
        time.sleep(_NAP)
    return ticket
