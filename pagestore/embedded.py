"""An embedded store: a folder that holds the engine's SQLite file and what else it needs.

Called by `opener`, and by tools for backup and restore.  Calls the sqlite engine.

    store.sqlite        the engine's file; with -wal and -shm beside it, SQLite's own
    heads               head words, see `pagestore.engines.heads`
    recent              recent changes, see `pagestore.engines.recent`
    store.sqlite.*.new  being made; left over if its maker died, removed by the next one

1. A folder is a store if and only if it holds `store.sqlite`, which gets that name only once it is
   complete and flushed.  Whoever makes it holds a lock on the folder while it renames, so of two who
   create at once one does and both succeed.
2. Nothing is ever overwritten, and a folder that holds anything else is never made a store.
3. The engine's file is never opened here but by SQLite: see the flush rule.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pagestore import format, keys, verify
from pagestore.api import FormatError, NoSuchStoreError, StoreFullError
from pagestore.engines import sqlite_file
from pagestore.engines.file_errors import file_error
from pagestore.engines.sqlite import SqliteEngine
from pagestore.faults import fault
from pagestore.store import PageStore

ENGINE_FILE = "store.sqlite"
_SHARED = ("heads", "recent")
_UNFINISHED = ".new"

_LEFT_OVER_SECONDS = 3600

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


def is_store(path: str) -> bool:
    """Whether there is an embedded store.  Looks at names only."""
    return os.path.isfile(os.path.join(path, ENGINE_FILE))


def open_folder(path: str, *, create: bool, read_only: bool, timeout: float) -> PageStore:
    """Open the store in a folder.

    Raises NoSuchStoreError, FormatError, StoreReadOnlyError, StoreFullError, StoreUnavailableError."""
    if not is_store(path):
        _refuse_other_things(path)
        if not create or read_only:
            raise NoSuchStoreError(f"there is no store at {path}")
        _create(path)
    try:
        store = PageStore(_engine(path, read_only=read_only), path, timeout)
        try:
            store.engine.read(format.check, timeout=timeout)
            if not read_only:
                store.finish_drops()
        except BaseException:
            store.close()
            raise
    except FormatError as exc:
        raise FormatError(f"{path} is not a store that this release can read: {exc}") from exc
    return store


def _engine(path: str, *, read_only: bool) -> SqliteEngine:
    return SqliteEngine(os.path.join(path, ENGINE_FILE), read_only=read_only)


def backup(folder: str, file: str, progress: Progress | None = None) -> None:
    """Copy a store with all its history to a new file, while others write, and verify the copy.

    The copy is what was committed when it began.  Raises FileExistsError (nothing is overwritten),
    NoSuchStoreError, FormatError, CorruptPageError, StoreFullError, StoreUnavailableError, OSError."""
    if not is_store(folder):
        raise NoSuchStoreError(f"there is no store at {folder}")
    if os.path.lexists(file):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file)
    unfinished = f"{file}.{os.urandom(4).hex()}{_UNFINISHED}"
    meter = _Meter(progress)
    try:
        _make_empty(unfinished, file)
        engine = _engine(folder, read_only=not os.access(os.path.join(folder, ENGINE_FILE), os.W_OK))
        try:
            with engine.standing_still() as db:
                sqlite_file.copy(db, unfinished, meter.copied)
        finally:
            engine.close()
        fault("backup.copied")
        with sqlite_file.examined(unfinished) as (_, snapshot):
            verify.verify(snapshot, meter.verified)
        _flush_file(unfinished)
        fault("backup.verified")
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # nobody else's, then
        os.replace(unfinished, file)
        _flush_folder(os.path.dirname(os.path.abspath(file)))
    except StoreFullError as exc:
        raise StoreFullError(f"{file}: no space is left for it") from exc
    finally:
        for companion in ("", "-journal"):  # which SQLite leaves behind if there was no space to roll back
            with suppress(FileNotFoundError):
                os.unlink(unfinished + companion)


def _make_empty(path: str, named: str) -> None:
    """SQLite would only say that it was unable to open the file.  Raises OSError, about the file `named`."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, named) from None


