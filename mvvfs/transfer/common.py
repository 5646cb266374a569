"""What every transfer has: the store, the moment, the copying of pages, and what is told of it.

Called by the files beside it, and by the command line; calls the store, `when`, and SQLite's backup API.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import apsw

from mvvfs import when
from mvvfs.names import Location
from mvvfs.options import from_keywords
from mvvfs.stores import open_store
from pagestore.api import Namespace, NoSuchVersionError, Store, StoreReadOnlyError

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is (pages, or bytes for backup and restore)."""

COMPANIONS = ("-journal", "-wal")
"""What may lie beside an SQLite file, and belong to it."""

_STEP_PAGES = 256


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


def is_empty(store: Store, namespace: Namespace) -> bool:
    return next(store.changelog(namespace.id, limit=1), None) is None


def moment_of(store: Store, location: Location, at: str | None) -> when.Moment | None:
    """The commit that WHEN comes to; None: `at` is None, and there is no commit yet.

    Raises as `when.resolve`."""
    namespace = store.open(location.namespace)
    try:
        return when.resolve("HEAD" if at is None else at, store, namespace.id)
    except NoSuchVersionError:
        if at is not None or not is_empty(store, namespace):
            raise
        return None


def copy_pages(origin: apsw.Connection, target: apsw.Connection, progress: Progress | None) -> int:
    """Copy all pages; returns how many there are.  The last step commits."""
    with target.backup("main", origin, "main") as backup:
        while not backup.step(_STEP_PAGES):
            if progress is not None:
                progress(backup.page_count - backup.remaining, backup.page_count)
        pages: int = backup.page_count
    if progress is not None:
        progress(pages, pages)
    return pages
