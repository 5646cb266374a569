"""Copy a database with its whole history into another store, of whatever engine.

Called by the command line and by programs.  Works on pages through the `Store` interface: neither SQLite nor
an engine is asked.

1. The copy has a commit for each commit of the source: same pages, time, message and commit token, in the
   same order; its versions are numbers of its own.
2. A history that begins at a horizon, or at a branch, starts in the copy with one commit that holds all
   pages as of there.
3. The newest commit's token tells how far a copy has come, so an interrupted one goes on where it was.
   What is no beginning of the source's history is refused and left as it is.
4. Each commit is read back and compared as it is made, and all pages of the newest version in the end.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mvvfs import names, when
from mvvfs.errors import CopyError
from mvvfs.names import Location
from mvvfs.transfer import opened
from pagestore.api import (
    TOKEN_SIZE,
    Change,
    CommitPart,
    CommitRequest,
    Namespace,
    NameTakenError,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    Retention,
    Store,
    Version,
    format_version,
)
from pagestore.batches import in_batches
from pagestore.encoding import FREED, Base, chain_of, decode, encode
from pagestore.large import Pile

Progress = Callable[[int, int], None]
"""Called with how many commits are done and how many there are."""

_PAGES_AT_ONCE = 256
_KEPT_BYTES = 64 << 20
"""Of newest page contents, to make deltas against."""


@dataclass(frozen=True, slots=True)
class CopiedHistory:
    """What a copy came to."""

    location: Location
    """Of the copy."""
    commits: int
    """Made by this run."""
    resumed: int
    """Made by earlier ones."""
    pages: int
    """Written by this run, over all commits."""
    newest: when.Moment | None
    """The newest commit of the copy; None: the source has none."""
    seconds: float


def copy_database(
    name: str,
    new_name: str,
    *,
    store: str | None = None,
    new_store: str | None = None,
    progress: Progress | None = None,
) -> CopiedHistory:
    """Copy the database `name` of `store` to `new_name` of `new_store`, which are created.

    What is committed to the source meanwhile is copied, too, as far as it is there when the copy gets to
    it.  To run it again fetches what is new.  Nobody else may write to the copy before it is complete.

    Raises CopyError (there is a database of that name that is no beginning of this history; somebody wrote to
    the copy; the copy differs), NameTakenError (the copy is the source), and what the stores raise."""
    started = time.monotonic()
    origin, target = names.resolve(name, store), names.resolve(new_name, new_store)
    if origin == target:
        raise NameTakenError(f"{name} can't be copied onto itself")
    with opened(origin) as source_store:
        source = source_store.open(origin.namespace)
        with opened(target, create=True) as target_store:
            copy = _Copy(source_store, source, target_store, _open_or_create(target_store, target, source))
            resumed = copy.resume()
            total = resumed + copy.missing() if progress else 0
            done = 0
            for done in copy.run():
                if progress is not None:
                    progress(resumed + done, max(total, resumed + done))
            copy.finish()
    return CopiedHistory(target, done, resumed, copy.pages, copy.newest, time.monotonic() - started)


def _open_or_create(store: Store, location: Location, source: Namespace) -> Namespace:
    try:
        namespace = store.create(location.namespace, page_size=source.page_size)
        store.set_retention(namespace.id, Retention(None, None))  # what is old is kept until all is there
        return namespace
    except NameTakenError:
        namespace = store.open(location.namespace)
    if namespace.page_size not in (0, source.page_size):
        raise _not_a_beginning(namespace)
    return namespace


def _not_a_beginning(namespace: Namespace) -> CopyError:
    return CopyError(
        f"there is a database {namespace.name!r} already, and it is no beginning of this history: "
        "copy to another name"
    )


class _Copy:
    """One namespace on its way into another."""

    def __init__(
        self, source_store: Store, source: Namespace, target_store: Store, target: Namespace
    ) -> None:
        self._from, self._source = source_store, source
        self._to, self._target = target_store, target
        self._head = target_store.begin(target.id).version
        self._contents = _Contents()
        self._done = source.horizon
        """The version of the source that is copied."""
        self.pages = 0
        self.newest: when.Moment | None = None

    def resume(self) -> int:
        """Find out how far earlier runs came: how many commits they made.  Raises CopyError."""
        made = next(self._to.changelog(self._target.id, newest_first=True, limit=1), None)
        if made is None:
            return 0
        original = next((change for change in self._originals() if change.token == made.token), None)
        if original is None or original.time_us != made.time_us:
            raise _not_a_beginning(self._target)
        self._done = original.version
        self.newest = when.Moment(made.version, made.time_us)
        return sum(1 for _ in self._to.changelog(self._target.id))

    def _originals(self) -> Iterator[Change]:
        """What a commit of the copy can be a copy of, newest first."""
        yield from self._from.changelog(self._source.id, after=self._source.horizon, newest_first=True)
        first = self._first()
        if first is not None:
            yield first

    def missing(self) -> int:
        """How many commits there are to make."""
        later = sum(1 for _ in self._from.changelog(self._source.id, after=self._done))
        return later + (self.newest is None and self._first() is not None)

    def _first(self) -> Change | None:
        """The commit that stands for everything up to the horizon; None if nothing was there."""
        allocation = self._from.allocation(self._source.id, self._source.horizon)
        if allocation.highest == 0:
            return None
        horizon = self._source.horizon
        token = hashlib.sha256(b"mvvfs copy" + horizon).digest()[:TOKEN_SIZE]
        pages = allocation.pages(self._source.page_size)
        found = self._from.changelog(self._source.id, until=horizon, newest_first=True, limit=1)
        last = next(found, None)
        time_us = last.time_us if last else self._source.created_us
        return Change(horizon, time_us, pages, token, f"history up to {format_version(horizon)}", pages)

    def run(self) -> Iterator[int]:
        """Make the commits that are missing; yields their number so far."""
        done = 0
        if self.newest is None:
            first = self._first()
            if first is not None:
                self._commit(first)
                done += 1
                yield done
        for change in self._from.changelog(self._source.id, after=self._done):
            self._commit(change)
            done += 1
            yield done

    def _commit(self, change: Change) -> None:
        freed = PageRuns.ascending(change.freed)
        pile = Pile(self._to, self._target.id, change.token)
        for numbers in in_batches(change.pages, _PAGES_AT_ONCE):
            contents = self._read(self._from, self._source, change.version, numbers)
            self._fetch_bases(number for number in numbers if contents[number] is not None)
            for number in numbers:
                pile.add(self._write(number, contents[number], number in freed, change))
        pile.end()
        part = CommitPart(
            self._target.id,
            PageSet(),
            pile.writes,
            self._source.page_size,
            change.allocated,
            change.freed,
            staged=pile.staged,
        )
        committed = self._to.commit(
            CommitRequest(change.token, self._head, (part,), change.message, "normal", time_us=change.time_us)
        )
        if any(committed.others or ()):
            raise CopyError(f"somebody else writes to {self._target.name!r}: drop it, and copy again")
        self._head = committed.version
        self._compare(change, committed.version)
        self.pages += len(change.pages)
        self.newest = when.Moment(committed.version, committed.time_us)
        self._done = change.version

    def _write(self, number: PageNumber, content: bytes | None, freed: bool, change: Change) -> PageWrite:
        if (content is None) != freed:
            raise CopyError(
                f"page {number} of {format_version(change.version)}: changelog and content contradict each "
                "other"
            )
        if content is None:
            self._contents.drop(number)
            return PageWrite(number, FREED)
        encoded = encode(number, content, self._contents.get(number), moves=self._to.takes_moves)
        self._contents.put(number, Base(content, encoded.chain))
        return PageWrite(number, encoded.blob)

    def _fetch_bases(self, numbers: Iterable[PageNumber]) -> None:
        """Have the copy's newest contents of these pages in hand, where they exist."""
        missing = [number for number in numbers if self._contents.get(number) is None]
        if not missing or self.newest is None:
            return
        for page in self._to.read(self._target.id, self._head, missing):
            if page is not None:
                base = Base(decode(page, self._source.page_size), chain_of(page.blobs[0]))
                self._contents.put(page.number, base)

    def _compare(self, change: Change, version: Version) -> None:
        for numbers in in_batches(change.pages, _PAGES_AT_ONCE):
            self._compare_pages(numbers, change.version, version)

    def _compare_pages(self, numbers: Sequence[PageNumber], theirs: Version, ours: Version) -> None:
        wanted = self._read(self._from, self._source, theirs, numbers)
        for number, content in self._read(self._to, self._target, ours, numbers).items():
            if content != wanted[number]:
                raise CopyError(
                    f"page {number} of {format_version(ours)} differs from that of {format_version(theirs)}, "
                    "which it was copied from"
                )

    def _read(
        self, store: Store, namespace: Namespace, version: Version, numbers: Sequence[PageNumber]
    ) -> dict[PageNumber, bytes | None]:
        pages = store.read(namespace.id, version, numbers)
        size = self._source.page_size
        return {
            number: None if page is None else decode(page, size)
            for number, page in zip(numbers, pages, strict=True)
        }

    def finish(self) -> None:
        """Flush the copy, and compare all of its newest version.  Raises CopyError."""
        self._to.set_retention(self._target.id, self._from.retention(self._source.id))
        self._to.sync()
        if self.newest is None:
            return
        ours = self._to.allocation(self._target.id, self.newest.version)
        if ours != self._from.allocation(self._source.id, self._done):
            raise CopyError("the copy has other pages than the source")
        for numbers in in_batches(ours.pages(self._source.page_size), _PAGES_AT_ONCE):
            self._compare_pages(numbers, self._done, self.newest.version)


class _Contents:
    """The newest contents of some pages of the copy, those that were written last."""

    def __init__(self) -> None:
        self._pages: OrderedDict[PageNumber, Base] = OrderedDict()
        self._bytes = 0

    def get(self, number: PageNumber) -> Base | None:
        return self._pages.get(number)

    def put(self, number: PageNumber, base: Base) -> None:
        self.drop(number)
        self._pages[number] = base
        self._bytes += len(base.content)
        while self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._pages.popitem(last=False)[1].content)

    def drop(self, number: PageNumber) -> None:
        old = self._pages.pop(number, None)
        if old is not None:
            self._bytes -= len(old.content)
