"""Where begins stood a moment ago, for the commits of the same transactions.

Called by `store`, on engines that reach back (`Engine.reaches_back`).

A commit whose base was the newest version when its transaction began needs to look at nothing again: it runs
as of that begin's read version, and the engine refuses it if anything that it depends on has changed since.
That saves an optimistic, distant engine a question and an answer.

It has to be the transaction's own begin.  That one came before the commit's token was made, so a commit with
this token that went through before, or its being given up (`Store.outcome`), came after it and is met.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from pagestore.api import NamespaceId, Version
from pagestore.snapshot import Standpoint

SECONDS = 0.1
"""How long a begin is recent.  A turn that is given to others binds those who begin after it, and those whose
begin is older than this; and FoundationDB forgets after five seconds."""

MOST = 4096
"""Begins that are remembered."""


class Standpoints:
    """Those of the last begins.  Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[NamespaceId, Version], tuple[Standpoint, float]] = OrderedDict()

    def note(self, id_: NamespaceId, seen: Standpoint, asked: float) -> None:
        """`asked`: when, by `time.monotonic()`, before it was."""
        with self._lock:
            self._seen[id_, seen.read_version] = seen, asked
            if len(self._seen) > MOST:
                self._seen.popitem(last=False)

    def of(self, id_: NamespaceId, read_version: Version) -> Standpoint | None:
        """None: it was not one of this store object's, or not lately."""
        with self._lock:
            seen, asked = self._seen.get((id_, read_version), (None, 0.0))
        return seen if time.monotonic() - asked < SECONDS else None

    def forget(self) -> None:
        with self._lock:
            self._seen.clear()
