"""What commits wrote, as a begin brings it along: `Begin.told`.

Packed by `recent_writes`, for a service; taken apart by native/told.c, for its clients.

Commit by commit, oldest first, numbers little-endian:

    0..9     version
    10, 11   zero
    12..15   how many pages it wrote, or freed
    16..19   bytes of what follows about them: of each

        0..3     page number
        4..7     bytes of its blob
        8..      the blob (`pagestore.encoding`)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pagestore.api import PageWrite, Version

_COMMIT = struct.Struct("<10sHII")
_WRITE = struct.Struct("<II")


def pack(version: Version, writes: Sequence[PageWrite]) -> bytes:
    """One commit."""
    parts = [b""]
    for number, blob in writes:
        parts += (_WRITE.pack(number, len(blob)), blob)
    size = sum(map(len, parts))
    parts[0] = _COMMIT.pack(version, 0, len(writes), size)
    return b"".join(parts)
