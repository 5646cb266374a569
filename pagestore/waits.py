"""Who waits: the thread that asked, or somebody who has many calls under way in it.

Called by engines whose answers come by a callback from another thread (`Engine.waits_anywhere`), where they
would block, and by `store`, before work that is long.  Who calls a store from an event loop sets the keeper
of the loop's thread while one of its calls runs (`pagestore.service.strands`).

1. In a thread without a keeper nothing changes: who asked blocks.
2. With a keeper a wait is a point at which other calls of the same thread go on.  So nobody waits while
   holding a lock: another call of the thread that wants it would block the thread, and with it the one that
   holds it.  Nor does anybody count on what belongs to a thread being after a wait as it was before.
3. What computes for more than about a millisecond, sleeps, or blocks in any other way is done `apart`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Keeper(ABC):
    """Has calls wait in a thread, while others of the thread go on."""

    @abstractmethod
    def wait(self, ask: Callable[[int, int], int]) -> None:
        """Return once the answer is there.  `ask(inbox, id)` has to have it told: `id` is posted into the
        inbox (native/inbox.c), once; 0: there is no memory for that.  Raises MemoryError."""

    @abstractmethod
    def apart(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, in a thread without a keeper."""


class _Here(threading.local):
    keeper: Keeper | None = None
    """Of the call that runs in this thread."""


here = _Here()


def apart(work: Callable[[], T]) -> T:
    """Do something long: elsewhere, if other calls of this thread would have to wait for it."""
    keeper = here.keeper
    return work() if keeper is None else keeper.apart(work)
