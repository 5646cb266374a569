"""Values of the `Store` interface ↔ messages of proto/pagestore/v1.

Called by both ends: `pagestore.service` and the client in `mvvfs`.  Calls nothing of the store.

1. `x_message` makes a message of a value, `x_of` a value of a message.
2. What comes in is checked for what its type promises: sizes of versions and tokens, page numbers in range
   and ascending.  `WireError` says what is wrong; whether the request makes sense, the store decides.
3. A field that is absent reads as its default, so a message of an older release has a meaning.
4. `ERRORS` is the one table between errors, their kinds on the wire and gRPC's status codes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Final, NamedTuple

import grpc

from pagestore.api import (
    TOKEN_SIZE,
    VERSION_SIZE,
    ZERO_VERSION,
    Allocation,
    Begin,
    BelowHorizonError,
    Change,
    Changes,
    Collected,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    CorruptPageError,
    Dropped,
    Durability,
    FormatError,
    InvalidNameError,
    InvalidRequestError,
    Lease,
    LeaseEndedError,
    LeaseWish,
    LimitError,
    ListedChanges,
    Namespace,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchVersionError,
    NotAllowedError,
    OutcomeUnknownError,
    OverloadedError,
    PageNumber,
    PageRun,
    PageSet,
    PageWrite,
    Retention,
    StoredPage,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Tag,
    TurnTakenError,
    UnsupportedError,
    Usage,
    Version,
    VoidTokenError,
    Watched,
)
from pagestore.v1 import pagestore_pb2 as pb

SERVICE: Final = "pagestore.v1.PageStore"
ERROR_KEY: Final = "pagestore-error-bin"
"""Trailing metadata that holds an `Error`."""

MAX_PAGE: Final = 0xFFFFFFFE
"""SQLite's limit (https://www.sqlite.org/limits.html#max_page_count)."""

MAX_NUMBERS: Final = 4_000_000
"""Page numbers of one set: sixteen gigabytes of usual pages."""

MAX_ERROR_TEXT: Final = 1024
"""Characters: metadata is bounded by gRPC to some kilobytes."""


class WireError(ValueError):
    """A message that no well-behaved peer sends."""


# ---- versions, tokens, page numbers ----


def version_of(field: bytes, what: str = "version") -> Version:
    if len(field) != VERSION_SIZE:
        raise WireError(f"{what}: a version has {VERSION_SIZE} bytes, not {len(field)}")
    return Version(field)


def optional_version_of(field: bytes, what: str = "version") -> Version | None:
    return version_of(field, what) if field else None


def token_of(field: bytes, what: str = "token") -> bytes:
    if len(field) != TOKEN_SIZE:
        raise WireError(f"{what}: {TOKEN_SIZE} bytes are expected, not {len(field)}")
    return field


def namespace_id_of(field: int) -> NamespaceId:
    if not 0 < field < 1 << 63:
        raise WireError("a namespace's id is missing, or too large")
    return NamespaceId(field)


def numbers_message(ascending: Sequence[int]) -> pb.PageNumbers:
    """`ascending`: distinct."""
    if len(ascending) < 2:
        return pb.PageNumbers(gaps=ascending)
    gaps = [ascending[0]]
    gaps.extend(map(sub, ascending[1:], ascending))
    return pb.PageNumbers(gaps=gaps)


def page_set_message(pages: PageSet) -> pb.PageNumbers:
    return numbers_message(sorted(pages.as_set()))


def _packed_of(message: pb.PageNumbers) -> array[int]:
    """Raises WireError, LimitError."""
    gaps = message.gaps
    if len(gaps) > MAX_NUMBERS:
        raise LimitError(f"a set of {len(gaps)} page numbers; {MAX_NUMBERS} are taken")
    if gaps and min(gaps) < 1:
        raise WireError("page numbers: they are ascending, distinct, and counted from 1")
    try:
        numbers = array("I", accumulate(gaps))
    except OverflowError as exc:
        raise WireError(f"page numbers are at most {MAX_PAGE}") from exc
    if numbers and numbers[-1] > MAX_PAGE:
        raise WireError(f"page numbers are at most {MAX_PAGE}")
    return numbers


def numbers_of(message: pb.PageNumbers) -> tuple[PageNumber, ...]:
    return tuple(map(PageNumber, _packed_of(message)))


