"""Which rows of a namespace nobody needs any more, and their removal in small steps.

Called by `retention` and `drops`.  Calls the engine: what goes is worked out in a read transaction, beside
everybody, and then removed in a small write transaction.

1. What nobody needs (`needed`) was not readable any more when that was worked out, and what is not readable
   never becomes so again: so the plan stays right, whoever does what until it is carried out.
2. The changelog leads to the pages: those of the commits in (settled, horizon] are the ones that may have
   versions to let go.  So the work is in proportion to what goes, not to the database.
3. A step carries the place that it starts from; if another was quicker it does nothing.  A crash between
   two steps loses nothing: the next one starts where the last one ended.
4. Of the changelog go the records, with their times and tokens, of commits before the horizon, but for
   those that a kept version stands at.  The horizon's own stays: it tells its time.
5. When something that was kept below the horizon is not needed any more, no changelog leads to its
   pages: then all pages are swept once, from the first to the last.
6. While a run is at work commits leave it to that (`is_run`): a step of a run says until when, a few seconds
   ahead, so that a run that was killed holds nobody up for longer.

Progress: settled version (10 bytes), pages done of the next record (4), when the horizon was last looked
after, Unix µs (8), the page that a sweep of all pages has come to (4; 0: none under way), until when a run
is at work, Unix µs (8; 0: none is).  All big-endian.
"""

from __future__ import annotations

import struct
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from pagestore import changelog, kept, keys
from pagestore.api import (
    MAX_VERSION,
    Change,
    NamespaceId,
    PageNumber,
    PageRuns,
    Version,
    runs_in,
    united,
)
from pagestore.batches import in_batches
from pagestore.encoding import MAX_CHAIN
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.engines.pace import Pace
from pagestore.faults import fault
from pagestore.namespaces import Record, find_any
from pagestore.needed import Rows, add_window

STEP = 256
"""Page versions looked at in one step at most, roughly: a few milliseconds, of which the removal is one or
two.  Beside others who write they are smaller, see `pace`."""

RUN_US = 5_000_000
"""For how long a step says that the run is at work: longer than it rests."""

_ROWS = 1000
"""Rows that a sweep of all pages reads at a time."""

_ROWS_A_VERSION = 4
"""As many for each page version of a step's size, if that is less."""

_PROGRESS = struct.Struct(">10sIQIQ")


class Progress(NamedTuple):
    settled: Version
    """Below it, nothing is left that is not needed."""
    within: int = 0
    advanced_us: int = 0
    sweep: int = 0
    run_us: int = 0

    def pack(self) -> bytes:
        return _PROGRESS.pack(*self)


def progress(tx: Snapshot, id_: NamespaceId, record: Record) -> Progress:
    return unpack(tx.get(keys.retention(id_)), record)


def unpack(found: bytes | None, record: Record) -> Progress:
    if found is None:
        return Progress(record.created)
    settled, *others = _PROGRESS.unpack(found)
    return Progress(Version(settled), *others)


def is_run(at: Progress) -> bool:
    """Whether a run is at work.  (A time further ahead is that of a clock which others do not go by.)"""
    return 0 < at.run_us - _now_us() <= RUN_US


