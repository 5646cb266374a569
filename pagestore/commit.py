"""Commit: the check against what others did, and the writes.

Called by `store`.  Calls the engine's transaction.

1. A commit based on V goes through only if no page that it read or wrote is in a changelog record of
   its namespace after V.  The check and the writes are one engine transaction.
2. It reads and writes its token key, with conflict, in each of its namespaces.  A version there: it
   has happened already, and is not done again.  The void mark: it must never happen.
3. All parts are written in the same engine transaction, so they carry one version.
4. The first commit decides the page size.  Racing first commits all write page 1, so one of them wins.
5. What can be done before the engine transaction is done before: on the embedded engine everyone else
   who commits waits meanwhile.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import NamedTuple, cast

from pagestore import (
    allocation,
    bulk,
    changelog,
    encoding,
    format,
    history,
    kept,
    keys,
    snapshot,
    staging,
    turns,
)
from pagestore.api import (
    MAX_VERSION,
    CommitPart,
    CommitRequest,
    ConflictError,
    InvalidRequestError,
    LimitError,
    NamespaceId,
    OutcomeUnknownError,
    PageNumber,
    PageRuns,
    StoreUnavailableError,
    Version,
    VoidTokenError,
    before,
    in_arrays,
    pack_numbers,
    runs_in,
    united,
)
from pagestore.cover import cover, cover_runs
from pagestore.engines.base import Engine, KeyRange, Limits, Snapshot, Transaction, pack_range
from pagestore.faults import fault
from pagestore.namespaces import Record
from pagestore.requests import check_part, check_request
from pagestore.snapshot import Standpoint

MAX_FRESH = 16
"""Pages whose new content a conflict's answer carries."""

MAX_CHECKED = 200
"""Changelog records that are checked inside the engine transaction; more are checked before."""

KEY_OVERHEAD = 100
"""What a page costs an engine transaction beside its blob, roughly: key and conflict keys."""

MAX_RUNS = 1000
"""Conflict ranges that a commit names at most for what it read, and for what it wrote."""

FEW_RUNS = 8
"""The same of a commit that stands at its begin's read version: where others wrote in between the runs, it
looks anew, which is no loss but of time; and each range costs every commit time."""


class FarBehind(Exception):
    """Too many commits came after the base to look at them while others wait: `Commit.check_ahead`."""


_NO_ROWS = changelog.Rows()


