"""How a page is stored: raw, compressed, or as a delta against its own previous version.

Called by clients (`encode` what they commit, `decode` what they fetched) and by the store, which only
looks at headers (`check`, `chain_of`, `is_freed`).  Calls zstd, and native/delta.c for
deltas.

1. The checksum is that of the decoded content, seeded with the page number: it covers the whole chain
   of deltas, and a page that was stored under another number fails it.
2. A delta's base is the version of the same page right before it.  So a page and all that it needs are
   neighbouring keys, and one reverse scan, stopped at the first whole blob, reads them.
3. A chain holds at most `MAX_CHAIN` deltas; the blob at its end is whole.
4. What can't be decoded and verified is an error; nothing is ever made up.

A blob is a header of seven bytes and a payload:

    byte 0    bits 0-6: codec, 0 raw, 1 zstd, 2 delta, 3 freed, 5 delta that moves bytes; 4 is reserved for a
              pointer to staged content; bit 7: the content begins as an index's page does
    byte 1    key id: 0, not encrypted
    byte 2    number of deltas from here down to the whole blob; 0 if this one is whole
    3..6      CRC-32 of the content, seeded with the page number, big-endian

A delta's payload lists the bytes that changed, or were moved, see native/delta.c.  Zstd frames carry no magic
number, size or checksum of their own.  Worked example: page 2 of 512 zero bytes, compressed, is

    01 00 00 924fc328  00004d00001000000100fb2ac002
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import zstandard

from pagestore.api import (
    CorruptPageError,
    InvalidRequestError,
    PageNumber,
    StoredPage,
    Version,
    format_version,
)
from pagestore.native import ffi, lib

_RAW, _ZSTD, _DELTA, _FREED = range(4)
_MOVING = 5
_DELTAS = (_DELTA, _MOVING)
_CODECS = (_RAW, _ZSTD, _FREED, *_DELTAS)
_INDEX = 0x80
_MOVING_FIRST = (bytes((_MOVING,)), bytes((_MOVING | _INDEX,)))
_HEAD = struct.Struct(">BBBI")
_PLAIN = 0  # the only key id
_INDEX_BEGINNINGS = (b"\x02", b"\x0a")  # https://www.sqlite.org/fileformat2.html#b_tree_pages

MAX_CHAIN = 17
"""Deltas below one whole blob: more take less room on disk and more time for an uncached read."""
MAX_PAGE = 0xFFFFFFFE
"""SQLite's limit: https://www.sqlite.org/limits.html#max_page_count"""
MIN_PAGE_SIZE, MAX_PAGE_SIZE = 512, 65536
MAX_BLOB_SIZE = _HEAD.size + MAX_PAGE_SIZE
_LEVEL = 1
_MANY = 64
"""Pages to compress at once that are worth starting threads for."""
_THREADS = min(4, os.cpu_count() or 1)

FREED = _HEAD.pack(_FREED, _PLAIN, 0, 0)
"""The blob of a page that the commit frees."""


Buffer: TypeAlias = Any
"""Bytes, or anything with the buffer protocol (cffi's buffers have it, of which mypy knows nothing)."""


class Base(NamedTuple):
    """The version of a page that a commit replaces."""

    content: bytes
    chain: int
    """`chain_of` its newest blob."""


class Encoded(NamedTuple):
    blob: bytes
    chain: int


def _longest_delta(page_size: int) -> int:
    """Three eighths of a page: a delta takes far less time to make than a whole page takes to compress, and
    up to this length hardly more room.  (A row of a quarter page, with what lies around it, must be one.)"""
    return 3 * page_size >> 3


