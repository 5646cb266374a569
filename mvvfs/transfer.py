"""Between databases and ordinary SQLite files: import, export, checkout to a file; backup and restore.

Called by the command line and by programs.  Pages are copied by SQLite's own backup API
(https://www.sqlite.org/backup.html) between two connections, so that nothing here knows a page.

1. A source is never written to, and is read in one transaction.
2. What is written appears whole or not at all: a database in one commit, a file by renaming it.
3. Nothing is overwritten without `force`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress, count
from urllib.parse import quote

import apsw

from mvvfs import names, when
from mvvfs.connect import connect
from mvvfs.errors import Error, UnsupportedError
from mvvfs.names import Location
from mvvfs.options import from_keywords
from mvvfs.sink import Sink, open_sink
from mvvfs.stores import open_store
from pagestore import embedded
from pagestore.api import (
    CommitPart,
    CommitRequest,
    ConflictError,
    Namespace,
    NameTakenError,
    NoSuchVersionError,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    Store,
    StoreReadOnlyError,
    format_version,
    new_token,
    without,
)
from pagestore.encoding import encode
from pagestore.large import Pile, Replacement

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is (pages, or bytes for backup and restore)."""

_STEP_PAGES = 256
_COMPARED_AT_ONCE = 256
_READER_CACHE_BYTES = 16 << 20
_BUSY_MS = 5000
_HEADER_BYTES = 20

_MOST_FREE = 50
"""An export leaves at most one page in so many free."""

_READ_VERSION = 19  # of the header: 2 means write-ahead log; https://www.sqlite.org/fileformat2.html
_COMPANIONS = ("-journal", "-wal")


@dataclass(frozen=True, slots=True)
class Copied:
    """What a transfer came to."""

    location: Location
    """The database in the store."""
    moment: when.Moment | None
    """The commit that was made, or that was read; None: the database has no commit yet."""
    pages: int
    page_size: int
    """Bytes."""
    seconds: float

    @property
    def bytes(self) -> int:
        return self.pages * self.page_size


@contextlib.contextmanager
def opened(location: Location, *, create: bool = False) -> Iterator[Store]:
    """The store of a location, closed in the end; for reading only, where it can't be written to.

    Raises StoreError."""
    timeout = from_keywords({}).timeout
    refusal: StoreReadOnlyError | None = None
    try:
        store = open_store(location.store_url, create=create, timeout=timeout)
    except StoreReadOnlyError as exc:
        if create:
            raise
        refusal = exc
        store = open_store(location.store_url, create=False, read_only=True, timeout=timeout)
    try:
        yield store
    except StoreReadOnlyError as exc:
        raise refusal or exc from None
    finally:
        store.close()


# ---- from a file ----


