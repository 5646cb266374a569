"""The engine interface: ordered keys, and transactions that may have to run again.

Called by `pagestore.store` only.  Implemented by `memory`, `sqlite` and `foundationdb`.  It is the
intersection of what a write-locked SQLite file and FoundationDB can do, so it is written for the
stricter of the two (https://apple.github.io/foundationdb/developer-guide.html):

1. `work` may run several times; only its last run counts, so it has no side effects but through `tx`.
2. The version of a commit is not known inside the transaction.  Keys and values that carry it are
   set with `set_versioned_key` / `set_versioned_value`; the caller learns it when `transact` returns.
3. Reads do not see the transaction's own writes.  (No caller needs them to.)
4. A plain read adds no conflict.  What must not change between read and commit is named with
   `add_read_conflict`, what other transactions must notice with `add_write_conflict`.  An engine with
   a write lock may ignore both; one with optimistic transactions checks them when it commits.
5. Reads of one call are in flight together: ask for many at once.
6. A transaction lasts at most `max_seconds` and writes at most `max_bytes`, where these are set.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic, NamedTuple, TypeVar

from pagestore.api import Durability, HeadWord, NamespaceId, Signal, Version

T = TypeVar("T")


class KeyRange(NamedTuple):
    """Keys in [begin, end), in order; `reverse` from the end; at most `limit` (0: all)."""

    begin: bytes
    end: bytes
    limit: int = 0
    reverse: bool = False


_RANGE_HEAD = struct.Struct("=II")


def pack_range(begin: bytes, end: bytes) -> bytes:
    """A range of keys as one of many, one behind the other (native/store.h, `mv_cover_keys`)."""
    return _RANGE_HEAD.pack(len(begin), len(end)) + begin + end


def unpack_ranges(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start < len(packed):
        first, second = _RANGE_HEAD.unpack_from(packed, start)
        start += _RANGE_HEAD.size
        middle, end = start + first, start + first + second
        yield packed[start:middle], packed[middle:end]
        start = end


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transaction of an engine can take; 0: no limit of its own."""

    max_seconds: float
    max_bytes: int
    max_value_bytes: int


class Snapshot(ABC):
    """A consistent view of all keys, for the length of one `Engine.read` call."""

    as_of: Version | None = None
    """The read version that the caller asked for, in a run that stands there."""

    @abstractmethod
    def read_version(self) -> Version:
        """Every commit visible here has a version <= this; later ones get a greater one."""

    def ask_read_version(self) -> None:
        """`read_version` will be wanted: have it under way with the reads that are asked for next."""
        return

    def confirm(self, version: Version) -> None:
        """For a version that was found stored: raises StoreUnavailableError if later commits might be given
        smaller ones (a cluster that holds the backup of another).  Costs no read."""
        return

    @abstractmethod
    def get(self, key: bytes) -> bytes | None: ...

    def ask(self, key: bytes) -> Callable[[], bytes | None]:
        """As `get`, under way until the result is called, where the engine can."""
        return partial(self.get, key)

    @abstractmethod
    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        """Key-value pairs, lazily: stop early and no more is read (an engine may prefetch some)."""

    def scan_many(self, wanted: Sequence[KeyRange]) -> list[Iterator[tuple[bytes, bytes]]]:
        """All ranges in flight together, where the engine can.  Consume them in order: to start one may
        end those before it."""
        return [self.scan(one) for one in wanted]


