"""The changelog of a distant namespace, piece by piece.

Called by `store` and `commits`; calls the service by `calls`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mvvfs.remote.calls import Calls
from pagestore import wire
from pagestore.api import MAX_VERSION, ZERO_VERSION, Change, NamespaceId, Version, before
from pagestore.v1 import pagestore_pb2 as pb

_CHANGES_A_CALL: Final = 1000


def read(
    calls: Calls,
    namespace: NamespaceId,
    *,
    after: Version = ZERO_VERSION,
    until: Version = MAX_VERSION,
    newest_first: bool = False,
    skip: int = 0,
    limit: int = 0,
) -> Iterator[Change]:
    """As `Store.changelog`, and with its errors: the first piece is asked for before this returns."""
    first = _piece(calls, namespace, after, until, newest_first, limit, skip)
    return _all(first, calls, namespace, after, until, newest_first, limit)


def _all(
    changes: list[Change],
    calls: Calls,
    namespace: NamespaceId,
    after: Version,
    until: Version,
    newest_first: bool,
    limit: int,
) -> Iterator[Change]:
    """Piece by piece, so that a slow reader keeps no call open."""
    while changes:
        yield from changes
        if limit:
            limit -= len(changes)
            if limit <= 0:
                return
        if newest_first:
            until = before(changes[-1].version)
        else:
            after = changes[-1].version
        if len(changes) < _CHANGES_A_CALL or after >= until:
            return
        changes = _piece(calls, namespace, after, until, newest_first, limit)


def _piece(
    calls: Calls,
    namespace: NamespaceId,
    after: Version,
    until: Version,
    newest_first: bool,
    limit: int,
    skip: int = 0,
) -> list[Change]:
    request = pb.ChangelogRequest(
        namespace=namespace,
        after=after,
        until=until,
        newest_first=newest_first,
        skip=skip,
        limit=min(limit or _CHANGES_A_CALL, _CHANGES_A_CALL),
    )
    return calls.call(
        "Changelog",
        request,
        lambda answers: [change for answer in answers for change in wire.changes_of(answer.changes)],
    )