def import_file(
    source: str,
    name: str,
    *,
    store: str | None = None,
    force: bool = False,
    message: str | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Copy the SQLite file `source` into the database `name`, which is created, in one commit.

    Any page size and journal mode; a WAL beside the file is read, too.  With `force` the name may exist, if
    it has the file's page size: its content is replaced by a new commit, of the pages that differ, and stays
    readable as history; what others commit meanwhile is a conflict.  `message` goes into the changelog; None:
    "import of FILE".  Takes little memory, whatever the size.  A failure leaves no database, and no store
    that was not there before.

    Raises FileNotFoundError, IsADirectoryError, apsw.NotADBError (no SQLite file), NameTakenError,
    UnsupportedError (page size of an existing one), and what the store raises (ConflictError: nothing was
    changed, it may be run again)."""
    location = names.resolve(name, store)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(_source(source))
        if origin.pragma("auto_vacuum"):
            origin = stack.enter_context(_source(stack.enter_context(_without_auto_vacuum(source))))
        page_size: int = origin.pragma("page_size")
        if os.path.realpath(source) == os.path.realpath(location.store_url):
            raise UnsupportedError(f"{name} is the file itself: give the database another name")
        if message is None:
            message = f"import of {os.path.basename(source)}"
        with _created(location, page_size, force) as target, opened(location) as target_store:
            version: str | None
            if _is_empty(target_store, target):
                pages, version = _fill(origin, target_store, target, page_size, message, progress)
            else:
                pages, version = _replace(origin, target_store, target, page_size, message, progress)
            target_store.settle()
    with opened(location) as opened_store:
        moment = moment_of(opened_store, location, version)
    return Copied(location, moment, pages, page_size, time.monotonic() - started)


@contextlib.contextmanager
def _without_auto_vacuum(path: str) -> Iterator[str]:
    """A temporary copy of an auto_vacuum file in the mode that an mv database has.

    VACUUM INTO keeps every rowid, also of tables without an INTEGER PRIMARY KEY."""
    with tempfile.TemporaryDirectory(prefix="mvvfs-import-") as folder:
        copy = os.path.join(folder, "copy.sqlite")
        connection = apsw.Connection(os.path.abspath(path), flags=_source_flags(path))
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.pragma("auto_vacuum", "NONE")
            connection.execute("VACUUM INTO ?", (copy,))
        finally:
            connection.close(force=True)
        yield copy


@contextlib.contextmanager
def _source(path: str) -> Iterator[apsw.Connection]:
    """A connection that reads an ordinary SQLite file in one transaction, and leaves it as it was."""
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder, not an SQLite file", path)
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, "may not be read", path)
    connection = apsw.Connection(os.path.abspath(path), flags=_source_flags(path))
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.ReadOnlyError as exc:
            raise UnsupportedError(
                f"{path} was left in the middle of a transaction, which has to be undone first: open it once "
                f"with SQLite (sqlite3 {path} .schema), which does that"
            ) from exc
        yield connection
    finally:
        connection.close(force=True)


def _source_flags(path: str) -> int:
    # Read-only, but for one case.  A file in WAL mode gets its -wal and -shm when it is first opened, and
    # only a connection that may write takes them away again (empty: the file itself stays as it was).
    alone = not any(os.path.exists(path + suffix) for suffix in _COMPANIONS)
    if alone and _header(path)[_READ_VERSION:] == b"\x02" and os.access(path, os.W_OK):
        return apsw.SQLITE_OPEN_READWRITE
    return apsw.SQLITE_OPEN_READONLY


def _header(path: str) -> bytes:
    # through SQLite: closing a descriptor of its own would drop the locks that this process holds
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    file = apsw.VFSFile("", os.path.abspath(path), flags)
    try:
        return file.xRead(_HEADER_BYTES, 0) if file.xFileSize() >= _HEADER_BYTES else b""
    finally:
        file.xClose()


@contextlib.contextmanager
def _created(location: Location, page_size: int, force: bool) -> Iterator[Namespace]:
    """The database to import into; if the block fails, what this has made is taken away again."""
    new_folder = names.is_folder(location.store_url) and not os.path.lexists(location.store_url)
    remove_folder = False
    try:
        with opened(location, create=True) as store:
            new = None
            try:
                namespace, new = _create_or_open(store, location.namespace, page_size, force)
                yield namespace
            except BaseException:
                if new and _is_empty(store, namespace):
                    store.drop(location.namespace, now=True)
                remove_folder = new_folder and not store.list()
                raise
    except BaseException:
        if remove_folder:
            shutil.rmtree(location.store_url)
        raise


def _create_or_open(store: Store, name: str, page_size: int, force: bool) -> tuple[Namespace, bool]:
    try:
        return store.create(name, page_size=page_size), True
    except NameTakenError:
        namespace = store.open(name)
        if not force and not _is_empty(store, namespace):
            raise
    if namespace.page_size not in (0, page_size):
        raise UnsupportedError(
            f"{name} has pages of {namespace.page_size} bytes and the file of {page_size}: "
            "drop it first, or import under another name"
        )
    return namespace, False


def _is_empty(store: Store, namespace: Namespace) -> bool:
    return next(store.changelog(namespace.id, limit=1), None) is None


def _replace(
    origin: apsw.Connection,
    store: Store,
    namespace: Namespace,
    page_size: int,
    message: str,
    progress: Progress | None,
) -> tuple[int, str]:
    """Over what there is: pages that differ are staged, if they are many, and seen from one commit on.

    The number of pages, and the version."""
    start = store.begin(namespace.id)
    token = new_token()
    new = Replacement(store, namespace.id, token, page_size, foreign=True)
    waiting: dict[PageNumber, bytes] = {}

    def compare() -> None:
        numbers = sorted(waiting)
        for number, now in zip(numbers, store.read(namespace.id, start.version, numbers), strict=True):
            new.become(number, waiting[number], now)
        waiting.clear()

    def take(number: int, content: bytes) -> None:
        if in_use[number]:
            waiting[PageNumber(number)] = content
            if len(waiting) == _COMPARED_AT_ONCE:
                compare()

    in_use = _pages_in_use(origin)
    if len(in_use) == 1:
        in_use.append(1)  # a database has its first page, also if the file has not
    sink = Sink(page_size, take)
    with open_sink(sink) as target:
        pages = _copy(origin, target, progress)
    take(1, _as_kept(sink.first))
    compare()
    before = start.allocation or store.allocation(namespace.id, start.version)
    here = PageRuns.ascending(compress(count(), in_use))
    for number in PageRuns(without(before.pages(page_size).runs(), here.runs())):
        new.free(number)
    done = store.commit(CommitRequest(token, start.version, (new.part(),), message))
    return pages, format_version(done.version)


def _fill(
    origin: apsw.Connection,
    store: Store,
    namespace: Namespace,
    page_size: int,
    message: str,
    progress: Progress | None,
) -> tuple[int, str | None]:
    """Into an empty database: pages are staged as they come, and become visible with one small commit.

    The version is None if there is nothing to commit."""
    in_use = _pages_in_use(origin)
    base = store.begin(namespace.id).version
    if len(in_use) == 1:
        return 0, None
    token = new_token()
    pile = Pile(store, namespace.id, token, stage=True)

    def take(number: int, content: bytes) -> None:
        if in_use[number]:
            pile.add(PageWrite(PageNumber(number), encode(PageNumber(number), content, None).blob))

    sink = Sink(page_size, take)
    with open_sink(sink) as target:
        pages = _copy(origin, target, progress)
    take(1, _as_kept(sink.first))
    pile.end()
    allocated = PageRuns.ascending(compress(count(), in_use))
    part = CommitPart(namespace.id, PageSet(), pile.writes, page_size, allocated, staged=pile.staged)
    try:
        done = store.commit(CommitRequest(token, base, (part,), message))
    except ConflictError as exc:
        raise NameTakenError(f"{namespace.name!r} was filled by somebody else meanwhile") from exc
    return pages, format_version(done.version)


def _pages_in_use(origin: apsw.Connection) -> bytearray:
    """1 at the number of each page that is part of a table or an index: the others are free."""
    in_use = bytearray(origin.pragma("page_count") + 1)
    for number, corrupted in origin.execute("SELECT pageno, pagetype = 'corrupted' FROM dbstat"):
        if corrupted or number >= len(in_use):
            raise apsw.CorruptError(f"page {number:,} is damaged, or missing (PRAGMA integrity_check)")
        in_use[number] = 1
    in_use[1:2] = in_use[1:2] and b"\1"  # also if there are no tables yet
    return in_use


def _as_kept(page_1: bytes) -> bytes:
    """Not in WAL mode, and without what `pagestore.api.PageNumber` says."""
    return page_1[:18] + b"\1\1" + page_1[20:24] + bytes(16) + page_1[40:92] + bytes(8) + page_1[100:]


def _copy(origin: apsw.Connection, target: apsw.Connection, progress: Progress | None) -> int:
    """Copy all pages; returns how many there are.  The last step commits."""
    with target.backup("main", origin, "main") as backup:
        while not backup.step(_STEP_PAGES):
            if progress is not None:
                progress(backup.page_count - backup.remaining, backup.page_count)
        pages: int = backup.page_count
    if progress is not None:
        progress(pages, pages)
    return pages


# ---- to a file ----


def export_file(
    name: str,
    target: str,
    *,
    store: str | None = None,
    at: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Write the database, as of WHEN `at` (None: now), as an ordinary SQLite file.

    The file appears whole, flushed, under its name at the end.  Takes little memory, whatever the size.
    Raises FileExistsError (without `force`; or a -journal or -wal of that name is there, which SQLite
    would apply to the file), OptionError (WHEN), and what the store raises."""
    location = names.resolve(name, store)
    started = time.monotonic()
    refuse_overwriting(target, force)
    with opened(location) as opened_store:
        moment = moment_of(opened_store, location, at)
        pin = format_version(moment.version) if moment is not None else None
        origin = reader(location, pin)
        try:
            with appearing(target, force) as temporary:  # a pinned connection needs no transaction
                pages, page_size = write_file(origin, temporary, progress)
        finally:
            origin.close()
    return Copied(location, moment, pages, page_size, time.monotonic() - started)


def moment_of(store: Store, location: Location, at: str | None) -> when.Moment | None:
    """The commit that WHEN comes to; None: `at` is None, and there is no commit yet.

    Raises as `when.resolve`."""
    namespace = store.open(location.namespace)
    try:
        return when.resolve("HEAD" if at is None else at, store, namespace.id)
    except NoSuchVersionError:
        if at is not None or not _is_empty(store, namespace):
            raise
        return None


def reader(location: Location, at: str | None) -> apsw.Connection:
    """A connection for `write_file`: it goes through all pages once, so they are fetched many at a time and
    few of them kept."""
    return connect(
        location.namespace,
        store=location.store_url,
        mode="rw",
        at=at,
        slow_ms=0,
        read_ahead="on",
        cache_bytes=_READER_CACHE_BYTES,
    )


def write_file(origin: apsw.Connection, path: str, progress: Progress | None) -> tuple[int, int]:
    """Copy what a pinned connection sees into the empty file at `path`; how many pages, of how many bytes."""
    page_size: int = origin.pragma("page_size")
    pages: int = origin.pragma("page_count")
    if origin.pragma("freelist_count") * _MOST_FREE > pages:  # page numbers that leases left unused, say
        return _write_compact(origin, path, progress), page_size
    file = apsw.Connection(path)
    try:
        # nobody else sees this file yet, and it is flushed as a whole before anybody does
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            file.execute(f"PRAGMA {pragma}").fetchall()
        origin.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        with _telling_of_full_disks(file):
            pages = _copy(origin, file, progress)
    finally:
        file.close()
    return pages, page_size


@contextlib.contextmanager
def _telling_of_full_disks(connection: apsw.Connection) -> Iterator[None]:
    """SQLite calls it an I/O error, or "not an error", if a page did not fit."""
    try:
        yield
    except (apsw.IOError, apsw.FullError) as exc:
        full = isinstance(exc, apsw.FullError) or connection.system_errno == errno.ENOSPC
        if isinstance(exc, Error) or not full:  # ours are about the store
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc


def _write_compact(origin: apsw.Connection, path: str, progress: Progress | None) -> int:
    """Without the free pages.  VACUUM INTO keeps every rowid; what it changes is where the pages lie."""
    os.truncate(path, 0)
    with _telling_of_full_disks(origin):
        origin.execute("VACUUM INTO ?", (_plain_uri(path),))
    with apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY) as file:
        pages: int = file.pragma("page_count")
    if progress is not None:
        progress(pages, pages)
    return pages


