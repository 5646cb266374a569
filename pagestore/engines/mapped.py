"""Files of an embedded store that all its processes map into their memory.

Called by `heads` and `recent`.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

from pagestore.engines.file_errors import file_error
from pagestore.native import ffi


class Mapped(NamedTuple):
    address: int
    keepalive: object
    """Hold on to this while `address` is in use."""


def mapped(path: str, offset: int, size: int, *, read_only: bool) -> Mapped | None:
    """`size` bytes of a file, which is made as long as that takes; None: a read-only opener found no such.

    `offset` and `size` are multiples of every page size.  Raises StoreFullError, StoreUnavailableError."""
    try:
        memory = _existing(path, offset, size) if read_only else _grown(path, offset, size)
    except OSError as exc:
        raise file_error(exc) from exc
    if memory is None:
        return None
    buffer = ffi.from_buffer(memory)
    return Mapped(int(ffi.cast("uintptr_t", buffer)), buffer)


def _grown(path: str, offset: int, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _grow(fd, offset + size)
        return mmap.mmap(fd, size, offset=offset)
    finally:
        os.close(fd)


def _existing(path: str, offset: int, size: int) -> mmap.mmap | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size < offset + size:
            return None
        return mmap.mmap(fd, size, offset=offset, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)


def _grow(fd: int, size: int) -> None:
    """Make the file at least so long, with room on the disk: a hole that can't be filled is a SIGBUS."""
    if os.fstat(fd).st_size >= size:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)  # leaves what another process wrote meanwhile
    else:
        os.ftruncate(fd, max(size, os.fstat(fd).st_size))
