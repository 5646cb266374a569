"""A client that waits for the turns of others.

Called by `revert` and by `mvvfs.joint`; calls `Store.commit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pagestore.api import CommitRequest, Committed, Store, TurnTakenError


def commit_between_turns(
    store: Store, request: CommitRequest, patience: float, nap: Callable[[], float]
) -> Committed:
    """Commit as soon as nobody has a turn that this commit would spoil.

    `patience`: seconds to go on trying.  `nap`: the longest pause between two tries, in seconds, asked for
    anew each time.  Raises TurnTakenError after that, and what `Store.commit` raises."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return store.commit(request)
        except TurnTakenError as taken:
            if time.monotonic() > deadline:
                raise
            time.sleep(min(taken.seconds, nap()))