class Part:
    """One namespace's part of a commit, worked out as far as that goes without the engine."""

    def __init__(self, request: CommitRequest, part: CommitPart, *, tells_numbers: bool) -> None:
        """`tells_numbers`: as `Engine.tells_numbers`."""
        self.id = part.namespace
        self.page_size = part.page_size
        self.is_staged = len(part.staged) > 0
        self.written = _written(part)
        """Ascending."""
        check_part(part, self.written)
        self.stage_index = (
            staging.wanted_index(part.staged, part.freed, part.allocated) if self.is_staged else None
        )
        """What must be staged under the token; None: nothing."""
        self.token = request.token
        self._reads = part.reads
        self._reads_all = part.reads_all
        self.rows: list[tuple[bytes, bytes]] = []
        """Of each page written, what stands in its key before the version, and its blob."""
        self.size = 0
        """Bytes that it takes of an engine transaction, roughly."""
        index_pages = []
        for number, blob in part.writes:
            self.rows.append((keys.page_prefix(self.id, number), blob))
            self.size += len(blob) + KEY_OVERHEAD
            if encoding.is_index(blob):
                index_pages.append(number)
        self.allocated = part.allocated
        self.lease = part.lease
        self.ticket = request.ticket
        self.record: changelog.Record | None = None
        """What goes into the changelog; None if nothing is written."""
        self._announced = b""
        """For `Transaction.announce`."""
        if self.written:
            told = (request.token, request.message, part.allocated, part.freed, index_pages)
            self.record = changelog.Record(self.written, *told)
            self.size += self.record.size
            if tells_numbers and not self.is_staged:  # far more than anybody is told in this way
                self._announced = pack_numbers(self.written, part.allocated, part.freed)
        self.token_key = keys.token(self.id, request.token)
        self.base = request.base
        self.checked = request.base
        """No commit up to this version is in conflict."""
        self.newest = request.base
        """No commit is newer, as far as `check` has found."""
        self.others = _NO_ROWS
        """The commits in (base, checked], oldest first."""
        self.bulks: list[bulk.Bulk] = []
        """Bulk commits that `check` found not folded in."""
        self.newest_us = 0
        """Time of the newest commit that `check` saw, in Unix µs; 0: it saw none."""

    def _packed_touched(self) -> bytes:
        """Read or written, for `changelog.Rows.meet` and `cover`."""
        if self.is_staged:
            return self._reads.packed + b"".join(some.tobytes() for some in in_arrays(self.written))
        return self._reads.packed + array("I", self.written).tobytes()

    def _touched(self) -> Set[int] | PageRuns:
        """The same as a set; worked out only if the commit is lost, or its numbers are in runs."""
        if self.is_staged:
            return PageRuns(united(cast(PageRuns, self.written).runs(), runs_in(list(self._reads))))
        return self._reads.as_set().union(self.written)

    def ask(self, tx: Transaction) -> _Asked:
        """Send for all that `check` has to look at, at once."""
        return _Asked(
            token=tx.ask(self.token_key),
            log=snapshot.ask_log(tx, self.id, self.checked, MAX_CHECKED + 1),
            queue=turns.ask(tx, self.id),
            lease=None if self.lease is None else allocation.ask_lease(tx, self.id, self.lease),
            stage=None if self.stage_index is None else staging.ask(tx, self.id, self.token),
        )

    def check(self, tx: Transaction, asked: _Asked) -> tuple[Record, changelog.Rows]:
        """The namespace record, and the commits after `checked`.  Raises ConflictError,
        FarBehind, NoSuchNamespaceError, BelowHorizonError, InvalidRequestError."""
        record, self.bulks, rows, _ = snapshot.take_namespace(tx, self.id, asked.log)
        kept.check_base(self.base, record)
        versions: list[Version] = []
        records: list[bytes] = []
        self.newest_us = 0
        for key, value in rows:
            self.newest_us = self.newest_us or changelog.time_of(value)
            version = keys.version_of(key)
            if version == self.checked:
                break
            if len(versions) == MAX_CHECKED:
                raise FarBehind
            versions.append(version)
            records.append(changelog.whole(tx, self.id, version, value))
        else:
            if self.checked > tx.read_version():
                raise InvalidRequestError("the base of the commit lies in the future")
        self.newest = versions[0] if versions else self.checked
        later = changelog.Rows(versions[::-1], records[::-1])
        self.refuse_conflicts(later)
        turns.check(tx, asked.queue, self.ticket, self.written)
        if asked.lease is not None:
            allocation.check_lease(asked.lease(), self.allocated)
        if self._reads_all:
            allocation.end_leases(tx, self.id, self.allocated)
        if asked.stage is not None:
            assert self.stage_index is not None
            bulk.check_room(self.bulks)
            staging.check(asked.stage, self.token, self.stage_index)
        if self.written and record.page_size not in (0, self.page_size):
            raise InvalidRequestError(
                f"the pages of this database have {record.page_size} bytes, not {self.page_size}"
            )
        return record, later

    def can_stand_at(self, seen: Standpoint) -> bool:
        """Whether nothing has to be looked at for a commit as of what its begin saw: the engine finds out
        whether anything came since that this commit would have to know of."""
        return (
            self.base == seen.version
            and seen.record.page_size == self.page_size
            and bool(self.written)
            and not self._reads_all
            and self.stage_index is None
            and self.ticket is None
            and not seen.has_bulks
            and (seen.turn is None or not turns.may_stop(seen.turn, self.written))
        )

    def check_as_of(self, tx: Transaction, seen: Standpoint, *, alone: bool) -> None:
        """As `check`, as of `seen`, where nothing is newer than the base and the token was not there yet
        (see `standpoints`).  `alone`: any other commit is a conflict.  Raises LeaseEndedError."""
        if alone:
            tx.add_read_conflict(*keys.all_conflicts(self.id))
        if self.lease is not None:
            allocation.check_lease(allocation.ask_lease(tx, self.id, self.lease)(), self.allocated)
        self.newest, self.newest_us, self.bulks = self.base, seen.newest_us, []

    def refuse_conflicts(self, later: changelog.Rows) -> None:
        """Raises ConflictError."""
        if not later:
            return
        if self._reads_all:
            pages = {page for change in later for page in change.pages}
            raise ConflictError(self.id, tuple(sorted(pages)), later[-1].version)
        if not later.meet(self._packed_touched()):
            return
        touched = self._touched()
        met = [change for change in later if any(page in touched for page in change.pages)]
        lost = {page for change in met for page in change.pages if page in touched}
        raise ConflictError(self.id, tuple(sorted(lost)), met[-1].version)

    def write(self, tx: Transaction, record: Record, time_us: int) -> None:
        if self.record is not None:
            if record.page_size == 0:
                tx.set(keys.namespace(self.id), replace(record, page_size=self.page_size).pack())
            for prefix, blob in self.rows:
                tx.set_versioned_key(prefix, keys.VERSION_SUFFIX, blob)
            if self.stage_index is not None:
                bulk.write(tx, self.id, self.token, time_us)
            more = self.record.pieces
            if more or self.stage_index is not None:
                format.require(tx, format.STAGING)
            if more:
                format.require(tx, format.RUNS)
            tx.set_versioned_key(keys.log_prefix(self.id), keys.VERSION_SUFFIX, self.record.at(time_us))
            for n, piece in enumerate(more):
                tx.set_versioned_key(keys.more_prefix(self.id), keys.more_suffix(n), piece)
            tx.set_versioned_key(keys.time_prefix(self.id, time_us), keys.VERSION_SUFFIX, b"")
            sized = record.page_size != 0  # the first commit decides the size, of which `numbers` do not tell
            told = sized and not self.is_staged
            tx.announce(self.id, self.newest if told else None, self._announced)
        tx.set_versioned_value(self.token_key, b"", b"")
        if tx.optimistic:
            self._declare_conflicts(tx)

    def _declare_conflicts(self, tx: Transaction) -> None:
        namespace, token = keys.namespace(self.id), self.token_key
        most = MAX_RUNS if tx.as_of is None else FEW_RUNS
        single = pack_range(token, token + b"\0") + pack_range(namespace, namespace + b"\0")
        tx.add_read_conflicts(single + self._covered(reads=True, most=most))
        tx.add_write_conflicts(self._covered(reads=False, most=MAX_RUNS))
        if self._reads_all:
            tx.add_read_conflict(*keys.all_conflicts(self.id))

    def _covered(self, *, reads: bool, most: int) -> bytes:
        """Packed ranges of what was written, or read and written."""
        if not self.is_staged:
            numbers = self._packed_touched() if reads else array("I", self.written).tobytes()
            return cover(keys.conflict_prefix(self.id), numbers, most)
        ranges = cover_runs(cast(PageRuns, self._touched() if reads else self.written), most)
        return b"".join(pack_range(*keys.conflicts(self.id, first, last)) for first, last in ranges)


