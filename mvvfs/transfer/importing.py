"""An SQLite file becomes a database.

Called by the command line and by programs.  Calls `source`; the copy goes to a `Sink`, which
hands on its pages to the store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from itertools import compress, count

import apsw

from mvvfs import names
from mvvfs.errors import UnsupportedError
from mvvfs.names import Location
from mvvfs.sink import Sink, open_sink
from mvvfs.transfer.common import Copied, Progress, copy_pages, is_empty, moment_of, opened
from mvvfs.transfer.source import opened_source, without_auto_vacuum
from pagestore.api import (
    CommitPart,
    CommitRequest,
    ConflictError,
    Namespace,
    NameTakenError,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    Store,
    format_version,
    new_token,
    without,
)
from pagestore.encoding import encode
from pagestore.large import Pile, Replacement

_COMPARED_AT_ONCE = 256


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
        origin = stack.enter_context(opened_source(source))
        if origin.pragma("auto_vacuum"):
            origin = stack.enter_context(opened_source(stack.enter_context(without_auto_vacuum(source))))
        page_size: int = origin.pragma("page_size")
        if os.path.realpath(source) == os.path.realpath(location.store_url):
            raise UnsupportedError(f"{name} is the file itself: give the database another name")
        if message is None:
            message = f"import of {os.path.basename(source)}"
        with _created(location, page_size, force) as target, opened(location) as target_store:
            version: str | None
            if is_empty(target_store, target):
                pages, version = _fill(origin, target_store, target, page_size, message, progress)
            else:
                pages, version = _replace(origin, target_store, target, page_size, message, progress)
            target_store.settle()
    with opened(location) as opened_store:
        moment = moment_of(opened_store, location, version)
    return Copied(location, moment, pages, page_size, time.monotonic() - started)


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
                if new and is_empty(store, namespace):
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
        if not force and not is_empty(store, namespace):
            raise
    if namespace.page_size not in (0, page_size):
        raise UnsupportedError(
            f"{name} has pages of {namespace.page_size} bytes and the file of {page_size}: "
            "drop it first, or import under another name"
        )
    return namespace, False


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
        pages = copy_pages(origin, target, progress)
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
            blob = encode(PageNumber(number), content, None, moves=False).blob
            pile.add(PageWrite(PageNumber(number), blob))

    sink = Sink(page_size, take)
    with open_sink(sink) as target:
        pages = copy_pages(origin, target, progress)
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
