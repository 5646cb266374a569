"""Begin, read, commit and what belongs to them: page numbers, turns, outcomes, streams of commits."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from pagestore import wire
from pagestore.api import (
    Begin,
    Changes,
    CommitRequest,
    Committed,
    ConflictError,
    Lease,
    LimitError,
    NamespaceId,
    PageSet,
    StoreError,
    Version,
)
from pagestore.service.backend import Backend
from pagestore.service.committer import bytes_of
from pagestore.service.gate import Call
from pagestore.service.tokens import Right
from pagestore.v1 import pagestore_pb2 as pb

FEW_PAGES = 64
"""Read in the event loop: about a millisecond if they are long chains of deltas."""

MAX_CHORES = 100
MAX_HEARTBEAT = 60.0
_DEFAULT_HEARTBEAT = 5.0

log = logging.getLogger("pagestore.service")


# ---- snapshots ----


async def begin(backend: Backend, call: Call, request: pb.BeginRequest) -> pb.BeginResponse:
    namespace = await call.allow(Right.READ, request.namespace)
    since = wire.optional_version_of(request.since, "since")
    at = wire.optional_version_of(request.at, "at")
    start = await backend.look(lambda: backend.store.begin(namespace, since, at))
    response = wire.begin_message(start)
    if response.ByteSize() > backend.settings.max_answer and start.changes is not None:
        allocation = await backend.quick(lambda: backend.store.allocation(namespace, start.version))
        start = Begin(start.version, None, start.page_size, allocation)
        response = wire.begin_message(start)
    if request.wants_pages and start.changes:
        _bring_along(backend, namespace, start.changes, response)
    if request.HasField("chores"):
        await _do_chores(backend, call, namespace, request.chores, response.lease)
    await backend.tell(start.version)
    cache = "forgotten" if start.changes is None else "updated" if start.changes else "kept"
    backend.metrics.begun(cache).inc()
    return response


def _bring_along(
    backend: Backend,
    namespace: NamespaceId,
    changes: Changes,
    response: pb.BeginResponse,
    own: Version | None = None,
) -> None:
    """What these commits wrote, as far as it is at hand, if it fits in; not what the commit `own` did."""
    told = backend.recent_writes.told(namespace, changes, own)
    if response.ByteSize() + len(told.packed) <= backend.settings.max_answer:
        response.told = told.packed
        backend.metrics.told.inc(told.pages)


async def read(backend: Backend, call: Call, request: pb.ReadRequest) -> pb.ReadResponse:
    namespace = await call.allow(Right.READ, request.namespace)
    version = await backend.believe(namespace, wire.version_of(request.version))
    if len(request.numbers) > backend.settings.max_read_pages:
        raise LimitError(
            f"{len(request.numbers)} pages at once; {backend.settings.max_read_pages} are answered"
        )
    numbers = wire.page_numbers_of(request.numbers)
    work = partial(backend.store.read, namespace, version, numbers)
    pages = await (backend.look(work) if len(numbers) <= FEW_PAGES else backend.quick(work))
    response = wire.pages_message(numbers, pages, backend.settings.max_answer)
    backend.metrics.pages.inc(len(response.pages))
    backend.metrics.read_at(version)
    return response


async def get_allocation(backend: Backend, call: Call, request: pb.GetAllocationRequest) -> pb.Allocation:
    namespace = await call.allow(Right.READ, request.namespace)
    version = await backend.believe(namespace, wire.version_of(request.version))
    allocation = await backend.quick(lambda: backend.store.allocation(namespace, version))
    return wire.allocation_message(allocation)


async def watch(backend: Backend, call: Call, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
    namespace = await call.allow(Right.READ, request.namespace)
    after = wire.version_of(request.after, "after")
    wanted = request.heartbeat
    if not math.isfinite(wanted) or wanted < 0:
        raise wire.WireError("heartbeat: seconds")
    heartbeat = min(max(wanted or _DEFAULT_HEARTBEAT, backend.settings.min_heartbeat), MAX_HEARTBEAT)
    async for message in backend.watching.watch(namespace, after, heartbeat):
        if message.ByteSize() > backend.settings.max_answer:
            yield pb.WatchResponse(version=message.version, forget=True)
        else:
            yield message


# ---- commits ----


async def commit(backend: Backend, call: Call, request: pb.CommitRequest) -> pb.CommitResponse:
    writes = any(part.writes for part in request.parts)
    for part in request.parts:  # beside one that writes, what a transaction has only read may be read-only
        right = Right.WRITE if part.writes or not writes else Right.READ
        await call.allow(right, part.namespace)
    wanted = wire.commit_of(request)
    size = bytes_of(wanted)
    if size > backend.settings.max_commit:
        raise LimitError(
            f"a commit of {size} bytes; this service takes {backend.settings.max_commit} in one: "
            "stage the pages before"
        )
    if wanted.read_version is not None and wanted.parts:
        await backend.begun(wanted.parts[0].namespace, wanted.read_version)
    response = await _commit(backend, wanted)
    if request.HasField("chores") and wanted.parts:
        await _do_chores(backend, call, wanted.parts[0].namespace, request.chores, response.lease)
    return response


async def _commit(backend: Backend, request: CommitRequest) -> pb.CommitResponse:
    metrics = backend.metrics
    try:
        if backend.committer.is_for_a_strand(request):
            committed, start = await backend.look(lambda: _commit_and_begin(backend, request))
        else:
            committed = await backend.committer.commit(request)
            _note(backend, request, committed)
            start = await _begin_behind(backend, request, committed)
    except ConflictError as exc:
        metrics.conflicts.labels(metrics.namespace(backend.names.label(exc.namespace))).inc()
        return pb.CommitResponse(conflict=_bounded_conflict(exc, backend.settings.max_answer))
    namespace, version = request.parts[0].namespace, committed.version
    metrics.handed_out(version)
    response = pb.CommitResponse(committed=wire.committed_message(committed))
    if committed.begin is not None:  # only the caller's next commit has to wait for the store's own
        own = _begin_reaching(backend, namespace, version, version)
        backend.begin_beside(namespace, committed.begin.read_version, own)
        response.begin.CopyFrom(wire.begin_message(committed.begin))
        metrics.begun("ahead").inc()
    elif start is not None and start.changes is not None:
        response.begin.CopyFrom(wire.begin_message(start))
        _bring_along(backend, namespace, start.changes, response.begin, version)
        metrics.begun("ahead").inc()
    if response.ByteSize() > backend.settings.max_answer:
        response.ClearField("begin")
        for others in response.committed.others:
            if others.changes:
                others.changes = b""
                others.omitted = True
    return response


def _note(backend: Backend, request: CommitRequest, committed: Committed) -> None:
    """Tell those of this process whom a commit concerns."""
    for part in request.parts:
        backend.metrics.commits_of(backend.names.label(part.namespace)).inc()
        backend.committed(part.namespace)
        if part.writes and not part.staged and not committed.repeated:
            backend.recent_writes.add(part.namespace, committed.version, part.writes)


def _wants_begin(request: CommitRequest, committed: Committed) -> bool:
    """Whether a begin has to be asked for, from which the caller's next transaction may start."""
    alone = committed.begin is not None
    return request.wants_begin and len(request.parts) == 1 and not committed.repeated and not alone