def page_set_of(message: pb.PageNumbers) -> PageSet:
    return PageSet(_packed_of(message).tobytes())


def page_number_of(field: int) -> PageNumber:
    if not 1 <= field <= MAX_PAGE:
        raise WireError(f"page numbers are 1 to {MAX_PAGE}, not {field}")
    return PageNumber(field)


# ---- namespaces ----


def namespace_message(namespace: Namespace) -> pb.Namespace:
    return pb.Namespace(
        id=namespace.id,
        name=namespace.name,
        page_size=namespace.page_size,
        created_us=namespace.created_us,
        horizon=namespace.horizon,
        horizon_us=namespace.horizon_us,
        parent=namespace.parent[0] if namespace.parent else 0,
        parent_version=namespace.parent[1] if namespace.parent else b"",
    )


def namespace_of(message: pb.Namespace) -> Namespace:
    return Namespace(
        id=namespace_id_of(message.id),
        name=message.name,
        page_size=message.page_size,
        created_us=message.created_us,
        horizon=optional_version_of(message.horizon, "horizon") or ZERO_VERSION,
        horizon_us=message.horizon_us,
        parent=_parent_of(message) if message.parent else None,
    )


def _parent_of(message: pb.Namespace) -> tuple[NamespaceId, Version]:
    version = optional_version_of(message.parent_version, "parent_version") or ZERO_VERSION
    return namespace_id_of(message.parent), version


# ---- the changelog and allocation ----


def change_message(change: Change) -> pb.Change:
    message = pb.Change(
        version=change.version,
        time_us=change.time_us,
        pages=numbers_message(change.pages),
        token=change.token,
        message=change.message,
    )
    if change.allocated:
        message.allocated.CopyFrom(numbers_message(change.allocated))
    if change.freed:
        message.freed.CopyFrom(numbers_message(change.freed))
    return message


def change_of(message: pb.Change) -> Change:
    return Change(
        version=version_of(message.version),
        time_us=message.time_us,
        pages=numbers_of(message.pages),
        token=message.token,
        message=message.message,
        allocated=numbers_of(message.allocated),
        freed=numbers_of(message.freed),
    )


def change_messages(changes: Iterable[Change]) -> list[pb.Change]:
    return [change_message(change) for change in changes]


def changes_of(messages: Iterable[pb.Change]) -> Changes:
    return ListedChanges(map(change_of, messages))


def allocation_message(allocation: Allocation) -> pb.Allocation:
    flat: list[int] = []
    behind = 0
    for first, length in allocation.free:
        flat += (first - behind, length)
        behind = first + length
    return pb.Allocation(highest=allocation.highest, free=flat)


def allocation_of(message: pb.Allocation) -> Allocation:
    flat = message.free
    if len(flat) % 2 or (flat and (min(flat[1::2]) < 1 or flat[0] < 1)):
        raise WireError("free runs: two numbers each, their lengths at least 1")
    runs = []
    behind = 0
    for gap, length in zip(flat[::2], flat[1::2], strict=True):
        runs.append(PageRun(PageNumber(behind + gap), length))
        behind += gap + length
    if behind > MAX_PAGE + 1:
        raise WireError(f"page numbers are at most {MAX_PAGE}")
    return Allocation(PageNumber(message.highest), tuple(runs))


# ---- pages ----


def page_message(number: PageNumber, page: StoredPage | None) -> pb.Page:
    if page is None:
        return pb.Page(number=number)
    return pb.Page(number=number, version=page.version, blobs=page.blobs)


def pages_message(
    numbers: Sequence[PageNumber], pages: Sequence[StoredPage | None], max_bytes: int
) -> pb.ReadResponse:
    """As many of the first pages as `max_bytes` allow, and at least one."""
    response = pb.ReadResponse()
    messages, left = response.pages, max_bytes
    for number, page in zip(numbers, pages, strict=True):
        if page is None:
            messages.add(number=number)
            continue
        left -= sum(map(len, page.blobs))
        if left < 0 and messages:
            break
        messages.add(number=number, version=page.version, blobs=page.blobs)  # cheaper than to append one
    return response


def page_numbers_of(field: Sequence[int]) -> list[PageNumber]:
    """Not a set: as they were asked for."""
    if field and not 1 <= min(field) <= max(field) <= MAX_PAGE:
        raise WireError(f"page numbers are 1 to {MAX_PAGE}")
    return list(map(PageNumber, field))