def _plain_uri(path: str) -> str:
    """An ordinary file, named from a connection whose default VFS is mv."""
    return f"file:{quote(os.path.abspath(path))}?vfs={apsw.vfs_names()[0]}"


def refuse_overwriting(target: str, force: bool) -> None:
    """Raises FileExistsError, IsADirectoryError."""
    for suffix in _COMPANIONS:
        if os.path.lexists(target + suffix):
            raise FileExistsError(
                errno.EEXIST, "SQLite would apply it to the new file: remove it first", target + suffix
            )
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "a folder", target)
    if not force and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "file exists", target)


@contextlib.contextmanager
def appearing(target: str, force: bool) -> Iterator[str]:
    """A temporary file beside `target` that takes its name, flushed, when the block ends well."""
    refuse_overwriting(target, force)
    temporary = _temporary_name(target)
    try:
        try:  # SQLite would only say that it was unable to open the file
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, target) from None
        try:
            yield temporary
        except OSError as exc:
            if exc.errno != errno.ENOSPC or exc.filename is not None:
                raise
            raise OSError(exc.errno, exc.strerror, target) from exc
        _flush(temporary)
        refuse_overwriting(target, force)
        if force:
            os.replace(temporary, target)
        else:
            _rename_unless_there(temporary, target)
        _flush(os.path.dirname(temporary))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _temporary_name(target: str) -> str:
    folder, name = os.path.split(os.path.abspath(target))
    return os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")


