"""What a store is asked with and what it answers: plain values, which never change.

Those that every transaction makes are not frozen: a frozen one sets each field by a call.

Re-exported by `pagestore.api`, which is where everyone else gets them; calls `numbers` and `runs`.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast, overload

from pagestore.numbers import (
    VERSION_SIZE,
    NamespaceId,
    PageNumber,
    PageRun,
    PageSet,
    Version,
    pack_numbers,
)
from pagestore.runs import PageRuns, united, without

Durability = Literal["full", "normal"]

_PACKED_COUNTS = struct.Struct("=III")
_PACKED_VERSION = 12
_PACKED_HEAD = _PACKED_VERSION + _PACKED_COUNTS.size

_LOCK_BYTE = 0x40000000
"""SQLite never uses the page that holds this byte."""


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
    pages: Sequence[PageNumber]
    """Pages written or freed, ascending; of a large commit `PageRuns`, here and below."""
    token: bytes
    message: str
    allocated: Sequence[PageNumber] = ()
    """Those of the pages that were not allocated before, ascending."""
    freed: Sequence[PageNumber] = ()
    """Those of the pages that are not allocated any more, ascending."""
    index_pages: Sequence[PageNumber] = ()
    """Those of the pages that are known to be an index's (or a WITHOUT ROWID table's), ascending."""


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

    @abstractmethod
    def versions(self) -> Sequence[Version]:
        """Theirs."""

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

    def versions(self) -> Sequence[Version]:
        return [change.version for change in self._changes]


class PackedChanges(Changes):
    """What commits changed, but not when, nor with which token or message: as it comes from afar."""

    __slots__ = ("_count", "_each", "_packed")

    def __init__(self, packed: bytes, count: int) -> None:
        """`packed`: of so many commits, known to be whole."""
        self._packed = packed
        self._count = count
        self._each: list[bytes] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> PackedChanges: ...
    def __getitem__(self, index: int | slice) -> Change | PackedChanges:
        if self._each is None:
            self._each = split_packed(self._packed)
        if isinstance(index, slice):
            some = self._each[index]
            return PackedChanges(b"".join(some), len(some))
        return _unpack_change(self._each[index])

    @property
    def packed(self) -> bytes:
        return self._packed

    def versions(self) -> Sequence[Version]:
        return [Version(one[:VERSION_SIZE]) for one in split_packed(self._packed)]


def split_packed(packed: bytes) -> list[bytes]:
    """What `Changes.packed` says of each commit; the version comes first."""
    each, start = [], 0
    while start < len(packed):
        written, allocated, freed = _PACKED_COUNTS.unpack_from(packed, start + _PACKED_VERSION)
        end = start + _PACKED_HEAD + 4 * (written + allocated + freed)
        each.append(packed[start:end])
        start = end
    return each


def _unpack_change(packed: bytes) -> Change:
    written, allocated, _ = _PACKED_COUNTS.unpack_from(packed, _PACKED_VERSION)
    numbers = tuple(array("I", packed[_PACKED_HEAD:]))
    behind = written + allocated
    lists = (numbers[:written], numbers[written:behind], numbers[behind:])
    pages, taken, given = cast(tuple[tuple[PageNumber, ...], ...], lists)
    return Change(Version(packed[:VERSION_SIZE]), 0, pages, b"", "", taken, given)


def _pack_change(change: Change) -> bytes:
    return change.version + b"\0\0" + pack_numbers(change.pages, change.allocated, change.freed)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Which pages of a namespace are allocated at one version."""

    highest: PageNumber
    """The highest allocated page; 0 while the namespace is empty."""
    free: tuple[PageRun, ...]
    """The unallocated numbers below it, ascending; not the pending-byte page, which is neither
    (https://www.sqlite.org/fileformat2.html#the_lock_byte_page)."""

    def pages(self, page_size: int) -> PageRuns:
        """Those that are allocated.  `page_size` in bytes; 0: there are none."""
        if not self.highest:
            return PageRuns()
        everything = [PageRun(PageNumber(1), self.highest)]
        lock_byte = PageRun(PageNumber(_LOCK_BYTE // page_size + 1), 1)
        return PageRuns(without(everything, united(self.free, [lock_byte])))


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


@dataclass(slots=True)
class Begin:
    """Where a transaction starts."""

    version: Version
    """The newest committed version, or the one asked for."""
    changes: Changes | None
    """Commits in (since, version], oldest first (behind a service as `PackedChanges`); None: too many to
    list, or `since` was None: forget everything that is cached."""
    page_size: int
    """Bytes; 0 while the namespace is empty and undecided."""
    allocation: Allocation | None = None
    """At `version`; given where `changes` is None."""
    read_version: Version | None = None
    """Names this begin to the commit of the same transaction (`CommitRequest.read_version`)."""
    told: bytes = b""
    """What some of the commits in `changes` wrote, for who has the pages as of `since`: see
    `pagestore.told`."""


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


@dataclass(slots=True)
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
    allocated end.  What was staged stays there after a conflict, to be committed once what changed is staged
    anew."""
    staged: PageRuns = field(default_factory=PageRuns)
    """Pages that were staged under the request's token (`Store.stage`): exactly these, none of them in
    `writes`; freed ones, too."""


@dataclass(slots=True)
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
    read_version: Version | None = None
    """Of the transaction's own begin, if its answer had one: a store that knows it may save a question."""
    tells_others: bool = True
    """False: the answer may leave out what others committed, where it would cost to find out.  The client
    then knows of nothing after `base`, until it begins from there."""
    wants_begin: bool = False
    """The answer may bring along where the next transaction starts (`Committed.begin`).  For a commit to one
    namespace, of which another transaction is to follow at once."""


@dataclass(slots=True)
class Committed:
    version: Version
    time_us: int
    others: tuple[Changes, ...] | None = ()
    """Per part: the commits of others in (base, version), oldest first; None: left out, see
    `CommitRequest.tells_others`."""
    lease: Lease | None = None
    """What the request wished for."""
    repeated: bool = False
    """Whether it had happened before this request, of which nothing was used then but the token."""
    begin: Begin | None = None
    """What `Store.begin` answered after it, since the request's base; it sees this commit, perhaps not all
    that was committed by the time of this answer.  Without pages that only this commit has changed."""


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