def page_of(message: pb.Page) -> StoredPage | None:
    if not message.version and not message.blobs:
        return None
    if not message.blobs:
        raise WireError(f"page {message.number} has a version but no content")
    return StoredPage(
        page_number_of(message.number), version_of(message.version, "page"), tuple(message.blobs)
    )


def pages_of(messages: Sequence[pb.Page], asked: Sequence[PageNumber]) -> list[StoredPage | None]:
    """The answer to a `Read`: as many as came, of the first of those that were asked for."""
    if len(messages) > len(asked) or any(
        message.number != number for message, number in zip(messages, asked, strict=False)
    ):
        raise WireError("the pages of the answer are not those that were asked for")
    return [page_of(message) for message in messages]


def write_messages(writes: Iterable[PageWrite]) -> list[pb.PageWrite]:
    return [pb.PageWrite(number=number, blob=blob) for number, blob in writes]


def writes_of(messages: Iterable[pb.PageWrite]) -> list[PageWrite]:
    return [PageWrite(page_number_of(message.number), message.blob) for message in messages]


# ---- transactions ----


def begin_message(begin: Begin) -> pb.BeginResponse:
    message = pb.BeginResponse(version=begin.version, page_size=begin.page_size)
    if begin.changes is None:
        message.forget = True
    elif begin.changes:
        message.changes.extend(change_messages(begin.changes))
    if begin.allocation is not None:
        message.allocation.CopyFrom(allocation_message(begin.allocation))
    return message


def begin_of(message: pb.BeginResponse) -> Begin:
    return Begin(
        version=version_of(message.version),
        changes=None if message.forget else changes_of(message.changes),
        page_size=message.page_size,
        allocation=allocation_of(message.allocation) if message.HasField("allocation") else None,
    )


def lease_message(lease: Lease) -> pb.Lease:
    return pb.Lease(id=lease.id, numbers=numbers_message(lease.numbers), seconds=lease.seconds)


def lease_of(message: pb.Lease) -> Lease | None:
    """None: there is no lease."""
    return Lease(message.id, numbers_of(message.numbers), message.seconds) if message.id else None


_DURABILITY: Final[dict[Durability, pb.Durability]] = {"full": pb.FULL, "normal": pb.NORMAL}


def commit_message(request: CommitRequest) -> pb.CommitRequest:
    return pb.CommitRequest(
        token=request.token,
        base=request.base,
        parts=[_part_message(part) for part in request.parts],
        message=request.message,
        durability=_DURABILITY[request.durability],
        ticket=request.ticket or b"",
        time_us=request.time_us,
        chores=None if request.wish is None else pb.Chores(lease=wish_message(request.wish)),
    )


def wish_message(wish: LeaseWish) -> pb.LeaseWish:
    return pb.LeaseWish(want=wish.want, seconds=wish.seconds, replaces=wish.replaces or b"")


def wish_of(message: pb.LeaseWish) -> LeaseWish:
    return LeaseWish(message.want, message.seconds, message.replaces or None)


def _part_message(part: CommitPart) -> pb.CommitPart:
    message = pb.CommitPart(
        namespace=part.namespace,
        reads=page_set_message(part.reads),
        writes=write_messages(part.writes),
        page_size=part.page_size,
        lease=part.lease or b"",
        reads_all=part.reads_all,
    )
    if part.staged:
        message.staged.CopyFrom(page_set_message(part.staged))
    if part.allocated:
        message.allocated.CopyFrom(numbers_message(part.allocated))
    if part.freed:
        message.freed.CopyFrom(numbers_message(part.freed))
    return message


def commit_of(message: pb.CommitRequest) -> CommitRequest:
    return CommitRequest(
        token=token_of(message.token),
        base=version_of(message.base, "base"),
        parts=[_part_of(part) for part in message.parts],
        message=message.message,
        durability="normal" if message.durability == pb.NORMAL else "full",
        ticket=token_of(message.ticket, "ticket") if message.ticket else None,
        time_us=message.time_us if message.HasField("time_us") else None,
        wish=wish_of(message.chores.lease) if message.chores.HasField("lease") else None,
    )


def _part_of(message: pb.CommitPart) -> CommitPart:
    return CommitPart(
        namespace=namespace_id_of(message.namespace),
        reads=page_set_of(message.reads),
        writes=writes_of(message.writes),
        page_size=message.page_size,
        allocated=numbers_of(message.allocated),
        freed=numbers_of(message.freed),
        lease=message.lease or None,
        reads_all=message.reads_all,
        staged=page_set_of(message.staged),
    )


