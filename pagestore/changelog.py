"""The changelog record: what one commit did to one namespace, as stored under its log key.

Called by `commit` (writes records), `snapshot` and `history` (read them).  Calls native/log.c, which reads
many at once: who begins or commits only has to know which pages others changed.

    byte 0    bits 0-2: bytes per page number (1, 2 or 4); bit 7: a message follows; bit 6: the allocation
              changed; others 0
    1..8      Unix time in µs, big-endian
    9..24     commit token
    then      if bit 7: message length (two bytes, big-endian) and the message, UTF-8
    then      if bit 6: how many pages were allocated, how many freed (4 bytes each), then their numbers
    then      all page numbers written, to the end; each list ascending, each number big-endian

The version is in the key.  A record longer than `MAX_RECORD` is kept in pieces, see `pieces`: its head with
bit 5, followed by the record's length (4 bytes), is under the log key; the rest, compressed, is in pieces
under keys of their own.  `whole` puts them together again.

Worked example: page 3 changed and 9 was allocated, no message:

    41  00064412f3a9b400  <token, 16 bytes>  00000001 00000000 09  03 09
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import cast, overload

import zstandard

from pagestore import keys
from pagestore._native import ffi, lib
from pagestore.api import (
    MAX_MESSAGE_BYTES,
    TOKEN_SIZE,
    Change,
    Changes,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    Version,
    format_version,
)
from pagestore.engines.base import KeyRange, Snapshot

_HEAD = struct.Struct(f">BQ{TOKEN_SIZE}s")
_HAS_MESSAGE, _HAS_ALLOCATION = 0x80, 0x40
_WIDTH = 0x07
_COUNTS = struct.Struct(">II")
_WIDTHS = {1: "B", 2: "H", 4: "I"}
_SWAP = sys.byteorder == "little"


MAX_RECORD = 50_000
"""Bytes under one key: engines have limits, and who scans the log does not want all of it."""

_IN_PIECES = 0x20


def pieces(record: bytes) -> tuple[bytes, list[bytes]]:
    """What to keep under the log key, and what beside it."""
    if len(record) <= MAX_RECORD:
        return record, []
    rest = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(record[_HEAD.size :])
    head = bytes((record[0] | _IN_PIECES,)) + record[1 : _HEAD.size] + len(record).to_bytes(4, "big")
    return head, [rest[at : at + MAX_RECORD] for at in range(0, len(rest), MAX_RECORD)]


def size_of(record: bytes) -> int:
    """Bytes of the whole record, of which this is what is kept under the log key."""
    return int.from_bytes(record[_HEAD.size :][:4], "big") if _is_in_pieces(record) else len(record)


def whole(tx: Snapshot, id_: NamespaceId, version: Version, record: bytes) -> bytes:
    """The record, of which this is what is kept under the log key.  Raises CorruptPageError."""
    if not _is_in_pieces(record):
        return record
    rest = b"".join(piece for _, piece in tx.scan(KeyRange(*keys.more(id_, version))))
    size = size_of(record)
    try:
        tail = zstandard.ZstdDecompressor().decompress(rest, max_output_size=size)
    except zstandard.ZstdError as exc:
        raise CorruptPageError(f"changelog record of {format_version(version)}: {exc}") from exc
    if len(tail) != size - _HEAD.size:
        raise CorruptPageError(f"changelog record of {format_version(version)}: it is cut short")
    return bytes((record[0] & ~_IN_PIECES,)) + record[1 : _HEAD.size] + tail


def change_of(tx: Snapshot, id_: NamespaceId, key: bytes, record: bytes) -> Change:
    """What a changelog row says.  Raises CorruptPageError."""
    version = keys.version_of(key)
    return read(version, whole(tx, id_, version, record))


def may_be_in_pieces(change: Change) -> bool:
    """Whether the record of a change may be longer than `MAX_RECORD`."""
    longest_number = 4
    numbers = len(change.pages) + len(change.allocated) + len(change.freed)
    return numbers * longest_number + MAX_MESSAGE_BYTES + _HEAD.size > MAX_RECORD // 2


def _is_in_pieces(record: bytes) -> bool:
    return bool(record) and record[0] & _IN_PIECES != 0


class Record:
    """One commit's record, ready but for the time, which is known only once its turn has come."""

    __slots__ = ("_tail", "_token", "_width")

    def __init__(
        self,
        pages: Sequence[int],
        token: bytes,
        message: str,
        allocated: Sequence[int] = (),
        freed: Sequence[int] = (),
    ) -> None:
        """`pages` not empty; every list ascending."""
        self._width = width = 1 if pages[-1] < 1 << 8 else 2 if pages[-1] < 1 << 16 else 4
        self._tail = _packed(width, pages)
        self._token = token
        if allocated or freed:
            self._width |= _HAS_ALLOCATION
            counts = _COUNTS.pack(len(allocated), len(freed))
            self._tail = counts + _packed(width, allocated) + _packed(width, freed) + self._tail
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
        if flags & _IN_PIECES:
            raise ValueError("it is kept in pieces")
        start, message = _HEAD.size, ""
        if flags & _HAS_MESSAGE:
            size = int.from_bytes(record[start : start + 2], "big")
            message = record[start + 2 : start + 2 + size].decode()
            start += 2 + size
        width = flags & _WIDTH
        allocated: tuple[PageNumber, ...] = ()
        freed: tuple[PageNumber, ...] = ()
        if flags & _HAS_ALLOCATION:
            first, second = _COUNTS.unpack_from(record, start)
            start += _COUNTS.size
            middle = start + width * first
            end = middle + width * second
            allocated, freed = _numbers(width, record[start:middle]), _numbers(width, record[middle:end])
            if len(allocated) != first or len(freed) != second:
                raise ValueError("it is cut short")
            start = end
        pages = _numbers(width, record[start:])
    except (ValueError, KeyError, struct.error) as exc:
        raise CorruptPageError(f"changelog record of {format_version(version)}: {exc}") from exc
    return Change(version, time_us, pages, token, message, allocated, freed)


