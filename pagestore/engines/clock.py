"""Versions and times of the sqlite engine: one small record, read and written under the write lock.

Called by `sqlite`; calls nothing.

1. A version is an epoch (4 bytes) and a counter (6 bytes), big-endian; each commit counts one up.
2. Commits are visible before they are flushed, so a power cut may take back versions that someone saw.
   The counter alone would then give a lost commit's number to other content.  So the first commit after
   a boot raises the epoch and starts counting anew.
3. The same holds for a copy of the file that goes its own way: a device and inode other than those of
   the commit before raise the epoch.
4. Recorded times never go back: a commit gets the clock's time or the last recorded one, the later.

Record: version (10 bytes), time in µs (8), boot id (16), device (8), inode (8), big-endian.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pagestore.api import ZERO_VERSION, FormatError, Version

_RECORD = struct.Struct(">10sQ16sQQ")
_VERSION = struct.Struct(">IHI")  # epoch, counter in two pieces
_MAX_EPOCH = 0xFFFFFFFF


class Place(NamedTuple):
    """Where commits are being made: if this changes, so does the epoch."""

    boot: bytes
    device: int
    inode: int


class Clock(NamedTuple):
    """The state after the newest commit."""

    version: Version
    time_us: int
    place: Place


START = Clock(ZERO_VERSION, 0, Place(bytes(16), 0, 0))


def unpack(record: bytes | None) -> Clock:
    if record is None:
        return START
    try:
        version, time_us, boot, device, inode = _RECORD.unpack(record)
    except struct.error as exc:
        raise FormatError("the engine's clock record is damaged") from exc
    return Clock(Version(version), time_us, Place(boot, device, inode))


def pack(clock: Clock) -> bytes:
    return _RECORD.pack(clock.version, clock.time_us, *clock.place)


def next_version(clock: Clock, here: Place) -> Version:
    """The version of the next commit, made at `here`."""
    epoch = int.from_bytes(clock.version[:4], "big")
    counter = int.from_bytes(clock.version[4:], "big")
    if clock.place == here:
        return Version(clock.version[:4] + (counter + 1).to_bytes(6, "big"))
    if epoch == _MAX_EPOCH:
        raise FormatError("the store has used up its epochs")
    return Version((epoch + 1).to_bytes(4, "big") + (1).to_bytes(6, "big"))


@cache
def boot_id() -> bytes:
    """16 bytes that change with every boot."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    else:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    return uuid.UUID(text.strip()).bytes


def place(path: str) -> Place:
    """Where commits to this file are made now.  Looks at the file without opening it."""
    found = os.stat(path)
    return Place(boot_id(), found.st_dev & 0xFFFFFFFFFFFFFFFF, found.st_ino & 0xFFFFFFFFFFFFFFFF)
