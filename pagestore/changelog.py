"""The changelog record: what one commit did to one namespace, as stored under its log key.

Called by `commit` (writes records), `snapshot` and `history` (read them); calls nothing.

    byte 0    bits 0-2: bytes per page number (1, 2 or 4); bit 7: a message follows; others 0
    1..8      Unix time in µs, big-endian
    9..24     commit token
    then      if bit 7: message length (two bytes, big-endian) and the message, UTF-8
    then      page numbers, ascending, big-endian, to the end

The version is in the key.  Worked example: page 3 and HEADER changed, no message:

    01  00064412f3a9b400  <token, 16 bytes>  00 03
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import cast

from pagestore.api import TOKEN_SIZE, Change, CorruptPageError, PageNumber, Version, format_version

_HEAD = struct.Struct(f">BQ{TOKEN_SIZE}s")
_HAS_MESSAGE = 0x80
_WIDTHS = {1: "B", 2: "H", 4: "I"}
_SWAP = sys.byteorder == "little"


class Record:
    """One commit's record, ready but for the time, which is known only once its turn has come."""

    __slots__ = ("_tail", "_token", "_width")

    def __init__(self, pages: Sequence[int], token: bytes, message: str) -> None:
        """`pages` ascending, not empty."""
        self._width = 1 if pages[-1] < 1 << 8 else 2 if pages[-1] < 1 << 16 else 4
        numbers = array(_WIDTHS[self._width], pages)
        if _SWAP and self._width > 1:
            numbers.byteswap()
        self._tail = numbers.tobytes()
        self._token = token
        if message:
            text = message.encode()
            self._tail = len(text).to_bytes(2, "big") + text + self._tail
            self._width |= _HAS_MESSAGE

    def at(self, time_us: int) -> bytes:
        return _HEAD.pack(self._width, time_us, self._token) + self._tail


def read(version: Version, record: bytes) -> Change:
    """Raises CorruptPageError."""
    try:
        flags, time_us, token = _HEAD.unpack_from(record)
        start, message = _HEAD.size, ""
        if flags & _HAS_MESSAGE:
            size = int.from_bytes(record[start : start + 2], "big")
            message = record[start + 2 : start + 2 + size].decode()
            start += 2 + size
        pages = _numbers(flags & ~_HAS_MESSAGE, record[start:])
    except (ValueError, KeyError, struct.error) as exc:
        raise CorruptPageError(f"changelog record of {format_version(version)}: {exc}") from exc
    return Change(version, time_us, pages, token, message)


def _numbers(width: int, packed: bytes) -> tuple[PageNumber, ...]:
    if width == 1:
        return cast(tuple[PageNumber, ...], tuple(packed))
    numbers = array(_WIDTHS[width], packed)
    if _SWAP:
        numbers.byteswap()
    return cast(tuple[PageNumber, ...], tuple(numbers))
