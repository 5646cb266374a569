"""Where begins stood a moment ago, for the reads and commits of the same transactions.

Called by `store`, on engines that reach back (`Engine.reaches_back`), which are optimistic and distant.

1. A read at the version that a begin came to can stand at that begin's read version.  What the begin saw of
   the namespace holds there, and nothing can have been removed: only the pages are read.
2. A commit whose base was the newest version when its transaction began needs to look at nothing again: it
   runs as of that begin's read version, and the engine refuses it if anything that it depends on has
   changed since.
3. For a commit it has to be the transaction's own begin.  That one came before the commit's token was made,
   so a commit with this token that went through already, or its being given up (`Store.outcome`), came
   after it and is met.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from pagestore.api import NamespaceId, Version
from pagestore.snapshot import Standpoint

COMMIT_SECONDS = 0.1
"""How long ago the begin of a commit that looks at nothing else may be.  A turn that is given to others binds
those who begin after it, and those whose begin is older than this."""

READ_SECONDS = 3.0
"""The same for reads.  FoundationDB forgets after five seconds."""

MOST = 4096
"""Begins that are remembered."""

_Key = tuple[NamespaceId, Version]


class _Recent:
    """The last begins, by what they are asked for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[_Key, tuple[Standpoint, float]] = OrderedDict()

    def note(self, key: _Key, seen: Standpoint, asked: float) -> None:
        self._seen[key] = seen, asked
        self._seen.move_to_end(key)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)

    def get(self, key: _Key) -> Standpoint | None:
        seen, asked = self._seen.get(key, (None, 0.0))
        return seen if time.monotonic() - asked < self._seconds else None

    def clear(self) -> None:
        self._seen.clear()


class Standpoints:
    """Those of the last begins.  Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_read_version = _Recent(COMMIT_SECONDS)
        self._by_version = _Recent(READ_SECONDS)

    def note(self, id_: NamespaceId, seen: Standpoint, asked: float) -> None:
        """`asked`: when, by `time.monotonic()`, before it was."""
        with self._lock:
            self._by_read_version.note((id_, seen.read_version), seen, asked)
            if not seen.has_bulks:
                self._by_version.note((id_, seen.version), seen, asked)

    def of(self, id_: NamespaceId, read_version: Version) -> Standpoint | None:
        """For a commit: what the begin that is named so saw.  None: it was not made here, or not lately."""
        with self._lock:
            return self._by_read_version.get((id_, read_version))

    def at(self, id_: NamespaceId, version: Version) -> Standpoint | None:
        """For a read: what a begin that came to this version saw."""
        with self._lock:
            return self._by_version.get((id_, version))

    def look_again(self) -> None:
        """From now on, commits that have begun already look at the queue."""
        with self._lock:
            self._by_read_version.clear()
