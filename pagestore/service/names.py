"""Ids → names: scopes speak of names, calls of ids.

Called by `gate`.  Calls the store: `open` to look whether a name still means the same, `list` for an id
that was not opened here.

1. A name is believed for `BELIEVED_SECONDS`: a rename made by somebody else is noticed so late, one made
   through this worker at once.
2. An id that nobody has opened here costs a walk over all names, at most one a second for all callers.
   For a label only, as after a restart, one a minute, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NamedTuple

from pagestore.api import Namespace, NamespaceId, NoSuchNamespaceError, Store, StoreError

BELIEVED_SECONDS = 10.0
_WALK_SECONDS = 1.0
_LABEL_SECONDS = 60.0
_MAX_KNOWN = 100_000


log = logging.getLogger("pagestore.service")


class _Known(NamedTuple):
    name: str
    since: float


class Names:
    """What this worker knows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[NamespaceId, _Known] = {}
        self._walked = -_LABEL_SECONDS
        self._walking: asyncio.Task[None] | None = None

    def learn(self, namespace: Namespace) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[namespace.id] = _Known(namespace.name, time.monotonic())

    def forget(self, id_: NamespaceId) -> None:
        self._known.pop(id_, None)

    def label(self, id_: NamespaceId) -> str:
        """For logs and metrics: the name, if it is known."""
        known = self._known.get(id_)
        if known is None and self._walking is None and self._walked < time.monotonic() - _LABEL_SECONDS:
            self._walking = asyncio.create_task(self._learn_all())  # for the next time
        return f"#{id_}" if known is None else known.name

    async def name(self, id_: NamespaceId) -> str | None:
        """The name of a namespace; None: there is none of that id."""
        known = self._known.get(id_)
        if known is None:
            await self._walk()
            known = self._known.get(id_)
            return None if known is None else known.name
        if time.monotonic() - known.since > BELIEVED_SECONDS:
            return await asyncio.to_thread(self._look_again, id_, known.name)
        return known.name

    def _look_again(self, id_: NamespaceId, name: str) -> str | None:
        try:
            found = self._store.open(name)
        except NoSuchNamespaceError:
            found = None
        if found is not None and found.id == id_:
            self.learn(found)
            return name
        self.forget(id_)  # renamed or dropped
        found = next((one for one in self._store.list() if one.id == id_), None)
        if found is None:
            return None
        self.learn(found)
        return found.name

    async def _walk(self) -> None:
        """Learn all names, unless that was done a moment ago; those who come meanwhile wait for it."""
        if self._walking is None:
            if time.monotonic() - self._walked < _WALK_SECONDS:
                return
            self._walking = asyncio.create_task(self._learn_all())
        await asyncio.shield(self._walking)

    async def _learn_all(self) -> None:
        try:
            for namespace in await asyncio.to_thread(self._store.list):
                self.learn(namespace)
        except StoreError as exc:
            log.warning("names could not be listed: %s", exc)
        finally:
            self._walked = time.monotonic()
            self._walking = None
