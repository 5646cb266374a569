"""Whether somebody is likely to be the only one who commits to a namespace just now.

Called by `store`.  A commit that is made on the condition that nobody else has committed since its begin
says, by going through, that there is nothing to tell of others, which is worth a read of the changelog.
Where it does not go through it is made again without the condition, which costs more than that read: so
after one that did not, none is made so for a while, and for longer each time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from pagestore.api import NamespaceId

_FIRST_REST, _LONGEST_REST = 0.25, 30.0
"""Seconds without a try after one that failed, and after many."""

_MOST = 4096
"""Namespaces of which it is remembered that others commit to them."""


class Solitude:
    """See the head of this file.  Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._others: OrderedDict[NamespaceId, tuple[float, float]] = OrderedDict()
        """When to try again, by `time.monotonic()`, and how long the rest until then is, in seconds."""

    def is_likely(self, namespace: NamespaceId) -> bool:
        with self._lock:
            again, _ = self._others.get(namespace, (0.0, 0.0))
        return time.monotonic() >= again

    def note(self, namespace: NamespaceId, *, alone: bool) -> None:
        """What came of a try."""
        with self._lock:
            _, rest = self._others.pop(namespace, (0.0, 0.0))
            if alone:
                return
            rest = min(max(2 * rest, _FIRST_REST), _LONGEST_REST)
            self._others[namespace] = time.monotonic() + rest, rest
            if len(self._others) > _MOST:
                self._others.popitem(last=False)
