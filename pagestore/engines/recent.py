"""Recent changes of an embedded store: in the file `recent`, committers tell the others what they changed.

Called by `sqlite` around each commit.  Rules and layout stand in native/recent.h.  The page cache reads it
(native/cache.c), at the address that comes with a head word.
"""

from __future__ import annotations

from pagestore.api import NamespaceId, Version
from pagestore.engines.mapped import mapped
from pagestore.native import lib

_UNIT = 65536  # a multiple of every page size
_SIZE = (lib.mv_recent_size() + _UNIT - 1) // _UNIT * _UNIT


class Recent:
    """The ring, mapped."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        """Raises StoreFullError, StoreUnavailableError."""
        memory = mapped(path, 0, _SIZE, read_only=read_only)
        self.keepalive = memory and memory.keepalive
        self.address = memory.address if memory else 0
        """0: a read-only opener found none."""

    def begin(self) -> int:
        """Under the write lock, before the commit.  What to `end` with once it is visible, and only then."""
        return lib.mv_recent_begin(self.address)

    def add(
        self, namespace: NamespaceId, word: int, version: Version, before: Version, numbers: bytes
    ) -> None:
        """What the commit changes in a namespace: see `Transaction.announce`.  `word`: its head word, odd."""
        lib.mv_recent_add(self.address, namespace, word, version, before, numbers, len(numbers))

    def end(self, odd: int) -> None:
        lib.mv_recent_end(self.address, odd)