def restore(file: str, folder: str, progress: Progress | None = None) -> None:
    """Make a new store of a backup, verified before it becomes one.

    Its versions are those of the backup; as it is another file, the first commit raises the epoch.  It has
    another incarnation, by which clients of a service notice.
    Raises FileExistsError if there is a store already, FormatError (the file is no backup, or the folder
    holds something else), CorruptPageError, StoreFullError, StoreReadOnlyError, StoreUnavailableError."""

    def build(unfinished: str) -> None:
        with sqlite_file.examined(file) as (db, snapshot):
            sqlite_file.copy(db, unfinished, meter.copied)
        fault("restore.copied")
        with sqlite_file.examined(unfinished) as (_, snapshot):
            verify.verify(snapshot, meter.verified)
        fault("restore.verified")
        sqlite_file.make_ready(unfinished, {keys.FORMAT: format.renewed})

    meter = _Meter(progress)
    _refuse_other_things(folder)
    if is_store(folder) or not _make(folder, build):
        raise FileExistsError(errno.EEXIST, "there is a store already", folder)


class _Meter:
    """One measure for the steps of a backup or restore: bytes, counted when copied and when verified."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._bytes = 0

    def copied(self, done: int, total: int) -> None:
        self._bytes = total
        if self._progress is not None:
            self._progress(done, 2 * total)

    def verified(self, done: int, total: int) -> None:
        if self._progress is not None and total:
            self._progress(self._bytes + self._bytes * done // total, 2 * self._bytes)


def _refuse_other_things(path: str) -> None:
    """Raises FormatError if something is there that can't become a store."""
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise FormatError(
            f"{path} is a file, not a store (which is a folder); "
            "to bring an SQLite database into a store, use mvctl import FILE NAME"
        )
    # A log left without its file is another thing: a new file of that name would take it for its own.
    unfinished = f"{ENGINE_FILE}."
    others = [name for name in os.listdir(path) if name not in _SHARED and not name.startswith(unfinished)]
    if others and not is_store(path):
        raise FormatError(f"{path} is not a store, and not empty (it holds {sorted(others)[0]!r})")


def _create(path: str) -> None:
    _make(path, lambda file: sqlite_file.create(file, dict([format.row()])))


def _make(path: str, build: Callable[[str], None]) -> bool:
    """Make a folder, if need be, and a store of it; False if it is one already."""
    made = False
    with _clear_errors():
        try:
            with suppress(FileExistsError):
                os.mkdir(path)
                made = True
                _flush_folder(os.path.dirname(os.path.abspath(path)))
            fault("create.folder_made")
            return _install(path, build)
        except BaseException:
            if made:
                with suppress(OSError):
                    os.rmdir(path)  # refused if others have begun to use it
            raise


def _install(path: str, build: Callable[[str], None]) -> bool:
    """Make a folder a store, of the engine file that `build` makes; False if it is one already."""
    unfinished = os.path.join(path, f"{ENGINE_FILE}.{os.urandom(4).hex()}{_UNFINISHED}")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # SQLite keeps the mode
        build(unfinished)
        _flush_file(unfinished)
        fault("create.engine_built")
        with locked_folder(path):
            _refuse_other_things(path)
            if is_store(path):
                return False
            os.rename(unfinished, os.path.join(path, ENGINE_FILE))
            fault("create.renamed")
            _flush_folder(path)
            _remove_leftovers(path)
            return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)


def _remove_leftovers(path: str) -> None:
    """Files that a creator who died left unfinished; those of one who is at it are young."""
    for entry in os.scandir(path):
        if not entry.name.startswith(ENGINE_FILE) or _UNFINISHED not in entry.name:
            continue
        with suppress(FileNotFoundError):  # its creator, or another opener, has just removed it
            if entry.stat().st_mtime < time.time() - _LEFT_OVER_SECONDS:
                os.unlink(entry.path)


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Among all processes, one at a time; whoever dies lets go of it.  Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _flush_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _flush_file(path: str) -> None:
    """Of a file that no SQLite of this process has open."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what the file system says into the store's errors."""
    try:
        yield
    except OSError as exc:
        raise file_error(exc) from exc
