"""Messages of every kind with random fields: whatever they say, none is a mistake of the service."""

from __future__ import annotations

import random

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pagestore.v1 import pagestore_pb2 as pb
from tests.service.conftest import DEADLINE, Caller, page

METHODS = list(pb.DESCRIPTOR.services_by_name["PageStore"].methods)
OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
ROUNDS = 12
VALUES: dict[int, tuple[object, ...]] = {
    FieldDescriptor.TYPE_STRING: ("", "main", "other", "x" * 5000, "a\0b", "\U0001f4c4"),
    FieldDescriptor.TYPE_DOUBLE: (0.0, 0.01, 0.2, -1.0, 1e300, float("inf"), float("nan")),
    FieldDescriptor.TYPE_BOOL: (True, False),
    FieldDescriptor.TYPE_ENUM: (0, 1, 2, 77),
    FieldDescriptor.TYPE_INT64: (0, 1, -1, 1 << 40, (1 << 63) - 1, -(1 << 63)),
    FieldDescriptor.TYPE_UINT32: (0, 1, 1, 2, 512, 4096, (1 << 32) - 2, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, 1, 1, 2, 512, 4096, (1 << 64) - 2, (1 << 64) - 1),
}
"""What a field may say, by its type; bytes apart."""


class Fuzz:
    """Makes messages that are half right."""

    def __init__(self, seed: int, versions: list[bytes]) -> None:
        self.rng = random.Random(seed)
        self.versions = versions

    def message(self, kind: Descriptor) -> Message:
        made = GetMessageClass(kind)()
        for field in kind.fields:
            if self.rng.random() < 0.8:
                self._set(made, field)
        return made

    def _set(self, made: Message, field: FieldDescriptor) -> None:
        if field.message_type is not None:
            if field.is_repeated:
                for _ in range(self.rng.randrange(3)):
                    getattr(made, field.name).append(self.message(field.message_type))
            else:
                getattr(made, field.name).CopyFrom(self.message(field.message_type))
        elif field.is_repeated:
            getattr(made, field.name).extend(self._value(field) for _ in range(self.rng.randrange(4)))
        else:
            setattr(made, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> object:
        choice = self.rng.choice
        if field.type == FieldDescriptor.TYPE_BYTES:
            sizes = (0, 1, 7, 10, 16, 16, 16, 600)
            return choice((*self.versions, self.rng.randbytes(choice(sizes)), b"\xff" * 10))
        return choice(VALUES[field.type])


def ask(caller: Caller, method: MethodDescriptor, fuzz: Fuzz) -> grpc.StatusCode:
    """The status of one call."""
    request = fuzz.message(method.input_type)
    try:
        if method.client_streaming:
            caller.stub.Stage(iter([request, fuzz.message(method.input_type)]), timeout=DEADLINE)
        else:
            answer = getattr(caller.stub, method.name)(request, timeout=DEADLINE)
            if method.server_streaming:
                next(iter(answer), None)
                answer.cancel()
    except grpc.RpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_message_is_a_mistake_of_the_service(serve, call, seed, method):
    service = serve(collect_every=0)
    caller = call(service)
    namespace = caller("Create", name="main").id
    versions = [caller.commit(namespace, {n: page(str(n))}).committed.version for n in (1, 2, 1)]
    fuzz = Fuzz(seed, versions)
    assert not OURS & {ask(caller, method, fuzz) for _ in range(ROUNDS)}
    assert caller("Info").max_message_bytes
    assert not service.failed
