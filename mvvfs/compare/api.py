"""`mvvfs.diff` and `mvvfs.changes`: what changed, for programs.

Called by programs and the command line; calls `comparison`.

1. What a program names is looked up at the call, so that a mistake shows there; pages are read as the
   iteration goes on.
2. Everything that is raised is an `mvvfs.Error`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from mvvfs import errors, names, when
from mvvfs.compare.changed import Changed
from mvvfs.compare.changes import Difference, RowChange
from mvvfs.compare.comparison import Comparison, compare, highest_page
from mvvfs.names import Location
from mvvfs.stores import open_store
from pagestore.api import BelowHorizonError, Change, Namespace, Store, StoreError, Version, format_version

When: TypeAlias = str | Version
"""A moment as people write it (`mvvfs.when`), or a version."""


def diff(
    name: str, a: When, b: When | None = None, *, store: str | None = None, table: str | None = None
) -> Iterator[Difference]:
    """What differs between two moments of a database: changes of the schema first, then of the rows, table
    by table, by key.

    `b` None: now.  `a` may be the later one.  `table`: only this one (a virtual table's rows are in its
    shadow tables).  Pages are read as the iteration goes on: few if little has changed.

    Raises OptionError (no moment; no such table in either version), NoSuchDatabaseError,
    NoSuchVersionError, BelowHorizonError, CorruptPageError, StoreUnavailableError."""
    location = names.resolve(name, store)
    with _translated(), _opened(location) as (opened, namespace):
        old, new = (resolve(moment, opened, namespace) for moment in (a, "now" if b is None else b))
        if table is not None:
            require_table(compare(opened, namespace, old, new), table)
    return _diff(location, old, new, table)


def _diff(location: Location, old: Version, new: Version, table: str | None) -> Iterator[Difference]:
    with _translated(), _opened(location) as (store, namespace):
        yield from compare(store, namespace, old, new).differences(table)


_AT_A_TIME = 200
"""Commits read ahead of who is told of them."""


def changes(
    name: str,
    since: When | None = None,
    *,
    store: str | None = None,
    table: str | None = None,
    follow: bool = False,
) -> Iterator[Commit]:
    """The commits after `since`, oldest first, each with its changes.

    `since` None: from the oldest version kept, onwards.  Whoever remembers the `version` of the last commit
    dealt with, and gives it as `since` another time, goes on without a gap or a repeat.  `table`: only
    changes of this one; every commit comes all the same.  `follow`: wait for more, for ever.

    Raises as `diff` does; BelowHorizonError if commits after `since` are no longer kept."""
    location = names.resolve(name, store)
    with _translated(), _opened(location) as (opened, namespace):
        start = namespace.horizon if since is None else resolve(since, opened, namespace)
    return _changes(location, start, table, follow)


def _changes(location: Location, since: Version, table: str | None, follow: bool) -> Iterator[Commit]:
    with _translated(), _opened(location) as (store, namespace):
        history = History(store, namespace)
        while True:
            until = store.begin(namespace.id).version
            store.sync()  # what was told must not be taken back by a power cut
            coming = store.changelog(namespace.id, after=since, until=until)
            while some := list(islice(coming, _AT_A_TIME)):
                horizon = store.open(namespace.name).horizon
                if since < horizon:  # what was read may have gaps
                    raise BelowHorizonError(since, horizon)
                for change in some:
                    yield Commit(location, history, since, change, table)
                    since = change.version
            if not follow:
                return
            wait_for_commit(store, namespace, since)


class Commit:
    """One commit, and, iterated over, its changes.

    The changes are worked out as the iteration goes on, and may be asked for again, as long as the commit
    and the one before it are kept.  All commits of one `changes` are for one thread at a time."""

    def __init__(
        self, location: Location, history: History, before: Version, change: Change, table: str | None
    ) -> None:
        self.version = format_version(change.version)
        """As `at=` and `since=` take it."""
        self.time_us = change.time_us
        """Unix time, microseconds."""
        self.message = change.message
        self.pages = len(change.pages)
        """How many were written or freed."""
        self._location = location
        self._history = history
        self._before = before
        self._change = change
        self._table = table

    def __iter__(self) -> Iterator[Difference]:
        with _translated(), _opened(self._location) as (store, _):
            self._history.store = store  # the one that it had may be closed by now
            yield from self._history.comparison(self._before, self._change).differences(self._table)

    def __repr__(self) -> str:
        return f"<Commit {self.version} of {when.format_time(self.time_us)}>"

    def rows(self) -> Iterator[RowChange]:
        """Its changes without those of the schema."""
        return (change for change in self if isinstance(change, RowChange))


class History:
    """Comparisons of neighbouring versions: each starts with what the one before it has read."""

    def __init__(self, store: Store, namespace: Namespace) -> None:
        self.store = store
        self.namespace = namespace
        self._last: Comparison | None = None
        self._highest = 0

    def comparison(self, before: Version, change: Change) -> Comparison:
        """A commit against the version before it.  Raises as `Comparison` does."""
        if self.namespace.page_size == 0:
            self.namespace = self.store.open(self.namespace.name)  # its first commit has come meanwhile
        changed = Changed()
        changed.add(change)
        last = self._last
        if (
            last is not None
            and change.version != last.old.snapshot.version
            and before != last.new.snapshot.version
        ):
            last = None
        if last is None:
            self._highest = max(self._highest, highest_page(self.store, self.namespace, change.version, ()))
        self._highest = max(self._highest, *change.pages)
        self._last = Comparison(
            self.store, self.namespace, before, change.version, changed, self._highest, last
        )
        return self._last


def wait_for_commit(store: Store, namespace: Namespace, after: Version) -> None:
    """Return when there is a commit after that version.  Raises as `Store.watch` does."""
    with contextlib.closing(store.watch(namespace.id, after)) as watch:
        for seen in watch:
            if seen.version > after:
                return


def resolve(moment: When, store: Store, namespace: Namespace) -> Version:
    """Raises OptionError, NoSuchVersionError, BelowHorizonError."""
    text = moment.strip() if isinstance(moment, str) else format_version(moment)
    if text.startswith("v"):  # also one before the first commit, when the database was empty
        return store.begin(namespace.id, at=when.version(text)).version
    return when.resolve(text, store, namespace.id).version


def require_table(comparison: Comparison, table: str) -> None:
    """Raises OptionError if neither version has a table of that name."""
    if not comparison.has_table(table):
        raise errors.OptionError(f"there is no table {table!r} in either version")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StoreError as exc:
        raise errors.translate(exc)[1] from exc


@contextlib.contextmanager
def _opened(location: Location) -> Iterator[tuple[Store, Namespace]]:
    store = open_store(location.store_url, create=False)
    try:
        yield store, store.open(location.namespace)
    finally:
        store.close()