class _Codecs(threading.local):
    """Compression contexts and a buffer for each thread: they are costly to make and not to be shared."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL,
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        self.compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self.compress = self.compressor.compress
        self.out = ffi.new("uint8_t[]", _longest_delta(MAX_PAGE_SIZE))
        self.moving = ffi.new("int *")
        self.decompress = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompress


_codecs = _Codecs()


def encode(number: PageNumber, content: Buffer, base: Base | None, *, moves: bool) -> Encoded:
    """The blob to commit for a page, and its chain depth.

    `base` is the version that this commit replaces, where the caller has it: None makes a whole blob; with
    one, `content` is bytes.  `moves`: the store takes deltas that move bytes (`Store.takes_moves`)."""
    return _as_delta(number, content, base, moves) or _as_whole(number, content, _codecs.compress(content))


def encode_many(pages: Sequence[tuple[PageNumber, Buffer, Base | None]], *, moves: bool) -> list[Encoded]:
    """`encode` for many pages; if there are really many, on several processors at once."""
    if len(pages) == 1:
        return [encode(*pages[0], moves=moves)]
    deltas = [_as_delta(*page, moves) for page in pages]
    whole = [content for (_, content, _), delta in zip(pages, deltas, strict=True) if delta is None]
    packed = iter(_compress_many(whole) if len(whole) >= _MANY else map(_codecs.compress, whole))
    return [
        delta or _as_whole(number, content, next(packed))
        for (number, content, _), delta in zip(pages, deltas, strict=True)
    ]


def _as_delta(number: PageNumber, content: Buffer, base: Base | None, moves: bool) -> Encoded | None:
    """None: a whole blob serves better."""
    if base is None or base.chain >= MAX_CHAIN or len(base.content) != len(content):
        return None
    size, codecs = len(content), _codecs
    out, moving = codecs.out, codecs.moving
    if moves:
        length = lib.mv_delta_make_shorter(base.content, content, size, out, _longest_delta(size), moving)
    else:
        length, moving[0] = lib.mv_delta_make(base.content, content, size, out, _longest_delta(size)), 0
    if length < 0:
        return None
    chain = base.chain + 1
    codec = (_MOVING if moving[0] else _DELTA) | _kind(content)
    check = zlib.crc32(content, number)
    return Encoded(_HEAD.pack(codec, _PLAIN, chain, check) + ffi.buffer(out, length)[:], chain)


def _as_whole(number: PageNumber, content: Buffer, packed: bytes) -> Encoded:
    size, check, kind = len(content), zlib.crc32(content, number), _kind(content)
    if len(packed) <= size - (size >> 3):  # less gain is not worth decompressing at every read
        return Encoded(_HEAD.pack(_ZSTD | kind, _PLAIN, 0, check) + packed, 0)
    return Encoded(_HEAD.pack(_RAW | kind, _PLAIN, 0, check) + content, 0)


def _kind(content: Buffer) -> int:
    return _INDEX if content[:1] in _INDEX_BEGINNINGS else 0


def _compress_many(contents: Sequence[Buffer]) -> Iterable[bytes]:
    """Compressed as one by one, by threads that zstd starts and ends for it."""
    if _THREADS < 2 or not hasattr(zstandard.ZstdCompressor, "multi_compress_to_buffer"):
        return map(_codecs.compress, contents)  # one processor; or zstandard's other backend, without threads
    done = _codecs.compressor.multi_compress_to_buffer(list(contents), threads=_THREADS)
    return (done[i].tobytes() for i in range(len(done)))


def decode(page: StoredPage, page_size: int) -> bytes:
    """The verified content of a page.  Raises CorruptPageError, which names page and version."""
    try:
        content = _restore(page.blobs, page_size)
    except (ValueError, struct.error, zstandard.ZstdError) as exc:
        raise corrupt(page.number, page.version, str(exc)) from exc
    if zlib.crc32(content, page.number) != _HEAD.unpack_from(page.blobs[0])[3]:
        raise corrupt(page.number, page.version, "its checksum is wrong")
    return content


def corrupt(number: PageNumber, version: Version, why: str) -> CorruptPageError:
    return CorruptPageError(f"page {number} of version {format_version(version)}: {why}")


def _restore(blobs: tuple[bytes, ...], size: int) -> bytes:
    """Undo the chain; ValueError or ZstdError where it is not what `encode` makes."""
    if not blobs:
        raise ValueError("nothing is stored")
    *deltas, whole = blobs
    content = _whole(whole, size)
    return _apply(bytearray(content), deltas) if deltas else content


def _apply(page: bytearray, deltas: Sequence[bytes]) -> bytes:
    """Newest first.  Raises ValueError."""
    for depth, blob in enumerate(reversed(deltas), start=1):
        codec, key_id, chain, _ = _HEAD.unpack_from(blob)
        if key_id != _PLAIN:
            raise _unknown_key(key_id)
        if codec & ~_INDEX not in _DELTAS or chain != depth:
            raise ValueError(f"codec {codec} at depth {chain}, where delta {depth} belongs")
    lengths = array("I", map(len, deltas)).tobytes()
    wrong = lib.mv_delta_apply_all(ffi.from_buffer(page), len(page), b"".join(deltas), lengths, len(deltas))
    if wrong:
        raise ValueError(f"delta {wrong} does not fit the page")
    return bytes(page)


def _whole(blob: bytes, size: int) -> bytes:
    codec, key_id, chain, _ = _HEAD.unpack_from(blob)
    if key_id != _PLAIN:
        raise _unknown_key(key_id)
    if chain != 0:
        raise ValueError(f"{chain} older version(s) of it are missing")
    payload = blob[_HEAD.size :]
    if codec & ~_INDEX == _ZSTD:
        content = _codecs.decompress(payload, max_output_size=size, allow_extra_data=False)
        if len(content) != size:
            raise ValueError(f"{len(content)} bytes instead of {size}")
        return content
    if codec & ~_INDEX != _RAW:
        raise ValueError(f"codec {codec}, where content belongs")
    if len(payload) != size:
        raise ValueError(f"{len(payload)} bytes instead of {size}")
    return payload


def _unknown_key(key_id: int) -> ValueError:
    return ValueError(f"it is encrypted with key {key_id}, and this release knows no keys")


def chain_of(blob: bytes) -> int:
    """How many deltas lead from this blob down to a whole one."""
    return blob[2]


def is_freed(blob: bytes) -> bool:
    return blob[0] == _FREED


def is_moving(blob: bytes) -> bool:
    """Whether it is a delta that moves bytes, which not every release reads (`format.MOVES`)."""
    return blob[:1] in _MOVING_FIRST


def is_index(blob: bytes) -> bool:
    """Whether the content begins as a page of an index does, or of a WITHOUT ROWID table, which is stored
    like one.  (A page that goes on somewhere else may begin so by chance, with numbers above 2**25 in it.)"""
    return blob[0] & _INDEX != 0


def check(number: PageNumber, blob: bytes, page_size: int) -> None:
    """Refuse a blob that can't be what `encode` makes for this page.  Raises InvalidRequestError.

    The content is not looked at: the checksum in the blob is the client's, verified by whoever reads."""
    if not _HEAD.size <= len(blob) <= _HEAD.size + page_size:
        raise InvalidRequestError(f"page {number}: a blob of {len(blob)} bytes for a page of {page_size}")
    codec, key_id, chain = blob[0] & ~_INDEX, blob[1], blob[2]
    if key_id != _PLAIN:
        raise InvalidRequestError(f"page {number}: key {key_id} is not known")
    if codec not in _CODECS or (codec in _DELTAS) != (chain > 0) or chain > MAX_CHAIN:
        raise InvalidRequestError(f"page {number}: no blob has codec {codec} at chain depth {chain}")
    if codec == _FREED and blob != FREED:
        raise InvalidRequestError(f"page {number}: can't be freed like this")
