"""What commits did: changelog records, what a watch tells, which pages are allocated.

Re-exported by `pagestore.wire`; calls `fields`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from typing import Literal

from pagestore.api import (
    Allocation,
    Change,
    Changes,
    ListedChanges,
    PackedChanges,
    PageNumber,
    PageRun,
    Watched,
)
from pagestore.native import lib
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.wire.fields import MAX_PAGE, WireError, listed_of, numbers_message, some_numbers, version_of

_VERSION, _HEAD = 12, 24
"""Bytes of packed changes: with the zeros behind it; up to the page numbers."""


def change_message(change: Change) -> pb.Change:
    return pb.Change(
        version=change.version,
        time_us=change.time_us,
        pages=numbers_message(change.pages),
        token=change.token,
        message=change.message,
        allocated=some_numbers(change.allocated),
        freed=some_numbers(change.freed),
        index_pages=some_numbers(change.index_pages),
    )


def change_of(message: pb.Change) -> Change:
    return Change(
        version=version_of(message.version),
        time_us=message.time_us,
        pages=listed_of(message.pages),
        token=message.token,
        message=message.message,
        allocated=listed_of(message.allocated),
        freed=listed_of(message.freed),
        index_pages=listed_of(message.index_pages),
    )


def packed_message(changes: Changes) -> bytes:
    """As `Others` of the protocol has them.  Raises CorruptPageError."""
    packed = changes.packed
    return packed if sys.byteorder == "little" else turned(packed, ">")


def packed_of(message: bytes) -> PackedChanges:
    packed = message if sys.byteorder == "little" else turned(message, "<")
    count = lib.mv_log_check(packed, len(packed))
    if count < 0:
        raise WireError("changes: they are not whole, or page numbers do not ascend")
    return PackedChanges(packed, count)


def turned(packed: bytes, order: Literal["<", ">"]) -> bytes:
    """Changes whose numbers are in this byte order, in the other one."""
    parts: list[bytes] = []
    at = 0
    while at + _HEAD <= len(packed):
        counts = struct.unpack_from(f"{order}III", packed, at + _VERSION)
        end = at + _HEAD + 4 * sum(counts)
        numbers = array("I", packed[at + _VERSION : end])
        numbers.byteswap()
        parts += (packed[at : at + _VERSION], numbers.tobytes())
        at = end
    return b"".join(parts) + packed[at:]


def change_messages(changes: Iterable[Change]) -> list[pb.Change]:
    return [change_message(change) for change in changes]


def changes_of(messages: Iterable[pb.Change]) -> Changes:
    return ListedChanges(map(change_of, messages))


def watched_message(watched: Watched) -> pb.WatchResponse:
    message = pb.WatchResponse(version=watched.version, clock_us=int(watched.clock * 1e6))
    if watched.changes is None:
        message.forget = True
    elif watched.changes:
        message.changes.extend(change_messages(watched.changes))
    return message


def watched_of(message: pb.WatchResponse) -> Watched:
    changes = None if message.forget else changes_of(message.changes)
    return Watched(version_of(message.version), changes, message.clock_us / 1e6)


def allocation_message(allocation: Allocation) -> pb.Allocation:
    flat: list[int] = []
    behind = 0
    for first, length in allocation.free:
        flat += (first - behind, length)
        behind = first + length
    return pb.Allocation(highest=allocation.highest, free=flat)


def allocation_of(message: pb.Allocation) -> Allocation:
    flat = message.free
    if len(flat) % 2 or (flat and (min(flat[1::2]) < 1 or flat[0] < 1)):
        raise WireError("free runs: two numbers each, their lengths at least 1")
    runs = []
    behind = 0
    for gap, length in zip(flat[::2], flat[1::2], strict=True):
        runs.append(PageRun(PageNumber(behind + gap), length))
        behind += gap + length
    if behind > MAX_PAGE + 1:
        raise WireError(f"page numbers are at most {MAX_PAGE}")
    return Allocation(PageNumber(message.highest), tuple(runs))
