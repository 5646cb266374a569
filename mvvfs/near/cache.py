"""Which pages that are kept on disk may be served: one distant database, as this process follows it.

Called by `mvvfs.database`; calls `near.file` and the `Store` interface.  `known` is the newest version that
this process has heard of, `since` the one from which on it knows every change.

1. A page on disk is served at a snapshot only if it is known not to have changed between its own version and
   the snapshot: by the position of the file (see `near.file`), and beyond that by what was heard since.
2. The position becomes, and pages are added of, versions that were flushed only: those that a begin told, or
   whose commit was.
3. What was kept by an earlier process counts only if the store still has the commit at its position, with its
   token: a store that was put back, or another one at the same place, has not.
4. Nothing waits for the disk but look-ups: what is added is written by a thread that exists while there is
   something to write.  A cache that fails is a slower one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apsw

from mvvfs.near.file import DamagedFileError, PageFile, Plan
from mvvfs.near.rows import Origin, Position
from pagestore.api import (
    VERSION_SIZE,
    Changes,
    NamespaceId,
    PageNumber,
    Store,
    StoredPage,
    StoreError,
    Version,
)

log = logging.getLogger("mvvfs.near")

_FAILURES = (apsw.Error, DamagedFileError, StoreError, OSError)
_WRITE_BYTES, _MOST_WAITING_BYTES = 1 << 20, 16 << 20
_WRITE_AFTER = 0.2
"""Seconds that pages wait for others to be written with."""
_MOST_CHANGED = 20_000
"""Changed pages that are remembered before the file moves on without new pages."""
_LEAST_CAUGHT_UP = 1000
_FILL_PAGES = 256


class NearCache:
    """Of one database in this process; safe to use from many threads."""

    def __init__(self, file: PageFile, store: Store, namespace: NamespaceId, name: str) -> None:
        self._file = file
        self._store = store
        self._origin = Origin(store.store_id() or store.url.encode(), namespace, name)
        self._lock = threading.Lock()
        self._attached = False
        self._failed = False
        self._since: Version | None = None
        self._known: Version | None = None
        self._changed: dict[int, Version] = {}
        """Pages that changed in (since, known], and when last."""
        self._told: Version | None = None
        """No power cut takes anything up to here."""
        self._flushed: Position | None = None
        """The newest change up to there, once it is known."""
        self._waiting: dict[int, tuple[Version, StoredPage]] = {}
        """Pages to be written, and the snapshot at which each was read."""
        self._waiting_bytes = 0
        self._damaged: set[int] = set()
        self._writer: threading.Thread | None = None
        self._work = threading.Condition(self._lock)
        self._writing = threading.Lock()
        self._closing = False
        _open_caches.add(self)

    # ---- following the database ----

    def begun(self, since: Version | None, version: Version, changes: Changes | None) -> None:
        """A begin told what was committed in (since, version]; None: too much."""
        with self._lock:
            if changes is None or since is None or self._known is None or since > self._known:
                if self._known is not None and version <= self._known:
                    return
                self._start_over(version)
            else:
                self._heard(version, changes, flushed=True)
            self._told = version if self._told is None else max(version, self._told)

    def committed(
        self,
        base: Version,
        version: Version,
        token: bytes,
        others: Changes,
        own: Sequence[int],
        *,
        flushed: bool,
    ) -> None:
        """A commit of this process: based on `base`, it wrote `own`, and others came before it."""
        with self._lock:
            if self._known is None or base > self._known:
                return  # the next begin will not fit, either
            self._heard(version, others, flushed=flushed)
            if own:
                self._remember(version, own)
            if flushed and self._told is not None:
                self._told = max(version, self._told)
                if own:
                    self._flushed = Position(version, token)

    def nothing_until(self, version: Version) -> None:
        """Nobody has changed the database from the last begin up to `version`."""
        with self._lock:
            if self._known is not None and version > self._known:
                self._known = version

    def _start_over(self, version: Version) -> None:
        self._since = self._known = version
        self._changed.clear()
        self._flushed = None
        self._attached = False
        self._waiting.clear()
        self._waiting_bytes = 0

    def _heard(self, version: Version, changes: Changes, *, flushed: bool) -> None:
        for changed_at, pages in _pages_of(changes):
            self._remember(changed_at, pages)
        if self._known is None or version > self._known:
            self._known = version
        if flushed and len(changes):
            newest = changes[-1]
            if self._flushed is None or newest.version > self._flushed.version:
                self._flushed = Position(newest.version, newest.token)
        if len(self._changed) > _MOST_CHANGED:
            self._wake()

    # ---- the file and this process find each other ----

    def _attach(self) -> None:
        """Learn what changed since the position of the file, and whether that is this store's: rule 3."""
        assert self._known is not None
        assert self._told is not None
        here = self._file.find(self._origin, ()).position
        if here is not None and not self._catch_up(here):
            self._file.forget(self._origin)
            here = None
        if here is None:
            id_, until = self._origin.namespace, self._told
            newest = list(self._store.changelog(id_, until=until, newest_first=True, limit=1))
            self._flushed = Position(newest[0].version, newest[0].token) if newest else None
        self._attached = True

    def _catch_up(self, here: Position) -> bool:
        """Take in what was committed since `here`; False: it is of no use."""
        assert self._known is not None
        assert self._told is not None
        most = max(_LEAST_CAUGHT_UP, len(self._file.numbers(self._origin)))
        before = Version((int.from_bytes(here.version) - 1).to_bytes(VERSION_SIZE))
        until = max(self._known, here.version)
        found = self._store.changelog(self._origin.namespace, after=before, until=until, limit=most + 1)
        changes = list(found)
        if not changes or (changes[0].version, changes[0].token) != here:
            log.info("%s: what is kept is of another store, or another past", self._origin.name)
            return False
        if len(changes) > most:
            log.info("%s: what is kept is too old", self._origin.name)
            return False
        for change in changes:
            if change.version > here.version:
                self._remember(change.version, change.pages)
            if change.version <= max(self._told, here.version):
                self._flushed = Position(change.version, change.token)
        self._since = min(here.version, self._known)
        return True

    def _remember(self, version: Version, pages: Iterable[int]) -> None:
        for number in pages:
            if self._changed.get(number, b"") < version:
                self._changed[number] = version

    # ---- reading ----

    def read(self, version: Version, numbers: Sequence[PageNumber]) -> list[StoredPage | None]:
        """As `Store.read`; but what comes from the disk is all that comes, if the first page does."""
        found = self._find(version, numbers)
        if numbers[0] not in found:
            self._fetch(version, [number for number in numbers if number not in found], found)
        return [found.get(number) for number in numbers]

    def bring(self, version: Version, numbers: Sequence[PageNumber]) -> int:
        """Fetch those pages that are not here; how many that were."""
        found = self._find(version, numbers)
        missing = [number for number in numbers if number not in found]
        if missing:
            self._fetch(version, missing, found)
        return len(missing)

    def is_full(self) -> bool:
        try:
            return self._file.is_full()
        except _FAILURES as exc:
            self._failed_by(exc)
            return True

    def numbers_near(self, numbers: Iterable[PageNumber]) -> set[int]:
        """Those of the pages that are on the disk, of whichever version."""
        try:
            return self._file.numbers(self._origin).intersection(numbers)
        except _FAILURES as exc:
            self._failed_by(exc)
            return set()

    def _fetch(self, version: Version, numbers: Sequence[PageNumber], into: dict[int, StoredPage]) -> None:
        pages = self._store.read(self._origin.namespace, version, numbers)
        into.update((page.number, page) for page in pages if page is not None)
        with self._lock:
            if self._failed or self._waiting_bytes > _MOST_WAITING_BYTES:
                return
            for page in pages:
                if page is not None:
                    self._waiting[page.number] = version, page
                    self._waiting_bytes += sum(map(len, page.blobs))
            self._wake()

    def _find(self, version: Version, numbers: Sequence[PageNumber]) -> dict[int, StoredPage]:
        """What the disk has, as of a snapshot."""
        with self._lock:
            if self._failed or self._known is None or version > self._known:
                return {}
        try:
            with self._lock:
                if not self._attached:
                    self._attach()
            position, pages, damaged = self._file.find(self._origin, numbers)
        except _FAILURES as exc:
            self._failed_by(exc)
            return {}
        with self._lock:
            if damaged:
                log.warning("%s: %d damaged pages in the cache are dropped", self._origin.name, len(damaged))
                self._damaged.update(damaged)
                self._wake()
            if position is None or self._since is None or position.version < self._since:
                return {}
            return {n: page for n, page in pages.items() if self._is_valid(page, version, position.version)}

    def _is_valid(self, page: StoredPage, snapshot: Version, position: Version) -> bool:
        """Whether the page, the newest one at `position`, is what the snapshot holds: rule 1."""
        if page.version > snapshot:
            return False
        return snapshot <= position or self._changed.get(page.number, b"") <= max(position, page.version)

    # ---- writing ----

    def _wake(self) -> None:
        if self._writer is None and not self._closing:
            self._writer = threading.Thread(target=self._write, name="mvvfs-near", daemon=True)
            self._writer.start()
        elif self._waiting_bytes > _WRITE_BYTES:
            self._work.notify()

    def _write(self) -> None:
        """The thread: writes until there is nothing to write."""
        going_on = True
        while going_on:
            with self._lock:
                if self._waiting_bytes <= _WRITE_BYTES and not self._closing:
                    self._work.wait(_WRITE_AFTER)
                idle = not (self._waiting or self._damaged or len(self._changed) > _MOST_CHANGED)
                if idle or self._closing or self._failed:
                    break
            going_on = self.flush()
        with self._lock:
            self._writer = None

    def flush(self) -> bool:
        """Write what waits.  False: it could not be done, or some of it had no room."""
        with self._writing:
            try:
                with self._lock:
                    if self._failed or self._known is None:
                        return False
                    if not self._attached:
                        self._attach()
                    state = self._state()
                    damaged = sorted(self._damaged)
                if damaged:
                    self._file.drop(self._origin, damaged)
                had_room = state is None or self._file.update(self._origin, state.plan)
            except apsw.BusyError:
                return True  # another process is at it
            except _FAILURES as exc:
                self._failed_by(exc)
                return False
            with self._lock:
                self._damaged.difference_update(damaged)
                if state is not None:
                    self._written(state)
            return had_room and state is not None

    def _state(self) -> _State | None:
        if self._flushed is None or self._since is None or self._known is None:
            return None
        return _State(self._since, self._known, self._flushed, dict(self._changed), dict(self._waiting))

    def _written(self, state: _State) -> None:
        for number, waited in state.waiting.items():
            if self._waiting.get(number) is waited:
                del self._waiting[number]
        self._waiting_bytes = sum(len(blob) for _, page in self._waiting.values() for blob in page.blobs)
        here = state.stands_at
        known = self._known
        if (
            here is not None
            and known is not None
            and self._since == state.since
            and state.since < here <= known
        ):
            self._since = here  # what changed up to there, the file knows
            self._changed = {n: version for n, version in self._changed.items() if version > here}

    def _failed_by(self, exc: Exception) -> None:
        if isinstance(exc, StoreError):  # of the changelog: what is asked for next will tell
            log.info("%s: not looked up: %s", self._origin.name, exc)
        elif isinstance(exc, DamagedFileError):
            log.warning("%s: the cache is damaged, and begun anew: %s", self._origin.name, exc)
        elif not isinstance(exc, apsw.BusyError):
            with self._lock:
                self._failed = True
                self._waiting.clear()
            log.warning("%s: goes on without the cache: %s", self._origin.name, exc)

    def close(self) -> None:
        """Write what waits; the thread ends."""
        with self._lock:
            self._closing = True
            writer = self._writer
            self._work.notify()
        if writer is not None:
            writer.join()
        if self._waiting:
            self.flush()
        _open_caches.discard(self)


