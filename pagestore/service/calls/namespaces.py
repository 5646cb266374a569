"""Namespaces by name; the service itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from pagestore import wire
from pagestore.api import NamespaceId, NoSuchNamespaceError
from pagestore.service.backend import Backend
from pagestore.service.gate import Call
from pagestore.service.tokens import Right
from pagestore.v1 import pagestore_pb2 as pb

_LISTED = 1000
"""Namespaces in one message."""


@cache
def _release() -> str:
    try:
        return version("mvvfs")
    except PackageNotFoundError:
        return ""


async def info(backend: Backend, call: Call, request: pb.InfoRequest) -> pb.InfoResponse:
    settings = backend.settings
    return pb.InfoResponse(
        release=_release(),
        store_id=await backend.look(backend.store.store_id),
        max_message_bytes=settings.max_message,
        max_commit_bytes=min(settings.max_commit, backend.store.max_commit_bytes or settings.max_commit),
        max_read_pages=settings.max_read_pages,
        min_heartbeat=settings.min_heartbeat,
        time_us=time.time_ns() // 1000,
        read_only=settings.read_only,
        takes_moves=backend.store.takes_moves,
    )


async def create(backend: Backend, call: Call, request: pb.CreateRequest) -> pb.Namespace:
    name = call.allow_new(request.name)
    namespace = await backend.quick(lambda: backend.store.create(name, page_size=request.page_size))
    backend.names.learn(namespace)
    return wire.namespace_message(namespace)


async def open_namespace(backend: Backend, call: Call, request: pb.OpenRequest) -> pb.Namespace:
    name = call.allow_name(Right.READ, request.name)
    namespace = await backend.look(lambda: backend.store.open(name))
    backend.names.learn(namespace)
    await backend.tell(namespace.horizon)
    return wire.namespace_message(namespace)


async def list_namespaces(
    backend: Backend, call: Call, request: pb.ListRequest
) -> AsyncIterator[pb.ListResponse]:
    found = await backend.slow(backend.store.list)
    readable = [one for one in found if call.caller.may(Right.READ, one.name)]
    for start in range(0, len(readable), _LISTED):
        some = readable[start : start + _LISTED]
        yield pb.ListResponse(namespaces=map(wire.namespace_message, some))


async def rename(backend: Backend, call: Call, request: pb.RenameRequest) -> pb.Namespace:
    new_name = call.allow_new(request.new_name)
    name = call.allow_name(Right.ADMIN, request.name)
    namespace = await backend.quick(lambda: backend.store.rename(name, new_name))
    backend.names.learn(namespace)
    return wire.namespace_message(namespace)


async def drop(backend: Backend, call: Call, request: pb.DropRequest) -> pb.Empty:
    name = call.allow_name(Right.ADMIN, request.name)
    namespace = await backend.look(lambda: backend.store.open(name))
    await backend.slow(lambda: backend.store.drop(name, now=request.now))
    backend.names.forget(namespace.id)
    backend.committed(namespace.id)
    return pb.Empty()


async def list_dropped(
    backend: Backend, call: Call, request: pb.ListDroppedRequest
) -> pb.ListDroppedResponse:
    found = await backend.slow(backend.store.dropped)
    ours = [one for one in found if call.caller.may(Right.ADMIN, one.name)]
    return pb.ListDroppedResponse(dropped=map(wire.dropped_message, ours))


async def _allow_dropped(backend: Backend, call: Call, id_: int) -> NamespaceId:
    """Of a namespace that was dropped, its last name counts.  Raises NoSuchNamespaceError."""
    namespace = wire.namespace_id_of(id_)
    call.namespace = namespace
    for dropped in await backend.slow(backend.store.dropped):
        if dropped.id == namespace and call.caller.may(Right.ADMIN, dropped.name):
            return namespace
    raise NoSuchNamespaceError(f"namespace {namespace} was not dropped, or is gone for good")


async def undrop(backend: Backend, call: Call, request: pb.UndropRequest) -> pb.Namespace:
    dropped = await _allow_dropped(backend, call, request.id)
    name = call.allow_new(request.name)
    namespace = await backend.quick(lambda: backend.store.undrop(dropped, name))
    backend.names.learn(namespace)
    return wire.namespace_message(namespace)


async def purge(backend: Backend, call: Call, request: pb.PurgeRequest) -> pb.Empty:
    dropped = await _allow_dropped(backend, call, request.id)
    await backend.slow(lambda: backend.store.purge(dropped))
    return pb.Empty()


async def branch(backend: Backend, call: Call, request: pb.BranchRequest) -> pb.Namespace:
    parent = await call.allow(Right.READ, request.namespace)
    name = call.allow_new(request.new_name)
    version = await backend.believe(parent, wire.version_of(request.version))
    namespace = await backend.quick(lambda: backend.store.branch(parent, name, version))
    backend.names.learn(namespace)
    return wire.namespace_message(namespace)


async def sync(backend: Backend, call: Call, request: pb.SyncRequest) -> pb.Empty:
    await backend.quick(backend.store.sync)
    return pb.Empty()
