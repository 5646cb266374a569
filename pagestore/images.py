"""Allocation images as they are stored: whole, or in pieces where they are long.

Called by `allocation`, which says when there is one, and by `branches`, `leftovers` and `verify`.  Calls the
engine's transactions.

1. An image of up to `RUNS` free runs is one value under its version's key.  Of a longer one that value is a
   head, and the runs are in pieces of `RUNS` under keys of their own: engines limit what one key takes.
2. What a piece holds depends on the version and its number alone, so it does not matter who wrote it, nor how
   often: two who write the same image do not disturb each other.
3. Pieces are written before their head, in as many transactions as it takes; without it nobody looks at them.
   The head is written only while the horizon has not passed its version: up to there no piece is removed
   (`leftovers`), so a head has all of its pieces.

Whole: highest allocated page (4 bytes), then the free runs below it, each first number and count (4 bytes
each), big-endian, all of it compressed.  Head of pieces: a byte 1, highest allocated page, number of runs
(4 bytes each).  (What is compressed begins with 28.)  Piece: runs likewise, compressed.

Worked example: pages 1-9 allocated but for 4 and 7, before compression:

    00000009  00000004 00000001  00000007 00000001

and the same if a piece held one run: under the version's key, and in each of two pieces before compression,

    01 00000009 00000002       00000004 00000001       00000007 00000001
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import zstandard

from pagestore import format, keys
from pagestore.api import (
    ZERO_VERSION,
    Allocation,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    PageRun,
    PageRuns,
    Version,
    format_version,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.faults import fault
from pagestore.namespaces import Record, rely_on

RUNS = 8192
"""Of a piece: 64 KiB before compression.  Never to be changed, see rule 2."""

_STEP = 16
"""Pieces that one engine transaction writes."""

_RUN = struct.Struct(">II")
_HEAD = struct.Struct(">BII")
_IN_PIECES = 1


def pack_runs(runs: Iterable[PageRun]) -> bytes:
    return b"".join(_RUN.pack(run.first, run.length) for run in runs)


def unpack_runs(packed: bytes) -> tuple[PageRun, ...]:
    return tuple(PageRun(PageNumber(first), count) for first, count in _RUN.iter_unpack(packed))


def _compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(plain)


def pack(allocation: Allocation) -> tuple[bytes, list[bytes]]:
    """What to keep under the version's key, and the pieces beside it."""
    free = allocation.free
    if len(free) <= RUNS:
        return _compressed(allocation.highest.to_bytes(4, "big") + pack_runs(free)), []
    head = _HEAD.pack(_IN_PIECES, allocation.highest, len(free))
    return head, [_compressed(pack_runs(free[at : at + RUNS])) for at in range(0, len(free), RUNS)]


# ---- reading ----


def newest(tx: Snapshot, id_: NamespaceId, version: Version) -> tuple[Version, Allocation]:
    """The newest image at or before `version`, and its version; of nothing, if there is none.

    Raises CorruptPageError."""
    for key, value in tx.scan(KeyRange(*keys.images(id_, version), 1, reverse=True)):
        return keys.version_of(key), _unpack(tx, id_, keys.version_of(key), value)
    return ZERO_VERSION, Allocation(PageNumber(0), ())


def verify(tx: Snapshot, id_: NamespaceId, version: Version) -> None:
    """Decode all images of versions up to this one.  Raises CorruptPageError."""
    for key, value in tx.scan(KeyRange(*keys.images(id_, version))):
        _unpack(tx, id_, keys.version_of(key), value)


def _unpack(tx: Snapshot, id_: NamespaceId, version: Version, value: bytes) -> Allocation:
    try:
        if value[:1] != bytes((_IN_PIECES,)):
            image = zstandard.ZstdDecompressor().decompress(value)
            return Allocation(PageNumber(int.from_bytes(image[:4], "big")), unpack_runs(image[4:]))
        _, highest, count = _HEAD.unpack(value)
        found = tx.scan(KeyRange(*keys.image_pieces(id_, version)))
        runs = unpack_runs(b"".join(zstandard.ZstdDecompressor().decompress(piece) for _, piece in found))
        PageRuns(runs)  # which are in order
    except (zstandard.ZstdError, struct.error, ValueError) as exc:
        raise CorruptPageError(
            f"the allocation image of {format_version(version)} is damaged: {exc}"
        ) from exc
    if len(runs) != count:
        shown = format_version(version)
        raise CorruptPageError(
            f"the allocation image of {shown} is damaged: it has {len(runs)} of {count} runs"
        )
    return Allocation(PageNumber(highest), runs)


# ---- writing ----


def write(
    engine: Engine,
    id_: NamespaceId,
    version: Version,
    allocation: Allocation,
    timeout: float,
    beside: Callable[[Transaction, Record], None],
) -> None:
    """Put an image under its version.  `beside` adds to the transaction that makes it one.

    Raises NoSuchNamespaceError."""
    value, pieces = pack(allocation)
    for first in range(0, len(pieces), _STEP):
        engine.transact(
            lambda tx, first=first: _write_pieces(tx, id_, version, first, pieces[first : first + _STEP]),  # type: ignore[misc]
            durability="normal",
            timeout=timeout,
        )
        fault("image.step")

    def work(tx: Transaction) -> None:
        record = rely_on(tx, id_)
        if pieces and version < record.horizon:
            return  # whoever moved the horizon saw to the images that are needed below it
        tx.set(keys.image(id_, version), value)
        beside(tx, record)

    engine.transact(work, durability="normal", timeout=timeout)


def _write_pieces(
    tx: Transaction, id_: NamespaceId, version: Version, first: int, pieces: Sequence[bytes]
) -> None:
    rely_on(tx, id_)
    format.require(tx, format.IMAGES)
    for n, piece in enumerate(pieces, start=first):
        tx.set(keys.image_piece(id_, version, n), piece)


def write_first(tx: Transaction, id_: NamespaceId, allocation: Allocation) -> None:
    """Put an image under the version of this transaction."""
    value, pieces = pack(allocation)
    tx.set_versioned_key(keys.image_prefix(id_), keys.VERSION_SUFFIX, value)
    if pieces:
        format.require(tx, format.IMAGES)
    for n, piece in enumerate(pieces):
        tx.set_versioned_key(keys.image_piece_prefix(id_), keys.image_piece_suffix(n), piece)
