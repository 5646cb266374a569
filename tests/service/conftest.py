"""Services in this process, and a client that is no more than the generated stub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from pagestore import wire
from pagestore.api import new_token
from pagestore.encoding import encode
from pagestore.service.server import Service, serving
from pagestore.service.settings import Settings
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.v1.pagestore_pb2_grpc import PageStoreStub

DEADLINE = 20.0


class Caller:
    """One client: its channel, and its token if it shows one."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: tuple[tuple[str, object], ...] = (),
    ) -> None:
        self.channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self.stub = PageStoreStub(self.channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __call__(self, method: str, request: object = None, **fields: object) -> object:
        """Call `method` with a message, or with the fields of its usual one."""
        if request is None:
            request = getattr(pb, method + "Request")(**fields)
        return getattr(self.stub, method)(request, metadata=self._metadata, timeout=DEADLINE)

    def raw(self, method: str, data: bytes) -> bytes:
        return self.channel.unary_unary(f"/{wire.SERVICE}/{method}")(
            data, metadata=self._metadata, timeout=DEADLINE
        )

    def commit(
        self,
        namespace: int,
        contents: dict[int, bytes],
        base: bytes | None = None,
        *,
        token: bytes | None = None,
        reads: tuple[int, ...] = (),
    ) -> pb.CommitResponse:
        return self("Commit", commit_request(self, namespace, contents, base, token=token, reads=reads))

    def refused(self, method: str, request: object = None, **fields: object) -> grpc.RpcError:
        """The error that a call ends with."""
        try:
            answer = self(method, request, **fields)
            if hasattr(answer, "__next__"):
                list(answer)
        except grpc.RpcError as exc:
            return exc
        pytest.fail(f"{method} was not refused")

    def close(self) -> None:
        self.channel.close()


def commit_request(
    caller: Caller,
    namespace: int,
    contents: dict[int, bytes],
    base: bytes | None = None,
    *,
    token: bytes | None = None,
    reads: tuple[int, ...] = (),
) -> pb.CommitRequest:
    """Whole pages of 512 bytes, all of them new."""
    base = base or caller("Begin", namespace=namespace).version
    return pb.CommitRequest(
        token=token or new_token(),
        base=base,
        parts=[
            pb.CommitPart(
                namespace=namespace,
                page_size=512,
                reads=wire.numbers_message(reads),
                writes=[
                    pb.PageWrite(number=number, blob=encode(number, content, None, moves=True).blob)
                    for number, content in contents.items()
                ],
            )
        ],
        durability=pb.NORMAL,
    )


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def page(text: str) -> bytes:
    return text.encode().ljust(512, b"\0")


def kind_of(error: grpc.RpcError) -> pb.ErrorKind:
    """The kind that stands in the trailing metadata."""
    details = {item.key: item.value for item in error.trailing_metadata()}
    return pb.Error.FromString(details[wire.ERROR_KEY]).kind


Serve = Callable[..., Service]
Call = Callable[..., Caller]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(**settings)` starts a service on a socket of its own; all end with the test."""
    with ExitStack() as stack:
        count = 0

        def start(**settings: object) -> Service:
            nonlocal count
            count += 1
            usual = {
                "store": str(tmp_path / "store"),
                "create": True,
                "listen": (f"unix:{tmp_path}/{count}",),
                "drain": 2.0,
                "reflection": False,
            }
            return stack.enter_context(serving(Settings(**(usual | settings))))

        yield start


@pytest.fixture
def call() -> Iterator[Call]:
    """`call(service, token)` is a client of it."""
    callers: list[Caller] = []

    def make(service: Service, token: str | None = None, **more: object) -> Caller:
        callers.append(Caller(str(service.addresses[0]), token, **more))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()