def end_run(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """A run that carried out steps is over: commits go on."""

    def work(tx: Transaction) -> None:
        key = keys.retention(id_)
        tx.add_read_conflict(key, key + b"\0")
        found = tx.get(key)
        if found is not None:
            tx.set(key, unpack(found, find_any(tx, id_))._replace(run_us=0).pack())

    engine.transact(work, durability="normal", timeout=timeout)


def _now_us() -> int:
    return time.time_ns() // 1000


def sweep_all(tx: Transaction, id_: NamespaceId, version: Version) -> None:
    """Something that needed `version` has gone: look at all pages again, if it was below the horizon."""
    record = find_any(tx, id_)
    if version < record.horizon or record.dropped:
        key = keys.retention(id_)
        tx.add_read_conflict(key, key + b"\0")
        tx.set(key, progress(tx, id_, record)._replace(sweep=1).pack())


@dataclass(slots=True)
class Step:
    """What to remove, worked out."""

    before: bytes | None = None
    """The progress that it was worked out from."""
    after: Progress | None = None
    """The progress once it is done; None: it makes none."""
    ranges: list[tuple[bytes, bytes]] = field(default_factory=list)
    versions: int = 0
    page_versions: int = 0
    bytes: int = 0

    def take(self, found: Rows) -> None:
        """What can go of one page."""
        self.page_versions += len(found.removed)
        self.bytes += sum(size for _, size in found.removed)
        self.ranges += found.ranges()


def carry_out(engine: Engine, id_: NamespaceId, step: Step, timeout: float, pace: Pace | None = None) -> bool:
    """False: another was quicker, and nothing was removed.  `pace`: of the run that the step is part of."""
    key = keys.retention(id_)
    after = step.after
    if after is not None and pace is not None:
        after = after._replace(run_us=_now_us() + RUN_US)

    def work(tx: Transaction) -> bool:
        if after is not None:
            tx.add_read_conflict(key, key + b"\0")
            if tx.get(key) != step.before:
                return False
            tx.set(key, after.pack())
        tx.clear_ranges(step.ranges)
        fault("collect.step")
        return True

    if pace is None:
        done = engine.transact(work, durability="normal", timeout=timeout).value
    else:
        done = pace.transact(work, timeout)
    fault("collect.stepped")
    return done


# ---- along the changelog ----


def next_step(tx: Snapshot, id_: NamespaceId, limit: int = 0) -> Step | None:
    """The next step of what has to be done, or None if nothing has.  `limit`: page versions; 0: `STEP`."""
    return step_after(tx, id_, find_any(tx, id_), tx.get(keys.retention(id_)), limit)


def step_after(
    tx: Snapshot, id_: NamespaceId, record: Record, before: bytes | None, limit: int = 0
) -> Step | None:
    """As `next_step`, for who has read the record and the progress."""
    at = unpack(before, record)
    if at.settled < record.horizon:
        step = _along_changelog(tx, id_, record, at, limit or STEP)
    elif at.sweep:
        step = _through_pages(tx, id_, record, at, limit or STEP)
    else:
        return None
    step.before = before
    return step


def _along_changelog(tx: Snapshot, id_: NamespaceId, record: Record, at: Progress, limit: int) -> Step:
    first, changes = _batch(tx, id_, at, record.horizon, limit)
    if not changes:
        return Step(after=at._replace(settled=record.horizon, within=0))
    step = Step()
    points = [*kept.versions(tx, id_, record.horizon), changes[-1].version]
    if len(changes) == 1 and len(changes[0].pages) > limit:
        upto = at.within + limit
        pages = Counter(changes[0].pages[at.within : upto])
        if upto < len(changes[0].pages):
            step.after = at._replace(within=upto)
    else:
        pages = Counter(page for change in changes for page in change.pages)
    _let_go_of_pages(tx, id_, record, at.settled, points, pages, step)
    if step.after is None:
        let_go_of_commits(id_, [*first, *changes], points[:-1], step)
        step.after = at._replace(settled=changes[-1].version, within=0)
    return step


def _batch(
    tx: Snapshot, id_: NamespaceId, at: Progress, horizon: Version, limit: int
) -> tuple[list[Change], list[Change]]:
    """The commit that is settled, if its record is there, and the next ones, up to `limit` pages."""
    first: list[Change] = []
    changes: list[Change] = []
    pages = 0
    for key, value in tx.scan(KeyRange(*keys.log_from(id_, at.settled, horizon), limit + 1)):
        change = _change_of(tx, id_, key, value)
        if change.version == at.settled:
            first.append(change)
            continue
        pages += len(change.pages)
        if changes and pages > limit:
            break
        changes.append(change)
    return first, changes


_large: dict[bytes, Change] = {}
"""What was read from long records, the newest last: a commit of a million pages takes thousands of steps."""

_MOST_LARGE = 2


def _change_of(tx: Snapshot, id_: NamespaceId, key: bytes, record: bytes) -> Change:
    """A record with this time and token, at this version, never says anything else."""
    if changelog.size_of(record) == len(record):
        return changelog.read(keys.version_of(key), record)
    known = _large.get(key + record)
    if known is None:
        known = changelog.change_of(tx, id_, key, record)
        _large[key + record] = known
        for oldest in list(_large)[:-_MOST_LARGE]:
            _large.pop(oldest, None)
    return known


def _let_go_of_pages(
    tx: Snapshot,
    id_: NamespaceId,
    record: Record,
    settled: Version,
    points: Sequence[Version],
    pages: Counter[PageNumber],
    step: Step,
) -> None:
    """`pages`: how many versions after `settled` each has, up to the last of `points`."""
    numbers = sorted(pages)
    ranges = [
        KeyRange(*keys.page(id_, number, points[-1]), pages[number] + 2 + MAX_CHAIN, reverse=True)
        for number in numbers
    ]
    for rows in tx.scan_many(ranges):
        found = Rows(points, hides=bool(record.ancestors))
        add_window(found, rows, settled)
        step.take(found)


def stays(points: Sequence[Version], version: Version, later: Version) -> bool:
    """Whether a kept version stands at this commit, which is followed by `later`."""
    point = bisect_left(points, version)
    return point < len(points) and points[point] < later


def let_go_of_commits(
    id_: NamespaceId, changes: Sequence[Change], points: Sequence[Version], step: Step
) -> None:
    """All but the last, and those that a kept version stands at."""
    for change, later in pairwise(changes):
        if stays(points, change.version, later.version):
            continue
        key = keys.log_from(id_, change.version, change.version)
        when = keys.time_prefix(id_, change.time_us) + change.version + keys.VERSION_SUFFIX
        step.ranges += [key, (when, when + b"\0")]
        if changelog.may_be_in_pieces(change):
            step.ranges.append(keys.more(id_, change.version))
        step.versions += 1


def dry_run(
    read: Callable[[Callable[[Snapshot], Step]], Step],
    id_: NamespaceId,
    changes: Iterable[Change],
    settled: Version,
    points: Sequence[Version],
) -> Iterator[Step]:
    """What would go if the horizon moved to the last of `points`, given the changes from `settled` up to it
    and a way to read: in pieces, none of which is to be carried out."""
    pages: Counter[PageNumber] = Counter()
    large: list[PageRuns] = []
    before: Change | None = None
    commits = Step()
    for change in changes:
        if change.version > settled and isinstance(change.pages, PageRuns):
            large.append(change.pages)
        elif change.version > settled:
            pages.update(change.pages)
        if before is not None and not stays(points[:-1], before.version, change.version):
            commits.versions += 1
        before = change
    yield commits
    numbers = PageRuns(united(runs_in(sorted(pages)), *(one.runs() for one in large)))
    for batch in in_batches(numbers, STEP):
        some = Counter({number: pages[number] + sum(number in one for one in large) for number in batch})

        def look(tx: Snapshot, some: Counter[PageNumber] = some) -> Step:
            step = Step()
            _let_go_of_pages(tx, id_, find_any(tx, id_), settled, points, some, step)
            return step

        yield read(look)


# ---- through all pages ----


def _through_pages(tx: Snapshot, id_: NamespaceId, record: Record, at: Progress, limit: int) -> Step:
    points = [*kept.versions(tx, id_, at.settled), at.settled]
    step = Step()
    following = sweep_pages(
        tx,
        id_,
        PageNumber(at.sweep),
        points,
        bool(record.ancestors),
        step,
        until=at.settled,
        most=min(_ROWS_A_VERSION * limit, _ROWS),
    )
    step.after = at._replace(sweep=following or 0)
    return step


def sweep_pages(
    tx: Snapshot,
    id_: NamespaceId,
    first: PageNumber,
    points: Sequence[Version],
    hides: bool,
    step: Step,
    *,
    until: Version | None,
    most: int = _ROWS,
) -> PageNumber | None:
    """Let go of all versions (up to `until`) of pages from `first` on that none of `points` needs, looking at
    `most` rows or one page; the page to go on with, or None at the end."""
    begin, end = keys.pages_from(id_, first)
    rows = list(tx.scan(KeyRange(begin, end, most)))
    more = len(rows) == most
    by_page: dict[PageNumber, list[tuple[bytes, bytes]]] = {}
    for row in rows:
        by_page.setdefault(keys.number_of_page(row[0]), []).append(row)
    numbers = list(by_page)
    following: PageNumber | None = None
    if more and len(numbers) > 1:
        following = numbers.pop()
    elif more:
        following = PageNumber(numbers[0] + 1)
        by_page[numbers[0]] = list(tx.scan(KeyRange(*keys.page(id_, numbers[0], MAX_VERSION))))
    for number in numbers:
        found = Rows(points, hides=hides)
        for key, blob in reversed(by_page[number]):
            if until is None or keys.version_of(key) <= until:
                found.add(key, blob)
        found.end()
        step.take(found)
    return following
