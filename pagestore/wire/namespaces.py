"""Namespaces, and what is told of one: its size, its retention, its tags, what was dropped or collected.

Re-exported by `pagestore.wire`; calls `fields`.
"""

from __future__ import annotations

from pagestore.api import (
    ZERO_VERSION,
    Collected,
    Dropped,
    Namespace,
    NamespaceId,
    Retention,
    Tag,
    Usage,
    Version,
)
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.wire.fields import namespace_id_of, optional_version_of, version_of


def namespace_message(namespace: Namespace) -> pb.Namespace:
    return pb.Namespace(
        id=namespace.id,
        name=namespace.name,
        page_size=namespace.page_size,
        created_us=namespace.created_us,
        horizon=namespace.horizon,
        horizon_us=namespace.horizon_us,
        parent=namespace.parent[0] if namespace.parent else 0,
        parent_version=namespace.parent[1] if namespace.parent else b"",
    )


def namespace_of(message: pb.Namespace) -> Namespace:
    return Namespace(
        id=namespace_id_of(message.id),
        name=message.name,
        page_size=message.page_size,
        created_us=message.created_us,
        horizon=optional_version_of(message.horizon, "horizon") or ZERO_VERSION,
        horizon_us=message.horizon_us,
        parent=_parent_of(message) if message.parent else None,
    )


def _parent_of(message: pb.Namespace) -> tuple[NamespaceId, Version]:
    version = optional_version_of(message.parent_version, "parent_version") or ZERO_VERSION
    return namespace_id_of(message.parent), version


def usage_message(usage: Usage) -> pb.Usage:
    return pb.Usage(
        live_pages=usage.live_pages,
        live_bytes=usage.live_bytes,
        history_pages=usage.history_pages,
        history_bytes=usage.history_bytes,
        commits=usage.commits,
        shared_pages=usage.shared_pages,
        shared_bytes=usage.shared_bytes,
    )


def usage_of(message: pb.Usage) -> Usage:
    return Usage(
        live_pages=message.live_pages,
        live_bytes=message.live_bytes,
        history_pages=message.history_pages,
        history_bytes=message.history_bytes,
        commits=message.commits,
        shared_pages=message.shared_pages,
        shared_bytes=message.shared_bytes,
    )


def retention_message(retention: Retention) -> pb.Retention:
    return pb.Retention(seconds=retention.seconds, max_bytes=retention.max_bytes)


def retention_of(message: pb.Retention) -> Retention:
    return Retention(
        seconds=message.seconds if message.HasField("seconds") else None,
        max_bytes=message.max_bytes if message.HasField("max_bytes") else None,
    )


def tag_message(tag: Tag) -> pb.Tag:
    return pb.Tag(name=tag.name, version=tag.version, time_us=tag.time_us)


def tag_of(message: pb.Tag) -> Tag:
    return Tag(message.name, version_of(message.version), message.time_us)


def dropped_message(dropped: Dropped) -> pb.Dropped:
    return pb.Dropped(
        id=dropped.id, name=dropped.name, dropped_us=dropped.dropped_us, until_us=dropped.until_us or 0
    )


def dropped_of(message: pb.Dropped) -> Dropped:
    return Dropped(namespace_id_of(message.id), message.name, message.dropped_us, message.until_us or None)


def collected_message(collected: Collected) -> pb.Collected:
    return pb.Collected(
        horizon=collected.horizon,
        horizon_us=collected.horizon_us,
        versions=collected.versions,
        page_versions=collected.page_versions,
        freed_bytes=collected.bytes,
        complete=collected.complete,
    )


def collected_of(message: pb.Collected) -> Collected:
    return Collected(
        horizon=version_of(message.horizon, "horizon"),
        horizon_us=message.horizon_us,
        versions=message.versions,
        page_versions=message.page_versions,
        bytes=message.freed_bytes,
        complete=message.complete,
    )