class Transaction(Snapshot):
    """A snapshot that can be written on top of.  `set` and `clear` are write conflicts by themselves."""

    optimistic: ClassVar[bool] = True
    """False: others wait, conflicts need no naming, and a caller may save itself the work of it."""

    @abstractmethod
    def set(self, key: bytes, value: bytes) -> None: ...

    def set_new(self, key: bytes, value: bytes) -> None:
        """As `set`, for a key that is not there (or was cleared in this transaction): cheaper for some."""
        self.set(key, value)

    def move(self, key: bytes, new_key: bytes, value: bytes) -> None:
        """Set a key that is not there to the value of another, which the caller knows and clears."""
        self.set(new_key, value)

    @abstractmethod
    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Set key prefix + commit version (10 bytes) + suffix."""

    @abstractmethod
    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        """Set value prefix + commit version (10 bytes) + suffix."""

    @abstractmethod
    def clear(self, key: bytes) -> None: ...

    @abstractmethod
    def clear_range(self, begin: bytes, end: bytes) -> None: ...

    def clear_ranges(self, ranges: Sequence[tuple[bytes, bytes]]) -> None:
        """Clear many, quicker than one by one where the engine can."""
        for begin, end in ranges:
            self.clear_range(begin, end)

    @abstractmethod
    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        """Fail (and run again) if a commit after this snapshot has a write conflict in [begin, end)."""

    @abstractmethod
    def add_write_conflict(self, begin: bytes, end: bytes) -> None: ...

    def add_read_conflicts(self, ranges: bytes) -> None:
        """Many, packed (`pack_range`)."""
        for begin, end in unpack_ranges(ranges):
            self.add_read_conflict(begin, end)

    def add_write_conflicts(self, ranges: bytes) -> None:
        """Many, packed (`pack_range`)."""
        for begin, end in unpack_ranges(ranges):
            self.add_write_conflict(begin, end)

    @abstractmethod
    def announce(self, namespace: NamespaceId, before: Version | None = None, numbers: bytes = b"") -> None:
        """This commit changes the namespace: move its head word, if the engine has one.

        An engine that can tell others what changed does so, unless `before` is None.  `before`: no commit to
        the namespace is newer than this, but for this one.  `numbers`: what it changed, as it stands behind
        the version in `Changes.packed`."""

    @abstractmethod
    def commit_time(self, now_us: int) -> int:
        """The time to record for this commit: `now_us`, or the largest recorded before if that is later
        and the engine can tell without a conflict.  Unix microseconds."""


@dataclass(slots=True)
class Operations:
    """What an engine has asked of what is behind it, since it was opened."""

    gets: int = 0
    range_reads: int = 0
    parts: int = 0
    """Answers that range reads took: more than these where one did not hold all that was wanted."""
    rows: int = 0
    sets: int = 0
    clears: int = 0
    conflicts: int = 0
    """Ranges named as read or write conflicts."""
    commits: int = 0
    retries: int = 0


class Result(NamedTuple, Generic[T]):
    value: T
    version: Version | None
    """The commit's version; None if `work` wrote nothing."""


class Engine(ABC):
    """An ordered key-value store.  Safe to use from many threads."""

    limits: Limits

    distant: ClassVar[bool] = False
    """Every call costs a round trip over a network."""

    waits_anywhere: ClassVar[bool] = False
    """It blocks for answers only, and asks `pagestore.waits` who waits for them."""

    tells_numbers: ClassVar[bool] = False
    """Its transactions' `announce` has a use for page numbers."""

    reaches_back: ClassVar[bool] = False
    """`read` and `transact` can stand at the read version of an earlier `read`."""

    one_writer: ClassVar[bool] = False
    """Who writes waits for whoever else does; and the version stays what it is while nobody writes."""

    clears_ranges_at_once: ClassVar[bool] = False
    """`clear_range` costs the same whatever lies in the range."""

    @abstractmethod
    def read(
        self,
        work: Callable[[Snapshot], T],
        *,
        timeout: float | None = None,
        reaching: Version | None = None,
        as_of: Version | None = None,
    ) -> T:
        """Run `work` on one consistent snapshot: the newest, or with `reaching` one that sees at least all
        commits up to that version, which was committed here just now: an engine may save a question.  Its
        read version is then `reached_by` that commit, unless it is the newest.

        `as_of`: the read version of some `read` here, where the engine `reaches_back`: the snapshot, which
        says so, is that one; or, if that can't be had any more, the newest, which does not.

        Raises StoreUnavailableError after `timeout` seconds."""

    def reached_by(self, version: Version) -> Version:
        """The read version of a `read` that reaches a commit and goes no further."""
        return version

    @abstractmethod
    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        durability: Durability = "full",
        timeout: float | None = None,
        idempotent: bool = True,
        as_of: Version | None = None,
    ) -> Result[T]:
        """Run `work` and commit, again and again until it goes through or raises.

        `as_of`: the read version of some `read` here, where the engine `reaches_back`.  The first run, whose
        transaction says so, sees the store as of then, and its read conflicts are checked against all
        that was committed since.  If it does not go through, the next run is like any other.

        With durability "full" returns only once the commit would survive a power cut.  An exception
        from `work` rolls back and comes out as it is.  When the engine cannot tell whether a commit
        happened: with `idempotent` it runs `work` again, which finds out by itself (by a key that the
        first run would have written); without, it raises OutcomeUnknownError with an empty token.
        Raises StoreUnavailableError, StoreFullError, StoreReadOnlyError."""

    def operations(self) -> Operations | None:
        """Counted so far; None where nothing is sent anywhere."""
        return None

    def give_back(self, *, whole: bool = False) -> int:
        """Give space that nothing lies in any more back to the file system, in small transactions where
        there is much of it; `whole`: all, however long others have to wait.  How many bytes that were."""
        return 0

    def is_copied(self, tx: Snapshot) -> bool:
        """Whether what this engine opened is known to be a copy: not what the last commit was made to."""
        return False

    def signal(self, namespace: NamespaceId) -> Signal | None:
        """What tells of commits that announce the namespace; None: only asking does."""
        return None

    @abstractmethod
    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        """See `Store.head_word`."""

    @abstractmethod
    def sync(self) -> None:
        """Flush everything visible now."""

    @abstractmethod
    def usable(self) -> bool:
        """False once every call is refused: it was closed, or closed itself."""

    @abstractmethod
    def close(self) -> None: ...
