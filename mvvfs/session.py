"""One connection's way to its database: begin, fetch and commit, in terms of the `Store` interface.

Called by `bridge` (which turns C structs into calls and exceptions into SQLite codes); calls
`pagestore.api.Store` and the page cache of the C shim.

1. The head word is read before the store is asked, so that a commit in between is noticed later.
2. The changelog is applied to the page cache before a snapshot that includes it is handed out.
3. A commit that was interrupted is settled by its token before anything is raised.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvvfs._shim import ffi, lib
from mvvfs.errors import ForkError
from mvvfs.options import Options
from pagestore.api import (
    HEADER,
    HEADER_SIZE,
    MAX_MESSAGE_BYTES,
    ZERO_VERSION,
    Change,
    Committed,
    CommitPart,
    CommitRequest,
    ConflictError,
    Namespace,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    StoredPage,
    StoreError,
    Version,
    new_token,
)
from pagestore.encoding import Base, chain_of, decode, encode


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
        lib.mv_db_set_page_size(self.cache, namespace.page_size)
        self._head = store.head_word(namespace.id)  # holds the mapping that C looks at
        if self._head is not None:
            lib.mv_db_set_word(self.cache, self._head.address)
        self._synced = ZERO_VERSION

    def applied(self) -> Version | None:
        """The version up to which the changelog has been applied to the cache."""
        version = ffi.new("uint8_t[10]")
        return Version(ffi.buffer(version)[:]) if lib.mv_db_applied(self.cache, version) else None

    def begin(self, since: Version | None = None, *, durable: bool = False) -> Version:
        """The newest version, with the changelog applied; reports changes after `since` to the shim."""
        word = lib.mv_db_load_word(self.cache)
        start = self.store.begin(self.id, since or self.applied())
        if durable and start.version > self._synced:
            self.store.sync()
            self._synced = start.version
        lib.mv_db_set_page_size(self.cache, start.page_size)
        if start.changes is None:
            self._forget(start.version)
        else:
            for change in start.changes:
                self.invalidate(change.version, change.pages)
        lib.mv_db_advance(self.cache, start.version, word)
        return start.version

    def invalidate(self, version: Version, pages: Sequence[PageNumber]) -> array[int]:
        numbers = array("I", pages)
        packed = ffi.from_buffer("uint32_t[]", numbers)
        lib.mv_db_invalidate(self.cache, version, packed, len(numbers))
        lib.mv_note_changed(packed, len(numbers))
        return numbers

    def _forget(self, version: Version) -> None:
        lib.mv_db_forget(self.cache, version)
        lib.mv_note_changed(ffi.new("uint32_t[1]", [lib.MV_EVERYTHING]), 1)

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a commit came to."""

    version: Version
    others: tuple[Change, ...]
    interrupted: BaseException | None = None
    """What arrived while it was on its way, to be raised now that the outcome is known."""


class Session:
    """One open connection (strictly: one file of one), alive from xOpen to xClose."""

    def __init__(self, database: Database, options: Options, pinned: Version | None) -> None:
        self.database = database
        self.options = options
        self.pinned = pinned
        self.message = options.message
        self.last_error: str | None = None
        self.last_version: Version | None = None

    def begin(self, since: Version | None) -> Version:
        return self.database.begin(since, durable=self.options.reads == "durable")

    def fetch(self, version: Version, numbers: Sequence[PageNumber], page_size: int) -> bytes | None:
        """The content of the first page, or None where it does not exist; all go into the cache."""
        database = self.database
        first, *more = database.store.read(database.id, version, numbers)
        database.keep(more, version, page_size)
        if first is not None:
            content = decode(first, page_size)
            database.insert(first, content, version)
            return content
        if numbers[0] != HEADER:
            return None
        content = bytes(HEADER_SIZE)  # an empty database
        lib.mv_db_insert(database.cache, HEADER, ZERO_VERSION, version, 0, content, HEADER_SIZE)
        return content

    def commit(
        self, base: Version, reads: PageSet, writes: Sequence[PageWrite], page_size: int
    ) -> Outcome:
        """Commit, apply what others did meanwhile, and say so; the page cache gets ours from C."""
        database = self.database
        request = CommitRequest(
            token=new_token(),
            base=base,
            parts=(CommitPart(database.id, reads, writes, page_size),),
            message=self.message,
            durability=self.options.durability,
        )
        interrupted: BaseException | None = None
        try:
            done = database.store.commit(request)
        except ConflictError as conflict:
            database.keep(conflict.fresh, conflict.version, page_size)
            raise
        except StoreError:
            raise
        except BaseException as interruption:  # noqa: BLE001 (settled, then raised by the bridge)
            done = self._settle(request, interruption)
            interrupted = interruption
        others = done.others[0] if done.others else ()
        for change in others:
            database.invalidate(change.version, change.pages)
        self.last_version = done.version
        return Outcome(done.version, others, interrupted)

    def _settle(self, request: CommitRequest, interruption: BaseException) -> Committed:
        """Whether an interrupted commit happened; raises the interruption if it never will."""
        database = self.database
        version = database.store.outcome(database.id, request.token)
        if version is None:
            raise interruption
        between = database.store.changelog(database.id, after=request.base, until=version)
        changes = tuple(between)
        return Committed(version, changes[-1].time_us, (changes[:-1],))

    def set_message(self, message: str) -> None:
        """For the changelog, from the next commit on."""
        if len(message.encode()) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a changelog message holds at most {MAX_MESSAGE_BYTES} bytes")
        self.message = message


class Databases:
    """The databases that are open in this process, each shared by its connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._open: dict[tuple[int, int], Database] = {}

    def acquire(self, store: Store, namespace: Namespace, cache_bytes: int) -> Database:
        """The database, opened if need be; its cache is as large as its greediest connection asks."""
        with self._lock:
            if self._pid != os.getpid():
                raise ForkError("databases opened before fork() can't be used after it")
            key = (id(store), namespace.id)
            database = self._open.get(key)
            if database is None:
                database = self._open[key] = Database(store, namespace, cache_bytes)
            elif cache_bytes > database.cache_bytes:
                database.cache_bytes = cache_bytes
                lib.mv_db_limit(database.cache, cache_bytes)
            database.connections += 1
            return database

    def release(self, database: Database) -> None:
        with self._lock:
            database.connections -= 1
            if database.connections == 0:
                self._open.pop((id(database.store), database.id), None)
        database.store.close()  # one reference: see pagestore.opener
