"""Drop, and bring back; removal for good in small steps.

Called by `store`.  Calls the engine, `namespaces` and `sweep`.

1. Drop takes effect at once, in one transaction: the name is free, the record says dropped, a key says that
   the namespace may come back.  Nothing else changes, so that undrop is one transaction as well.
2. What may come back is removed for good when its retention, counted from the drop, is over; or on demand.
   Then a tombstone takes the key's place, and the pages go in small steps; whoever opens the store next
   finishes what a crash interrupted.
3. What branches need of a removed parent stays until the last of them has gone: it can't come back, and of
   its pages only the versions are left that they began at.
4. The parent learns of a branch's end in the transaction that removes the branch's record.

Old: a state (one byte: 0 may come back, 1 is there for its branches only), the Unix µs of the drop (8 bytes,
big-endian), the name.  Tombstone: the name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from pagestore import kept, keys, retention, sweep
from pagestore.api import Dropped, Namespace, NamespaceId, NoSuchNamespaceError, PageNumber
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.faults import fault
from pagestore.namespaces import (
    as_namespace,
    check_name,
    claim_name,
    find_any,
    guard,
    release_name,
    rely_on,
)

_STEP_KEYS = 2000
"""Keys removed in one engine transaction: a few milliseconds."""

_MAY_COME_BACK, _FOR_BRANCHES = 0, 1


class _Old(NamedTuple):
    id: NamespaceId
    state: int
    dropped_us: int
    name: str

    def pack(self) -> bytes:
        return bytes((self.state,)) + self.dropped_us.to_bytes(8, "big") + self.name.encode()


def _old(key: bytes, value: bytes) -> _Old:
    return _Old(
        keys.namespace_of_dropped(key), value[0], int.from_bytes(value[1:9], "big"), value[9:].decode()
    )


def _all_old(tx: Snapshot) -> Iterator[_Old]:
    for key, value in tx.scan(KeyRange(*keys.all_old())):
        yield _old(key, value)


def _until_us(tx: Snapshot, old: _Old) -> int | None:
    keeps = find_any(tx, old.id).retention.seconds
    return None if keeps is None else old.dropped_us + round(max(keeps, retention.GRACE_SECONDS) * 1e6)


def only_for_branches(tx: Snapshot, id_: NamespaceId) -> bool:
    """Whether it was dropped for good, and something of it stays because a branch needs it."""
    found = tx.get(keys.old(id_))
    return found is not None and found[0] == _FOR_BRANCHES


# ---- the operations ----


def drop(engine: Engine, name: str, timeout: float, *, now: bool) -> None:
    """See `Store.drop`."""
    check_name(name)

    def work(tx: Transaction) -> tuple[_Old, bool]:
        id_ = release_name(tx, name)
        tx.set(keys.namespace(id_), replace(rely_on(tx, id_), dropped=True).pack())
        tx.announce(id_)
        old = _Old(id_, _MAY_COME_BACK, time.time_ns() // 1000, name)
        if now:
            return old, _end(tx, old)
        tx.set(keys.old(id_), old.pack())
        return old, True

    old, stays = engine.transact(work, timeout=timeout, idempotent=False).value
    fault("drop.name_removed")
    if now:
        _remove_or_strip(engine, old.id, stays, timeout)


def dropped(tx: Snapshot) -> list[Dropped]:
    """See `Store.dropped`."""
    found = [
        Dropped(old.id, old.name, old.dropped_us, _until_us(tx, old))
        for old in _all_old(tx)
        if old.state == _MAY_COME_BACK
    ]
    return sorted(found, key=lambda one: one.dropped_us, reverse=True)


def undrop(engine: Engine, id_: NamespaceId, name: str, timeout: float) -> Namespace:
    """See `Store.undrop`."""
    check_name(name)

    def work(tx: Transaction) -> Namespace:
        _may_come_back(tx, id_)
        claim_name(tx, name, id_)
        record = replace(find_any(tx, id_), dropped=False)
        tx.set(keys.namespace(id_), record.pack())
        tx.clear(keys.old(id_))
        tx.announce(id_)
        return as_namespace(id_, name, record)

    return engine.transact(work, timeout=timeout, idempotent=False).value


def _may_come_back(tx: Transaction, id_: NamespaceId) -> _Old:
    key = keys.old(id_)
    tx.add_read_conflict(key, key + b"\0")
    found = tx.get(key)
    if found is None or found[0] != _MAY_COME_BACK:
        raise NoSuchNamespaceError(f"there is no dropped database with the id {id_} (any more)")
    return _old(key, found)


def purge(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """See `Store.purge`."""
    stays = engine.transact(lambda tx: _end(tx, _may_come_back(tx, id_)), timeout=timeout).value
    _remove_or_strip(engine, id_, stays, timeout)


def finish(engine: Engine, timeout: float) -> None:
    """Go on with removals that were interrupted, and remove what nobody may bring back any more."""
    tombstones = engine.read(
        lambda tx: [keys.namespace_of_dropped(key) for key, _ in tx.scan(KeyRange(*keys.all_dropped()))],
        timeout=timeout,
    )
    for id_ in tombstones:
        _remove(engine, id_, timeout)
    for old in engine.read(_due, timeout=timeout):
        _expire(engine, old, timeout)


def _expire(engine: Engine, old: _Old, timeout: float) -> None:
    stays = engine.transact(lambda tx: _end_if_unchanged(tx, old), timeout=timeout).value
    _remove_or_strip(engine, old.id, stays, timeout)


def _due(tx: Snapshot) -> list[_Old]:
    now_us = time.time_ns() // 1000
    return [old for old in _all_old(tx) if _is_due(tx, old, now_us)]


def _is_due(tx: Snapshot, old: _Old, now_us: int) -> bool:
    until_us = _until_us(tx, old)
    return old.state == _FOR_BRANCHES or (until_us is not None and until_us <= now_us)


# ---- for good ----


def _end(tx: Transaction, old: _Old) -> bool:
    """From now on it can't come back.  True: it stays for its branches."""
    guard(tx, old.id)
    if not kept.has_branches(tx, old.id):
        tx.clear(keys.old(old.id))
        tx.set(keys.dropped(old.id), old.name.encode())
        return False
    if old.state == _MAY_COME_BACK:
        tx.set(keys.old(old.id), old._replace(state=_FOR_BRANCHES).pack())
        at = sweep.progress(tx, old.id, find_any(tx, old.id))
        tx.set(keys.retention(old.id), at._replace(sweep=1).pack())
    return True


