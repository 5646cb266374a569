"""A cache folder's pages of distant databases, kept for the next process: look-ups, additions, what goes.

Called by `near.cache` and by `mvctl cache`; calls `near.rows`, in transactions of connections that
`near.folder` made.

1. A database's row names a version of it; each of its pages here is the newest one at that version.  The two
   change in one transaction, so a process that is killed at any time leaves them so.
2. What is damaged is dropped, a row or the whole file, never served.
3. What is kept is bounded: a range of pages goes, wherever it lies, before the limit is passed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import apsw

from mvvfs.errors import OptionError
from mvvfs.near import rows
from mvvfs.near.folder import Slot
from mvvfs.near.rows import Origin, Position
from pagestore.api import StoredPage, Version

_FULL, _AFTER_EVICTION = 0.95, 0.85
SMALLEST = 1 << 20

T = TypeVar("T")


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


class PageFile:
    """The file in use of a cache folder, as one process sees it."""

    def __init__(self, folder: str, limit: int) -> None:
        """Raises OptionError where the folder can't be used."""
        self.folder = folder
        self.limit = limit
        """Bytes."""
        self._pid = os.getpid()
        self._reading, self._writing = Slot(folder), Slot(folder)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with self._writing.lock:
                self._writing.connect()
        except (FileExistsError, NotADirectoryError):
            raise OptionError(f"cache_dir={folder!r} can't be used: it is not a folder") from None
        except (OSError, apsw.Error) as exc:
            raise OptionError(f"cache_dir={folder!r} can't be used: {exc}") from exc

    def _run(self, work: Callable[[apsw.Connection], T], *, write: bool = False) -> T:
        """One transaction.  Raises DamagedFileError, apsw.Error (busy, full, ...), OSError."""
        if self._pid != os.getpid():
            raise DamagedFileError("opened before fork()")
        slot = self._writing if write else self._reading
        with slot.lock:
            try:
                return _transaction(slot.connect(), work, write)
            except (apsw.CorruptError, apsw.NotADBError, rows.DamagedRowError) as exc:
                slot.give_up()
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
            id_, position = rows.find(db, origin)
            if position is None:
                return Found(None, {}, [])
            return Found(position, *rows.pages_of(db, id_, origin, numbers))

        return self._run(work)

    def numbers(self, origin: Origin) -> set[int]:
        """Which pages of a database are kept."""

        def work(db: apsw.Connection) -> set[int]:
            id_, position = rows.find(db, origin)
            return set() if position is None else rows.page_numbers(db, id_)

        return self._run(work)

    def update(self, origin: Origin, plan: Callable[[Position | None], Plan]) -> bool:
        """Move a database to another version, without the pages that changed, and add some.

        `plan` is told where it stands (None: nothing is kept).  False: not all that was to be added fits."""

        def work(db: apsw.Connection) -> bool:
            id_, before = rows.find(db, origin)
            after, changed, pages = plan(before)
            if before is None or changed is None:
                id_ = rows.begin_anew(db, origin, after)
            elif after != before:
                rows.remove_older(db, id_, changed, before.version)
                rows.stand_at(db, id_, origin, after)
            fitting = self._make_room(db, pages)
            rows.put(db, id_, origin, fitting)
            return len(fitting) == len(pages)

        return self._run(work, write=True)

    def _make_room(self, db: apsw.Connection, pages: Sequence[StoredPage]) -> Sequence[StoredPage]:
        """Those of the pages that fit, now that others have gone, if need be."""
        limit = max(self.limit, SMALLEST)
        count = size = 0
        for page in pages:
            size += sum(map(len, page.blobs)) + rows.ROW_BYTES
            if size > limit // 4:
                break
            count += 1
        size += size // 4  # SQLite's pages are not quite full
        if pages and rows.used(db) + size > limit * _FULL:
            rows.evict(db, int(limit * _AFTER_EVICTION) - size)
        return pages[:count]

    def forget(self, origin: Origin) -> None:
        """Nothing that is kept of a database is worth keeping."""

        def work(db: apsw.Connection) -> None:
            for id_ in rows.numbers_of(db, origin):
                rows.forget(db, id_)

        self._run(work, write=True)

    def drop(self, origin: Origin, numbers: Sequence[int]) -> None:
        def work(db: apsw.Connection) -> None:
            id_, _ = rows.find(db, origin)
            rows.remove(db, id_, numbers)

        self._run(work, write=True)

    # ---- for people ----

    def databases(self) -> list[KeptDatabase]:
        def work(db: apsw.Connection) -> list[KeptDatabase]:
            return [
                KeptDatabase(name, namespace, store, version, *rows.extent(db, id_))
                for id_, store, namespace, name, version in rows.listed(db)
            ]

        return self._run(work)

    def is_full(self) -> bool:
        """Whether what is added would soon push out what is there."""
        return self.used() > max(self.limit, SMALLEST) * _AFTER_EVICTION

    def used(self) -> int:
        """Bytes, without the log."""
        return self._run(rows.used)

    def clear(self, name: str | None = None) -> int:
        """Forget everything, or what databases of that name have; how many pages that were."""

        def work(db: apsw.Connection) -> int:
            count = 0
            for id_ in rows.named(db, name):
                count += rows.extent(db, id_)[0]
                rows.forget(db, id_)
            return count

        count = self._run(work, write=True)
        with self._writing.lock:
            db = self._writing.connect()
            db.execute("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return count


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
