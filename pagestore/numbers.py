"""Numbers of the store's domain, and sets of them: pages, namespaces, versions, tokens.

Re-exported by `pagestore.api`, which is where everyone else gets them; calls nothing.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NewType

PageNumber = NewType("PageNumber", int)
"""A SQLite page number, counted from 1.

Page 1 is stored with its bytes 24-39 and 92-99 zeroed (change counter, page count, freelist,
version-valid-for, library version: https://www.sqlite.org/fileformat2.html#the_database_header).  Every
SQLite write transaction rewrites these; page count and freelist follow from the `Allocation`, the others
mean something to one connection only."""

NamespaceId = NewType("NamespaceId", int)
"""Stable number of a namespace; never used again after a drop."""

Version = NewType("Version", bytes)
"""Ten bytes, ordered as bytes compare, the same order across all namespaces of a store."""

VERSION_SIZE = 10
TOKEN_SIZE = 16
MAX_MESSAGE_BYTES = 4096
MAX_NAME_BYTES = 1024
ZERO_VERSION = Version(bytes(VERSION_SIZE))
MAX_VERSION = Version(b"\xff" * VERSION_SIZE)


def format_version(version: Version) -> str:
    """`v` and the 20 hex digits of a version, as users see it."""
    return "v" + version.hex()


def parse_version(text: str) -> Version:
    """The version written as `v` and up to 20 hex digits, leading zeros optional; ValueError if not."""
    digits = text[1:]
    if not text.startswith("v") or not digits or len(digits) > 2 * VERSION_SIZE:
        raise ValueError(f"not a version: {text!r} (expected v and up to 20 hex digits)")
    return Version(bytes.fromhex(digits.rjust(2 * VERSION_SIZE, "0")))


def before(version: Version) -> Version:
    """The greatest version below one that is not the zero version."""
    return Version((int.from_bytes(version, "big") - 1).to_bytes(VERSION_SIZE, "big"))


def new_token() -> bytes:
    """A commit token: 48 bits of Unix milliseconds, then 80 random bits (RFC 9562 calls it a UUIDv7).

    Time comes first so that an ordered store puts the tokens of neighbouring commits side by side; that
    no two are equal rests on the random bits alone."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(TOKEN_SIZE - 6)


class PageRun(NamedTuple):
    """Consecutive page numbers."""

    first: PageNumber
    length: int


class PageSet:
    """A set of page numbers, cheap to carry and looked into only when it must be.

    `packed` holds distinct page numbers as native-endian unsigned 32-bit integers, in any order.
    """

    __slots__ = ("_packed", "_set")

    def __init__(self, packed: bytes = b"") -> None:
        self._packed = packed
        self._set: frozenset[int] | None = None

    @classmethod
    def of(cls, numbers: Iterable[int]) -> PageSet:
        return cls(array("I", sorted(set(numbers))).tobytes())

    @property
    def packed(self) -> bytes:
        return self._packed

    def as_set(self) -> frozenset[int]:
        if self._set is None:
            numbers = array("I")
            numbers.frombytes(self._packed)
            self._set = frozenset(numbers)
        return self._set

    def __contains__(self, number: object) -> bool:
        return number in self.as_set()

    def __iter__(self) -> Iterator[PageNumber]:
        return iter(PageNumber(n) for n in sorted(self.as_set()))

    def __len__(self) -> int:
        return len(self._packed) // 4


def pack_numbers(pages: Sequence[int], allocated: Sequence[int], freed: Sequence[int]) -> bytes:
    """What stands behind the version in `Changes.packed`."""
    counts = (len(pages), len(allocated), len(freed))
    return array("I", (*counts, *pages, *allocated, *freed)).tobytes()
