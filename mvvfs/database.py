"""A namespace as this process sees it, for all of its connections: the page cache, and where that stands.

Used by `session`, `bridge` and `pragmas`; calls `pagestore.api.Store` and the page cache of the C shim.

1. The head word is read before the store is asked, so that a commit in between is noticed later.
2. The changelog is applied to the page cache before a snapshot that includes it is handed out.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mvvfs import holding
from mvvfs.errors import ForkError
from mvvfs.near import NearCache, open_file
from mvvfs.options import Options
from mvvfs.shim import ffi, lib
from mvvfs.told import ToldPages
from pagestore.api import (
    ZERO_VERSION,
    Allocation,
    Begin,
    Changes,
    CorruptPageError,
    Namespace,
    PageNumber,
    Store,
    StoredPage,
    Version,
)
from pagestore.encoding import chain_of, decode

AHEAD_SECONDS = 0.05
"""How long after a commit a transaction of the same process may start where that one left off: the older the
view, the more of it may have changed, and the less a begin matters."""

_READ_VERSIONS = 64
"""Begins of this process of which a database remembers the name."""


class _LastCommit:
    """Where the last commit of this process left off.  Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = ZERO_VERSION
        self._young_until = 0.0
        """By `time.monotonic()`."""
        self._since = ZERO_VERSION
        self._begin: Begin | None = None
        """What changed after `since`, if that came along and nobody has taken it in yet."""

    def note(self, base: Version, version: Version, begin: Begin | None) -> None:
        with self._lock:
            self._young_until = time.monotonic() + AHEAD_SECONDS
            if version > self._version:
                self._version, self._since, self._begin = version, base, begin

    def is_young(self) -> bool:
        return time.monotonic() < self._young_until

    def take(self) -> tuple[Version, Version, Begin | None] | None:
        """Its version; what came along with it, and since when that tells what changed.  None: it was too
        long ago."""
        if not self.is_young():
            return None
        with self._lock:
            begin, self._begin = self._begin, None
            return self._version, self._since, begin


class Database:
    """A namespace as this process sees it: the page cache that its connections share."""

    def __init__(self, store: Store, namespace: Namespace, cache_bytes: int) -> None:
        self.store = store
        self.id = namespace.id
        self.name = namespace.name
        self.cache_bytes = cache_bytes
        self.connections = 0
        self.cache = ffi.gc(lib.mv_db_new(cache_bytes), lib.mv_db_release)
        if self.cache == ffi.NULL:
            raise MemoryError("no memory for a page cache")
        self._set_page_size(namespace.page_size)
        self._head = store.head_word(namespace.id)  # holds the mapping that C looks at
        if self._head is not None:
            lib.mv_db_set_word(self.cache, self._head.address, self._head.followed)
            lib.mv_db_set_recent(self.cache, self._head.recent, namespace.id)
        self._synced = ZERO_VERSION
        self._read_versions: OrderedDict[Version, Version] = OrderedDict()
        """How the store names the last begins, by the versions that they came to."""
        self._noting = threading.Lock()
        self._last_commit = _LastCommit()
        self.is_watched = False
        self.near: NearCache | None = None
        """Where pages are kept on disk, if they are."""

    @property
    def is_watched(self) -> bool:
        """Whether `holding` looks at it.  While it does not, no snapshot begins without `begin`."""
        return bool(lib.mv_db_watched(self.cache))

    @is_watched.setter
    def is_watched(self, watched: bool) -> None:
        lib.mv_db_watch(self.cache, watched)

    def _set_page_size(self, size: int) -> None:
        if lib.mv_db_set_page_size(self.cache, size):
            raise CorruptPageError(f"the store says that {self.name!r} has pages of {size} bytes")

    def applied(self) -> Version | None:
        """The version up to which the changelog has been applied to the cache."""
        version = ffi.new("uint8_t[10]")
        return Version(ffi.buffer(version)[:]) if lib.mv_db_applied(self.cache, version) else None

    def word(self) -> int:
        """The head word; to be read before the store is asked for what it stands for."""
        return int(lib.mv_db_load_word(self.cache))

    def begin(self, since: Version | None = None, *, durable: bool = False, within: float = 0.0) -> Version:
        """The newest version, with the changelog applied; the shim sees what changed after `since`.

        `within`: one that was the newest at some time in the last so many seconds will do."""
        if not self.is_watched:
            holding.watch(self)
        word = self.word()
        known = since or self.applied()
        start = (self.store.recent(self.id, known, within) if within else None) or self.store.begin(
            self.id, known
        )
        if durable:
            self.flush(start.version)
        self._take_in(known, start, word)
        return start.version

    def _take_in(self, known: Version | None, start: Begin, word: int) -> None:
        """What changed since `known`; `word` was read before the store was asked (0: nobody knows)."""
        if start.read_version is not None:
            self._note_read_version(start.version, start.read_version)
        if self.near is not None:
            self.near.begun(known, start.version, start.changes)
        self._set_page_size(start.page_size)
        if start.changes is None:
            allocation = start.allocation or self.store.allocation(self.id, start.version)
            alloc = c_alloc(allocation)
            lib.mv_db_reset(self.cache, start.version, word, alloc)
            lib.mv_alloc_release(alloc)
        else:
            changes = c_changes(start.changes)
            along = None
            if start.told and known is not None:
                along = ToldPages(self.cache, start, known, changes.array)
            if lib.mv_db_apply(self.cache, changes.array, len(start.changes), start.version, word):
                raise MemoryError("no memory for the changelog")
            if along is not None:
                along.keep()
                for page, content in along.whole:
                    self.insert(page, content, start.version)

    def committed(self, base: Version, version: Version, begin: Begin | None) -> None:
        """A commit of this process, based on `base`; `begin` came along with its answer."""
        self._last_commit.note(base, version, begin)

    @property
    def has_just_committed(self) -> bool:
        """Whether a transaction of this process may begin where the last commit left off."""
        return self._last_commit.is_young()

    def begin_ahead(self) -> Version | None:
        """As `begin`, but what others have committed since the last commit of this process may be missing.

        None: that commit was too long ago, or to know more than it told takes a begin."""
        last = self._last_commit.take() if self.is_watched else None
        applied = self.applied()
        if last is None or applied is None:
            return None
        reached, since, start = last
        if start is None and applied < reached and self.store.reaches_commits:
            since, start = applied, self.store.begin(self.id, applied, reaching=reached)
        if start is not None and since <= applied:
            self._take_in(since, start, 0)
            applied = max(applied, start.version)
        return applied if applied >= reached else None

    def changes_since(self, version: Version) -> Changes | None:
        """What was committed after a version that this process has come to.  None: too much to list."""
        word = self.word()
        start = self.store.begin(self.id, version)
        self._take_in(version, start, word)
        return start.changes

    def _note_read_version(self, version: Version, read_version: Version) -> None:
        with self._noting:
            self._read_versions[version] = read_version
            self._read_versions.move_to_end(version)
            if len(self._read_versions) > _READ_VERSIONS:
                self._read_versions.popitem(last=False)

    def read_version_of(self, base: Version) -> Version | None:
        """For a commit: of a begin that came to its base (see `CommitRequest.read_version`)."""
        if not self._read_versions:  # the store names none
            return None
        with self._noting:
            return self._read_versions.get(base)

    def flush(self, version: Version) -> None:
        """Make what was seen at `version` durable.  Behind a service, and on a cluster, it is."""
        if not self.store.distant and version > self._synced:
            self.store.sync()
            self._synced = version

    def reach(self, version: Version, word: int) -> None:
        """Nothing happened to this database from the last `begin` up to `version`."""
        if lib.mv_db_apply(self.cache, ffi.NULL, 0, version, word):
            raise MemoryError("no memory for the changelog")
        if self.near is not None:
            self.near.nothing_until(version)

    def read(self, version: Version, numbers: Sequence[PageNumber]) -> list[StoredPage | None]:
        """The pages as stored; where there is a cache on disk, perhaps only the first of them."""
        if self.near is not None:
            return self.near.read(version, numbers)
        return self.store.read(self.id, version, numbers)

    def keep_near(self, folder: str, limit: int) -> None:
        """From now on, keep pages in a folder.  Raises OptionError, StoreError."""
        if self.near is None:
            self.near = NearCache(open_file(folder, limit), self.store, self.id, self.name)

    def keep(self, pages: Iterable[StoredPage | None], snapshot: Version, page_size: int) -> None:
        """Decode pages and put them into the cache, as read at `snapshot`."""
        for page in pages:
            if page is not None:
                self.insert(page, decode(page, page_size), snapshot)

    def insert(self, page: StoredPage, content: bytes, snapshot: Version) -> None:
        failed = lib.mv_db_insert(
            self.cache, page.number, page.version, snapshot, chain_of(page.blobs[0]), content, len(content)
        )
        if failed:
            raise MemoryError("no memory for a page")


