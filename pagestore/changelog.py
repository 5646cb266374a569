"""The changelog record: what one commit did to one namespace, as stored under its log key.

Called by `commit` (writes records), `snapshot` and `history` (read them).  Calls native/log.c, which reads
many at once: who begins or commits only has to know which pages others changed.

    byte 0    bits 0-2: bytes per page number (1, 2 or 4); bit 7: a message follows; bit 6: the allocation
              changed; bit 4: some pages are known to be those of indexes; others 0
    1..8      Unix time in µs, big-endian
    9..24     commit token
    then      if bit 7: message length (two bytes, big-endian) and the message, UTF-8
    then      if bit 6: how many pages were allocated, how many freed (4 bytes each), then their numbers
    then      all page numbers written, to the end; each list ascending, each number big-endian
    then      if bit 4: a bit for each page written, 1 if it is known to be an index's; the first page's is
              the lowest one of the first byte; those that are left over are 0

The version is in the key.  A record longer than `MAX_RECORD` is kept in pieces: its head with bits 5 and 3,
followed by the length that it would have had (4 bytes), is under the log key.  The rest is compressed, in
pieces under keys of their own: the message as above, then how many runs of page numbers were written,
allocated and freed (4 bytes each), then these, each first number and length (4 bytes each).  (Without bit 3,
as first releases wrote it, what is compressed is all that stands behind the head.)  `whole` makes of it the
record that it would have been; `change_of` reads it a little at a time, so that a commit of millions of pages
takes no memory for each.

Worked example: page 3 changed and 9 was allocated, no message:

    41  00064412f3a9b400  <token, 16 bytes>  00000001 00000000 09  03 09

and if 9 is an index's page, `51` and at the end `02`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Collection, Container, Iterator, Sequence
from itertools import chain
from typing import cast, overload

import zstandard

from pagestore import keys
from pagestore.api import (
    MAX_MESSAGE_BYTES,
    TOKEN_SIZE,
    Change,
    Changes,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    PageRuns,
    Version,
    format_version,
    in_arrays,
    runs_in,
)
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.native import ffi, lib

_HEAD = struct.Struct(f">BQ{TOKEN_SIZE}s")
_HAS_MESSAGE, _HAS_ALLOCATION, _HAS_INDEX_PAGES = 0x80, 0x40, 0x10
_WIDTH = 0x07
_COUNTS = struct.Struct(">II")
_RUN_COUNTS = struct.Struct(">III")
_WIDTHS = {1: "B", 2: "H", 4: "I"}
_SWAP = sys.byteorder == "little"


MAX_RECORD = 50_000
"""Bytes under one key: engines have limits, and who scans the log does not want all of it."""

_IN_PIECES, _AS_RUNS = 0x20, 0x08

_MOST_TOLD_OF = 4096
"""Pages of a commit of which it is kept whether they are an index's: who compares more reads differently."""

_NUMBERS_AT_ONCE = 16_384
"""Read from what is compressed."""


def size_of(record: bytes) -> int:
    """Bytes of the whole record, of which this is what is kept under the log key."""
    return int.from_bytes(record[_HEAD.size :][:4], "big") if is_in_pieces(record) else len(record)


def whole(tx: Snapshot, id_: NamespaceId, version: Version, record: bytes) -> bytes:
    """The record, of which this is what is kept under the log key.  Raises CorruptPageError."""
    if not is_in_pieces(record):
        return record
    change = _in_pieces(tx, id_, version, record)
    flags = record[0] & ~(_IN_PIECES | _AS_RUNS)
    lists = _lists(change.pages, change.allocated, change.freed)
    return bytes((flags,)) + record[1 : _HEAD.size] + _tail(flags & _WIDTH, change.message.encode(), lists)


def change_of(tx: Snapshot, id_: NamespaceId, key: bytes, record: bytes) -> Change:
    """What a changelog row says.  Raises CorruptPageError."""
    version = keys.version_of(key)
    return _in_pieces(tx, id_, version, record) if is_in_pieces(record) else read(version, record)


def _in_pieces(tx: Snapshot, id_: NamespaceId, version: Version, record: bytes) -> Change:
    pieces = (piece for _, piece in tx.scan(KeyRange(*keys.more(id_, version))))
    try:
        change = _read_pieces(version, record, pieces)
        lists = _lists(change.pages, change.allocated, change.freed)
        if _size(record[0] & _WIDTH, change.message.encode(), lists) != size_of(record):
            raise ValueError("it is not as long as it should be")
    except (ValueError, KeyError, struct.error, zstandard.ZstdError) as exc:
        raise CorruptPageError(f"changelog record of {format_version(version)}: {exc}") from exc
    return change


