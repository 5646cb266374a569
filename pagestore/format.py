"""The format key: what kind of store this is, checked by everyone who opens one.

Called by `opener` and `embedded`, and by who uses a feature; calls the engine.  The value is JSON, so that
any release can say what it found: `{"format": 1, "features": [], "store": "<32 hex digits>"}`, and once it
was put back from a backup `"incarnation": 1234567`.

1. A release opens a store only if it knows the format number and every feature.
2. What an older release would misread raises the number or adds a feature.  New key families that older
   releases may ignore need neither.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from pagestore import keys
from pagestore.api import FormatError
from pagestore.engines.base import Snapshot, Transaction

FORMAT = 1
BRANCHES = "branches"
"""Pages may be those of another namespace."""

RETENTION = "retention"
"""Changelogs may have gaps below the horizon."""

STAGING = "staging"
"""Pages of a commit may be staged, and its changelog record be kept in pieces."""

IMAGES = "images"
"""Allocation images may be kept in pieces."""

RUNS = "runs"
"""Changelog records that are kept in pieces hold page numbers as runs."""

SHARED_COUNT = "shared count"
"""Ids of namespaces may come from more than one counter."""

MOVES = "moves"
"""Pages may be stored as deltas that move bytes."""

FEATURES: frozenset[str] = frozenset({BRANCHES, RETENTION, STAGING, IMAGES, RUNS, SHARED_COUNT, MOVES})
"""What this release knows beyond the format itself.  A store has a feature from its first use on."""


def row() -> tuple[bytes, bytes]:
    """The key and value that make an empty engine a new store."""
    value = {"format": FORMAT, "features": [], "store": os.urandom(16).hex()}
    return keys.FORMAT, json.dumps(value).encode()


def store_id(tx: Snapshot) -> bytes:
    """The 16 bytes that a store was made with; a backup has them too.  Raises FormatError."""
    return _record(tx).store


def incarnation(tx: Snapshot) -> int:
    """See `Store.incarnation`.  Raises FormatError."""
    return _record(tx).incarnation


def renew(tx: Transaction) -> None:
    """Another incarnation than the one that the store has, or had at any time, but for one chance in 2^31."""
    tx.add_read_conflict(keys.FORMAT, keys.FORMAT + b"\0")
    value = renewed(tx.get(keys.FORMAT))
    tx.set(keys.FORMAT, value)


def renewed(record: bytes | None) -> bytes:
    """The format record, with another incarnation.  Raises FormatError."""
    before = _unpack(record).incarnation
    drawn = before
    while drawn in (0, before):
        drawn = int.from_bytes(os.urandom(4)) >> 1
    return json.dumps({**json.loads(record or b""), "incarnation": drawn}).encode()


def check(tx: Snapshot) -> None:
    """Raises FormatError."""
    number, features, *_ = _record(tx)
    if number != FORMAT:
        raise FormatError(f"it has format {number}; this release reads format {FORMAT}")
    if not features <= FEATURES:
        unknown = ", ".join(sorted(features - FEATURES))
        raise FormatError(f"it uses features that this release does not know: {unknown}")


class _Record(NamedTuple):
    number: int
    features: set[str]
    store: bytes
    incarnation: int


def _record(tx: Snapshot) -> _Record:
    return _unpack(tx.get(keys.FORMAT))


def _unpack(found: bytes | None) -> _Record:
    if found is None:
        raise FormatError("there is no page store in it")
    try:
        value = json.loads(found)
        features = set(map(str, value["features"]))
        store, incarnation = bytes.fromhex(value.get("store", "")), int(value.get("incarnation", 0))
        if not 0 <= incarnation < 1 << 31:
            raise ValueError
        return _Record(int(value["format"]), features, store, incarnation)
    except (ValueError, KeyError, TypeError) as exc:
        raise FormatError(f"its format record can't be read: {found[:80]!r}") from exc


def require(tx: Transaction, feature: str) -> None:
    """Note that the store has a feature, so that releases that do not know it refuse the store."""
    tx.add_read_conflict(keys.FORMAT, keys.FORMAT + b"\0")
    value = json.loads(tx.get(keys.FORMAT) or b"{}")
    if value and feature not in value["features"]:
        value["features"] = sorted({*value["features"], feature})
        tx.set(keys.FORMAT, json.dumps(value).encode())