@dataclass
class _State:
    """What one write is made from."""

    since: Version
    known: Version
    flushed: Position
    changed: dict[int, Version]
    waiting: dict[int, tuple[Version, StoredPage]]
    stands_at: Version | None = None
    """Where the file stands after it."""

    def plan(self, here: Position | None) -> Plan:
        """Where the file may go, and with which of the pages that wait: rule 2."""
        there, changed = self.flushed, self.changed
        useless = here is None or here.version < self.since
        if here is not None and not useless and here.version >= there.version:
            there = here
        self.stands_at = there.version
        # further than what was heard: pages may have changed on the way
        pages = [] if there.version > self.known else list(self._pages_at(there.version))
        return Plan(there, None if useless else changed, pages)

    def _pages_at(self, version: Version) -> Iterator[StoredPage]:
        for snapshot, page in self.waiting.values():
            last = self.changed.get(page.number, b"")
            if page.version <= version and snapshot >= self.since and last <= min(snapshot, version):
                yield page


def _pages_of(changes: Changes) -> Iterator[tuple[Version, Sequence[int]]]:
    """Of each change its version and the pages that it wrote: see `Changes.packed`."""
    packed = changes.packed
    words = array("I", packed)
    at = 0
    while at < len(words):
        version = Version(packed[4 * at : 4 * at + VERSION_SIZE])
        pages, allocated, freed = words[at + 3 : at + 6]
        yield version, words[at + 6 : at + 6 + pages]
        at += 6 + pages + allocated + freed


