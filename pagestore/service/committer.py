"""Commits in groups, and the rule that a version leaves the process only once it is flushed.

Called by the calls and by `watching`; calls the store, in one thread of its own.

1. What is waiting together commits together: each commit is a transaction of its own, in the order in
   which they came; then one flush makes all of them durable, then all are answered.  Nobody waits to make
   a group larger: one forms while the group before it is being flushed.
2. So `durability=normal` costs one flush for many here, not none: an answer names a version, and a version
   that a power cut takes back must never have left (a client would go on with pages that nobody has).
3. `flushed` answers at once for versions that were flushed before, as nearly all are.
4. A distant store flushes by itself and groups by itself: commits go to it side by side, in strands where the
   store can wait so, and from several threads where it can't, or where much is to be worked out.
5. When a flush fails, nobody knows what the disk holds: the commits of the group are OUTCOME_UNKNOWN, and
   the service ends (`failed`), so that its successor reads the store anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pagestore.api import (
    ZERO_VERSION,
    CommitRequest,
    Committed,
    ConflictError,
    OutcomeUnknownError,
    Store,
    StoreError,
    StoreUnavailableError,
    Version,
)
from pagestore.service.metrics import Metrics
from pagestore.service.strands import Strands

MAX_GROUP = 64
"""Commits that one flush makes durable: the first of them waits for the last."""

DISTANT_THREADS = 64

MOST_IN_LOOP, MOST_BYTES_IN_LOOP = 64, 256_000
"""Pages written, and the bytes of their blobs, of a commit that the event loop has time for: about two
milliseconds."""

_MOST_READ_IN_LOOP = 1000
"""Pages that it read."""

log = logging.getLogger("pagestore.service")


@dataclass(slots=True)
class _Job:
    """A commit, or None for a flush alone, and who waits for it."""

    request: CommitRequest | None
    version: Version
    """The newest version that its answer names, always one that the store told, never a caller."""
    future: asyncio.Future[Committed | None]
    answer: Committed | StoreError | None = None

    @property
    def token(self) -> bytes:
        return b"" if self.request is None else self.request.token


class Committer:
    """See the head of this file.  Belongs to one event loop."""

    def __init__(
        self, store: Store, failed: Callable[[], None], metrics: Metrics, strands: Strands | None
    ) -> None:
        """`failed` is called, in the loop, once the store can't be used any more."""
        self._store = store
        self._strands = strands
        self._failed = failed
        self._threads = ThreadPoolExecutor(
            DISTANT_THREADS if store.distant else 1, thread_name_prefix="committer"
        )
        self._waiting: list[_Job] = []
        self._task: asyncio.Task[None] | None = None
        self._flushed = ZERO_VERSION
        self._metrics = metrics

    def is_for_a_strand(self, request: CommitRequest) -> bool:
        """Whether the event loop has time for it, and the store waits there, which then flushes by itself."""
        return self._strands is not None and _is_small(request)

    async def commit(self, request: CommitRequest) -> Committed:
        """`Store.commit`, durable whatever was asked for; not of what is for a strand.  A conflict's version
        is flushed too."""
        if self._store.distant:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._store.commit, request)
        committed = await self._submit(request, ZERO_VERSION)
        assert committed is not None
        return committed

    async def flushed(self, version: Version) -> None:
        """Return once `version`, told by the store, survives a power cut.  Raises StoreUnavailableError."""
        if not self.has_flushed(version):
            await self._submit(None, version)

    def has_flushed(self, version: Version) -> bool:
        return version <= self._flushed or self._store.distant

    async def close(self) -> None:
        """After the last call has ended."""
        if self._task is not None:
            await self._task
        self._threads.shutdown()

    def _submit(self, request: CommitRequest | None, version: Version) -> asyncio.Future[Committed | None]:
        loop = asyncio.get_running_loop()
        job = _Job(request, version, loop.create_future())
        self._waiting.append(job)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return job.future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                broken = await loop.run_in_executor(self._threads, self._work, group)
                for job in group:
                    _answer(job, broken)
                if broken is not None:
                    self._failed()
        finally:
            self._task = None

    def _work(self, group: Sequence[_Job]) -> StoreError | None:
        """In the thread: what keeps all from being durable, or None."""
        for job in group:
            if job.request is not None:
                self._commit(job, job.request)
        self._metrics.groups.inc()
        newest = max(job.version for job in group)
        if newest > self._flushed:
            try:
                self._store.sync()
            except StoreError as exc:
                return exc
            except Exception as exc:
                log.exception("a flush failed for a reason of our own")
                return StoreUnavailableError(f"the service failed: {exc}")
            self._metrics.flushes.inc()
            self._flushed = newest
        return None

    def _commit(self, job: _Job, request: CommitRequest) -> None:
        try:
            job.answer = committed = self._store.commit(replace(request, durability="normal"))
            job.version = committed.version
        except ConflictError as exc:
            job.answer = exc
            job.version = exc.version
        except StoreError as exc:
            job.answer = exc
        except Exception as exc:  # whatever it is must not end the others
            log.exception("a commit failed for a reason of our own")
            job.answer = OutcomeUnknownError(request.token, f"the service failed: {exc}")


def bytes_of(request: CommitRequest) -> int:
    """Of all blobs in it."""
    size = 0
    for part in request.parts:
        for write in part.writes:
            size += len(write.blob)
    return size


def _is_small(request: CommitRequest) -> bool:
    written = read = 0
    for part in request.parts:
        if part.staged:
            return False
        written += len(part.writes)
        read += len(part.reads)
    return written <= MOST_IN_LOOP and read <= _MOST_READ_IN_LOOP and bytes_of(request) <= MOST_BYTES_IN_LOOP


def _answer(job: _Job, broken: StoreError | None) -> None:
    if job.future.done():  # the caller has gone
        return
    answer = job.answer
    if broken is not None and isinstance(answer, Committed):
        answer = OutcomeUnknownError(job.token, f"not flushed: {broken}")
    elif broken is not None and (answer is None or isinstance(answer, ConflictError)):
        answer = broken  # nothing was written; what it would tell of is not flushed
    if isinstance(answer, StoreError):
        job.future.set_exception(answer)
    else:
        job.future.set_result(answer)
