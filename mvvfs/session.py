"""One connection's way to its database: begin, fetch and leases, in terms of the `Store` interface.

Called by `bridge` (which turns C structs into calls and exceptions into SQLite codes) and `joint` (what the
sessions of one connection do together); calls `pagestore.api.Store` and the page cache of the C shim.

1. The head word is read before the store is asked, so that a commit in between is noticed later.
2. The changelog is applied to the page cache before a snapshot that includes it is handed out.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from mvvfs import holding
from mvvfs._shim import ffi, lib
from mvvfs.errors import ForkError
from mvvfs.near import NearCache, open_file
from mvvfs.options import Options
from pagestore.api import (
    MAX_MESSAGE_BYTES,
    ZERO_VERSION,
    Allocation,
    Begin,
    Changes,
    CorruptPageError,
    Lease,
    LeaseWish,
    Namespace,
    PageNumber,
    PageSet,
    Store,
    StoredPage,
    Version,
    new_token,
)
from pagestore.encoding import advance, chain_of, decode

LEASE_SECONDS = 60.0
"""How long page numbers are ours; a transaction that takes longer renews them, a later one takes others."""

_READ_VERSIONS = 64
"""Begins of this process of which a database remembers the name."""

SMALLEST_LEASE, LARGEST_LEASE = 16, 1024
"""Page numbers, as in native/mainfile.h."""


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
        if start.read_version is not None:
            self._note_read_version(start.version, start.read_version)
        if durable:
            self.flush(start.version)
        if self.near is not None:
            self.near.begun(known, start.version, start.changes)
        self._set_page_size(start.page_size)
        if start.changes is None:
            allocation = start.allocation or self.store.allocation(self.id, start.version)
            alloc = c_alloc(allocation)
            lib.mv_db_reset(self.cache, start.version, word, alloc)
            lib.mv_alloc_release(alloc)
        else:
            advanced = self._advanced(known, start) if start.pages and known is not None else ()
            changes = c_changes(start.changes)
            if lib.mv_db_apply(self.cache, changes.array, len(start.changes), start.version, word):
                raise MemoryError("no memory for the changelog")
            for page, content in advanced:
                self.insert(page, content, start.version)
        return start.version

    def _advanced(self, known: Version, start: Begin) -> list[tuple[StoredPage, bytes]]:
        """The pages that a begin brought along, of those that are cached as of `known`."""
        found = []
        for page in start.pages:
            content = bytearray(start.page_size)
            into = ffi.from_buffer("uint8_t[]", content)
            if lib.mv_db_content(self.cache, page.number, known, into, start.page_size):
                found.append((page, advance(page, content)))
        return found

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


class Leases:
    """The page numbers of one connection.

    A lease from a distant store comes with the answer to a commit, before the shim asks for it: `wish` is
    what `wish_for_lease` (native/commit.c) is going to find.  Where the two differ, it takes one call."""

    def __init__(self, ahead: bool) -> None:
        self._ahead = ahead
        self.current: bytes | None = None
        """The lease that the shim takes numbers from."""
        self._left: set[int] = set()
        self._size = SMALLEST_LEASE
        self._spare: Lease | None = None
        self._spare_until = 0.0
        self._given_up: bytes | None = None
        """Behind the current one: ends with the next that is granted."""

    def wish(self, allocated: Sequence[int]) -> LeaseWish | None:
        if not self._ahead or not allocated:
            return None
        self._left.difference_update(allocated)
        while self._size < 4 * len(allocated) and self._size < LARGEST_LEASE:
            self._size *= 2
        if len(self._left) * 4 >= self._size or self._has_spare():
            return None
        return LeaseWish(self._size, LEASE_SECONDS, self._given_up)

    def granted(self, lease: Lease | None) -> None:
        """What a commit brought along."""
        if lease is not None:
            self._spare, self._spare_until = lease, time.monotonic() + lease.seconds
            self._given_up = None

    def _has_spare(self) -> bool:
        return self._spare is not None and self._spare_until - time.monotonic() > LEASE_SECONDS / 2

    def spare(self, want: int) -> Lease | None:
        """At most `want` numbers that are ours already."""
        lease = self._spare
        self._size = want  # the shim wants more while it takes them quickly
        if lease is None or not self._has_spare():
            return None
        self._spare, self._given_up = None, self.current
        usable = Lease(lease.id, lease.numbers[:want], self._spare_until - time.monotonic())
        self.use(usable)
        return usable

    def use(self, lease: Lease) -> None:
        self.current = lease.id
        self._left = set(lease.numbers)

    def held(self) -> Iterator[bytes]:
        spare = None if self._spare is None else self._spare.id
        return (lease for lease in (self.current, self._given_up, spare) if lease is not None)


class Session:
    """One open connection (strictly: one file of one), alive from xOpen to xClose."""

    def __init__(
        self, database: Database, options: Options, pinned: Version | None, file: Any = None
    ) -> None:
        self.database = database
        self.options = options
        self.pinned = pinned
        self.file = file
        """The shim's end of it."""
        self.read_only = False
        self.message = options.message
        self.last_error: str | None = None
        self.leases = Leases(database.store.distant and options.leases == "on")
        self.turn: Turn | None = None
        self.is_waiting = False
        """Whether the last look at the queue, from SQLite's lock, found that it is not our turn."""
        self.tries = 0
        """How often the last transaction that reached its commit had been tried in a row."""
        self._has_lost = False
        self.loss: Loss | None = None
        self.lost_reads = PageSet()
        """What the last refused transaction had read."""
        self.kept: object = None
        """What the shim still looks at after the last call."""

    @property
    def is_durable(self) -> bool:
        """Whether it may see only what no power cut can take."""
        return self.options.reads == "durable"

    def begin(self, since: Version | None, *, fresh: bool) -> Version:
        """`fresh`: the newest version there is; else one as old as the options allow will do."""
        within = 0.0 if fresh else self.options.within
        return self.database.begin(since, durable=self.is_durable, within=within)

    def fetch(self, version: Version, numbers: Sequence[PageNumber], page_size: int) -> bytes | None:
        """The content of the first page, or None where it does not exist; all go into the cache."""
        database = self.database
        if not database.is_watched:
            holding.watch(database)
        first, *more = database.read(version, numbers)
        database.keep(more, version, page_size)
        if first is None:
            return None
        content = decode(first, page_size)
        database.insert(first, content, version)
        return content

    def flush(self, version: Version) -> None:
        """A transaction that left all as it was at `version` is over."""
        if self.options.durability == "full":
            self.database.flush(version)

    def starts_commit(self) -> None:
        self.tries = self.tries + 1 if self._has_lost else 1
        self._has_lost = True  # until it goes through

    def committed(self) -> None:
        self._has_lost = False
        self.loss = None

    def leave_turn(self) -> None:
        if self.turn is not None:
            self.turn.end()

    def lease(self, want: int) -> Lease:
        """Page numbers for this connection alone; what is left of the last lease goes back."""
        database = self.database
        lease = self.leases.spare(want)
        if lease is None:
            lease = database.store.lease(database.id, want, LEASE_SECONDS, replaces=self.leases.current)
            self.leases.use(lease)
        return lease

    def renew_lease(self) -> float:
        """Of a transaction that takes long: seconds that its lease lasts from now.

        Raises LeaseEndedError, StoreError."""
        assert self.leases.current is not None
        asked = time.monotonic()
        self.database.store.renew_lease(self.database.id, self.leases.current, LEASE_SECONDS)
        return LEASE_SECONDS - (time.monotonic() - asked)

    def close(self) -> None:
        self.leave_turn()
        for lease in self.leases.held():
            self.database.store.release(self.database.id, lease)

    def peers(self, which: int) -> list[Session]:
        """This session and others of its connection: see mv_file_peers() in native/attached.c."""
        room = lib.mv_file_peers(self.file, ffi.NULL, 0, which)
        handles = ffi.new("void *[]", room)
        lib.mv_file_peers(self.file, handles, room, which)
        return [ffi.from_handle(handle) for handle in handles]

    def schema(self) -> str | None:
        """The name under which the connection has this database, if its SQLite tells."""
        name = lib.mv_file_schema(self.file)
        return None if name == ffi.NULL else ffi.string(name).decode()

    def reads(self) -> PageSet:
        """What the open transaction has read, and what SQLite's cache holds."""
        size = lib.mv_file_reads(self.file, ffi.NULL)
        packed = ffi.new("uint32_t[]", size)
        lib.mv_file_reads(self.file, packed)
        return PageSet(ffi.buffer(packed)[:])

    def set_message(self, message: str) -> None:
        """For the changelog, from the next commit on."""
        if len(message.encode()) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a changelog message holds at most {MAX_MESSAGE_BYTES} bytes")
        self.message = message


