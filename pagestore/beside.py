"""What a commit that is done does for others: now and then an allocation image, and a little of retention.

Called by `store`; calls `allocation` and `retention`.

1. Which commits do it, chance decides, by their tokens.
2. Nobody depends on it: what goes wrong here is logged, and left to another commit.
3. A process that has found nothing to let go of does not look again for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from pagestore import allocation, retention
from pagestore.api import (
    CommitPart,
    CommitRequest,
    LimitError,
    NamespaceId,
    NoSuchNamespaceError,
    StoreFullError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines.base import Engine
from pagestore.waits import apart

log = logging.getLogger("pagestore")

QUIET_SECONDS = 1.0
"""How long a process looks for nothing to let go of after it has found nothing."""

_MOST = 4096
"""Namespaces of which it is remembered that there was nothing."""

_PUT_OFF = (StoreUnavailableError, NoSuchNamespaceError, StoreFullError, LimitError)


class Beside:
    """See the head of this file.  Safe to use from many threads."""

    def __init__(self, engine: Engine, timeout: Callable[[], float]) -> None:
        """`timeout`: seconds that one step may wait for the engine, asked for each time."""
        self._engine = engine
        self._timeout = timeout
        self._quiet_until: dict[NamespaceId, float] = {}
        """By `time.monotonic()`."""

    def after(self, request: CommitRequest, version: Version) -> None:
        """The commit of this request has been made, as `version`."""
        token = request.token
        for part in request.parts:
            if allocation.image_is_due(token, len(part.allocated) + len(part.freed)):
                self._write_image(part.namespace, version)
        if retention.is_due(token):
            for part in request.parts:
                if time.monotonic() >= self._quiet_until.get(part.namespace, 0.0):
                    self._let_go(part)

    def _write_image(self, id_: NamespaceId, version: Version) -> None:
        try:
            apart(partial(allocation.write_image, self._engine, id_, version, self._timeout()))
        except _PUT_OFF as exc:
            log.info("no allocation image of namespace %d: %s", id_, exc)

    def _let_go(self, part: CommitPart) -> None:
        """A little of retention's work, in proportion to what this commit wrote."""
        id_, pages = part.namespace, len(part.writes) + len(part.staged)
        try:
            found = apart(partial(retention.beside_commit, self._engine, id_, pages, self._timeout()))
        except _PUT_OFF as exc:
            log.info("retention of namespace %d put off: %s", id_, exc)
            return
        if found:
            self._quiet_until.pop(id_, None)
            return
        if len(self._quiet_until) >= _MOST:
            self._quiet_until.clear()
        self._quiet_until[id_] = time.monotonic() + QUIET_SECONDS
