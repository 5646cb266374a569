"""The file of a cache folder: pages of distant databases, kept for the next process.

Called by `near.cache` and by `mvctl cache`; calls APSW.

    CACHE_DIR/current-1            the name of the file in use
    CACHE_DIR/pages-XXXX.sqlite    an SQLite file in WAL mode, with -wal and -shm beside it

1. A database's row names a version of it; each of its pages here is the newest one at that version.  The two
   change in one transaction, so a process that is killed at any time leaves them so.
2. Rows carry a digest of all that they say.  One that does not fit is dropped, never served.
3. A file that SQLite finds damaged is given up for a new one, of another name: whoever still has it open goes
   on with what was one state, and never sees half of one file and half of another.
4. The file is never opened but by SQLite, and its connections never serve two threads at once.
5. What is kept is bounded: a range of pages goes, wherever it lies, before the limit is passed.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

import apsw

from mvvfs.errors import OptionError
from pagestore.api import NamespaceId, PageNumber, StoredPage, Version
from pagestore.embedded import locked_folder

_CURRENT = "current-1"
"""The number is the format's: another release may keep its own file beside this one."""
_PAGE_SIZE = 16384
_BUSY_MS = 2000
_LOG_LIMIT = 8 << 20
_FULL, _AFTER_EVICTION = 0.95, 0.85
_EVICTED_PAGES = 512
_ROW_BYTES = 64
SMALLEST = 1 << 20

_SCHEMA = """
    CREATE TABLE databases(
        id INTEGER PRIMARY KEY, store BLOB NOT NULL, namespace INTEGER NOT NULL, name TEXT NOT NULL,
        version BLOB NOT NULL, token BLOB NOT NULL, digest BLOB NOT NULL,
        UNIQUE(store, namespace)
    );
    CREATE TABLE pages(
        key INTEGER PRIMARY KEY, version BLOB NOT NULL, digest BLOB NOT NULL, blobs BLOB NOT NULL
    );
"""

_PAGE = "CAST(version AS BLOB), CAST(digest AS BLOB), CAST(blobs AS BLOB)"
_POSITION = "CAST(version AS BLOB), CAST(token AS BLOB), CAST(digest AS BLOB)"
"""Damaged rows may hold anything."""

T = TypeVar("T")


class Position(NamedTuple):
    """A commit of a database: no two stores, nor two pasts of one store, have the same token."""

    version: Version
    token: bytes


class Origin(NamedTuple):
    """Where pages come from."""

    store: bytes
    namespace: NamespaceId
    name: str

    def digest(self, *parts: bytes) -> bytes:
        mac = blake2b(self.store, digest_size=16)
        mac.update(struct.pack(">Q", self.namespace))
        for part in parts:
            mac.update(struct.pack(">I", len(part)))
            mac.update(part)
        return mac.digest()

    def page_digest(self, number: int, version: bytes, blobs: bytes) -> bytes:
        return self.digest(b"page", number.to_bytes(4), version, blobs)


class Found(NamedTuple):
    """What the file has of the pages that were asked for."""

    position: Position | None
    """None: nothing is kept of the database."""
    pages: dict[int, StoredPage]
    damaged: list[int]


@dataclass(frozen=True, slots=True)
class KeptDatabase:
    """For people: what is kept of one database."""

    name: str
    namespace: int
    store: bytes
    version: Version
    pages: int
    bytes: int


def _pack(blobs: Sequence[bytes]) -> bytes:
    return b"".join([struct.pack(">B", len(blobs)), *(struct.pack(">I", len(b)) for b in blobs), *blobs])


def _unpack(packed: bytes) -> tuple[bytes, ...]:
    """Of what a digest has vouched for."""
    at = 1 + 4 * packed[0]
    blobs = []
    for (length,) in struct.iter_unpack(">I", packed[1:at]):
        blobs.append(packed[at : at + length])
        at += length
    return tuple(blobs)


class Plan(NamedTuple):
    """What `PageFile.update` shall do to a database."""

    position: Position
    changed: Mapping[int, Version] | None
    """Which pages changed on the way there, and the newest change of each; None: nothing of what is there is
    worth keeping."""
    pages: Sequence[StoredPage]
    """The newest ones at `position`."""


class DamagedFileError(Exception):
    """SQLite can't read the file; it has been given up, and the next attempt finds a new one."""


