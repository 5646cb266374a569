"""Ids of namespaces, as a service's clients see them: other ones once the store was put back from a backup.

Used by `gate`, for every message.  A client knows a namespace by its id: what it keeps of pages, the base of
its transactions, its leases, holds and tokens belong to that.  When the store is put back, versions that the
client knows may not exist any more, or mean something else.  So the ids change: whatever a client brings from
before is refused as a namespace that does not exist, and who opens the database anew begins with nothing.

1. An id has 63 bits: above, 31 of the store's incarnation; below, 32 of the namespace's number in the store.
   The incarnation of a store that was never put back is 0.
2. No function behind the gate sees the upper half, no client an id without it.

Example: namespace 5 in incarnation 0x2a: 0x0000002a_00000005 = 180388626437.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from pagestore.api import LimitError, NoSuchNamespaceError
from pagestore.v1 import pagestore_pb2 as pb

_BITS = 32

_IN: Final[dict[type[Message], str]] = {pb.UndropRequest: "id", pb.PurgeRequest: "id"}
"""Requests that name a namespace otherwise than by `namespace`."""


class Ids:
    """Of one incarnation."""

    def __init__(self, incarnation: int) -> None:
        self._incarnation = incarnation

    def received(self, message: Message) -> None:
        """Make the ids in a request those of the store.  Raises NoSuchNamespaceError: from before."""
        kind = type(message)
        if kind is pb.CommitRequest:
            for part in message.parts:  # type: ignore[attr-defined]
                part.namespace = self._number(part.namespace)
            return
        field = _IN.get(kind, "namespace")
        if field in message.DESCRIPTOR.fields_by_name:
            setattr(message, field, self._number(getattr(message, field)))

    def _number(self, id_: int) -> int:
        if not id_ or id_ >> 63:  # refused by whoever looks at the field
            return id_
        if id_ >> _BITS == self._incarnation:
            return id_ & ((1 << _BITS) - 1)
        raise NoSuchNamespaceError(
            f"namespace {id_} does not exist: the store has been put back from a backup, or is another one, "
            "since it was opened; what was read of it does not hold any more. Connect anew"
        )

    def sent(self, message: Message) -> None:
        """Make the ids in an answer those that clients know."""
        if not self._incarnation:
            return
        if isinstance(message, pb.Namespace):
            self._give(message)
        elif isinstance(message, pb.ListResponse):
            for namespace in message.namespaces:
                self._give(namespace)
        elif isinstance(message, pb.ListDroppedResponse):
            for dropped in message.dropped:
                dropped.id = self._id(dropped.id)
        elif isinstance(message, pb.CommitResponse) and message.HasField("conflict"):
            message.conflict.namespace = self._id(message.conflict.namespace)

    def _give(self, namespace: pb.Namespace) -> None:
        namespace.id = self._id(namespace.id)
        if namespace.parent:
            namespace.parent = self._id(namespace.parent)

    def _id(self, number: int) -> int:
        if number >> _BITS:
            raise LimitError("a store behind a service has at most 2^32 databases, dropped ones included")
        return self._incarnation << _BITS | number
