"""SQLite's record format: the values of a row.

Called by everything in this package that looks into cells; calls nothing.  The format is that of
https://www.sqlite.org/fileformat2.html#record_format.

1. What is no record is an error, `Damaged`; whoever knows the page makes a `CorruptPageError` of it.
2. Text comes out as `str`; bytes that are no UTF-8 (or UTF-16) come out as lone surrogates and go back to
   the same bytes by `encode_text`.

Worked example: the row (7, 'ab', NULL, 1.5) is

    05 01 11 00 07   header: 5 bytes, serial types 1 (one byte), 17 (text of 2), 0 (NULL), 7 (float)
    07  61 62  3ff8000000000000
"""

from __future__ import annotations

import math
import struct
from typing import Literal, TypeAlias

Value: TypeAlias = int | float | str | bytes | None
Encoding: TypeAlias = Literal["utf-8", "utf-16-le", "utf-16-be"]

ENCODINGS: dict[int, Encoding] = {0: "utf-8", 1: "utf-8", 2: "utf-16-le", 3: "utf-16-be"}
"""By the number in the database header; 0 until the first table is made."""

_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)
_FLOAT, _ZERO, _ONE, _RESERVED, _BLOB = 7, 8, 9, (10, 11), 12
_DOUBLE = struct.Struct(">d")
MAX_PAYLOAD = 0x7FFFFFFF
"""Bytes; SQLite makes no longer rows: https://www.sqlite.org/limits.html."""


class Damaged(Exception):
    """Bytes that SQLite would not have written."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned 64-bit number and where the next byte is.  Raises Damaged if the bytes end first."""
    value = 0
    try:
        for i in range(at, at + 8):
            byte = data[i]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, i + 1
        return value << 8 | data[at + 8], at + 9
    except IndexError:
        raise Damaged("a number runs past the end") from None


def signed(value: int) -> int:
    """An unsigned 64-bit number as the two's complement that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def serial_types(payload: bytes) -> tuple[list[int], int]:
    """The serial types of a record, and where its values start."""
    size, at = (payload[0], 1) if payload and payload[0] < 0x80 else varint(payload, 0)
    if not at <= size <= len(payload):
        raise Damaged(f"a record header of {size} bytes in {len(payload)}")
    types = []
    while at < size:
        kind = payload[at]
        if kind < 0x80:
            at += 1
        else:
            kind, at = varint(payload, at)
        types.append(kind)
    if at != size:
        raise Damaged("a record header that ends within a number")
    return types, size


def size_of(kind: int) -> int:
    """Bytes that a value of this serial type takes."""
    if kind >= _BLOB:
        return (kind - _BLOB) >> 1
    if kind < _FLOAT:
        return _INTEGER_SIZES[kind]
    if kind == _FLOAT:
        return 8
    if kind in _RESERVED:
        raise Damaged(f"serial type {kind}, which is reserved")
    return 0


def fields(payload: bytes, limit: int | None = None) -> list[tuple[int, bytes]]:
    """Serial type and bytes of each value, or of the first `limit`.

    The payload may be cut off behind these.  Raises Damaged."""
    types, at = serial_types(payload)
    found = []
    for kind in types if limit is None else types[:limit]:
        end = at + (_INTEGER_SIZES[kind] if kind < _FLOAT else size_of(kind))
        if end > len(payload):
            raise Damaged(f"a record of {len(payload)} bytes ends within a value")
        found.append((kind, payload[at:end]))
        at = end
    return found


def values(payload: bytes, encoding: Encoding) -> list[Value]:
    """The values of a whole record.  Raises Damaged."""
    return [value(kind, data, encoding) for kind, data in fields(payload)]


def value(kind: int, data: bytes, encoding: Encoding) -> Value:
    """One value, from `fields`."""
    if kind >= _BLOB:
        return decode_text(data, encoding) if kind & 1 else data
    if kind == 0:
        return None
    if kind < _FLOAT:
        return int.from_bytes(data, "big", signed=True)
    if kind == _FLOAT:
        number: float = _DOUBLE.unpack(data)[0]
        return None if math.isnan(number) else number  # SQLite reads NaN as NULL
    return kind - _ZERO


def decode_text(data: bytes, encoding: Encoding) -> str:
    if encoding == "utf-8":
        return data.decode("utf-8", "surrogateescape")
    return data[: len(data) & ~1].decode(encoding, "surrogatepass")


def encode_text(text: str, encoding: Encoding = "utf-8") -> bytes:
    """The bytes that `decode_text` made the text of."""
    if encoding != "utf-8":
        return text.encode(encoding, "surrogatepass")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, from a database in UTF-16
        return text.encode("utf-8", "surrogatepass")


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same to the bit: 1 is not 1.0, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return _DOUBLE.pack(one) == _DOUBLE.pack(other)
    return one == other