# ---- the whole database ----


class Filled(NamedTuple):
    """Numbers of pages."""

    came: int
    """That were not there before."""
    near: int
    total: int


def fill(
    cache: NearCache, store: Store, namespace: NamespaceId, progress: Callable[[int, int], None] | None = None
) -> Filled:
    """Bring every page of a database near, as it is now; stop where the cache is full.

    Raises as `Store.read` does."""
    start = store.begin(namespace)
    if not store.distant:
        store.sync()  # what a distant store tells has been flushed
    cache.begun(None, start.version, None)
    allocation = start.allocation or store.allocation(namespace, start.version)
    numbers = allocation.pages(start.page_size)
    came = 0
    for done in range(0, len(numbers), _FILL_PAGES):
        came += cache.bring(start.version, numbers[done : done + _FILL_PAGES])
        if not cache.flush() or cache.is_full():
            break
        if progress is not None:
            progress(min(done + _FILL_PAGES, len(numbers)), len(numbers))
    return Filled(came, len(cache.numbers_near(numbers)), len(numbers))


# ---- forks and the end ----

_open_caches: weakref.WeakSet[NearCache] = weakref.WeakSet()


def _at_exit() -> None:
    for cache in list(_open_caches):
        cache.close()


def _after_fork() -> None:
    _open_caches.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