def committed_message(committed: Committed) -> pb.Committed:
    return pb.Committed(
        version=committed.version,
        time_us=committed.time_us,
        others=[pb.Others(changes=change_messages(changes)) for changes in committed.others],
    )


def committed_of(message: pb.Committed, omitted: Callable[[int], Changes]) -> Committed:
    """`omitted` is called for the changes of a part, by its index, that the answer had no room for."""
    return Committed(
        version=version_of(message.version),
        time_us=message.time_us,
        others=tuple(
            omitted(index) if others.omitted else changes_of(others.changes)
            for index, others in enumerate(message.others)
        ),
    )


def conflict_message(conflict: ConflictError) -> pb.Conflict:
    return pb.Conflict(
        namespace=conflict.namespace,
        pages=numbers_message(conflict.pages),
        version=conflict.version,
        fresh=[page_message(page.number, page) for page in conflict.fresh],
    )


def conflict_of(message: pb.Conflict) -> ConflictError:
    fresh = (page_of(page) for page in message.fresh)
    return ConflictError(
        namespace_id_of(message.namespace),
        numbers_of(message.pages),
        version_of(message.version),
        tuple(page for page in fresh if page is not None),
    )


# ---- the rest ----


def watched_message(watched: Watched) -> pb.WatchResponse:
    message = pb.WatchResponse(version=watched.version, clock_us=int(watched.clock * 1e6))
    if watched.changes is None:
        message.forget = True
    elif watched.changes:
        message.changes.extend(change_messages(watched.changes))
    return message


def watched_of(message: pb.WatchResponse) -> Watched:
    changes = None if message.forget else changes_of(message.changes)
    return Watched(version_of(message.version), changes, message.clock_us / 1e6)


def usage_message(usage: Usage) -> pb.Usage:
    return pb.Usage(
        live_pages=usage.live_pages,
        live_bytes=usage.live_bytes,
        history_pages=usage.history_pages,
        history_bytes=usage.history_bytes,
        commits=usage.commits,
        shared_pages=usage.shared_pages,
        shared_bytes=usage.shared_bytes,
    )


def usage_of(message: pb.Usage) -> Usage:
    return Usage(
        live_pages=message.live_pages,
        live_bytes=message.live_bytes,
        history_pages=message.history_pages,
        history_bytes=message.history_bytes,
        commits=message.commits,
        shared_pages=message.shared_pages,
        shared_bytes=message.shared_bytes,
    )


# ---- retention ----


def retention_message(retention: Retention) -> pb.Retention:
    return pb.Retention(seconds=retention.seconds, max_bytes=retention.max_bytes)


def retention_of(message: pb.Retention) -> Retention:
    return Retention(
        seconds=message.seconds if message.HasField("seconds") else None,
        max_bytes=message.max_bytes if message.HasField("max_bytes") else None,
    )


def tag_message(tag: Tag) -> pb.Tag:
    return pb.Tag(name=tag.name, version=tag.version, time_us=tag.time_us)


def tag_of(message: pb.Tag) -> Tag:
    return Tag(message.name, version_of(message.version), message.time_us)


def dropped_message(dropped: Dropped) -> pb.Dropped:
    return pb.Dropped(
        id=dropped.id, name=dropped.name, dropped_us=dropped.dropped_us, until_us=dropped.until_us or 0
    )


def dropped_of(message: pb.Dropped) -> Dropped:
    return Dropped(namespace_id_of(message.id), message.name, message.dropped_us, message.until_us or None)


def collected_message(collected: Collected) -> pb.Collected:
    return pb.Collected(
        horizon=collected.horizon,
        horizon_us=collected.horizon_us,
        versions=collected.versions,
        page_versions=collected.page_versions,
        freed_bytes=collected.bytes,
        complete=collected.complete,
    )


def collected_of(message: pb.Collected) -> Collected:
    return Collected(
        horizon=version_of(message.horizon, "horizon"),
        horizon_us=message.horizon_us,
        versions=message.versions,
        page_versions=message.page_versions,
        bytes=message.freed_bytes,
        complete=message.complete,
    )


# ---- errors ----