def _commit_and_begin(backend: Backend, request: CommitRequest) -> tuple[Committed, Begin | None]:
    """In a strand."""
    committed = backend.store.commit(request)
    _note(backend, request, committed)
    if not _wants_begin(request, committed):
        return committed, None
    namespace, version = request.parts[0].namespace, committed.version
    try:
        start = backend.store.begin(namespace, request.base, reaching=version)
    except StoreError as exc:
        _log_no_begin(namespace, exc)
        return committed, None
    backend.metrics.handed_out(start.version)
    return committed, start


async def _begin_behind(backend: Backend, request: CommitRequest, committed: Committed) -> Begin | None:
    """What can't be had is left: the caller asks."""
    if not _wants_begin(request, committed):
        return None
    return await _begin_reaching(backend, request.parts[0].namespace, request.base, committed.version)


async def _begin_reaching(
    backend: Backend, namespace: NamespaceId, since: Version, version: Version
) -> Begin | None:
    try:
        start = await backend.look(lambda: backend.store.begin(namespace, since, reaching=version))
        await backend.tell(start.version)
    except StoreError as exc:
        _log_no_begin(namespace, exc)
        return None
    return start


def _log_no_begin(namespace: NamespaceId, exc: StoreError) -> None:
    log.info("no begin behind a commit: %s", exc, extra={"namespace": namespace})