class _Rest:
    """What a record in pieces has behind its head, read from the first byte to the last."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._stream = zstandard.ZstdDecompressor().stream_reader(self)  # type: ignore[arg-type]

    def read(self, _size: int) -> bytes:
        """For the decompressor."""
        return next(self._pieces, b"")

    def take(self, size: int) -> bytes:
        """Raises ValueError, ZstdError."""
        found = self._stream.read(size)
        if len(found) != size:
            raise ValueError("it is cut short")
        return found

    def runs(self, count: int) -> PageRuns:
        return PageRuns(chain.from_iterable(self._pairs(count)))

    def _pairs(self, count: int) -> Iterator[Iterator[tuple[int, int]]]:
        for some in self._parts(4, 2 * count):
            yield zip(some[::2], some[1::2], strict=True)

    def numbers(self, width: int, count: int) -> PageRuns:
        return PageRuns.of_parts(self._parts(width, count))

    def _parts(self, width: int, count: int) -> Iterator[array[int]]:
        while count > 0:
            some = min(count, _NUMBERS_AT_ONCE)
            yield _array(width, self.take(some * width))
            count -= some

    def end(self) -> None:
        if self._stream.read(1):  # which also compares the checksum
            raise ValueError("there is more than there should be")


def _read_pieces(version: Version, record: bytes, pieces: Iterator[bytes]) -> Change:
    flags, time_us, token = _HEAD.unpack_from(record)
    width = flags & _WIDTH
    if width not in _WIDTHS:
        raise ValueError(f"page numbers of {width} bytes")
    rest = _Rest(pieces)
    message = ""
    if flags & _HAS_MESSAGE:
        message = rest.take(int.from_bytes(rest.take(2), "big")).decode()
    allocated = freed = PageRuns()
    if flags & _AS_RUNS:
        written, first, second = _RUN_COUNTS.unpack(rest.take(_RUN_COUNTS.size))
        pages, allocated, freed = rest.runs(written), rest.runs(first), rest.runs(second)
    else:
        if flags & _HAS_ALLOCATION:
            first, second = _COUNTS.unpack(rest.take(_COUNTS.size))
            allocated, freed = rest.numbers(width, first), rest.numbers(width, second)
        others = _size(width, message.encode(), _lists((), allocated, freed))
        pages = rest.numbers(width, (size_of(record) - others) // width)
    rest.end()
    return Change(version, time_us, pages, token, message, allocated, freed)


_Lists = tuple[Sequence[int]] | tuple[Sequence[int], Sequence[int], Sequence[int]]


def _lists(pages: Sequence[int], allocated: Sequence[int], freed: Sequence[int]) -> _Lists:
    """The page numbers in a record, in their order there."""
    return (allocated, freed, pages) if allocated or freed else (pages,)


def _size(width: int, text: bytes, lists: _Lists) -> int:
    """Bytes of a record that is not in pieces.  `text`: the message."""
    size = _HEAD.size + (2 + len(text) if text else 0) + (_COUNTS.size if len(lists) > 1 else 0)
    for numbers in lists:
        size += width * len(numbers)
    return size


def _message(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text if text else b""


def _tail(width: int, text: bytes, lists: _Lists) -> bytes:
    """What stands behind its head."""
    tail = _message(text)
    if len(lists) > 1:
        tail += _COUNTS.pack(len(lists[0]), len(lists[1]))
    for numbers in lists:
        tail += _packed(width, numbers)
    return tail


def may_be_in_pieces(change: Change) -> bool:
    """Whether the record of a change may be longer than `MAX_RECORD`."""
    longest_number = 4
    numbers = len(change.pages) + len(change.allocated) + len(change.freed)
    return numbers * longest_number + MAX_MESSAGE_BYTES + _HEAD.size > MAX_RECORD // 2


def is_in_pieces(record: bytes) -> bool:
    """Whether this is only the head of a record, as it is kept under the log key."""
    return bool(record) and record[0] & _IN_PIECES != 0


class Record:
    """One commit's record, ready but for the time, which is known only once its turn has come."""

    __slots__ = ("_flags", "_size", "_tail", "_token", "pieces")

    def __init__(
        self,
        pages: Sequence[PageNumber],
        token: bytes,
        message: str,
        allocated: Sequence[PageNumber] = (),
        freed: Sequence[PageNumber] = (),
        index_pages: Collection[int] = (),
    ) -> None:
        """`pages` not empty; every list but the last ascending.

        Which pages are an index's is kept if there are no more than `_MOST_TOLD_OF` pages."""
        self._flags = width = 1 if pages[-1] < 1 << 8 else 2 if pages[-1] < 1 << 16 else 4
        self._token = token
        self.pieces: list[bytes] = []
        """What to keep beside what is kept under the log key."""
        if allocated or freed:
            self._flags |= _HAS_ALLOCATION
        if message:
            self._flags |= _HAS_MESSAGE
        text, lists = message.encode(), _lists(pages, allocated, freed)
        size = _size(width, text, lists)
        if size <= MAX_RECORD:
            self._tail = _tail(width, text, lists)
            if index_pages and len(pages) <= _MOST_TOLD_OF:
                self._flags |= _HAS_INDEX_PAGES
                self._tail += _bits(pages, set(index_pages))
        else:
            self._flags |= _IN_PIECES | _AS_RUNS
            self._tail = size.to_bytes(4, "big")
            self.pieces = list(_pieces(text, (pages, allocated, freed)))

    @property
    def size(self) -> int:
        """Bytes of all that is to be kept."""
        return _HEAD.size + len(self._tail) + sum(map(len, self.pieces))

    def at(self, time_us: int) -> bytes:
        """What to keep under the log key."""
        return _HEAD.pack(self._flags, time_us, self._token) + self._tail