def _end_if_unchanged(tx: Transaction, old: _Old) -> bool:
    """As `_end`; True as well if it was brought back, or removed by another."""
    key = keys.old(old.id)
    tx.add_read_conflict(key, key + b"\0")
    found = tx.get(key)
    return found is None or _old(key, found) != old or _end(tx, old)


def _remove_or_strip(engine: Engine, id_: NamespaceId, stays: bool, timeout: float) -> None:
    if stays:
        _strip(engine, id_, timeout)
    else:
        _remove(engine, id_, timeout)


def _strip(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """Leave nothing but what branches need."""

    def plan(tx: Snapshot) -> tuple[sweep.Step, PageNumber] | None:
        found = tx.get(keys.retention(id_))
        if found is None or not only_for_branches(tx, id_):
            return None
        record = find_any(tx, id_)
        at = sweep.unpack(found, record)
        step = sweep.Step(before=found)
        points = kept.branch_points(tx, id_)
        following = sweep.sweep_pages(
            tx, id_, PageNumber(at.sweep), points, bool(record.ancestors), step, until=None
        )
        step.after = at._replace(sweep=following or 0)
        return step, following or PageNumber(0)

    while True:
        planned = engine.read(plan, timeout=timeout)
        if planned is None:
            return
        step, following = planned
        sweep.carry_out(engine, id_, step, timeout)
        if not following:
            break
    for begin, end in keys.shed(id_):
        while _remove_some(engine, begin, end, timeout):
            fault("drop.step")


def _remove(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """Remove all that a namespace left, its tombstone last.  Two may do so at once."""
    for begin, end in keys.belongings(id_):
        while _remove_some(engine, begin, end, timeout):
            fault("drop.step")
    fault("drop.before_end")

    def work(tx: Transaction) -> None:
        found = tx.get(keys.namespace(id_))
        if found is None:
            return
        for parent in find_any(tx, id_).ancestors[:1]:
            kept.remove_branch(tx, parent.id, parent.version, id_)
            if tx.get(keys.namespace(parent.id)) is not None:
                guard(tx, parent.id)
                sweep.sweep_all(tx, parent.id, parent.version)
        tx.clear(keys.namespace(id_))
        tx.clear(keys.dropped(id_))

    parents = engine.read(
        lambda tx: find_any(tx, id_).ancestors[:1] if tx.get(keys.namespace(id_)) else (), timeout=timeout
    )
    engine.transact(work, timeout=timeout)
    for parent in parents:
        _remove_if_lonely(engine, parent.id, timeout)


def _remove_if_lonely(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """A parent that was there for its branches only, if this was the last one."""

    def look(tx: Snapshot) -> _Old | None:
        found = tx.get(keys.old(id_))
        return _old(keys.old(id_), found) if found is not None and found[0] == _FOR_BRANCHES else None

    old = engine.read(look, timeout=timeout)
    if old is not None and not engine.transact(lambda tx: _end_if_unchanged(tx, old), timeout=timeout).value:
        _remove(engine, id_, timeout)


def _remove_some(engine: Engine, begin: bytes, end: bytes, timeout: float) -> bool:
    """Whether there was something to remove."""

    def work(tx: Transaction) -> bool:
        if engine.clears_ranges_at_once:
            tx.clear_range(begin, end)
            return False
        found = [key for key, _ in tx.scan(KeyRange(begin, end, limit=_STEP_KEYS))]
        if found:
            tx.clear_range(begin, found[-1] + b"\0")
        return bool(found)

    return engine.transact(work, durability="normal", timeout=timeout).value
