"""Everything that a store raises on purpose: one small tree.

Re-exported by `pagestore.api`, which is where everyone else gets them; calls `values`.  `mvvfs.errors` makes
SQLite's codes of them, `pagestore.wire` gRPC's.
"""

from __future__ import annotations

from pagestore.numbers import NamespaceId, PageNumber, Version, format_version
from pagestore.values import Lease, StoredPage


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