def _bounded_conflict(exc: ConflictError, max_bytes: int) -> pb.Conflict:
    message = wire.conflict_message(exc)
    while message.fresh and message.ByteSize() > max_bytes:
        del message.fresh[len(message.fresh) // 2 :]
    return message


async def stage(backend: Backend, call: Call, requests: AsyncIterator[pb.StageRequest]) -> pb.Empty:
    namespace: NamespaceId | None = None
    token = b""
    async for request in requests:
        if namespace is None:
            namespace = await call.allow(Right.WRITE, request.namespace)
            token = wire.token_of(request.token)
        elif request.namespace not in (0, namespace) or request.token not in (b"", token):
            raise wire.WireError("a stream stages pages of one namespace and token")
        work = partial(backend.store.stage, namespace, token, wire.writes_of(request.writes))
        await backend.quick(work)
    if namespace is None:
        raise wire.WireError("nothing to stage")
    return pb.Empty()


async def outcome(backend: Backend, call: Call, request: pb.OutcomeRequest) -> pb.OutcomeResponse:
    namespace = await call.allow(Right.WRITE, request.namespace)
    token = wire.token_of(request.token)
    version = await backend.brief(lambda: backend.store.outcome(namespace, token))
    if version is None:
        return pb.OutcomeResponse()
    await backend.tell(version)
    return pb.OutcomeResponse(version=version)


async def revert(backend: Backend, call: Call, request: pb.RevertRequest) -> pb.Committed:
    namespace = await call.allow(Right.WRITE, request.namespace)
    to = await backend.believe(namespace, wire.version_of(request.to, "to"))
    token = wire.token_of(request.token) if request.token else None
    work = partial(backend.store.revert, namespace, to, message=request.message, token=token)
    committed = await backend.slow(work)
    await backend.tell(committed.version)
    backend.committed(namespace)
    return wire.committed_message(replace(committed, others=()))


# ---- page numbers and turns ----


async def take_lease(backend: Backend, call: Call, request: pb.TakeLeaseRequest) -> pb.Lease:
    namespace = await call.allow(Right.WRITE, request.namespace)
    return wire.lease_message(await _lease(backend, namespace, request.wish))


async def _lease(backend: Backend, namespace: NamespaceId, wish: pb.LeaseWish) -> Lease:
    work = partial(backend.store.lease, namespace, wish.want, wish.seconds, wish.replaces or None)
    return await backend.quick(work)


async def renew_lease(backend: Backend, call: Call, request: pb.RenewLeaseRequest) -> pb.Empty:
    namespace = await call.allow(Right.WRITE, request.namespace)
    await backend.brief(partial(backend.store.renew_lease, namespace, request.lease, request.seconds))
    return pb.Empty()


async def release_lease(backend: Backend, call: Call, request: pb.ReleaseLeaseRequest) -> pb.Empty:
    namespace = await call.allow(Right.WRITE, request.namespace)
    await backend.brief(lambda: backend.store.release(namespace, request.lease))
    return pb.Empty()


async def take_turn(backend: Backend, call: Call, request: pb.TakeTurnRequest) -> pb.TakeTurnResponse:
    namespace = await call.allow(Right.WRITE, request.namespace)
    ticket = wire.token_of(request.ticket, "ticket")
    pages: PageSet | None = wire.page_set_of(request.pages) if request.HasField("pages") else None
    work = partial(backend.store.take_turn, namespace, ticket, pages, request.seconds)
    return pb.TakeTurnResponse(came=await backend.brief(work))


async def leave_turn(backend: Backend, call: Call, request: pb.LeaveTurnRequest) -> pb.Empty:
    namespace = await call.allow(Right.WRITE, request.namespace)
    ticket = wire.token_of(request.ticket, "ticket")
    await backend.brief(lambda: backend.store.leave_turn(namespace, ticket))
    return pb.Empty()


# ---- chores ----


async def _do_chores(
    backend: Backend, call: Call, namespace: NamespaceId, chores: pb.Chores, answer: pb.Lease
) -> None:
    """What can't be done is left: the caller sees that it has no lease, and what it held ends by itself."""
    if len(chores.release_leases) + len(chores.leave_turns) + len(chores.unholds) > MAX_CHORES:
        raise LimitError(f"at most {MAX_CHORES} chores at once")
    try:
        await call.allow(Right.WRITE, namespace)
        store = backend.store
        for lease in chores.release_leases:
            await backend.brief(partial(store.release, namespace, lease))
        for ticket in chores.leave_turns:
            await backend.brief(partial(store.leave_turn, namespace, ticket))
        for hold in chores.unholds:
            await backend.brief(partial(store.unhold, namespace, hold))
        if chores.HasField("lease"):
            answer.CopyFrom(wire.lease_message(await _lease(backend, namespace, chores.lease)))
    except StoreError as exc:
        log.info("chores left undone: %s", exc, extra={"namespace": call.label(), "caller": call.caller.name})
