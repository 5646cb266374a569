"""Revert: a new commit whose pages are those of an older version.

Called by `store`, as an ordinary client of it: what is read and committed here could be done from outside.

1. The pages that changed since are in the changelog; below the horizon, where that has gaps, every page of
   both versions is looked at.  A page whose version is the same then and now is left alone, so is one of
   equal content.
2. Only what stands at the base is undone: any commit after it is a conflict, whatever pages it wrote, as a
   B-tree with pages of two versions would be none.  Then the pages of that commit are looked at as well.
   After some lost tries it takes its turn, and others wait.
3. However many pages there are, they take little memory: `large.Replacement` stages them.
4. The rest of the pages' bookkeeping is as in any commit: what is allocated again, what is freed, and
   deltas against the version that is replaced.
"""

from __future__ import annotations

import time

from pagestore.api import (
    CommitRequest,
    Committed,
    ConflictError,
    NamespaceId,
    PageRuns,
    RunSet,
    Store,
    Version,
    new_token,
    united,
)
from pagestore.batches import in_batches
from pagestore.encoding import decode
from pagestore.large import Replacement
from pagestore.waiting import commit_between_turns

TRIES = 10
_TRIES_BEFORE_TURN = 2
_TURN_SECONDS = 30.0
_LONGEST_WAIT = 60.0
_NAP = 0.002

_CHUNK = 64
"""Pages read at a time."""


def revert(
    store: Store, namespace: NamespaceId, to: Version, *, message: str, token: bytes, below_horizon: bool
) -> Committed:
    """See `Store.revert`.  `below_horizon`: the changelog after `to` has gaps."""
    start = store.begin(namespace)
    base, allocation = start.version, start.allocation
    then = store.begin(namespace, at=to).allocation
    plan = Replacement(store, namespace, token, start.page_size)
    if below_horizon and allocation is not None and then is not None:
        numbers = PageRuns(united(*(one.pages(start.page_size).runs() for one in (then, allocation))))
    else:
        numbers = _changed(store, namespace, to, base)
    ticket: bytes | None = None
    try:
        for left in reversed(range(TRIES)):
            _look_at(store, namespace, plan, to, base, numbers)
            if plan.changes_nothing:
                return Committed(base, 0)
            request = CommitRequest(token, base, (plan.part(),), message, "full", ticket)
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


def _changed(store: Store, namespace: NamespaceId, after: Version, until: Version) -> PageRuns:
    found = RunSet()
    for change in store.changelog(namespace, after=after, until=until):
        found.update(change.pages)
    return found.numbers()


def _look_at(
    store: Store, namespace: NamespaceId, plan: Replacement, to: Version, base: Version, numbers: PageRuns
) -> None:
    for some in in_batches(numbers, _CHUNK):
        pages = zip(some, store.read(namespace, to, some), store.read(namespace, base, some), strict=True)
        for number, then, now in pages:
            same = then is not None and now is not None and then.version == now.version
            if same and not plan.is_staged(number):
                plan.keep(number)
            else:
                plan.become(number, None if then is None else decode(then, plan.page_size), now)


def _turn(store: Store, namespace: NamespaceId) -> bytes:
    ticket = new_token()
    deadline = time.monotonic() + _LONGEST_WAIT
    while not store.take_turn(namespace, ticket, None, _TURN_SECONDS) and time.monotonic() < deadline:
        time.sleep(_NAP)
    return ticket
