"""What nobody asks for any more below what is settled, page versions aside: tokens, allocation images,
waypoints, measures, and records of commits that were kept.

Called by `retention`, which has it carried out as the steps of `sweep` are; `check_token` by `store`.  Calls
the engine.

1. Tokens stay for a day at least, whatever retention says.
2. An image or a record goes when nothing stands at its version any more; pieces of an image, when it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set

from pagestore import changelog, kept, keys, sweep
from pagestore.api import TOKEN_SIZE, ZERO_VERSION, NamespaceId, OutcomeUnknownError, Version
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.namespaces import Record, find_any
from pagestore.sweep import Step, let_go_of_commits, progress, stays

TOKEN_SECONDS = 86400
"""Tokens stay at least this long: longer than anybody tries a commit again."""


def next_step(tx: Snapshot, id_: NamespaceId, limit: int = 0) -> Step | None:
    """What of it can go, some of it; None if nothing can.  `limit`: rows; 0: `STEP`."""
    record = find_any(tx, id_)
    settled = progress(tx, id_, record).settled
    points = kept.versions(tx, id_, settled)
    step, limit = Step(), limit or sweep.STEP
    _tokens(tx, id_, settled, step, limit)
    _commits_no_longer_kept(tx, id_, settled, points, step, limit)
    needed = {*points, settled}
    for key, _ in tx.scan(KeyRange(*keys.images(id_, settled))):
        if keys.version_of(key) not in needed:
            step.ranges.append((key, key + b"\0"))
            if len(step.ranges) >= limit:
                break
    else:
        _pieces_of_images(tx, id_, settled, needed, step, limit)
    step.ranges += [
        (key, key + b"\0")
        for begin, end in (
            keys.measures(id_, ZERO_VERSION, settled),
            keys.waypoints(id_, ZERO_VERSION, settled),
        )
        for key, _ in tx.scan(KeyRange(begin, end, limit))
        if keys.version_of(key) < settled
    ]
    return step if step.ranges else None


def _pieces_of_images(
    tx: Snapshot, id_: NamespaceId, settled: Version, needed: Set[Version], step: Step, limit: int
) -> None:
    """Those of images that go in this step, or are gone; or never came to be, because who wrote them died."""
    begin, end = keys.image_pieces_until(id_, settled)
    while len(step.ranges) < limit:
        first = next(tx.scan(KeyRange(begin, end, 1)), None)
        if first is None:
            return
        version = keys.version_of_piece(first[0])
        pieces = keys.image_pieces(id_, version)
        if version not in needed:
            step.ranges.append(pieces)
        begin = pieces[1]


def _commits_no_longer_kept(
    tx: Snapshot, id_: NamespaceId, settled: Version, points: Sequence[Version], step: Step, limit: int
) -> None:
    """Below what is settled there are only records of commits that something stood at."""
    changes = []
    for key, value in tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, settled))):
        changes.append(changelog.change_of(tx, id_, key, value))
        if len(changes) > 1 and not stays(points, changes[-2].version, changes[-1].version):
            let_go_of_commits(id_, changes[-2:], points, step)
            if len(step.ranges) >= limit:
                return


def _oldest_token() -> bytes:
    """Tokens that sort before it may be gone."""
    until_ms = max(time.time_ns() // 1_000_000 - TOKEN_SECONDS * 1000, 0)
    return until_ms.to_bytes(6, "big") + bytes(TOKEN_SIZE - 6)


def check_token(token: bytes, record: Record) -> None:
    """For a token that is not there: raises OutcomeUnknownError if it may have gone."""
    if record.horizon > record.created and token < _oldest_token():
        raise OutcomeUnknownError(token, f"it was made more than {TOKEN_SECONDS // 3600} hours ago")


def _tokens(tx: Snapshot, id_: NamespaceId, settled: Version, step: Step, limit: int) -> None:
    """Tokens begin with the time at which they were made, so the old ones come first."""
    before = _oldest_token()
    last: bytes | None = None
    begin, end = keys.tokens(id_, before)
    for key, version in tx.scan(KeyRange(begin, end, limit)):
        if version != keys.VOID_TOKEN and Version(version) >= settled:
            break
        last = key
    if last is not None:
        step.ranges.append((begin, last + b"\0"))