def time_of(record: bytes) -> int:
    """Unix time in µs."""
    return int.from_bytes(record[1:9], "big")


def touches_allocation(record: bytes) -> bool:
    """Whether the commit allocated or freed pages; True also where only `read` can tell what is wrong."""
    return not record or record[0] & _HAS_ALLOCATION != 0


class Rows(Changes):
    """Records as they lie in the store."""

    __slots__ = ("_packed", "_records", "_versions")

    def __init__(
        self, versions: Sequence[Version] = (), records: Sequence[bytes] = (), packed: bytes | None = None
    ) -> None:
        """As many records as versions, oldest first."""
        self._versions = versions
        self._records = records
        self._packed = packed

    def __len__(self) -> int:
        return len(self._versions)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Change | Rows:
        if isinstance(index, slice):
            return Rows(self._versions[index], self._records[index])
        return read(self._versions[index], self._records[index])

    def __add__(self, later: Rows) -> Rows:
        return Rows(
            (*self._versions, *later._versions), (*self._records, *later._records), self.packed + later.packed
        )

    @property
    def packed(self) -> bytes:
        if self._packed is None:
            self._packed = self._unpack() if self._versions else b""
        return self._packed

    def _unpack(self) -> bytes:
        records = b"".join(self._records)
        lengths = ffi.from_buffer("uint32_t[]", array("I", map(len, self._records)))
        count = len(self._versions)
        out = ffi.new("uint32_t[]", 6 * count + len(records))
        size = lib.mv_log_unpack(b"".join(self._versions), records, lengths, count, out)
        if size < 0:
            read(self._versions[-1 - size], self._records[-1 - size])  # says what is wrong with it
            raise CorruptPageError(f"changelog record of {format_version(self._versions[-1 - size])}")
        return bytes(ffi.buffer(out, size))

    def meet(self, touched: bytes) -> bool:
        """Whether one of these commits wrote a page in `touched` (packed as `PageSet.packed`)."""
        packed = self.packed
        found = lib.mv_log_meets(packed, len(packed), touched, len(touched) // 4)
        if found < 0:
            raise MemoryError("no memory for the changelog")
        return bool(found)


def _packed(width: int, numbers: Sequence[int]) -> bytes:
    packed = array(_WIDTHS[width], numbers)
    if _SWAP and width > 1:
        packed.byteswap()
    return packed.tobytes()


def _numbers(width: int, packed: bytes) -> tuple[PageNumber, ...]:
    if width == 1:
        return cast(tuple[PageNumber, ...], tuple(packed))
    numbers = array(_WIDTHS[width], packed)
    if _SWAP:
        numbers.byteswap()
    return cast(tuple[PageNumber, ...], tuple(numbers))
