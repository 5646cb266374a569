"""A namespace as a test sees it: contents in, contents out, over any `Store`.

Used by the store's contract, model, fault and process tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pagestore.api import (
    CommitPart,
    CommitRequest,
    Committed,
    Durability,
    NamespaceId,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    Version,
    new_token,
)
from pagestore.encoding import FREED, Base, chain_of, decode, encode


class Pages:
    """Reads and commits page contents; `None` is a page that does not exist."""

    def __init__(self, store: Store, namespace: NamespaceId, page_size: int = 512) -> None:
        self.store = store
        self.id = namespace
        self.page_size = page_size

    def version(self) -> Version:
        return self.store.begin(self.id).version

    def read(self, number: int, at: Version | None = None) -> bytes | None:
        (page,) = self.store.read(self.id, at or self.version(), [PageNumber(number)])
        return None if page is None else decode(page, self.page_size)

    def part(
        self, contents: Mapping[int, bytes | None], base: Version, reads: Iterable[int] = ()
    ) -> CommitPart:
        """Written as deltas wherever there is something to be a delta of."""
        numbers = [PageNumber(number) for number in contents]
        before = dict(zip(numbers, self.store.read(self.id, base, numbers), strict=True))
        writes = []
        for number in numbers:
            content, old = contents[number], before[number]
            if content is None:
                writes.append(PageWrite(number, FREED))
                continue
            known = None if old is None else Base(decode(old, self.page_size), chain_of(old.blobs[0]))
            writes.append(PageWrite(number, encode(number, content, known, moves=True).blob))
        allocated = sorted(n for n in numbers if before[n] is None and contents[n] is not None)
        freed = sorted(n for n in numbers if before[n] is not None and contents[n] is None)
        return CommitPart(self.id, PageSet.of(reads), writes, self.page_size, allocated, freed)

    def request(self, contents: Mapping[int, bytes | None]) -> CommitRequest:
        start = self.store.begin(self.id)
        start = self.store.begin(self.id, start.version)  # as who begins again: the engine may be told where
        part = self.part(contents, start.version)
        return CommitRequest(
            new_token(), start.version, (part,), "", "normal", read_version=start.read_version
        )

    def with_ticket(self, request: CommitRequest, ticket: bytes) -> CommitRequest:
        return replace(request, ticket=ticket)

    def commit(
        self,
        contents: Mapping[int, bytes | None],
        base: Version | None = None,
        reads: Iterable[int] = (),
        *,
        token: bytes | None = None,
        message: str = "",
        durability: Durability = "normal",
    ) -> Committed:
        base = base or self.version()
        part = self.part(contents, base, reads)
        return self.store.commit(CommitRequest(token or new_token(), base, (part,), message, durability))


def content(seed: object, number: int = 1, page_size: int = 512) -> bytes:
    """A page's worth of bytes that belong to the seed."""
    return random.Random(f"{seed} {number}").randbytes(page_size // 4) + bytes(page_size - page_size // 4)
