"""Keeps what snapshots that last long still need: holds, taken and renewed by one thread.

Called by `database` and `session` (there may be snapshots from now on) and `bridge` (a connection to the past
opens); asks the shim's page cache which versions its connections stand at, and `pagestore.api.Store`.

1. A snapshot younger than the store's grace period (10 minutes) needs no hold.  The thread looks every
   `LOOK_SECONDS`, and takes a hold for each version that has been in use for `OLD_SECONDS`: well before that.
2. The thread exists only while there are snapshots, and for one look more: an idle process has none.  A
   database that it does not look at begins no snapshot without saying so (`mv_db_watch`, native/cache.h).
3. A connection to a version that retention might take at any moment is held before it is used.
4. What can't be held (a store that was opened read-only) is only as safe as the grace period makes it: a read
   that comes too late fails with BelowHorizonError and is never answered with something else.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any, Protocol

from mvvfs.shim import ffi, lib
from pagestore.api import (
    VERSION_SIZE,
    NamespaceId,
    Store,
    StoreError,
    StoreReadOnlyError,
    UnsupportedError,
    Version,
)

LOOK_SECONDS = 60.0
OLD_SECONDS = 240.0

HOLD_SECONDS = 600.0
"""For how long a hold is taken; it is renewed when half of that is over."""

_NEAR_SECONDS = 1200.0
"""A version this near to where retention begins is held as soon as a connection stands at it."""

_MOST_VERSIONS = 1024

_log = logging.getLogger("mvvfs")


class Database(Protocol):
    """`database.Database`, as far as it matters here."""

    store: Store
    id: NamespaceId
    name: str
    cache: Any
    is_watched: bool
    """Whether its snapshots are looked at; set here, and looked at by the shim before and after a begin."""


class _Watched:
    """One database, and the versions that its connections stand at."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.lock = threading.Lock()
        """Held by whoever looks, takes or lets go; never while waiting for `_lock`."""
        self.since: dict[Version, float] = {}
        """When each was first seen: `time.monotonic()`."""
        self.holds: dict[Version, tuple[bytes, float]] = {}
        """The hold, and when it was taken or renewed."""

    def look(self, now: float) -> bool:
        """Whether there is anything to look at again."""
        versions = _in_use(self.database)
        self.since = {version: self.since.get(version, now) for version in versions}
        for version in [held for held in self.holds if held not in versions]:
            self.let_go(version)
        for version, since in self.since.items():
            taken = self.holds.get(version)
            if now - since >= OLD_SECONDS and (taken is None or now - taken[1] >= HOLD_SECONDS / 2):
                self.take(version, now)
        return bool(versions)

    def take(self, version: Version, now: float) -> None:
        held, _ = self.holds.get(version, (None, 0.0))
        store, id_ = self.database.store, self.database.id
        try:
            self.holds[version] = store.hold(id_, version, HOLD_SECONDS, held), now
        except (StoreReadOnlyError, UnsupportedError):
            return
        except StoreError as exc:
            _log.warning("%s: a long transaction could not be held: %s", self.database.name, exc)

    def let_go(self, version: Version) -> None:
        held, _ = self.holds.pop(version)
        try:
            self.database.store.unhold(self.database.id, held)
        except StoreError as exc:  # it ends by itself
            _log.info("%s: %s", self.database.name, exc)


_lock = threading.Lock()
_watched: dict[int, _Watched] = {}
"""By the id of the `Database`; changed with `_lock` held."""
_thread: threading.Thread | None = None
_wake = threading.Event()
"""Look now."""


def _in_use(database: Database) -> set[Version]:
    found = ffi.new("uint8_t[]", VERSION_SIZE * _MOST_VERSIONS)
    count = lib.mv_db_snapshots(database.cache, found, _MOST_VERSIONS)
    packed = bytes(ffi.buffer(found, VERSION_SIZE * count))
    return {Version(packed[i : i + VERSION_SIZE]) for i in range(0, len(packed), VERSION_SIZE)}


def watch(database: Database) -> None:
    """From now on it may have snapshots."""
    global _thread
    with _lock:
        _watched.setdefault(id(database), _Watched(database))
        database.is_watched = True
        if _thread is None:
            _thread = threading.Thread(target=_run, name="mvvfs-hold", daemon=True)
            _thread.start()


def pin(database: Database, version: Version, time_us: int) -> None:
    """A connection is about to stand at a version of that time for as long as it likes."""
    watch(database)
    try:
        policy = database.store.retention(database.id)
    except UnsupportedError:
        return
    age = time.time() - time_us / 1e6
    if policy.max_bytes is None and (policy.seconds is None or age < policy.seconds - _NEAR_SECONDS):
        return
    with _lock:
        watched = _watched.setdefault(id(database), _Watched(database))
    with watched.lock:
        watched.since[version] = time.monotonic() - OLD_SECONDS
        if version not in watched.holds:
            watched.take(version, time.monotonic())


def forget(database: Database) -> None:
    """Its last connection closes."""
    with _lock:
        watched = _watched.pop(id(database), None)
        database.is_watched = False
        if not _watched:
            _wake.set()  # nothing is left to look at
    if watched is not None:
        with watched.lock:
            for version in list(watched.holds):
                watched.let_go(version)


def _run() -> None:
    global _thread
    pid = os.getpid()
    while True:
        _wake.wait(LOOK_SECONDS)
        _wake.clear()
        if os.getpid() != pid:
            return
        for key, watched in list(_watched.items()):
            watched.database.is_watched = False  # who begins from here on says so
            with watched.lock:
                is_used = watched.look(time.monotonic())
            with _lock:
                if is_used:
                    watched.database.is_watched = True
                elif not watched.database.is_watched:
                    _watched.pop(key, None)
        with _lock:
            if not _watched:
                _thread = None
                return


def held() -> int:
    """How many holds this process has."""
    with _lock:
        return sum(len(watched.holds) for watched in _watched.values())


def is_running() -> bool:
    return _thread is not None


def _after_fork() -> None:
    """In a child: holds and connections are the parent's."""
    global _lock, _thread, _wake
    _lock, _wake = threading.Lock(), threading.Event()
    _watched.clear()
    _thread = None


os.register_at_fork(after_in_child=_after_fork)
