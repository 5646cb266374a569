"""Retention: how far back a namespace can be read, and letting go of what is older.

Called by `store`: `collect` for a whole run, `beside_commit` for a little of it behind a commit.  Calls the
engine, always in small transactions, and `sweep` and `leftovers` for what goes.

1. First the horizon moves, then what is below it goes.  The horizon moves in one engine transaction that
   changes the namespace's record: who reads below it afterwards is told so, whatever is still there.
2. The horizon stays behind the grace period, and behind every hold that has not ended.  It is always the
   version of a commit, or the one that created the namespace; and before every bulk commit that is not
   folded in, so that all versions up to it are under page keys.
3. Before the horizon moves there is an allocation image of it, and of each kept version that it passes:
   what is kept can be read without the changelog before it.
4. Retention by size needs to know how much each commit turned into history: measured once, some commits
   at a time, and kept.
5. Nothing of it runs by itself: no thread, no timer.  A namespace that nobody writes costs nothing.
6. A whole run goes on at the pace that others leave to it (`pace`), and lets go of what may go when it
   begins: what comes of age meanwhile is for the next one, else it would not end while others write.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pagestore import allocation, bulk, changelog, format, history, kept, keys, leftovers, staging, sweep
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    Collected,
    NamespaceId,
    Retention,
    Version,
    before,
)
from pagestore.batches import in_batches
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.engines.pace import Pace
from pagestore.faults import fault
from pagestore.namespaces import Record, find, rely_on
from pagestore.sweep import Step

GRACE_SECONDS = 600.0
"""How long a snapshot needs no hold."""

LOOK_EVERY = 16
"""One commit in so many, on average, looks whether there is something to let go of."""

MOST_BESIDE = 4 * sweep.STEP
"""Page versions that one commit lets go of at most."""

_LONGEST_PAUSE, _SHORTEST_PAUSE = 3600.0, 1.0
"""Seconds between two moves of the horizon that commits see to: a 64th of what is kept, but within these."""

_NEXT_LOOK = 60.0
"""Seconds from a look that moved nothing to the next one, or that pause if it is shorter."""

_MEASURED = 64
"""Commits measured in one engine transaction."""

_LOOKED_UP = 1000
"""Their pages looked up at once."""

_MEASURE = struct.Struct(">Q")


# ---- policy ----


def set_policy(tx: Transaction, id_: NamespaceId, wanted: Retention) -> None:
    """See `Store.set_retention`."""
    record = rely_on(tx, id_)
    if record.retention != wanted:
        tx.set(keys.namespace(id_), replace(record, retention=wanted).pack())


def check_policy(wanted: Retention) -> None:
    """Raises ValueError."""
    if wanted.seconds is not None and not 0 <= wanted.seconds <= 1e11:
        raise ValueError(f"history is kept for 0 seconds or more, not {wanted.seconds}")
    if wanted.max_bytes is not None and not 0 <= wanted.max_bytes < 1 << 62:
        raise ValueError(f"history may take 0 bytes or more, not {wanted.max_bytes}")


# ---- the horizon ----


@dataclass(frozen=True, slots=True)
class _Target:
    version: Version
    time_us: int
    images: tuple[Version, ...]
    """Versions whose allocation image is still to be written."""
    ended: tuple[bytes, ...]
    """Keys of holds whose time is over."""


def _now_us() -> int:
    return time.time_ns() // 1000


def _newest_until(tx: Snapshot, id_: NamespaceId, version: Version) -> tuple[Version, int] | None:
    """The newest commit at or before a version, and its time."""
    for key, record in tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, version), 1, reverse=True)):
        return keys.version_of(key), changelog.time_of(record)
    return None


def _version_then(tx: Snapshot, id_: NamespaceId, time_us: int) -> Version:
    """The newest version that is not after a time, or the zero version."""
    rows = tx.scan(KeyRange(*keys.times(id_, time_us), 1, reverse=True))
    return next((keys.version_of(key) for key, _ in rows), ZERO_VERSION)


def _wanted(tx: Snapshot, id_: NamespaceId, record: Record, now_us: int) -> Version:
    """Where the horizon belongs if nobody held it."""
    policy = record.retention
    grace = round(GRACE_SECONDS * 1e6)
    wanted = ZERO_VERSION
    if policy.seconds is not None:
        wanted = _version_then(tx, id_, now_us - max(round(policy.seconds * 1e6), grace))
    if policy.max_bytes is not None:
        by_size = _by_size(tx, id_, record, policy.max_bytes)
        wanted = max(wanted, min(by_size, _version_then(tx, id_, now_us - grace)))
    return wanted


def _by_size(tx: Snapshot, id_: NamespaceId, record: Record, most: int) -> Version:
    total = 0
    for key, value in tx.scan(KeyRange(*keys.measures(id_, record.horizon, MAX_VERSION), reverse=True)):
        total += _MEASURE.unpack(value)[0]
        if total > most:
            return keys.version_of(key)
    return ZERO_VERSION


def _target(tx: Snapshot, id_: NamespaceId, record: Record) -> _Target | None:
    """Where the horizon can move to now; None: it stays."""
    now_us = _now_us()
    wanted = _wanted(tx, id_, record, now_us)
    if wanted <= record.horizon:
        return None
    ended, points = [], kept.versions(tx, id_)
    for key, version, ends_us in kept.holds(tx, id_, points):
        if ends_us <= now_us:
            ended.append(key)
        elif version >= record.horizon:
            wanted = min(wanted, version)
    for one in bulk.unfolded(tx, id_):
        wanted = min(wanted, before(one.version))
    found = _newest_until(tx, id_, wanted)
    if found is None or found[0] <= record.horizon:
        return None
    horizon, time_us = found
    needed = [v for v in points if record.horizon <= v <= horizon]
    asked = [(v, tx.ask(keys.image(id_, v))) for v in (*needed, horizon)]
    missing = [v for v, image in asked if image() is None]
    return _Target(horizon, time_us, tuple(missing), tuple(ended))


def _advance(engine: Engine, id_: NamespaceId, timeout: float) -> bool:
    """Move the horizon; whether it moved."""
    while True:
        target = engine.read(lambda tx: _target(tx, id_, find(tx, id_)), timeout=timeout)
        if target is None:
            return False
        for version in target.images:
            allocation.write_image(engine, id_, version, timeout)
            fault("collect.image")
        if engine.transact(lambda tx: _move(tx, id_), durability="normal", timeout=timeout).value:
            fault("collect.moved")
            return True


def _move(tx: Transaction, id_: NamespaceId) -> bool:
    """False: there are images to be written first."""
    progress_key = keys.retention(id_)
    progress = tx.ask(progress_key)
    record = rely_on(tx, id_)
    target = _target(tx, id_, record)
    if target is None:
        return True  # another was quicker, or somebody took a hold
    if target.images:
        return False
    tx.add_read_conflict(*keys.kept_at(id_, ZERO_VERSION, target.version))  # a later hold is in nobody's way
    tx.add_read_conflict(progress_key, progress_key + b"\0")
    at = sweep.unpack(progress(), record)
    passed = [key for key in target.ended if keys.version_of_kept(key) < record.horizon]
    tx.set(progress_key, at._replace(advanced_us=_now_us(), sweep=at.sweep or (1 if passed else 0)).pack())
    for key in target.ended:
        tx.clear(key)
    format.require(tx, format.RETENTION)
    tx.set(keys.namespace(id_), replace(record, horizon=target.version, horizon_us=target.time_us).pack())
    fault("collect.moving")
    return True


# ---- how much is history ----


def _measure(engine: Engine, id_: NamespaceId, pace: Pace, timeout: float, deadline: float) -> None:
    """Find out what the commits turned into history that nobody has measured yet."""
    while True:
        found = engine.read(lambda tx: _measure_some(tx, id_), timeout=timeout)
        if found is None:
            return
        version, size = found
        pace.transact(
            lambda tx: tx.set(keys.measure(id_, version), _MEASURE.pack(size)),  # noqa: B023 (runs now)
            timeout,
        )
        if time.monotonic() > deadline:
            return
        pace.rest()


def _measure_some(tx: Snapshot, id_: NamespaceId) -> tuple[Version, int] | None:
    record = find(tx, id_)
    last = ZERO_VERSION
    for key, _ in tx.scan(KeyRange(*keys.measures(id_, ZERO_VERSION, MAX_VERSION), 1, reverse=True)):
        last = keys.version_of(key)
    rows = tx.scan(KeyRange(*keys.log(id_, max(last, record.horizon), MAX_VERSION), _MEASURED))
    changes = [changelog.change_of(tx, id_, key, value) for key, value in rows]
    if len(changes) < _MEASURED:  # the newest ones wait until there are enough of them
        return None
    written = ((page, change.version) for change in changes for page in change.pages)
    size = 0
    for some in in_batches(written, _LOOKED_UP):
        ranges = [KeyRange(*keys.page(id_, page, version), 2, reverse=True) for page, version in some]
        size += sum(_replaced(list(rows)) for rows in tx.scan_many(ranges))
    return changes[-1].version, size


def _replaced(rows: Sequence[tuple[bytes, bytes]]) -> int:
    """The bytes of the version before the newest."""
    return len(rows[1][0]) + len(rows[1][1]) if len(rows) > 1 else 0


# ---- runs ----


def collect(
    engine: Engine, id_: NamespaceId, seconds: float, timeout: float, *, dry_run: bool = False
) -> Collected:
    """See `Store.collect`."""
    deadline = time.monotonic() + seconds if seconds else float("inf")
    pace = Pace(engine, sweep.STEP)
    record = engine.read(lambda tx: find(tx, id_), timeout=timeout)
    if record.retention.max_bytes is not None:
        _measure(engine, id_, pace, timeout, deadline)
    if dry_run:
        return _would_go(engine, id_, timeout)
    staging.collect(engine, id_, timeout)
    bulk.fold(engine, id_, timeout, lambda: time.monotonic() > deadline)
    total = Step()
    complete = _settle(engine, id_, total, pace, deadline, timeout)  # what an earlier run left
    if complete and _advance(engine, id_, timeout):
        complete = _settle(engine, id_, total, pace, deadline, timeout)
    record = engine.read(lambda tx: find(tx, id_), timeout=timeout)
    return _collected(record.horizon, record.horizon_us or record.created_us, total, complete)


def _collected(horizon: Version, horizon_us: int, total: Step, complete: bool) -> Collected:
    return Collected(horizon, horizon_us, total.versions, total.page_versions, total.bytes, complete)


def _settle(
    engine: Engine, id_: NamespaceId, total: Step, pace: Pace, deadline: float, timeout: float
) -> bool:
    """Carry out all steps there are, at least one; False: time ran out."""
    steps = 0
    complete = True
    for plan in (sweep.next_step, leftovers.next_step):
        while complete:
            step = engine.read(lambda tx: plan(tx, id_, pace.size), timeout=timeout)  # noqa: B023 (runs now)
            if step is None:
                break
            complete = not steps or time.monotonic() <= deadline
            if complete:
                pace.rest()
                if sweep.carry_out(engine, id_, step, timeout, pace):
                    _add(total, step)
                steps += 1
                pace.rest()
    if steps:
        sweep.end_run(engine, id_, timeout)
    return complete


def _add(total: Step, step: Step) -> None:
    total.versions += step.versions
    total.page_versions += step.page_versions
    total.bytes += step.bytes


def _would_go(engine: Engine, id_: NamespaceId, timeout: float) -> Collected:
    """What a run would remove: by the same rules, over all that it would pass, without writing."""
    record = engine.read(lambda tx: find(tx, id_), timeout=timeout)
    target = engine.read(lambda tx: _target(tx, id_, record), timeout=timeout)
    horizon, horizon_us = record.horizon, record.horizon_us or record.created_us
    if target is not None:
        horizon, horizon_us = target.version, target.time_us
    at, points = engine.read(
        lambda tx: (sweep.progress(tx, id_, record), kept.versions(tx, id_, horizon)), timeout=timeout
    )
    changes = history.changes_in(engine, id_, keys.log_from(id_, at.settled, horizon), timeout)
    total = Step()
    for step in sweep.dry_run(
        lambda look: engine.read(look, timeout=timeout), id_, changes, at.settled, (*points, horizon)
    ):
        _add(total, step)
    return _collected(horizon, horizon_us, total, True)


# ---- beside commits ----


def is_due(token: bytes) -> bool:
    return token[-2] % LOOK_EVERY == 0


def beside_commit(engine: Engine, id_: NamespaceId, pages: int, timeout: float) -> bool:
    """A little of it, in the thread of a commit that has been acknowledged by the store: about twice as
    much as was written since another commit did so, if those were like this one.  Whether there was anything
    to do."""
    limit = min(max(2 * LOOK_EVERY * pages, 32), MOST_BESIDE)

    def look(tx: Snapshot) -> tuple[sweep.Step | None, Record | None]:
        asked = tx.ask(keys.retention(id_))
        record = find(tx, id_)
        before = asked()
        at = sweep.unpack(before, record)
        if sweep.is_run(at):
            return None, None
        step = sweep.step_after(tx, id_, record, before, limit)
        return step, record if step is None and _advance_is_due(record, at) else None

    step, due = engine.read(look, timeout=timeout)
    if step is not None:
        sweep.carry_out(engine, id_, step, timeout)
    if due is None:
        return step is not None
    left = engine.read(lambda tx: leftovers.next_step(tx, id_, limit), timeout=timeout)
    if left is not None:  # by the last move, which comes before the next one
        sweep.carry_out(engine, id_, left, timeout)
        return True
    if due.retention.max_bytes is not None:
        _measure(engine, id_, Pace(engine, _MEASURED), timeout, time.monotonic())
    if not _advance(engine, id_, timeout):
        engine.transact(lambda tx: _look_later(tx, id_), durability="normal", timeout=timeout)
    return True


def _pause(record: Record) -> float:
    """Seconds from one move of the horizon to the next."""
    keeps = record.retention.seconds
    return _LONGEST_PAUSE if keeps is None else min(max(keeps / 64, _SHORTEST_PAUSE), _LONGEST_PAUSE)


def _advance_is_due(record: Record, at: sweep.Progress) -> bool:
    """Whether it is time to look where the horizon belongs, and the horizon is old enough to be passed."""
    policy, now_us = record.retention, _now_us()
    if policy.seconds is None and policy.max_bytes is None:
        return False
    keeps = GRACE_SECONDS if policy.max_bytes is not None else max(policy.seconds or 0.0, GRACE_SECONDS)
    oldest_us = record.horizon_us or record.created_us
    return max(at.advanced_us + _pause(record) * 1e6, oldest_us + keeps * 1e6) < now_us


def _look_later(tx: Transaction, id_: NamespaceId) -> None:
    """Nothing can go yet: the next commits need not find that out again."""
    record = rely_on(tx, id_)
    key = keys.retention(id_)
    tx.add_read_conflict(key, key + b"\0")
    at = sweep.progress(tx, id_, record)
    pause = _pause(record)
    next_us = _now_us() + round(min(pause, _NEXT_LOOK) * 1e6)
    tx.set(key, at._replace(advanced_us=next_us - round(pause * 1e6)).pack())
