"""What needs a version: tags, branches, and holds of snapshots that last long.

Called by `store`, `snapshot` (may this version be read?), `branches` and `retention`.  Calls the engine.

1. A version at or above the horizon is readable.  One below it is readable as long as a key says that it
   is kept; who reads looks for that key in the engine transaction in which it reads.
2. A version becomes kept only while it is readable, in a transaction that relies on the namespace's
   record.  So retention, which moves the horizon by changing the record, either sees what is kept or
   comes first; and a version that nobody may read never becomes readable again.
3. A hold ends when retention removes its key after its time, and not before: clocks decide when a version
   goes, never whether one that is gone may be read.

Kept: the label is `t` and the name of a tag, `b` and the id of a branch (8 bytes), or `h` and 16 random
bytes; the value is empty, or for a hold the Unix µs at which it ends (8 bytes).  Tag: the version, and the
Unix µs at which it was made (8 bytes).  All big-endian.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from pagestore import keys
from pagestore.api import (
    MAX_VERSION,
    VERSION_SIZE,
    ZERO_VERSION,
    BelowHorizonError,
    InvalidRequestError,
    LimitError,
    NamespaceId,
    NameTakenError,
    NoSuchVersionError,
    Tag,
    Version,
    format_version,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.namespaces import Record, check_name, find, rely_on

MAX_HOLD_SECONDS = 3600.0

_TAG, _BRANCH, _HOLD = b"t", b"b", b"h"
_HOLD_ID_SIZE = 16


# ---- what may be read ----


def check_readable(tx: Snapshot, id_: NamespaceId, version: Version, record: Record) -> None:
    """Raises BelowHorizonError, or NoSuchVersionError before the namespace existed."""
    if version < record.created:
        raise NoSuchVersionError(
            f"version {format_version(version)} is older than the database ({format_version(record.created)})"
        )
    if version < record.horizon and not is_kept(tx, id_, version):
        raise BelowHorizonError(version, record.horizon)


def check_base(version: Version, record: Record) -> None:
    """For a commit: below the horizon the changelog has gaps, so nobody can tell what came since.
    Raises BelowHorizonError, or NoSuchVersionError before the namespace existed."""
    if version < record.created:
        raise NoSuchVersionError(
            f"version {format_version(version)} is older than the database ({format_version(record.created)})"
        )
    if version < record.horizon:
        raise BelowHorizonError(version, record.horizon)


def is_kept(tx: Snapshot, id_: NamespaceId, version: Version) -> bool:
    return any(True for _ in tx.scan(KeyRange(*keys.kept_at(id_, version, version), 1)))


def versions(tx: Snapshot, id_: NamespaceId, until: Version = MAX_VERSION) -> list[Version]:
    """The kept versions, ascending, each once: thousands of branches of one version cost one look."""
    found: list[Version] = []
    begin, end = keys.kept_at(id_, ZERO_VERSION, until)
    while True:
        key = next((key for key, _ in tx.scan(KeyRange(begin, end, 1))), None)
        if key is None:
            return found
        found.append(keys.version_of_kept(key))
        begin = keys.kept_at(id_, found[-1], found[-1])[1]


def has_branches(tx: Snapshot, id_: NamespaceId) -> bool:
    return bool(branch_points(tx, id_))


def branch_points(tx: Snapshot, id_: NamespaceId) -> list[Version]:
    """The versions that branches began at, ascending, each once."""
    found = []
    for version in versions(tx, id_):
        first = keys.kept(id_, version, _BRANCH)[:-1]  # without the string's end: all labels that begin so
        if any(True for _ in tx.scan(KeyRange(first, keys.after(first), 1))):
            found.append(version)
    return found


# ---- tags ----


def _tag_label(name: str) -> bytes:
    return _TAG + name.encode()


def _unpack_tag(name: str, value: bytes) -> Tag:
    return Tag(name, Version(value[:VERSION_SIZE]), int.from_bytes(value[VERSION_SIZE:], "big"))


def tag(engine: Engine, id_: NamespaceId, name: str, version: Version, timeout: float) -> Tag:
    """See `Store.tag`."""
    check_name(name, "a tag's name")
    _check_version(version)

    def work(tx: Transaction) -> Tag:
        record = rely_on(tx, id_)
        key = keys.tag(id_, name)
        tx.add_read_conflict(key, key + b"\0")
        found = tx.get(key)
        if found is not None:
            existing = _unpack_tag(name, found)
            if existing.version != version:
                raise NameTakenError(
                    f"there is a tag {name!r} already, at {format_version(existing.version)}: untag it first"
                )
            return existing
        check_readable(tx, id_, version, record)
        check_not_ahead(tx, version)
        now = time.time_ns() // 1000
        tx.set(key, version + now.to_bytes(8, "big"))
        tx.set(keys.kept(id_, version, _tag_label(name)), b"")
        return Tag(name, version, now)

    return engine.transact(work, timeout=timeout).value


def untag(tx: Transaction, id_: NamespaceId, name: str) -> Version:
    """See `Store.untag`: the version that it stood for."""
    rely_on(tx, id_)
    key = keys.tag(id_, name)
    tx.add_read_conflict(key, key + b"\0")
    found = tx.get(key)
    if found is None:
        raise NoSuchVersionError(f"there is no tag {name!r}")
    version = _unpack_tag(name, found).version
    tx.clear(key)
    tx.clear(keys.kept(id_, version, _tag_label(name)))
    return version


def tags(tx: Snapshot, id_: NamespaceId, name: str | None) -> Iterator[Tag]:
    """See `Store.tags`."""
    find(tx, id_)
    if name is not None:
        found = tx.get(keys.tag(id_, name))
        if found is not None:
            yield _unpack_tag(name, found)
        return
    for key, value in tx.scan(KeyRange(*keys.tags(id_))):
        yield _unpack_tag(keys.text_of_tag(key), value)


# ---- branches ----


def _branch_label(child: NamespaceId) -> bytes:
    return _BRANCH + child.to_bytes(8, "big")


def add_branch(tx: Transaction, id_: NamespaceId, version: Version, child: NamespaceId) -> None:
    tx.set(keys.kept(id_, version, _branch_label(child)), b"")


def remove_branch(tx: Transaction, id_: NamespaceId, version: Version, child: NamespaceId) -> None:
    tx.clear(keys.kept(id_, version, _branch_label(child)))


# ---- holds ----


def hold(
    engine: Engine, id_: NamespaceId, version: Version, seconds: float, renewed: bytes | None, timeout: float
) -> bytes:
    """See `Store.hold`.  A hold is the version and the random bytes of its key."""
    _check_version(version)
    if not 0 < seconds <= MAX_HOLD_SECONDS:
        raise LimitError(f"a hold lasts at most {MAX_HOLD_SECONDS:.0f} s")
    if renewed is not None and (
        len(renewed) != VERSION_SIZE + _HOLD_ID_SIZE or renewed[:VERSION_SIZE] != version
    ):
        raise InvalidRequestError("that is no hold of this version")
    held = renewed or version + os.urandom(_HOLD_ID_SIZE)
    key = keys.kept(id_, version, _HOLD + held[VERSION_SIZE:])

    def work(tx: Transaction) -> None:
        record = rely_on(tx, id_)
        tx.add_read_conflict(key, key + b"\0")
        if tx.get(key) is None:
            check_readable(tx, id_, version, record)
            check_not_ahead(tx, version)
        ends = time.time_ns() // 1000 + round(seconds * 1e6)
        tx.set(key, ends.to_bytes(8, "big"))

    engine.transact(work, durability="normal", timeout=timeout)
    return held


def unhold(engine: Engine, id_: NamespaceId, held: bytes, timeout: float) -> None:
    """See `Store.unhold`."""
    if len(held) != VERSION_SIZE + _HOLD_ID_SIZE:
        raise InvalidRequestError("that is no hold")
    key = keys.kept(id_, Version(held[:VERSION_SIZE]), _HOLD + held[VERSION_SIZE:])
    engine.transact(lambda tx: tx.clear(key), durability="normal", timeout=timeout)


def holds(tx: Snapshot, id_: NamespaceId, points: Sequence[Version]) -> Iterator[tuple[bytes, Version, int]]:
    """Of each hold: its key, its version, and the Unix µs at which it ends.  `points`: the kept versions."""
    labels = [keys.kept(id_, version, _HOLD)[:-1] for version in points]
    found = tx.scan_many([KeyRange(first, keys.after(first)) for first in labels])
    for version, rows in zip(points, found, strict=True):
        for key, ends in rows:
            yield key, version, int.from_bytes(ends, "big")


def _check_version(version: Version) -> None:
    if len(version) != VERSION_SIZE:
        raise InvalidRequestError(f"a version has {VERSION_SIZE} bytes")


def check_not_ahead(tx: Snapshot, version: Version) -> None:
    """Raises NoSuchVersionError."""
    if version > tx.read_version():
        raise NoSuchVersionError(f"version {format_version(version)} does not exist yet")
