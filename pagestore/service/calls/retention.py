"""What is kept of the past: retention, tags, holds."""

from __future__ import annotations

from functools import partial

from pagestore import wire
from pagestore.service.backend import Backend
from pagestore.service.gate import Call
from pagestore.service.tokens import Right
from pagestore.v1 import pagestore_pb2 as pb


async def get_retention(backend: Backend, call: Call, request: pb.GetRetentionRequest) -> pb.Retention:
    namespace = await call.allow(Right.READ, request.namespace)
    return wire.retention_message(await backend.quick(lambda: backend.store.retention(namespace)))


async def set_retention(backend: Backend, call: Call, request: pb.SetRetentionRequest) -> pb.Empty:
    namespace = await call.allow(Right.ADMIN, request.namespace)
    if not request.HasField("retention"):
        raise wire.WireError("no retention")
    retention = wire.retention_of(request.retention)
    await backend.quick(lambda: backend.store.set_retention(namespace, retention))
    return pb.Empty()


async def set_tag(backend: Backend, call: Call, request: pb.SetTagRequest) -> pb.Tag:
    namespace = await call.allow(Right.WRITE, request.namespace)
    version = await backend.believe(namespace, wire.version_of(request.version))
    tag = await backend.quick(lambda: backend.store.tag(namespace, request.name, version))
    return wire.tag_message(tag)


async def delete_tag(backend: Backend, call: Call, request: pb.DeleteTagRequest) -> pb.Empty:
    namespace = await call.allow(Right.WRITE, request.namespace)
    await backend.quick(lambda: backend.store.untag(namespace, request.name))
    return pb.Empty()


async def list_tags(backend: Backend, call: Call, request: pb.ListTagsRequest) -> pb.ListTagsResponse:
    namespace = await call.allow(Right.READ, request.namespace)
    tags = await backend.quick(lambda: backend.store.tags(namespace, request.name or None))
    if tags:
        await backend.tell(max(tag.version for tag in tags))
    return pb.ListTagsResponse(tags=map(wire.tag_message, tags))


async def hold(backend: Backend, call: Call, request: pb.HoldRequest) -> pb.HoldResponse:
    namespace = await call.allow(Right.READ, request.namespace)
    version = await backend.believe(namespace, wire.version_of(request.version))
    work = partial(backend.store.hold, namespace, version, request.seconds, request.hold or None)
    return pb.HoldResponse(hold=await backend.quick(work))


async def unhold(backend: Backend, call: Call, request: pb.UnholdRequest) -> pb.Empty:
    namespace = await call.allow(Right.READ, request.namespace)
    await backend.quick(lambda: backend.store.unhold(namespace, request.hold))
    return pb.Empty()


async def collect(backend: Backend, call: Call, request: pb.CollectRequest) -> pb.Collected:
    namespace = await call.allow(Right.ADMIN, request.namespace)
    if not request.seconds >= 0:
        raise wire.WireError("seconds: 0 or more")
    work = partial(backend.store.collect, namespace, dry_run=request.dry_run, seconds=request.seconds)
    collected = await backend.slow(work)
    await backend.tell(collected.horizon)
    return wire.collected_message(collected)