class CChanges(NamedTuple):
    """Changelog records as C sees them."""

    array: Any
    keepalive: object


def c_changes(changes: Changes) -> CChanges:
    """`mv_change[]`; valid as long as the result is held on to."""
    packed = changes.packed
    words = ffi.from_buffer("uint32_t[]", packed)
    structs = ffi.new("mv_change[]", len(changes))
    if lib.mv_changes_list(words, len(words), structs, len(changes)) < len(changes):
        raise CorruptPageError("the changelog that the store sent is not whole")
    return CChanges(structs, words)


def c_alloc(allocation: Allocation) -> Any:
    """`mv_alloc *`, one reference."""
    flat = array("I", [number for run in allocation.free for number in run])
    runs = ffi.cast("mv_run *", ffi.from_buffer("uint32_t[]", flat)) if flat else ffi.NULL
    alloc = lib.mv_alloc_new(allocation.highest, runs, len(allocation.free))
    if alloc == ffi.NULL:
        raise MemoryError("no memory for the freelist")
    return alloc


class Databases:
    """The databases that are open in this process, each shared by its connections."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a connection while another opens
        self._pid = os.getpid()
        self._open: dict[tuple[int, int], Database] = {}

    def acquire(self, store: Store, namespace: Namespace, options: Options) -> Database:
        """The database, opened if need be; its cache is as large as its greediest connection asks."""
        cache_bytes = options.cache_bytes
        with self._lock:
            if self._pid != os.getpid():
                raise ForkError("databases opened before fork() can't be used after it")
            key = (id(store), namespace.id)
            database = self._open.get(key)
            if database is None:
                database = Database(store, namespace, cache_bytes)
            elif cache_bytes > database.cache_bytes:
                database.cache_bytes = cache_bytes
                lib.mv_db_limit(database.cache, cache_bytes)
            if options.cache_dir is not None and store.distant:
                database.keep_near(options.cache_dir, options.cache_dir_size)
            self._open[key] = database
            database.connections += 1
            return database

    def release(self, database: Database) -> None:
        with self._lock:
            database.connections -= 1
            is_last = database.connections == 0
            if is_last:
                self._open.pop((id(database.store), database.id), None)
        if is_last:
            holding.forget(database)
            if database.near is not None:
                database.near.close()
        database.store.close()  # one reference: see pagestore.opener
