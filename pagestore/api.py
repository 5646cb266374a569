"""The `Store` interface: what a client of a page store may ask, and the values and errors it gets.

Called by `mvvfs` (the SQLite side) and by tools; implemented by `pagestore.store.PageStore` (embedded,
or direct on a distributed engine) and by remote clients.  Nothing here knows how pages are kept.

What every implementation promises:

1. A page version, once committed, never changes.
2. A snapshot at V holds exactly the commits with version <= V, on every page.
3. A commit based on V succeeds only if no page that it read or wrote changed in (V, commit].
4. All pages of a commit, in all its namespaces, appear at one version or not at all.
5. A commit that was acknowledged with durability "full" survives a power cut.
6. The commit token tells whether a commit happened; asking settles it for good.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType, overload

PageNumber = NewType("PageNumber", int)
"""A SQLite page number, counted from 1.

Page 1 is stored with its bytes 24-39 and 92-99 zeroed (change counter, page count, freelist,
version-valid-for, library version: https://www.sqlite.org/fileformat2.html#the_database_header).  Every
SQLite write transaction rewrites these; page count and freelist follow from the `Allocation`, the others
mean something to one connection only."""

NamespaceId = NewType("NamespaceId", int)
"""Stable number of a namespace; never used again after a drop."""

Version = NewType("Version", bytes)
"""Ten bytes, ordered as bytes compare, the same order across all namespaces of a store."""

VERSION_SIZE = 10
TOKEN_SIZE = 16
MAX_MESSAGE_BYTES = 4096
MAX_NAME_BYTES = 1024
ZERO_VERSION = Version(bytes(VERSION_SIZE))
MAX_VERSION = Version(b"\xff" * VERSION_SIZE)

Durability = Literal["full", "normal"]


def format_version(version: Version) -> str:
    """`v` and the 20 hex digits of a version, as users see it."""
    return "v" + version.hex()


def parse_version(text: str) -> Version:
    """The version written as `v` and up to 20 hex digits, leading zeros optional; ValueError if not."""
    digits = text[1:]
    if not text.startswith("v") or not digits or len(digits) > 2 * VERSION_SIZE:
        raise ValueError(f"not a version: {text!r} (expected v and up to 20 hex digits)")
    return Version(bytes.fromhex(digits.rjust(2 * VERSION_SIZE, "0")))


def before(version: Version) -> Version:
    """The greatest version below one that is not the zero version."""
    return Version((int.from_bytes(version, "big") - 1).to_bytes(VERSION_SIZE, "big"))


def new_token() -> bytes:
    """A commit token: 48 bits of Unix milliseconds, then 80 random bits (RFC 9562 calls it a UUIDv7).

    Time comes first so that an ordered store puts the tokens of neighbouring commits side by side; that
    no two are equal rests on the random bits alone."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(TOKEN_SIZE - 6)


@dataclass(frozen=True, slots=True)
class Namespace:
    """One SQLite database in a store."""

    id: NamespaceId
    name: str
    page_size: int
    """Bytes, 512 to 65536; 0 until the first commit decides it."""
    created_us: int
    """Unix time of creation, microseconds."""
    horizon: Version
    """The oldest version that can still be read (but for tagged ones, which stay readable below it)."""
    horizon_us: int = 0
    """Unix time of that version, microseconds: how far back the database can be restored."""
    parent: tuple[NamespaceId, Version] | None = None
    """What it is a branch of, and at which version it began."""


@dataclass(frozen=True, slots=True)
class Change:
    """One changelog record: what one commit did to one namespace."""

    version: Version
    time_us: int
    """Unix time, microseconds, never less than that of an earlier version of this namespace (where the
    engine can tell: see docs/limits.md on clocks) and, copied histories apart, of this store."""
    pages: tuple[PageNumber, ...]
    """Pages written or freed, ascending."""
    token: bytes
    message: str
    allocated: tuple[PageNumber, ...] = ()
    """Those of the pages that were not allocated before, ascending."""
    freed: tuple[PageNumber, ...] = ()
    """Those of the pages that are not allocated any more, ascending."""


class Changes(Sequence[Change]):
    """Commits of one namespace, oldest first; equal to any sequence of equal ones.

    Whoever follows along needs only the page numbers of them all, `packed`: what is kept otherwise is made
    into a `Change` when somebody looks at it."""

    __slots__ = ()

    @property
    @abstractmethod
    def packed(self) -> bytes:
        """Commit by commit: the version (10 bytes, then 2 zero ones), how many pages it wrote, allocated and
        freed, and the numbers of these, in this order; numbers are native-endian unsigned 32-bit integers.
        Raises CorruptPageError."""

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"


class ListedChanges(Changes):
    """Made of what is in hand as `Change` objects."""

    __slots__ = ("_changes",)

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._changes = tuple(changes)

    def __len__(self) -> int:
        return len(self._changes)

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Change, ...]: ...
    def __getitem__(self, index: int | slice) -> Change | tuple[Change, ...]:
        return self._changes[index]

    @property
    def packed(self) -> bytes:
        return b"".join(map(_pack_change, self._changes))


