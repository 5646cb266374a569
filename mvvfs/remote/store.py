"""`RemoteStore`: the `Store` interface over a service.

Opened by `mvvfs.stores`, called by `database`, `session`, `transfer` and the command line; calls the service
by `calls`, `commits`, `changelog` and `watch`, and follows namespaces by `follow`.

What the service tells is put into the namespace's follower, so that a bounded begin is never behind it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Final, cast

from mvvfs.options import parse_page_size
from mvvfs.remote import address, changelog, commits
from mvvfs.remote.calls import Calls, nothing
from mvvfs.remote.follow import Follower
from mvvfs.remote.watch import RemoteWatch
from pagestore import wire
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    Allocation,
    Begin,
    Change,
    Collected,
    CommitRequest,
    Committed,
    ConflictError,
    Dropped,
    HeadWord,
    InvalidNameError,
    Lease,
    LeaseWish,
    ListedChanges,
    Namespace,
    NamespaceId,
    PackedChanges,
    PageNumber,
    PageSet,
    PageWrite,
    Retention,
    Store,
    StoredPage,
    Tag,
    UnsupportedError,
    Usage,
    Version,
    Watch,
    new_token,
)
from pagestore.v1 import pagestore_pb2 as pb

_STAGED_BYTES: Final = 1_000_000
"""Bytes of staged pages in one message."""

_PAGE_BYTES: Final = 16
"""What a page takes in a message beside its blob, at most."""

_LONG: Final = 600.0
"""Seconds for what walks a whole namespace."""

_COLLECT_SECONDS: Final = 30.0
"""For one call of a run of retention that takes as long as it takes."""


def _name(name: str) -> str:
    """A name that can be sent; whether it makes one, the store says."""
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise InvalidNameError(f"a name is text that UTF-8 can hold: {exc.reason}") from None
    return name


def _pages(asked: Sequence[PageNumber], answer: pb.ReadResponse) -> list[StoredPage | None]:
    pages = wire.pages_of(answer.pages, asked)
    if asked and not pages:
        raise wire.WireError("none of the pages that were asked for")
    return pages


def _lease(answer: pb.Lease) -> Lease:
    lease = wire.lease_of(answer)
    if lease is None:
        raise wire.WireError("no lease")
    return lease


def _reverted(message: pb.Committed) -> Committed:
    return wire.committed_of(message, lambda _index: ListedChanges())


def open_remote(
    url: str, token: str | None, ca: str | None, cert: str | None, key: str | None, timeout: float
) -> RemoteStore:
    """The store at `url`.  Asks nothing yet.  Raises OptionError."""
    return RemoteStore(address.parse(url, token, ca, cert, key), timeout)


class RemoteStore(Store):
    """A store that a service serves."""

    distant = True

    def __init__(self, where: address.Address, timeout: float) -> None:
        """`timeout`: seconds that an operation waits for the service."""
        self.url = where.url
        self.on_close: Callable[[], bool] | None = None
        """Set by whoever shares this store: whether a `close` is that of its last user."""
        self.max_commit_bytes = _STAGED_BYTES  # until the service has said how much it takes
        self.takes_moves = False  # until the service has said that it does
        self._calls = Calls(where, timeout)
        self._lock = threading.Lock()
        self._followers: dict[NamespaceId, Follower] = {}
        self._info: pb.InfoResponse | None = None
        _alive.add(self)

    @property
    def timeout(self) -> float:
        return self._calls.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._calls.timeout = seconds

    def info(self) -> pb.InfoResponse:
        """What the service said of itself when it was first asked."""
        if self._info is None:
            self._info = self.ping()
            self.max_commit_bytes = self._info.max_commit_bytes
            self.takes_moves = self._info.takes_moves
        return self._info

    def ping(self) -> pb.InfoResponse:
        """What the service says of itself.  Raises StoreUnavailableError, NotAllowedError."""
        return self._calls.call("Info", pb.InfoRequest(), lambda answer: cast(pb.InfoResponse, answer))

    # ---- namespaces ----

    def create(self, name: str, *, page_size: int = 0) -> Namespace:
        try:
            parse_page_size(str(page_size))
        except ValueError as exc:
            raise ValueError(f"a page size is {exc}, not {page_size}") from None
        request = pb.CreateRequest(name=_name(name), page_size=page_size)
        return self._calls.call("Create", request, wire.namespace_of, once=f"the creation of {name!r}")

    def open(self, name: str) -> Namespace:
        return self._calls.call("Open", pb.OpenRequest(name=_name(name)), wire.namespace_of)

    def rename(self, name: str, new_name: str) -> Namespace:
        request = pb.RenameRequest(name=_name(name), new_name=_name(new_name))
        return self._calls.call("Rename", request, wire.namespace_of, once=f"the renaming of {name!r}")

    def drop(self, name: str, *, now: bool = False) -> None:
        request = pb.DropRequest(name=_name(name), now=now)
        self._calls.call("Drop", request, nothing, once=f"the removal of {name!r}", patience=_LONG)

    def dropped(self) -> list[Dropped]:
        return self._calls.call(
            "ListDropped",
            pb.ListDroppedRequest(),
            lambda answer: [wire.dropped_of(each) for each in answer.dropped],
        )

    def undrop(self, namespace: NamespaceId, name: str) -> Namespace:
        request = pb.UndropRequest(id=namespace, name=_name(name))
        return self._calls.call("Undrop", request, wire.namespace_of, once=f"the return of {name!r}")

    def purge(self, namespace: NamespaceId) -> None:
        request = pb.PurgeRequest(id=namespace)
        self._calls.call("Purge", request, nothing, once="the removal for good", patience=_LONG)

    def branch(self, namespace: NamespaceId, new_name: str, version: Version) -> Namespace:
        request = pb.BranchRequest(namespace=namespace, new_name=_name(new_name), version=version)
        return self._calls.call("Branch", request, wire.namespace_of, once=f"the branch {new_name!r}")

    # ---- transactions ----

    def begin(
        self,
        namespace: NamespaceId,
        since: Version | None = None,
        at: Version | None = None,
        *,
        reaching: Version | None = None,
    ) -> Begin:
        asked = time.monotonic_ns()
        request = pb.BeginRequest(
            namespace=namespace,
            since=since or b"",
            at=at or b"",
            wants_pages=since is not None and at is None,
        )
        begin = self._calls.call("Begin", request, wire.begin_of)
        follower = self._followers.get(namespace)
        if follower is not None and at is None:
            follower.heard(since, begin.version, begin.changes, asked, begin.page_size)
        return begin

    def recent(self, namespace: NamespaceId, since: Version | None, within: float) -> Begin | None:
        return self._follower(namespace).recent(since, within)

    def read(
        self, namespace: NamespaceId, version: Version, numbers: Sequence[PageNumber]
    ) -> list[StoredPage | None]:
        most = self.info().max_read_pages or len(numbers)
        pages: list[StoredPage | None] = []
        while True:
            asked = numbers[len(pages) : len(pages) + most]
            request = pb.ReadRequest(namespace=namespace, version=version, numbers=asked)
            came = self._calls.call("Read", request, partial(_pages, asked))
            pages += came
            if len(pages) == len(numbers):
                return pages

    def stage(self, namespace: NamespaceId, token: bytes, writes: Sequence[PageWrite]) -> None:
        messages: list[pb.StageRequest] = []
        size = _STAGED_BYTES
        for write in writes:
            if size >= _STAGED_BYTES:
                messages.append(pb.StageRequest(namespace=namespace, token=token))
                size = 0
            messages[-1].writes.extend(wire.write_messages([write]))
            size += len(write.blob) + _PAGE_BYTES
        for message in messages:
            self._calls.call("Stage", [message], nothing, patience=_LONG)

    def commit(self, request: CommitRequest) -> Committed:
        asked = time.monotonic_ns()
        try:
            done = commits.SentCommit(self._calls, request).result()
        except ConflictError as conflict:
            self._follower(conflict.namespace).must_reach(conflict.version)
            raise
        for part, others in zip(
            request.parts, repeat(None) if done.others is None else done.others, strict=False
        ):
            follower = self._followers.get(part.namespace)
            if follower is not None and done.begin is not None:
                begin = done.begin
                follower.heard(request.base, begin.version, begin.changes, asked, begin.page_size)
            elif follower is not None and others is None:
                follower.must_reach(done.version)
            elif follower is not None and others is not None:
                own = commits.own_change(request, part, done)
                packed = others.packed + ListedChanges(own).packed
                changes = PackedChanges(packed, len(others) + len(own))
                follower.heard(request.base, done.version, changes, asked, part.page_size)
        return done

    def outcome(self, namespace: NamespaceId, token: bytes) -> Version | None:
        return commits.outcome(self._calls, namespace, token)

    def watch(self, namespace: NamespaceId, after: Version, *, heartbeat: float = 5.0) -> Watch:
        return RemoteWatch(self._calls, namespace, after, heartbeat)

    # ---- page numbers ----

    def allocation(self, namespace: NamespaceId, version: Version) -> Allocation:
        request = pb.GetAllocationRequest(namespace=namespace, version=version)
        return self._calls.call("GetAllocation", request, wire.allocation_of)

    def lease(
        self, namespace: NamespaceId, want: int, seconds: float, replaces: bytes | None = None
    ) -> Lease:
        wish = wire.wish_message(LeaseWish(max(want, 0), seconds, replaces))
        return self._calls.call("TakeLease", pb.TakeLeaseRequest(namespace=namespace, wish=wish), _lease)

    def renew_lease(self, namespace: NamespaceId, lease: bytes, seconds: float) -> None:
        request = pb.RenewLeaseRequest(namespace=namespace, lease=lease, seconds=seconds)
        self._calls.call("RenewLease", request, nothing)

    def release(self, namespace: NamespaceId, lease: bytes) -> None:
        self._calls.call("ReleaseLease", pb.ReleaseLeaseRequest(namespace=namespace, lease=lease), nothing)

    # ---- turns ----

    def take_turn(self, namespace: NamespaceId, ticket: bytes, pages: PageSet | None, seconds: float) -> bool:
        request = pb.TakeTurnRequest(
            namespace=namespace,
            ticket=ticket,
            pages=None if pages is None else wire.page_set_message(pages),
            seconds=seconds,
        )
        return self._calls.call("TakeTurn", request, lambda answer: bool(answer.came))

    def leave_turn(self, namespace: NamespaceId, ticket: bytes) -> None:
        self._calls.call("LeaveTurn", pb.LeaveTurnRequest(namespace=namespace, ticket=ticket), nothing)

    # ---- history ----

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
        return changelog.read(
            self._calls,
            namespace,
            after=after,
            until=until,
            newest_first=newest_first,
            skip=skip,
            limit=limit,
        )

    def version_at(self, namespace: NamespaceId, time_us: int) -> Version:
        request = pb.VersionAtRequest(namespace=namespace, time_us=time_us)
        return self._calls.call("VersionAt", request, lambda answer: wire.version_of(answer.version))

    # ---- retention ----

    def retention(self, namespace: NamespaceId) -> Retention:
        request = pb.GetRetentionRequest(namespace=namespace)
        return self._calls.call("GetRetention", request, wire.retention_of)

    def set_retention(self, namespace: NamespaceId, retention: Retention) -> None:
        message = pb.SetRetentionRequest(namespace=namespace, retention=wire.retention_message(retention))
        self._calls.call("SetRetention", message, nothing)

    def tag(self, namespace: NamespaceId, name: str, version: Version) -> Tag:
        request = pb.SetTagRequest(namespace=namespace, name=_name(name), version=version)
        return self._calls.call("SetTag", request, wire.tag_of)

    def untag(self, namespace: NamespaceId, name: str) -> None:
        request = pb.DeleteTagRequest(namespace=namespace, name=_name(name))
        self._calls.call("DeleteTag", request, nothing, once=f"the removal of the tag {name!r}")

    def tags(self, namespace: NamespaceId, name: str | None = None) -> list[Tag]:
        return self._calls.call(
            "ListTags",
            pb.ListTagsRequest(namespace=namespace, name=name or ""),
            lambda answer: [wire.tag_of(each) for each in answer.tags],
        )

    def hold(
        self, namespace: NamespaceId, version: Version, seconds: float, hold: bytes | None = None
    ) -> bytes:
        request = pb.HoldRequest(namespace=namespace, version=version, seconds=seconds, hold=hold or b"")
        return self._calls.call("Hold", request, lambda answer: bytes(answer.hold))

    def unhold(self, namespace: NamespaceId, hold: bytes) -> None:
        self._calls.call("Unhold", pb.UnholdRequest(namespace=namespace, hold=hold), nothing)

    def collect(self, namespace: NamespaceId, *, dry_run: bool = False, seconds: float = 0) -> Collected:
        """See `Store.collect`.  In several calls where it may take long: a run rests while others write."""
        slice_ = 0 if dry_run else seconds or _COLLECT_SECONDS
        request = pb.CollectRequest(namespace=namespace, dry_run=dry_run, seconds=slice_)
        went = self._calls.call("Collect", request, wire.collected_of, patience=_LONG)
        while not (went.complete or seconds):
            more = self._calls.call("Collect", request, wire.collected_of, patience=_LONG)
            went = replace(
                more,
                versions=went.versions + more.versions,
                page_versions=went.page_versions + more.page_versions,
                bytes=went.bytes + more.bytes,
            )
        return went

    def give_back(self, *, whole: bool = False) -> int:
        if whole:
            raise UnsupportedError(f"{self.url}: space is given back where the store is, not by its clients")
        return 0  # the service does it by itself

    def revert(
        self, namespace: NamespaceId, to: Version, *, message: str = "", token: bytes | None = None
    ) -> Committed:
        request = pb.RevertRequest(namespace=namespace, to=to, message=message, token=token or new_token())
        done = self._calls.call("Revert", request, _reverted, patience=_LONG)
        self._follower(namespace).must_reach(done.version)
        return done

    # ---- the rest ----

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return self._follower(namespace).head()

    def _follower(self, namespace: NamespaceId) -> Follower:
        with self._lock:
            follower = self._followers.get(namespace)
            if follower is None:
                follower = self._followers[namespace] = Follower(self._calls, namespace)
            return follower

    def store_id(self) -> bytes:
        return self.info().store_id

    def sync(self) -> None:
        self._calls.call("Sync", pb.SyncRequest(), nothing)

    def usage(self, namespace: NamespaceId) -> Usage:
        request = pb.GetUsageRequest(namespace=namespace)
        return self._calls.call("GetUsage", request, wire.usage_of, patience=_LONG)

    def usable(self) -> bool:
        """False once it is closed."""
        return self._calls.usable()

    def close(self) -> None:
        if self.on_close is not None and not self.on_close():
            return
        with self._lock:
            followers, self._followers = list(self._followers.values()), {}
        for follower in followers:
            follower.close()
        self._calls.close()

    def rest_followers(self) -> None:
        """Before fork(): gRPC's own preparation leaves out what a thread is using."""
        for follower in tuple(self._followers.values()):
            follower.rest()

    def forget_followers(self) -> None:
        """In a child, after fork(): their threads are the parent's."""
        self._lock, self._followers = threading.Lock(), {}

    def list(self) -> list[Namespace]:  # last: from here on, `list` means this in the class body
        return self._calls.call(
            "List",
            pb.ListRequest(),
            lambda answers: [wire.namespace_of(each) for answer in answers for each in answer.namespaces],
        )


_alive: weakref.WeakSet[RemoteStore] = weakref.WeakSet()


def _before_fork() -> None:
    for store in tuple(_alive):
        store.rest_followers()


def _after_fork() -> None:
    for store in tuple(_alive):
        store.forget_followers()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
