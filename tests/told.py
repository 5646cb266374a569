"""What commits wrote, unpacked: the other way round than `pagestore.told`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from pagestore.api import PageNumber, PageWrite, Version

_COMMIT = struct.Struct("<10sHII")
_WRITE = struct.Struct("<II")


def unpack(told: bytes) -> Iterator[tuple[Version, Iterable[PageWrite]]]:
    """Of something that is known to be whole: the commits."""
    at = 0
    while at < len(told):
        version, _, count, size = _COMMIT.unpack_from(told, at)
        at += _COMMIT.size
        yield Version(version), _writes(told, at, count)
        at += size


def _writes(told: bytes, at: int, count: int) -> Iterator[PageWrite]:
    for _ in range(count):
        number, length = _WRITE.unpack_from(told, at)
        at += _WRITE.size
        yield PageWrite(PageNumber(number), told[at : at + length])
        at += length