def _pack_change(change: Change) -> bytes:
    return change.version + b"\0\0" + pack_numbers(change.pages, change.allocated, change.freed)


def pack_numbers(pages: Sequence[int], allocated: Sequence[int], freed: Sequence[int]) -> bytes:
    """What stands behind the version in `Changes.packed`."""
    counts = (len(pages), len(allocated), len(freed))
    return array("I", (*counts, *pages, *allocated, *freed)).tobytes()


class PageRun(NamedTuple):
    """Consecutive page numbers."""

    first: PageNumber
    length: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Which pages of a namespace are allocated at one version."""

    highest: PageNumber
    """The highest allocated page; 0 while the namespace is empty."""
    free: tuple[PageRun, ...]
    """The unallocated numbers below it, ascending; not the pending-byte page, which is neither
    (https://www.sqlite.org/fileformat2.html#the_lock_byte_page)."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Page numbers that nobody else is given for a while."""

    id: bytes
    numbers: tuple[PageNumber, ...]
    """Unallocated at the newest version, ascending."""
    seconds: float
    """How long, from the call on."""


class LeaseWish(NamedTuple):
    """What `Store.lease` takes, to go with another call."""

    want: int
    seconds: float
    replaces: bytes | None


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a transaction starts."""

    version: Version
    """The newest committed version, or the one asked for."""
    changes: Changes | None
    """Commits in (since, version], oldest first; None: too many to list, or `since` was None: forget
    everything that is cached."""
    page_size: int
    """Bytes; 0 while the namespace is empty and undecided."""
    allocation: Allocation | None = None
    """At `version`; given where `changes` is None."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What `Store.watch` tells at one moment."""

    version: Version
    """The namespace's newest version, flushed: a power cut does not take it back."""
    changes: Changes | None
    """Commits in (the version told before, version], oldest first.  Empty: there were none, `version` is
    still the newest.  None: too many to list, forget everything that is cached."""
    clock: float = 0.0
    """`time.monotonic()` where the store is, from before it looked: `version` was the newest then.  0:
    not known."""


class Watch(Iterator[Watched]):
    """The answers of `Store.watch`: `next` blocks until there is one."""

    @abstractmethod
    def close(self) -> None:
        """End it, from any thread: a `next` that waits raises StopIteration."""


class StoredPage(NamedTuple):
    """One page as stored; `pagestore.encoding.decode` turns it into content."""

    number: PageNumber
    version: Version
    """The commit that wrote it."""
    blobs: tuple[bytes, ...]
    """Newest first; all but the last are deltas against the next one, the last is whole."""


class PageWrite(NamedTuple):
    number: PageNumber
    blob: bytes
    """From `pagestore.encoding.encode`, or `pagestore.encoding.FREED`."""


class PageSet:
    """A set of page numbers, cheap to carry and looked into only when it must be.

    `packed` holds distinct page numbers as native-endian unsigned 32-bit integers, in any order.
    """

    __slots__ = ("_packed", "_set")

    def __init__(self, packed: bytes = b"") -> None:
        self._packed = packed
        self._set: frozenset[int] | None = None

    @classmethod
    def of(cls, numbers: Iterable[int]) -> PageSet:
        return cls(array("I", sorted(set(numbers))).tobytes())

    @property
    def packed(self) -> bytes:
        return self._packed

    def as_set(self) -> frozenset[int]:
        if self._set is None:
            numbers = array("I")
            numbers.frombytes(self._packed)
            self._set = frozenset(numbers)
        return self._set

    def __contains__(self, number: object) -> bool:
        return number in self.as_set()

    def __iter__(self) -> Iterator[PageNumber]:
        return iter(PageNumber(n) for n in sorted(self.as_set()))

    def __len__(self) -> int:
        return len(self._packed) // 4


@dataclass(frozen=True, slots=True)
class CommitPart:
    """What a commit does to one namespace.  Everything written counts as read, whether listed or not."""

    namespace: NamespaceId
    reads: PageSet
    writes: Sequence[PageWrite]
    page_size: int
    """Bytes.  Decides the namespace's page size if this is its first commit."""
    allocated: Sequence[PageNumber] = ()
    """Those written pages that are not allocated at the base, ascending."""
    freed: Sequence[PageNumber] = ()
    """Pages allocated at the base and not any more; each is written as `FREED`, ascending."""
    lease: bytes | None = None
    """The lease that some of the allocated numbers come from, if any: the commit fails if it ended."""
    reads_all: bool = False
    """Every page counts as read: any commit after the base is a conflict.  Leases of others on the pages
    allocated end."""
    staged: PageSet = field(default_factory=PageSet)
    """Pages that were staged under the request's token (`Store.stage`): exactly these, none of them in
    `writes`; freed ones, too."""


@dataclass(frozen=True, slots=True)
class CommitRequest:
    token: bytes
    """16 bytes that no other commit ever used, from `new_token()`."""
    base: Version
    """The snapshot that every part was read at."""
    parts: Sequence[CommitPart]
    message: str = ""
    durability: Durability = "full"
    ticket: bytes | None = None
    """Of the place in the queue that this commit holds, if any; it is given up with the commit."""
    time_us: int | None = None
    """Unix time, microseconds, to record in place of the clock's: for copies of a history.  Not before that
    of the namespace's newest commit, nor in the future."""
    wish: LeaseWish | None = None
    """Page numbers in the first part's namespace for the transaction after this one.  A distant store answers
    with them, if they can be had, so that they take no call of their own; others don't look at it."""


@dataclass(frozen=True, slots=True)
class Committed:
    version: Version
    time_us: int
    others: tuple[Changes, ...] = ()
    """Per part: the commits of others in (base, version), oldest first."""
    lease: Lease | None = None
    """What the request wished for."""


class HeadWord(NamedTuple):
    """A 64-bit word in memory that changes whenever a namespace may have: see `Store.head_word`."""

    address: int
    keepalive: object
    """Hold on to this while `address` and `recent` are in use."""
    recent: int = 0
    """Address of what was committed lately (native/recent.h), or 0: whoever finds there all that moved the
    word need not begin by asking the store."""
    followed: bool = False
    """The word is this process's own, and says what it has heard.  Behind it stand two more 64-bit numbers:
    as of when (`time.monotonic_ns()`) the namespace had no commit that the word does not tell of, and one
    that whoever looks at the word sets to 1."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How many bytes a namespace takes in the store, before the engine's own overhead."""

    live_pages: int
    """Pages that exist now."""
    live_bytes: int
    """What reading them takes: their newest versions, and the older ones that these are deltas of."""
    history_pages: int
    """Older versions of pages, and pages that were freed."""
    history_bytes: int
    """What only reading the past takes."""
    commits: int
    shared_pages: int = 0
    """Of a branch, those of the live pages that are its parent's (or the parent's parent's, ...)."""
    shared_bytes: int = 0
    """What they take there; not part of `live_bytes`."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of its past a namespace keeps.  Both may be set: then whichever keeps less counts."""

    seconds: float | None = 30 * 86400.0
    """Every version that was the newest one within so many seconds stays readable; None: no limit."""
    max_bytes: int | None = None
    """Bytes that replaced page versions may take; beyond it the oldest go first.  None: no limit."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a version, which keeps it readable."""

    name: str
    version: Version
    time_us: int
    """When the tag was made: Unix time, microseconds."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run of retention removed, or with `dry_run` would remove."""

    horizon: Version
    """The oldest readable version now."""
    horizon_us: int
    """Its Unix time, microseconds."""
    versions: int
    """Changelog records."""
    page_versions: int
    bytes: int
    """Of these page versions: keys and values, before the engine's own overhead."""
    complete: bool
    """False: time ran out, there is more to do."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A namespace that was dropped and can still be brought back."""

    id: NamespaceId
    name: str
    """What it was called."""
    dropped_us: int
    """Unix time, microseconds."""
    until_us: int | None
    """When it is removed for good (by the next run of retention after that); None: not by itself."""


class StoreError(Exception):
    """Base of everything a store raises on purpose."""


class NoSuchNamespaceError(StoreError):
    """The name, or the id, is not in this store (or was dropped).  A retry does not help."""


class NoSuchStoreError(NoSuchNamespaceError):
    """There is no store at that place, and nobody said to create one."""


class NameTakenError(StoreError):
    """The name already belongs to another namespace."""


class InvalidNameError(StoreError):
    """The name is empty, too long, or holds a NUL."""


class ConflictError(StoreError):
    """Another commit changed what this one read.  Nothing was written; begin again and retry."""

    def __init__(
        self,
        namespace: NamespaceId,
        pages: tuple[PageNumber, ...],
        version: Version,
        fresh: tuple[StoredPage, ...] = (),
    ) -> None:
        super().__init__(
            f"{len(pages)} page(s) changed by {format_version(version)}: "
            + ", ".join(map(str, pages[:10]))
            + (", ..." if len(pages) > 10 else "")
        )
        self.namespace = namespace
        self.pages = pages
        """Pages read (or written) that changed, ascending."""
        self.version = version
        """The newest commit that changed one of them."""
        self.lease: Lease | None = None
        """What the request wished for."""
        self.fresh = fresh
        """Their content at `version`, where the store had it at hand (bounded)."""


class LeaseEndedError(StoreError):
    """Page numbers of a lease that has ended would have been used.  Nothing was written; begin again."""


class TurnTakenError(StoreError):
    """Another transaction has its turn and has read a page that this commit writes.  Nothing was written;
    the same commit may be tried again until the turn ends."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"another transaction has its turn, for at most {seconds:.1f} s")
        self.seconds = seconds
        """Until the turn ends by itself."""


class BelowHorizonError(StoreError):
    """The version is older than the namespace's horizon."""

    def __init__(self, version: Version, horizon: Version) -> None:
        super().__init__(
            f"version {format_version(version)} is no longer kept: "
            f"the oldest readable one is {format_version(horizon)}"
        )
        self.version = version
        self.horizon = horizon


class NoSuchVersionError(StoreError):
    """A version or time in the future, or before the namespace existed."""


class CorruptPageError(StoreError):
    """A stored page could not be read whole and verified.  A retry does not help."""


class OutcomeUnknownError(StoreError):
    """It could not be learnt in time whether a commit happened.  Ask `Store.outcome(token)` later."""

    def __init__(self, token: bytes, reason: str) -> None:
        super().__init__(f"the outcome of commit {token.hex()} is unknown: {reason}")
        self.token = token


class StoreUnavailableError(StoreError):
    """The store could not be reached, or stayed locked, within the timeout.  Nothing was applied."""


class StoreFullError(StoreError):
    """No space left where the store lives.  Nothing was applied."""


class StoreReadOnlyError(StoreError):
    """The store was opened read-only, or lives where this process may not write."""


class FormatError(StoreError):
    """Not a page store, or one of a format or with features that this release does not know."""


class LimitError(StoreError):
    """The request is larger than the store takes."""


class InvalidRequestError(StoreError):
    """The request contradicts itself or the namespace (a page number, a page size, a blob that no
    encoder made): a mistake of the caller.  Nothing was applied; a retry does not help."""


class VoidTokenError(StoreError):
    """`Store.outcome` has settled that the commit with this token never happens.  Nothing was applied."""


class NotAllowedError(StoreError):
    """The caller did not show who it is, or may not do this.  Nothing was applied; a retry does not help."""


class OverloadedError(StoreUnavailableError):
    """The caller asks for more than its share.  Nothing was applied; the same may be asked a little later."""

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.seconds = seconds
        """When to try again, counted from now."""


class UnsupportedError(StoreError):
    """This store, or the release that serves it, can't do that.  A retry does not help."""


class Signal(ABC):
    """Tells, once, that a namespace was announced by a commit."""

    @abstractmethod
    def arm(self, timeout: float) -> None:
        """From now on: whoever reads after this misses nothing.  May wait for the engine.  Raises
        StoreUnavailableError."""

    @abstractmethod
    def has_fired(self) -> bool:
        """Whether there was something since it was armed, or may have been, or it is not armed.  Does not
        wait."""


class Store(ABC):
    """A set of namespaces with one order of versions.  Safe to use from many threads."""

    distant: bool = False
    """Whether a call costs a network round trip.  Whatever such a store answers has been flushed."""

    max_commit_bytes: int = 0
    """A commit whose blobs come to more than this has to stage them (`stage`); 0: there is no limit."""

    url: str
    """What to pass to `pagestore.opener.open_store` to open it again."""

    # namespaces

    @abstractmethod
    def create(self, name: str, *, page_size: int = 0) -> Namespace:
        """A new, empty namespace.  `page_size` in bytes; 0: the first commit decides.

        Raises NameTakenError, InvalidNameError, ValueError (page size), StoreReadOnlyError."""

    @abstractmethod
    def open(self, name: str) -> Namespace:
        """The namespace of that name.  Raises NoSuchNamespaceError."""

    @abstractmethod
    def rename(self, name: str, new_name: str) -> Namespace:
        """Raises NoSuchNamespaceError, NameTakenError, InvalidNameError."""

    @abstractmethod
    def drop(self, name: str, *, now: bool = False) -> None:
        """Remove the name; what it stood for can be brought back (`undrop`) for as long as the namespace's
        retention says, counted from now.  `now`: remove pages and history as well, at once and for good
        (but for what branches need).  Raises NoSuchNamespaceError."""

    def dropped(self) -> list[Dropped]:
        """What can be brought back, the newest first."""
        raise UnsupportedError(f"{self.url}: no dropped in a store of this kind")

    def undrop(self, namespace: NamespaceId, name: str) -> Namespace:
        """Give a dropped namespace a name again: it is as it was, with its history.

        Raises NoSuchNamespaceError (it is not there, or not dropped), NameTakenError, InvalidNameError."""
        raise UnsupportedError(f"{self.url}: no undrop in a store of this kind")

    def purge(self, namespace: NamespaceId) -> None:
        """Remove a dropped namespace for good, at once.  Raises NoSuchNamespaceError if there is none."""
        raise UnsupportedError(f"{self.url}: no purge in a store of this kind")

    def branch(self, namespace: NamespaceId, new_name: str, version: Version) -> Namespace:
        """A new namespace that begins as the snapshot of another at `version` and shares its pages: what is
        written to either from now on is not seen in the other.  Costs one small commit, whatever the size.
        `version` stays readable in the parent for as long as the branch exists, also when the parent is
        dropped.

        Raises as `read` and `create` do, and LimitError where branches of branches are too deep."""
        raise UnsupportedError(f"{self.url}: no branch in a store of this kind")

    # transactions

    @abstractmethod
    def begin(self, namespace: NamespaceId, since: Version | None = None, at: Version | None = None) -> Begin:
        """Start a transaction at the newest version, or at `at`; tell what changed after `since`.

        Raises NoSuchNamespaceError, BelowHorizonError, NoSuchVersionError, StoreUnavailableError."""

    def recent(self, namespace: NamespaceId, since: Version | None, within: float) -> Begin | None:
        """What `begin` would have answered at some time in the last `within` seconds, if that is known here,
        without a call; never less than what this store object has told before."""
        return None

    @abstractmethod
    def read(
        self, namespace: NamespaceId, version: Version, numbers: Sequence[PageNumber]
    ) -> list[StoredPage | None]:
        """The pages as of `version`, in the order asked; None where a page does not exist.

        Raises BelowHorizonError, NoSuchNamespaceError, StoreUnavailableError, CorruptPageError."""

    @abstractmethod
    def commit(self, request: CommitRequest) -> Committed:
        """Validate and apply; with a token that was used before, say what came of that.

        Raises ConflictError, BelowHorizonError, NoSuchNamespaceError, InvalidRequestError,
        VoidTokenError, LimitError, StoreFullError, StoreReadOnlyError, StoreUnavailableError (in all of
        which nothing was applied), OutcomeUnknownError (it may have been)."""

    @abstractmethod
    def stage(self, namespace: NamespaceId, token: bytes, writes: Sequence[PageWrite]) -> None:
        """Keep pages of a commit that is larger than `max_commit_bytes` until it comes with this token.

        A page staged again replaces the earlier one.  Nobody sees them before the commit, which lists them
        in `CommitPart.staged`.  What is not committed within an hour of the last call is removed.

        Raises NoSuchNamespaceError, InvalidRequestError, VoidTokenError, StoreFullError,
        StoreReadOnlyError, StoreUnavailableError."""

    def settle(self) -> None:
        """Wait until what is left to be done behind large commits of this object is done.  Others would do
        it: nobody has to call this."""
        return

    @abstractmethod
    def outcome(self, namespace: NamespaceId, token: bytes) -> Version | None:
        """Whether the commit with this token happened: its version, or None and it never will
        (a void record is written, so that a commit still in flight fails)."""

    @abstractmethod
    def watch(self, namespace: NamespaceId, after: Version, *, heartbeat: float = 5.0) -> Watch:
        """Follow a namespace: an answer at once, one whenever there are commits after the version told
        last (at first `after`), and at least one every `heartbeat` seconds.

        Several commits may come in one answer.  Costs nothing while nobody watches.  `next` raises
        NoSuchNamespaceError (also once it was dropped), StoreUnavailableError."""

    # page numbers

    @abstractmethod
    def allocation(self, namespace: NamespaceId, version: Version) -> Allocation:
        """Which pages are allocated at a version.  Raises as `read` does."""

    @abstractmethod
    def lease(
        self, namespace: NamespaceId, want: int, seconds: float, replaces: bytes | None = None
    ) -> Lease:
        """Page numbers for one client: nobody else is given them before they are released or `seconds`
        are over.  `want`: 1 to 1024.  `replaces`: a lease of the same client, which ends.

        Raises NoSuchNamespaceError, LimitError, StoreReadOnlyError, StoreUnavailableError."""

    @abstractmethod
    def release(self, namespace: NamespaceId, lease: bytes) -> None:
        """End a lease; one that has ended already is no error."""

    # turns

    @abstractmethod
    def take_turn(self, namespace: NamespaceId, ticket: bytes, pages: PageSet | None, seconds: float) -> bool:
        """Take, or keep, a place in the queue of those who lost conflicts; whether its turn has come.

        Once it has: for `seconds` (at most 60), commits of others that would write one of `pages`
        (None: any page) raise TurnTakenError.  Until then, ask again within a second or two, or the
        place is lost.  `ticket`: 16 bytes from `new_token()`.  Raises LimitError, StoreUnavailableError."""

    @abstractmethod
    def leave_turn(self, namespace: NamespaceId, ticket: bytes) -> None:
        """Give up a place or a turn; one that has ended already is no error."""

    # history

    @abstractmethod
    def changelog(
        self,
        namespace: NamespaceId,
        *,
        after: Version = ZERO_VERSION,
        until: Version = MAX_VERSION,
        newest_first: bool = False,
        limit: int = 0,
    ) -> Iterator[Change]:
        """Commits in (after, until], in short engine transactions; `limit` 0: all."""

    @abstractmethod
    def version_at(self, namespace: NamespaceId, time_us: int) -> Version:
        """The newest version whose time is <= `time_us` (Unix microseconds).

        Raises NoSuchVersionError if that is before the first commit, BelowHorizonError."""

    # retention

    def retention(self, namespace: NamespaceId) -> Retention:
        """How much of the past is kept.  Raises NoSuchNamespaceError."""
        raise UnsupportedError(f"{self.url}: no retention in a store of this kind")

    def set_retention(self, namespace: NamespaceId, retention: Retention) -> None:
        """Change it; `collect` acts on it.  Raises NoSuchNamespaceError, ValueError."""
        raise UnsupportedError(f"{self.url}: no set_retention in a store of this kind")

    def tag(self, namespace: NamespaceId, name: str, version: Version) -> Tag:
        """Name a version, which stays readable until `untag`.  A tag of that name at that version is left
        as it is.  Raises NameTakenError (it stands for another version), InvalidNameError, and as `read`."""
        raise UnsupportedError(f"{self.url}: no tag in a store of this kind")

    def untag(self, namespace: NamespaceId, name: str) -> None:
        """Remove a tag.  Raises NoSuchVersionError if there is none of that name, NoSuchNamespaceError."""
        raise UnsupportedError(f"{self.url}: no untag in a store of this kind")

    def tags(self, namespace: NamespaceId) -> list[Tag]:
        """All tags, by name.  Raises NoSuchNamespaceError."""
        raise UnsupportedError(f"{self.url}: no tags in a store of this kind")

    def hold(
        self, namespace: NamespaceId, version: Version, seconds: float, hold: bytes | None = None
    ) -> bytes:
        """Keep `version` readable for `seconds` (at most 3600); commits may be based on it as long as it is
        not below the horizon yet.  `hold`: renew that one.  A snapshot younger than the grace period (10
        minutes) needs none.  Raises as `read` does, and LimitError."""
        raise UnsupportedError(f"{self.url}: no hold in a store of this kind")

    def unhold(self, namespace: NamespaceId, hold: bytes) -> None:
        """End a hold; one that has ended already is no error."""
        raise UnsupportedError(f"{self.url}: no unhold in a store of this kind")

    def collect(self, namespace: NamespaceId, *, dry_run: bool = False, seconds: float = 0) -> Collected:
        """Let go of what retention does not keep, in small engine transactions beside everyone else's.

        `seconds`: stop after so long (0: when all is done).  `dry_run`: only say what would go."""
        raise UnsupportedError(f"{self.url}: no collect in a store of this kind")

    def give_back(self, *, whole: bool = False) -> int:
        """Give space that is not used any more back to the file system; how many bytes that were.  By small
        steps, as far as that is worth it; `whole`: all of it, while who writes has to wait."""
        return 0

    def revert(
        self, namespace: NamespaceId, to: Version, *, message: str = "", token: bytes | None = None
    ) -> Committed:
        """A new commit whose pages are those of `to`: it can be undone like any other.  Commits of others
        that come in between are undone with the rest, up to the moment of the commit.  With nothing to
        change nothing is committed, and the answer's version is the newest one.

        Raises as `read` and `commit` do; ConflictError only after others were quicker many times."""
        raise UnsupportedError(f"{self.url}: no revert in a store of this kind")

    # the rest

    @abstractmethod
    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        """A word to look at instead of calling `begin`, or None where there is none.

        Read it (an atomic 64-bit load), then `begin`: as long as the word is even and still the
        same, the namespace has no commit newer than that `begin` saw.  An odd word promises nothing."""

    def operations(self) -> dict[str, int] | None:
        """What this object has asked of a cluster so far, by kind; None where there is none."""
        return None

    def signal(self, namespace: NamespaceId) -> Signal | None:
        """What tells of commits where there is no head word; None: only asking does."""
        return None

    def store_id(self) -> bytes:
        """What tells this store from every other one, for who keeps its pages elsewhere; empty: unknown.

        A store that was put back from a backup is the same one: that it still has a commit shows in the
        changelog, by the commit's version and token."""
        return b""

    @abstractmethod
    def sync(self) -> None:
        """Flush what any commit, of any process, has made visible so far."""

    @abstractmethod
    def usage(self, namespace: NamespaceId) -> Usage:
        """Walks the whole namespace in short engine transactions: slow on a large one."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and descriptors, once per `open_store`; later calls do no harm.

        (A store that several parts of a process opened is theirs until the last of them closed it.)"""

    # last, because behind it `list` is no type any more

    @abstractmethod
    def list(self) -> list[Namespace]:
        """All namespaces, by name."""