def _written(part: CommitPart) -> Sequence[PageNumber]:
    """What it writes or has staged, ascending."""
    numbers = []
    for number, _ in part.writes:
        numbers.append(number)
    numbers.sort()
    return PageRuns(united(runs_in(numbers), part.staged.runs())) if part.staged else numbers


class Commit:
    """A request on its way into the store."""

    def __init__(self, request: CommitRequest, *, tells_numbers: bool) -> None:
        """`tells_numbers`: as `Engine.tells_numbers`.  Raises InvalidRequestError, LimitError."""
        check_request(request)
        self.request = request
        self.time_us = 0
        self.others: tuple[changelog.Rows, ...] | None = ()
        self.parts: list[Part] = []
        self.size = 0
        """Bytes that it takes of an engine transaction, roughly."""
        for requested in request.parts:
            part = Part(request, requested, tells_numbers=tells_numbers)
            self.parts.append(part)
            self.size += part.size
        self._now_us = time.time_ns() // 1000
        self._optimistic = False
        self.tries_alone = False
        """Whether a run that stands at its begin is to go through only if nobody else has committed since."""
        self.was_alone = False
        """Whether nobody did."""
        self._seen: Standpoint | None = None

    def check_size(self, limits: Limits) -> None:
        """Raises LimitError."""
        if limits.max_bytes and self.size > limits.max_bytes:
            raise LimitError(f"a commit of {self.size} bytes; this store takes {limits.max_bytes} in one")

    def stand_at(self, seen: Standpoint) -> Version | None:
        """The read version at which `run` may begin, after a begin that saw this; None: it looks anew."""
        if len(self.parts) > 1 or self.request.time_us is not None or not self.parts[0].can_stand_at(seen):
            return None
        self._seen = seen
        return seen.read_version

    def run(self, tx: Transaction) -> Version | None:
        """The work of the engine transaction; sets `time_us` and `others`.

        None: written, the engine will tell the version.  A version: it had happened before, at that
        one.  Raises ConflictError, FarBehind, VoidTokenError, and what the namespaces' state forbids."""
        self._optimistic = tx.optimistic
        if tx.as_of is not None:
            assert self._seen is not None
            (part,) = self.parts
            self.was_alone = self.tries_alone
            part.check_as_of(tx, self._seen, alone=self.was_alone)
            fault("commit.validated")
            self.time_us = self._time(tx)
            part.write(tx, self._seen.record, self.time_us)
            self.others = (part.others,)
            fault("commit.written")
            return None
        self.was_alone = False
        asked = [part.ask(tx) for part in self.parts]
        for one in asked:
            happened = _happened(one.token())
            if happened is not None:
                return happened
        found = [part.check(tx, one) for part, one in zip(self.parts, asked, strict=True)]
        fault("commit.validated")
        self.time_us = self._time(tx)
        for part, (record, _) in zip(self.parts, found, strict=True):
            part.write(tx, record, self.time_us)
        self.others = tuple(
            part.others + later if part.others else later
            for part, (_, later) in zip(self.parts, found, strict=True)
        )
        fault("commit.written")
        return None

    def add_between(self, engine: Engine, version: Version, timeout: float) -> None:
        """Make `others` complete, now that the commit's version is known.

        On an optimistic engine others may have committed between this one's snapshot and itself.  They did
        not meet it, but whoever stands at its version has to know of them.  Where the client does without,
        they are left out (`others` None).  Raises OutcomeUnknownError if they can't be learnt."""
        if not self._optimistic or self.was_alone:
            return
        if not self.request.tells_others:
            self.others = None
            return

        def read(tx: Snapshot) -> list[changelog.Rows]:
            until = before(version)
            asked = [tx.scan(KeyRange(*keys.log(part.id, part.newest, until))) for part in self.parts]
            return [_rows_of(tx, part.id, rows) for part, rows in zip(self.parts, asked, strict=True)]

        try:
            between = engine.read(read, timeout=timeout, reaching=version)
        except StoreUnavailableError as exc:
            reason = f"it happened, but what others did meanwhile can't be learnt: {exc}"
            raise OutcomeUnknownError(self.request.token, reason) from exc
        assert self.others is not None
        self.others = tuple(
            known + more if more else known for known, more in zip(self.others, between, strict=True)
        )

    def _time(self, tx: Transaction) -> int:
        """What to record.  Raises InvalidRequestError."""
        wanted = self.request.time_us
        if wanted is None:
            now_us = self._now_us
            for part in self.parts:
                now_us = max(now_us, part.newest_us)
            return tx.commit_time(now_us)
        if not all(history.newest_time(tx, part.id) <= wanted <= self._now_us for part in self.parts):
            raise InvalidRequestError(
                "the time of a commit is not before that of the one before it, nor to come"
            )
        return wanted

    def check_ahead(self, engine: Engine, timeout: float) -> None:
        """Check what has been committed so far in short engine transactions.  Raises ConflictError."""
        for part in self.parts:
            found = list(history.records(engine, part.id, part.checked, MAX_VERSION, timeout))
            if found:
                later = changelog.Rows([version for version, _ in found], [record for _, record in found])
                part.refuse_conflicts(later)
                part.others += later
                part.checked = found[-1][0]


class _Asked(NamedTuple):
    """What a part's check needs of the engine, under way."""

    token: Callable[[], bytes | None]
    log: Iterator[tuple[bytes, bytes]]
    queue: Iterator[tuple[bytes, bytes]]
    lease: Callable[[], bytes | None] | None
    stage: staging.Stage | None


def _rows_of(tx: Snapshot, id_: NamespaceId, rows: Iterator[tuple[bytes, bytes]]) -> changelog.Rows:
    found = [(keys.version_of(key), value) for key, value in rows]
    return changelog.Rows(
        [version for version, _ in found],
        [changelog.whole(tx, id_, version, value) for version, value in found],
    )


def _happened(happened: bytes | None) -> Version | None:
    """The version at which the commit with this token happened.  Raises VoidTokenError."""
    if happened == keys.VOID_TOKEN:
        raise VoidTokenError("this commit was given up: its outcome was asked for before it happened")
    return None if happened is None else Version(happened)
