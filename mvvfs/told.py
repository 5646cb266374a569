"""The pages that a begin brings along, on their way into the page cache.

Called by `database`; calls the C shim (native/told.c) and `pagestore.encoding`.

1. Only pages that are cached as of the caller's version go forward; of the others nothing is known.
2. What comes of it is verified as what is read: by the checksum in the newest blob, which is that of the
   whole content.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from mvvfs.shim import ffi, lib
from pagestore.api import Begin, CorruptPageError, PageNumber, StoredPage, Version
from pagestore.encoding import corrupt, decode


class ToldPages:
    """Those of one begin, verified.  What is not kept is forgotten."""

    def __init__(self, cache: Any, begin: Begin, known: Version, changes: Any) -> None:
        """`changes`: those of the begin, `mv_change[]`, all of them after `known`.

        Raises CorruptPageError, MemoryError."""
        assert begin.changes is not None
        self._version = begin.version
        self._told = ffi.gc(ffi.new("mv_told *"), lib.mv_told_end)
        wrong = lib.mv_told_apply(
            self._told, cache, begin.told, len(begin.told), changes, len(begin.changes), known
        )
        if wrong == -1:
            raise MemoryError("no memory for pages that changed")
        if wrong:
            raise CorruptPageError("the pages that the store sent along are not whole")
        self.whole: list[tuple[StoredPage, bytes]] = []
        """Those that were written whole, decoded: for the caller to insert."""
        self._verify(begin)

    def _verify(self, begin: Begin) -> None:
        for page in ffi.unpack(self._told.pages, self._told.count):
            state = page.state
            if state == lib.MV_TOLD_FORWARD:
                if crc32(ffi.buffer(page.content, page.size), page.number) != page.check:
                    raise _corrupt(page, "its checksum is wrong")
            elif state == lib.MV_TOLD_WHOLE:
                blob = ffi.buffer(page.content, page.size)[:]
                stored = StoredPage(PageNumber(page.number), _version_of(page), (blob,))
                self.whole.append((stored, decode(stored, begin.page_size)))
            elif state == lib.MV_TOLD_DAMAGED:
                raise _corrupt(page, "what changed of it does not fit it")

    def keep(self) -> None:
        """The others into the cache, which has come to the begin's version."""
        lib.mv_told_keep(self._told, self._version)


def _version_of(page: Any) -> Version:
    return Version(ffi.buffer(page.version)[:])


def _corrupt(page: Any, why: str) -> CorruptPageError:
    return corrupt(PageNumber(page.number), _version_of(page), why)