class _Row(NamedTuple):
    raised: type[StoreError]
    kind: pb.ErrorKind
    status: grpc.StatusCode


ERRORS: Final[tuple[_Row, ...]] = (
    _Row(NoSuchNamespaceError, pb.NO_SUCH_NAMESPACE, grpc.StatusCode.NOT_FOUND),
    _Row(NameTakenError, pb.NAME_TAKEN, grpc.StatusCode.ALREADY_EXISTS),
    _Row(InvalidNameError, pb.INVALID_NAME, grpc.StatusCode.INVALID_ARGUMENT),
    _Row(LeaseEndedError, pb.LEASE_ENDED, grpc.StatusCode.ABORTED),
    _Row(TurnTakenError, pb.TURN_TAKEN, grpc.StatusCode.ABORTED),
    _Row(BelowHorizonError, pb.BELOW_HORIZON, grpc.StatusCode.OUT_OF_RANGE),
    _Row(NoSuchVersionError, pb.NO_SUCH_VERSION, grpc.StatusCode.OUT_OF_RANGE),
    _Row(CorruptPageError, pb.CORRUPT_PAGE, grpc.StatusCode.DATA_LOSS),
    _Row(OutcomeUnknownError, pb.OUTCOME_UNKNOWN, grpc.StatusCode.UNKNOWN),
    _Row(StoreUnavailableError, pb.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
    _Row(OverloadedError, pb.OVERLOADED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(StoreFullError, pb.STORE_FULL, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(StoreReadOnlyError, pb.READ_ONLY, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(FormatError, pb.FORMAT, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(LimitError, pb.LIMIT, grpc.StatusCode.RESOURCE_EXHAUSTED),
    _Row(InvalidRequestError, pb.INVALID_REQUEST, grpc.StatusCode.INVALID_ARGUMENT),
    _Row(VoidTokenError, pb.VOID_TOKEN, grpc.StatusCode.FAILED_PRECONDITION),
    _Row(NotAllowedError, pb.NOT_ALLOWED, grpc.StatusCode.PERMISSION_DENIED),
    _Row(UnsupportedError, pb.UNSUPPORTED, grpc.StatusCode.UNIMPLEMENTED),
)
"""Every error but `ConflictError`, which is an answer."""

_BY_TYPE: Final = {row.raised: row for row in ERRORS}
_BY_KIND: Final = {row.kind: row.raised for row in ERRORS}

_BY_STATUS: Final[dict[grpc.StatusCode, type[StoreError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: NotAllowedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,  # gRPC's own, for a message that is too large
}
"""What a status without an `Error` means; any other: the service could not be reached."""


class Failure(NamedTuple):
    """An error as it goes over the wire."""

    status: grpc.StatusCode
    error: pb.Error


def failure_of(exc: StoreError) -> Failure:
    """A subclass counts as its nearest known base."""
    row = next((_BY_TYPE[kind] for kind in type(exc).__mro__ if kind in _BY_TYPE), None)
    message = str(exc)[:MAX_ERROR_TEXT]
    if row is None:
        return Failure(grpc.StatusCode.INTERNAL, pb.Error(message=message))
    error = pb.Error(kind=row.kind, message=message)
    if isinstance(exc, BelowHorizonError):
        error.version, error.horizon = exc.version, exc.horizon
    elif isinstance(exc, (TurnTakenError, OverloadedError)):
        error.seconds = exc.seconds
    elif isinstance(exc, OutcomeUnknownError):
        error.token = exc.token
    return Failure(row.status, error)


def error_of(status: grpc.StatusCode, text: str, detail: bytes | None) -> StoreError:
    """The error that a call ended with.  `detail`: what stood under `ERROR_KEY`; None if nothing did."""
    if detail is None:
        kind = _BY_STATUS.get(status, StoreUnavailableError)
        return kind(text or status.name)
    error = pb.Error.FromString(detail)
    raised = _BY_KIND.get(error.kind, _BY_STATUS.get(status, StoreUnavailableError))
    if raised is BelowHorizonError:
        return BelowHorizonError(version_of(error.version), version_of(error.horizon, "horizon"))
    if raised is TurnTakenError:
        return TurnTakenError(error.seconds)
    if raised is OverloadedError:
        return OverloadedError(error.message, error.seconds)
    if raised is OutcomeUnknownError:
        return OutcomeUnknownError(error.token, error.message)
    return raised(error.message)
