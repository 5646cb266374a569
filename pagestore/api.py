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

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from pagestore.errors import (
    BelowHorizonError,
    ConflictError,
    CorruptPageError,
    FormatError,
    InvalidNameError,
    InvalidRequestError,
    LeaseEndedError,
    LimitError,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchStoreError,
    NoSuchVersionError,
    NotAllowedError,
    OutcomeUnknownError,
    OverloadedError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    TurnTakenError,
    UnsupportedError,
    VoidTokenError,
)
from pagestore.numbers import (
    MAX_MESSAGE_BYTES,
    MAX_NAME_BYTES,
    MAX_VERSION,
    TOKEN_SIZE,
    VERSION_SIZE,
    ZERO_VERSION,
    NamespaceId,
    PageNumber,
    PageRun,
    PageSet,
    Version,
    before,
    format_version,
    new_token,
    pack_numbers,
    parse_version,
)
from pagestore.runs import PageRuns, RunSet, in_arrays, runs_in, united, without
from pagestore.values import (
    Allocation,
    Begin,
    Change,
    Changes,
    Collected,
    CommitPart,
    CommitRequest,
    Committed,
    Dropped,
    Durability,
    HeadWord,
    Lease,
    LeaseWish,
    ListedChanges,
    Namespace,
    PackedChanges,
    PageWrite,
    Retention,
    StoredPage,
    Tag,
    Usage,
    Watched,
    split_packed,
)

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_NAME_BYTES",
    "MAX_VERSION",
    "TOKEN_SIZE",
    "VERSION_SIZE",
    "ZERO_VERSION",
    "Allocation",
    "Begin",
    "BelowHorizonError",
    "Change",
    "Changes",
    "Collected",
    "CommitPart",
    "CommitRequest",
    "Committed",
    "ConflictError",
    "CorruptPageError",
    "Dropped",
    "Durability",
    "FormatError",
    "HeadWord",
    "InvalidNameError",
    "InvalidRequestError",
    "Lease",
    "LeaseEndedError",
    "LeaseWish",
    "LimitError",
    "ListedChanges",
    "NameTakenError",
    "Namespace",
    "NamespaceId",
    "NoSuchNamespaceError",
    "NoSuchStoreError",
    "NoSuchVersionError",
    "NotAllowedError",
    "OutcomeUnknownError",
    "OverloadedError",
    "PackedChanges",
    "PageNumber",
    "PageRun",
    "PageRuns",
    "PageSet",
    "PageWrite",
    "Retention",
    "RunSet",
    "Signal",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreReadOnlyError",
    "StoreUnavailableError",
    "StoredPage",
    "Tag",
    "TurnTakenError",
    "UnsupportedError",
    "Usage",
    "Version",
    "VoidTokenError",
    "Watch",
    "Watched",
    "before",
    "format_version",
    "in_arrays",
    "new_token",
    "pack_numbers",
    "parse_version",
    "runs_in",
    "split_packed",
    "united",
    "without",
]


class Watch(Iterator[Watched]):
    """The answers of `Store.watch`: `next` blocks until there is one."""

    @abstractmethod
    def close(self) -> None:
        """End it, from any thread: a `next` that waits raises StopIteration."""


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

    waits_anywhere: bool = False
    """Whether begins, reads and commits can wait for their answers while others of the same thread go on
    (`pagestore.waits`)."""

    reaches_commits: bool = False
    """Whether a begin costs less where it need not be newer than a commit (`begin`, `reaching`)."""

    takes_moves: bool = True
    """Whether pages may be deltas that move bytes (`pagestore.encoding.encode`)."""

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
    def begin(
        self,
        namespace: NamespaceId,
        since: Version | None = None,
        at: Version | None = None,
        *,
        reaching: Version | None = None,
    ) -> Begin:
        """Start a transaction at the newest version, or at `at`; tell what changed after `since`.

        `reaching`: a version that was committed by this store object a moment ago.  Then the newest version
        as of that commit will do, where to know of later ones would cost more.

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
    def renew_lease(self, namespace: NamespaceId, lease: bytes, seconds: float) -> None:
        """Let a lease last for `seconds` (at most 600) from now; also one that has ended, as long as nobody
        was given page numbers since.

        Raises LeaseEndedError (somebody was, or it was released), NoSuchNamespaceError, LimitError,
        StoreReadOnlyError, StoreUnavailableError."""

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
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Change]:
        """Commits in (after, until], in short engine transactions, without the first `skip` of them;
        `limit` 0: all.

        With `newest_first` skipping costs little more for a million commits than for a hundred."""

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

    def tags(self, namespace: NamespaceId, name: str | None = None) -> list[Tag]:
        """All tags, by name; with `name` the one that is called so, or none.  Raises NoSuchNamespaceError."""
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

    def incarnation(self) -> int:
        """A number of 31 bits that is another one once the store was put back from a backup; 0: it never was.

        A service makes it part of the ids that it tells, so that its clients notice."""
        return 0

    def renew(self, *, only_if_copied: bool = False) -> bool:
        """Give the store another incarnation: after it was put back by other means than `mvctl restore`, and
        while nobody else has it open.

        `only_if_copied`: if its files are not those that the last commit was made to, as far as that can be
        told.  False: they are.  Raises UnsupportedError (a service's client), StoreReadOnlyError,
        StoreUnavailableError."""
        raise UnsupportedError("only who has the store itself can renew it, not a service's client")

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
