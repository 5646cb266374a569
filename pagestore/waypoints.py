"""Waypoints: how many commits lie between two versions, without walking along them.

Called by `allocation`, which sets one with each image, and by `history`, to skip many commits.  Calls the
engine's transactions.

1. Of any two waypoints at or above the horizon, the difference of their counts is the number of commits
   between them.  (Where counting began does not matter; below the horizon commits may be gone.)
2. So a waypoint is counted from another at or above the horizon, in a snapshot in which all commits between
   them are there; if the horizon has passed that one when it is to be written, it is not written.  Only
   where there is none at all does counting begin anew, and that with a conflict: two can't begin.
3. They are helpers: without them the changelog is walked, which finds the same.

The value is the count, 8 bytes big-endian.
"""

from __future__ import annotations

from typing import NamedTuple

from pagestore import keys
from pagestore.api import MAX_VERSION, VERSION_SIZE, NamespaceId, Version
from pagestore.engines.base import KeyRange, Snapshot, Transaction
from pagestore.namespaces import Record, find


class Waypoint(NamedTuple):
    version: Version
    commits: int
    """Since counting began, up to and with this version."""


class Plan(NamedTuple):
    """A waypoint to be written."""

    base: Version | None
    """What it is counted from; None: counting begins with it."""
    commits: int


class Start(NamedTuple):
    """Where to begin with walking back: at the newest commit at or before a version."""

    version: Version
    left: int
    """How many commits are still to be skipped."""


def _first(
    tx: Snapshot, id_: NamespaceId, first: Version, last: Version, *, reverse: bool
) -> Waypoint | None:
    """The oldest one in [first, last], or with `reverse` the newest."""
    if first > last:
        return None
    for key, value in tx.scan(KeyRange(*keys.waypoints(id_, first, last), 1, reverse)):
        return Waypoint(keys.version_of(key), int.from_bytes(value, "big"))
    return None


def _commits(tx: Snapshot, id_: NamespaceId, after: Version, until: Version, most: int = 0) -> int:
    """How many there are in (after, until]; `most`: no more are looked at."""
    return sum(1 for _ in tx.scan(KeyRange(*keys.log(id_, after, until), most)))


# ---- setting them ----


def plan(tx: Snapshot, id_: NamespaceId, record: Record, version: Version) -> Plan | None:
    """The one at this version; None: there is one, or none can be counted."""
    if version < record.horizon:
        return None
    base = _first(tx, id_, record.horizon, version, reverse=True)
    if base is None:
        return None if _first(tx, id_, version, MAX_VERSION, reverse=False) else Plan(None, 0)
    if base.version == version:
        return None
    return Plan(base.version, base.commits + _commits(tx, id_, base.version, version))


def put(tx: Transaction, id_: NamespaceId, record: Record, version: Version, planned: Plan) -> None:
    """Write what was planned in an earlier transaction, if it still holds.  This one relies on the record."""
    if planned.base is None:
        tx.add_read_conflict(*keys.waypoints(id_, record.horizon, MAX_VERSION))
        if version < record.horizon or _first(tx, id_, record.horizon, MAX_VERSION, reverse=False):
            return
    elif planned.base < record.horizon:
        return
    tx.set(keys.waypoint(id_, version), planned.commits.to_bytes(8, "big"))


# ---- using them ----


def back(tx: Snapshot, id_: NamespaceId, until: Version, skip: int) -> Start:
    """Where to begin, to skip so many commits from `until` on backwards.  Reads a few dozen rows, and the
    commits behind the newest waypoint."""
    record = find(tx, id_)
    near = _first(tx, id_, record.horizon, until, reverse=True) if until >= record.horizon else None
    if near is None:
        return Start(until, skip)
    behind = _commits(tx, id_, near.version, until, skip + 1)
    if behind > skip:
        return Start(until, skip)
    wanted = near.commits + behind - skip
    found = _reaching(tx, id_, record.horizon, near, wanted)
    return Start(found.version, found.commits - wanted)


def _reaching(tx: Snapshot, id_: NamespaceId, horizon: Version, newest: Waypoint, wanted: int) -> Waypoint:
    """The oldest waypoint that counts at least so many, as `newest` does.

    It is looked for where it would be if versions grew evenly, and every other time in the middle of what is
    left: a few steps mostly, and never more than twice as many as by halves."""
    low = _first(tx, id_, horizon, newest.version, reverse=False) or newest
    high, evenly = newest, False
    while low.commits < wanted:
        evenly = not evenly
        guess = _between(low, high, wanted) if evenly else _middle(low.version, high.version)
        found = _first(tx, id_, _next(low.version), guess, reverse=True)
        if found is not None and found.commits >= wanted:
            high = found
        else:
            low = _first(tx, id_, _next(guess), high.version, reverse=False) or high
    return low


def _between(low: Waypoint, high: Waypoint, wanted: int) -> Version:
    """Where that many would be reached, but before `high`."""
    first, last = int.from_bytes(low.version, "big"), int.from_bytes(high.version, "big")
    steps = (last - first) * (wanted - low.commits) // (high.commits - low.commits)
    return _version(min(first + steps, last - 1))


def _middle(low: Version, high: Version) -> Version:
    return _version((int.from_bytes(low, "big") + int.from_bytes(high, "big")) // 2)


def _next(version: Version) -> Version:
    return _version(int.from_bytes(version, "big") + 1)


def _version(number: int) -> Version:
    return Version(number.to_bytes(VERSION_SIZE, "big"))
