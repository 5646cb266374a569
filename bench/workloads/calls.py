"""Calls of the page-store service beside an empty unary call with as many bytes each way.

Both sides are one gRPC client in Python that waits for each answer; `bench.service` runs the two servers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import apsw

from bench.targets import CallTarget, Target
from bench.workloads.base import Client, Evidence, Workload, expect

PAGES, PAGE_SIZE = 64, 4096
_HALF = PAGE_SIZE // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCalls(Workload):
    """Each client has a namespace of its own, of `PAGES` pages that compress to a half."""

    unit: ClassVar[str] = "calls"
    call: Literal["begin", "read", "commit"]
    pages: int = 1
    """Of one read or commit."""

    def load(self, connection: apsw.Connection, processes: int) -> None:
        raise AssertionError("the database is the service's")

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        assert isinstance(target, CallTarget)
        real = _Real(self, target, rng)
        return _Echo(real, target) if target.echo else real

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """Every acknowledged commit is in the changelog, and nothing else."""
        for each in evidence:
            if each is not None:
                address, namespace, commits = each
                expect("commits", _changelog(address, namespace), commits)


def _changelog(address: str, namespace: int) -> int:
    import grpc

    from pagestore.v1 import pagestore_pb2 as pb
    from pagestore.v1.pagestore_pb2_grpc import PageStoreStub

    with grpc.insecure_channel(address) as channel:
        stub: Any = cast(Any, PageStoreStub)(channel)
        batches = stub.Changelog(pb.ChangelogRequest(namespace=namespace))
        return sum(len(batch.changes) for batch in batches)


class _Real(Client):
    """The call itself."""

    def __init__(self, workload: ServiceCalls, target: CallTarget, rng: random.Random) -> None:
        import grpc

        from pagestore.v1 import pagestore_pb2 as pb
        from pagestore.v1.pagestore_pb2_grpc import PageStoreStub

        self._pb: Any = pb
        self._address, self._durability = target.service, target.durability
        self._rng, self._pages = rng, workload.pages
        self.channel = grpc.insecure_channel(target.service)
        stub = self._stub = cast(Any, PageStoreStub)(self.channel)
        self._namespace: int = stub.Create(pb.CreateRequest(name=f"bench-{os.urandom(6).hex()}")).id
        self._contents = [rng.randbytes(_HALF) + bytes(_HALF) for _ in range(PAGES)]
        self._version: bytes = stub.Begin(pb.BeginRequest(namespace=self._namespace)).version
        self._commits = 0
        self._commit(range(1, PAGES + 1))
        numbers = range(1, workload.pages + 1)
        calls: dict[str, Callable[[], object]] = {
            "begin": lambda: stub.Begin(self.begin()),
            "read": lambda: stub.Read(
                pb.ReadRequest(namespace=self._namespace, version=self._version, numbers=numbers)
            ),
            "commit": self._commit_some,
        }
        self._call = calls[workload.call]

    def begin(self) -> Any:
        return self._pb.BeginRequest(namespace=self._namespace, since=self._version)

    def _commit_some(self) -> object:
        return self._commit(self._rng.sample(range(1, PAGES + 1), self._pages))

    def _commit(self, numbers: Sequence[int]) -> object:
        from pagestore.api import new_token
        from pagestore.encoding import encode

        pb = self._pb
        writes = []
        for number in numbers:
            page = self._contents[number - 1]
            at = self._rng.randrange(_HALF)
            page = self._contents[number - 1] = page[:at] + self._rng.randbytes(1) + page[at + 1 :]
            writes.append(
                pb.PageWrite(number=number, blob=encode(cast(Any, number), page, None, moves=False).blob)
            )
        part = pb.CommitPart(namespace=self._namespace, page_size=PAGE_SIZE, writes=writes)
        request = pb.CommitRequest(
            token=new_token(),
            base=self._version,
            parts=[part],
            durability=pb.FULL if self._durability == "full" else pb.NORMAL,
        )
        self.request_bytes = request.ByteSize()
        answer = self._stub.Commit(request)
        self._version = answer.committed.version
        self._commits += 1
        return answer

    def once(self) -> tuple[int, int]:
        """Make the call; the bytes each way."""
        answer: Any = self._call()
        sizes = {
            "BeginResponse": self.begin().ByteSize(),
            "ReadResponse": 4 * self._pages + 16,
            "CommitResponse": self.request_bytes,
        }
        return sizes[answer.DESCRIPTOR.name], answer.ByteSize()

    def operate(self) -> int:
        self._call()
        return 1

    def warm(self) -> None:
        for _ in range(20):
            self._call()

    def evidence(self) -> Evidence:
        return [self._address, self._namespace, self._commits]


class _Echo(Client):
    """The peer, with as many bytes."""

    def __init__(self, real: _Real, target: CallTarget) -> None:
        import grpc

        from bench.echo import HEAD, METHOD

        there, back = real.once()
        real.channel.close()
        self._request = back.to_bytes(HEAD, "big").ljust(max(there, HEAD), b"\0")
        self._channel = grpc.insecure_channel(target.peer)
        self._call: Any = self._channel.unary_unary(METHOD, None, None)

    def operate(self) -> int:
        self._call(self._request)
        return 1

    def warm(self) -> None:
        for _ in range(20):
            self._call(self._request)