def _rename_unless_there(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)  # unlike rename(), refuses to overwrite
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "file exists", target) from None
    except OSError:  # a file system without links
        os.replace(temporary, target)


def _flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- whole stores ----


def backup_store(store: str, target: str, *, force: bool = False, progress: Progress | None = None) -> None:
    """Copy a store folder, with all history, into one file, consistent while writers write.

    Raises FileExistsError without `force`, and what `pagestore.embedded.backup` raises."""
    refuse_overwriting(target, force)
    _check_folder(store, "backed up")
    if not os.path.lexists(target):
        embedded.backup(names.store_url(store), target, progress)
        return
    temporary = _temporary_name(target)
    embedded.backup(names.store_url(store), temporary, progress)
    os.replace(temporary, target)
    _flush(os.path.dirname(temporary))


def _check_folder(store: str, what: str) -> None:
    if not names.is_folder(names.store_url(store)):
        raise UnsupportedError(
            f"only a store folder can be {what}, not {store}: do it where the folder is (mvctl copy copies a "
            "database from any store to any other)"
        )


def restore_store(source: str, store: str, *, progress: Progress | None = None) -> None:
    """Bring a store back from a backup file, verified, as a new folder.

    Raises FileNotFoundError, and what `pagestore.embedded.restore` raises."""
    if not os.path.exists(source):
        raise FileNotFoundError(errno.ENOENT, "no such file", source)
    if os.path.isdir(source):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a store's backup", source)
    if not os.access(source, os.R_OK):
        raise PermissionError(errno.EACCES, "may not be read", source)
    _check_folder(store, "restored into")
    embedded.restore(source, names.store_url(store), progress)