class _Slot:
    """A connection to the file in use, for one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.db: apsw.Connection | None = None
        self.path = ""

    def close(self) -> None:
        if self.db is not None:
            self.db.close(True)
            self.db = None


class PageFile:
    """The file in use of a cache folder, as one process sees it."""

    def __init__(self, folder: str, limit: int) -> None:
        """Raises OptionError where the folder can't be used."""
        self.folder = folder
        self.limit = limit
        """Bytes."""
        self._pid = os.getpid()
        self._reading, self._writing = _Slot(), _Slot()
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with self._writing.lock:
                self._connect(self._writing)
        except (OSError, apsw.Error) as exc:
            raise OptionError(f"cache_dir={folder!r} can't be used: {exc}") from exc

    # ---- the file ----

    def _connect(self, slot: _Slot) -> apsw.Connection:
        if slot.db is not None and os.path.exists(slot.path):
            return slot.db
        slot.close()  # given up by another process
        for last in (False, True):
            with locked_folder(self.folder):
                name = _read(os.path.join(self.folder, _CURRENT))
                slot.path = os.path.join(self.folder, name)
                if not name or not os.path.exists(slot.path):
                    slot.path = _make(self.folder)
            try:
                slot.db = _open(slot.path)
                break
            except (apsw.CorruptError, apsw.NotADBError):
                _give_up(slot.path)
                if last:
                    raise
        assert slot.db is not None
        return slot.db

    def _run(self, work: Callable[[apsw.Connection], T], *, write: bool = False) -> T:
        """One transaction.  Raises DamagedFileError, apsw.Error (busy, full, ...), OSError."""
        if self._pid != os.getpid():
            raise DamagedFileError("opened before fork()")
        slot = self._writing if write else self._reading
        with slot.lock:
            try:
                return _transaction(self._connect(slot), work, write)
            except (apsw.CorruptError, apsw.NotADBError) as exc:
                slot.close()
                _give_up(slot.path)
                raise DamagedFileError(str(exc)) from exc

    def close(self) -> None:
        """Only of a file that nobody else in this process uses."""
        for slot in (self._reading, self._writing):
            with slot.lock:
                slot.close()

    # ---- pages ----

    def find(self, origin: Origin, numbers: Sequence[int]) -> Found:
        """The pages of a database, and the version at which they are the newest."""

        def work(db: apsw.Connection) -> Found:
            id_, position = _database(db, origin)
            if position is None:
                return Found(None, {}, [])
            pages: dict[int, StoredPage] = {}
            damaged = []
            for number in numbers:
                for version, digest, blobs in db.execute(
                    f"SELECT {_PAGE} FROM pages WHERE key = ?", (_key(id_, number),)
                ):
                    if digest == origin.page_digest(number, version, blobs):
                        pages[number] = StoredPage(PageNumber(number), Version(version), _unpack(blobs))
                    else:
                        damaged.append(number)
            return Found(position, pages, damaged)

        return self._run(work)

    def numbers(self, origin: Origin) -> set[int]:
        """Which pages of a database are kept."""

        def work(db: apsw.Connection) -> set[int]:
            id_, position = _database(db, origin)
            rows = db.execute("SELECT key FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
            return set() if position is None else {key & 0xFFFFFFFF for (key,) in rows}

        return self._run(work)

    def update(self, origin: Origin, plan: Callable[[Position | None], Plan]) -> bool:
        """Move a database to another version, without the pages that changed, and add some.

        `plan` is told where it stands (None: nothing is kept).  False: not all that was to be added fits."""

        def work(db: apsw.Connection) -> bool:
            id_, before = _database(db, origin)
            after, changed, pages = plan(before)
            if before is None or changed is None:
                id_ = _replace(db, origin, after)
            elif after != before:
                db.executemany(
                    "DELETE FROM pages WHERE key = ? AND version < ?",
                    ((_key(id_, n), v) for n, v in changed.items() if v > before.version),
                )
                _stand(db, id_, origin, after)
            fitting = self._make_room(db, pages)
            db.executemany("INSERT OR REPLACE INTO pages VALUES(?, ?, ?, ?)", _rows(id_, origin, fitting))
            return len(fitting) == len(pages)

        return self._run(work, write=True)

    def _make_room(self, db: apsw.Connection, pages: Sequence[StoredPage]) -> Sequence[StoredPage]:
        """Those of the pages that fit, now that others have gone, if need be."""
        limit = max(self.limit, SMALLEST)
        count = size = 0
        for page in pages:
            size += sum(map(len, page.blobs)) + _ROW_BYTES
            if size > limit // 4:
                break
            count += 1
        size += size // 4  # SQLite's pages are not quite full
        if pages and _used(db) + size > limit * _FULL:
            _evict(db, int(limit * _AFTER_EVICTION) - size)
        return pages[:count]

    def forget(self, origin: Origin) -> None:
        """Nothing that is kept of a database is worth keeping."""

        def work(db: apsw.Connection) -> None:
            for (id_,) in _select(
                db,
                "SELECT id FROM databases WHERE store = ? AND namespace = ?",
                origin.store,
                origin.namespace,
            ):
                _forget(db, id_)

        self._run(work, write=True)

    def drop(self, origin: Origin, numbers: Sequence[int]) -> None:
        def work(db: apsw.Connection) -> None:
            id_, _ = _database(db, origin)
            db.executemany("DELETE FROM pages WHERE key = ?", ((_key(id_, number),) for number in numbers))

        self._run(work, write=True)

    # ---- for people ----

    def databases(self) -> list[KeptDatabase]:
        def work(db: apsw.Connection) -> list[KeptDatabase]:
            return [
                KeptDatabase(
                    name.decode(errors="replace"), namespace, store, Version(version), *_extent(db, id_)
                )
                for id_, store, namespace, name, version in _select(
                    db,
                    "SELECT id, store, namespace, CAST(name AS BLOB), version FROM databases ORDER BY name",
                )
            ]

        return self._run(work)

    def is_full(self) -> bool:
        """Whether what is added would soon push out what is there."""
        return self.used() > max(self.limit, SMALLEST) * _AFTER_EVICTION

    def used(self) -> int:
        """Bytes, without the log."""
        return self._run(_used)

    def clear(self, name: str | None = None) -> int:
        """Forget everything, or what databases of that name have; how many pages that were."""

        def work(db: apsw.Connection) -> int:
            count = 0
            for (id_,) in _select(db, "SELECT id FROM databases WHERE ?1 IS NULL OR name = ?1", name):
                count += _extent(db, id_)[0]
                _forget(db, id_)
            return count

        count = self._run(work, write=True)
        with self._writing.lock:
            db = self._connect(self._writing)
            db.execute("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return count


def _make(folder: str) -> str:
    """A new, empty file; those before it go.  With the folder locked."""
    name = f"pages-{os.urandom(4).hex()}.sqlite"
    path = os.path.join(folder, name)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        db.execute(f"PRAGMA page_size = {_PAGE_SIZE}; PRAGMA auto_vacuum = incremental")
        db.pragma("journal_mode", "wal")
        db.execute(_SCHEMA)
    finally:
        db.close(True)
    pointer = os.path.join(folder, _CURRENT)
    with open(f"{pointer}.new", "w", encoding="ascii") as out:
        out.write(name)
    os.replace(f"{pointer}.new", pointer)
    for other in os.listdir(folder):
        if other.startswith("pages-") and not other.startswith(name):
            _unlink(os.path.join(folder, other))
    return path


def _open(path: str) -> apsw.Connection:
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(_BUSY_MS)
        # a power cut may take the last transactions, which leaves an older state, but never a torn one
        db.execute(f"PRAGMA synchronous = normal; PRAGMA journal_size_limit = {_LOG_LIMIT}")
        db.execute("SELECT (SELECT count(*) FROM databases), (SELECT min(key) FROM pages)").fetchall()
    except apsw.SQLError as exc:  # no such table: not one of ours
        db.close(True)
        raise apsw.NotADBError(str(exc)) from exc
    except apsw.Error:
        db.close(True)
        raise
    return db


def _give_up(path: str) -> None:
    folder = os.path.dirname(path)
    with locked_folder(folder):
        if _read(os.path.join(folder, _CURRENT)) == os.path.basename(path):
            _unlink(os.path.join(folder, _CURRENT))
        for end in ("", "-wal", "-shm"):
            _unlink(path + end)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _transaction(db: apsw.Connection, work: Callable[[apsw.Connection], T], write: bool) -> T:
    db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _select(db: apsw.Connection, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    return list(db.execute(sql, bindings))


def _key(id_: int, number: int) -> int:
    return id_ << 32 | number


def _range(id_: int) -> tuple[int, int]:
    return _key(id_, 0), _key(id_, 0xFFFFFFFF)


def _database(db: apsw.Connection, origin: Origin) -> tuple[int, Position | None]:
    for id_, version, token, digest in db.execute(
        f"SELECT id, {_POSITION} FROM databases WHERE store = ? AND namespace = ?",
        (origin.store, origin.namespace),
    ):
        fits = digest == origin.digest(b"position", version, token)
        return id_, Position(Version(version), token) if fits else None
    return 0, None


def _replace(db: apsw.Connection, origin: Origin, position: Position) -> int:
    """Begin anew; what an earlier database of that name left behind goes as well."""
    for (id_,) in _select(
        db,
        "SELECT id FROM databases WHERE store = ? AND (namespace = ? OR name = ?)",
        origin.store,
        origin.namespace,
        origin.name,
    ):
        _forget(db, id_)
    # a new number: no page that is there, of whomever, belongs to it
    id_ = random.SystemRandom().randrange(1, 1 << 30)
    db.execute("DELETE FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    db.execute(
        "INSERT INTO databases VALUES(?, ?, ?, ?, x'', x'', x'')",
        (id_, origin.store, origin.namespace, origin.name),
    )
    _stand(db, id_, origin, position)
    return id_


def _stand(db: apsw.Connection, id_: int, origin: Origin, position: Position) -> None:
    digest = origin.digest(b"position", position.version, position.token)
    db.execute(
        "UPDATE databases SET version = ?, token = ?, digest = ?, name = ? WHERE id = ?",
        (position.version, position.token, digest, origin.name, id_),
    )


def _rows(id_: int, origin: Origin, pages: Sequence[StoredPage]) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    for page in sorted(pages, key=lambda page: page.number):
        blobs = _pack(page.blobs)
        yield (
            _key(id_, page.number),
            page.version,
            origin.page_digest(page.number, page.version, blobs),
            blobs,
        )


def _forget(db: apsw.Connection, id_: int) -> None:
    db.execute("DELETE FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    db.execute("DELETE FROM databases WHERE id = ?", (id_,))


def _extent(db: apsw.Connection, id_: int) -> tuple[int, int]:
    ((pages, size),) = db.execute(
        "SELECT count(*), coalesce(sum(length(blobs)), 0) FROM pages WHERE key BETWEEN ? AND ?", _range(id_)
    )
    return pages, size


def _used(db: apsw.Connection) -> int:
    return int(db.pragma("page_count") - db.pragma("freelist_count")) * _PAGE_SIZE


def _evict(db: apsw.Connection, goal: int) -> None:
    """Remove ranges of pages, here and there, until no more than `goal` bytes are used.

    Neighbours go together, because only whole pages of the file become free."""
    while _used(db) > goal:
        ((low, high),) = db.execute("SELECT (SELECT min(key) FROM pages), (SELECT max(key) FROM pages)")
        if low is None:
            return
        ((start,),) = db.execute(
            "SELECT coalesce((SELECT key FROM pages WHERE key >= ? LIMIT 1), ?)",
            (_somewhere(db, low, high), low),
        )
        db.execute(
            "DELETE FROM pages WHERE key IN (SELECT key FROM pages WHERE key >= ? ORDER BY key LIMIT ?)",
            (start, _EVICTED_PAGES),
        )


def _somewhere(db: apsw.Connection, low: int, high: int) -> int:
    """In the range of one of the databases, whichever."""
    ids = [id_ for (id_,) in db.execute("SELECT id FROM databases")]
    id_ = random.choice(ids) if ids else low >> 32
    ((last,),) = db.execute("SELECT max(key) FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    return random.randint(low, high) if last is None else random.randint(_key(id_, 0), last)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as pointer:
            name = pointer.read(100)
    except FileNotFoundError:
        return ""
    return name if name.startswith("pages-") and name == os.path.basename(name) else ""


# ---- one for each folder ----

_files: dict[str, PageFile] = {}
_files_lock = threading.Lock()
_inherited: list[PageFile] = []
"""A parent's: never closed here, because that would be SQLite's work on files that the parent has open."""


def open_file(folder: str, limit: int) -> PageFile:
    """The page file of a folder, of which a process has one; the largest limit that anyone gave counts.

    Raises OptionError."""
    path = os.path.realpath(folder)
    with _files_lock:
        file = _files.get(path)
        if file is None:
            file = _files[path] = PageFile(path, limit)
        file.limit = max(limit, file.limit)
        return file


def _after_fork() -> None:
    global _files_lock
    _files_lock = threading.Lock()
    _inherited.extend(_files.values())
    _files.clear()


os.register_at_fork(after_in_child=_after_fork)