def _pieces(text: bytes, lists: Sequence[Sequence[int]]) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    counts = _RUN_COUNTS.pack(*(sum(1 for _ in runs_in(numbers)) for numbers in lists))
    flat = chain.from_iterable(run for numbers in lists for run in runs_in(numbers))
    packed = (_packed(4, some) for some in in_arrays(flat))
    ready = bytearray()
    for part in chain((_message(text) + counts,), packed, (None,)):
        ready += compressor.flush() if part is None else compressor.compress(part)
        least = 0 if part is None else MAX_RECORD - 1
        while len(ready) > least:
            yield bytes(ready[:MAX_RECORD])
            del ready[:MAX_RECORD]


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
        index_pages: tuple[PageNumber, ...] = ()
        end = len(record)
        if flags & _HAS_INDEX_PAGES:
            end = start + width * _counted_with_bits(width, end - start)
        pages = _numbers(width, record[start:end])
        if flags & _HAS_INDEX_PAGES:
            index_pages = _of_bits(pages, record[end:])
    except (ValueError, KeyError, struct.error) as exc:
        raise CorruptPageError(f"changelog record of {format_version(version)}: {exc}") from exc
    return Change(version, time_us, pages, token, message, allocated, freed, index_pages)


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

    def versions(self) -> Sequence[Version]:
        return self._versions

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


def _bits(pages: Sequence[int], wanted: Container[int]) -> bytes:
    """One for each page: whether it is wanted."""
    bits = bytearray((len(pages) + 7) >> 3)
    for at, number in enumerate(pages):
        if number in wanted:
            bits[at >> 3] |= 1 << (at & 7)
    return bytes(bits)


def _of_bits(pages: tuple[PageNumber, ...], packed: bytes) -> tuple[PageNumber, ...]:
    if len(pages) & 7 and packed[-1] >> (len(pages) & 7):
        raise ValueError("it has bits of pages that are not listed")
    return tuple(number for at, number in enumerate(pages) if packed[at >> 3] >> (at & 7) & 1)


def _counted_with_bits(width: int, size: int) -> int:
    """How many page numbers there are in so many bytes, of numbers and a bit for each."""
    count = 8 * size // (8 * width + 1)
    if count * width + ((count + 7) >> 3) != size:
        raise ValueError("it is cut short")
    return count


def _packed(width: int, numbers: Sequence[int]) -> bytes:
    packed = array(_WIDTHS[width], numbers)
    if _SWAP and width > 1:
        packed.byteswap()
    return packed.tobytes()


def _array(width: int, packed: bytes) -> array[int]:
    numbers = array(_WIDTHS[width], packed)
    if _SWAP and width > 1:
        numbers.byteswap()
    return numbers


def _numbers(width: int, packed: bytes) -> tuple[PageNumber, ...]:
    return cast(tuple[PageNumber, ...], tuple(packed if width == 1 else _array(width, packed)))