_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Loss:
    """A transaction that was refused, and with it these sessions."""

    sessions: tuple[Session, ...]
    number: int = field(default_factory=lambda: next(_numbers))


class Turn:
    """A transaction's places in the queues of its databases, under one ticket."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.ticket = new_token()
        self.sessions = sorted(sessions, key=lambda session: session.database.id)
        self._ours_until: dict[int, float] = {}
        for session in self.sessions:
            session.turn = self

    def start_over(self) -> None:
        """Ask in every queue again: the pages, or how long, may be others than before."""
        self._ours_until.clear()

    def has_come(self, seconds: float, *, everything: bool) -> bool:
        """Take, or keep, the places, as far as turns have come; whether all have."""
        for session in self.sessions:
            id_ = session.database.id
            if time.monotonic() < self._ours_until.get(id_, 0.0):
                continue
            pages = None if everything else session.lost_reads
            if not session.database.store.take_turn(id_, self.ticket, pages, seconds):
                return False
            self._ours_until[id_] = time.monotonic() + seconds / 2
        return True

    def end(self, given_up: Sequence[Session] = ()) -> None:
        """Leave the queues; in those of `given_up` the commit has done so."""
        for session in self.sessions:
            session.turn = None
        for session in self.sessions:
            if session not in given_up:
                session.database.store.leave_turn(session.database.id, self.ticket)


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
