"""The past of a namespace: its changelog, the version at a time, how much it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice

from pagestore import wire
from pagestore.api import MAX_VERSION, ZERO_VERSION, Change
from pagestore.service.backend import Backend
from pagestore.service.gate import Call
from pagestore.service.tokens import Right
from pagestore.v1 import pagestore_pb2 as pb

_FIRST, _MOST = 50, 500
"""Commits in the first message, and in one at most: whoever wants one does not wait for many."""


async def changelog(
    backend: Backend, call: Call, request: pb.ChangelogRequest
) -> AsyncIterator[pb.ChangelogResponse]:
    namespace = await call.allow(Right.READ, request.namespace)
    after = wire.optional_version_of(request.after, "after") or ZERO_VERSION
    until = wire.optional_version_of(request.until, "until") or MAX_VERSION
    changes = await backend.quick(
        lambda: backend.store.changelog(
            namespace,
            after=after,
            until=until,
            newest_first=request.newest_first,
            skip=request.skip,
            limit=request.limit,
        )
    )
    count = _FIRST
    while some := await backend.slow(partial(_some, changes, count)):
        await backend.tell(max(change.version for change in some))
        response, size = pb.ChangelogResponse(), 0
        for change in some:
            message = wire.change_message(change)
            size += message.ByteSize()
            if size > backend.settings.max_answer and response.changes:
                yield response
                response, size = pb.ChangelogResponse(), message.ByteSize()
            response.changes.append(message)
        yield response
        count = _MOST


def _some(changes: Iterator[Change], count: int) -> list[Change]:
    return list(islice(changes, count))


async def version_at(backend: Backend, call: Call, request: pb.VersionAtRequest) -> pb.VersionAtResponse:
    namespace = await call.allow(Right.READ, request.namespace)
    if not -(1 << 62) < request.time_us < 1 << 62:
        raise wire.WireError("time_us: Unix microseconds")
    version = await backend.quick(lambda: backend.store.version_at(namespace, request.time_us))
    await backend.tell(version)
    return pb.VersionAtResponse(version=version)


async def get_usage(backend: Backend, call: Call, request: pb.GetUsageRequest) -> pb.Usage:
    namespace = await call.allow(Right.READ, request.namespace)
    return wire.usage_message(await backend.slow(lambda: backend.store.usage(namespace)))
