"""A transaction's way through the service: begin, pages, leases, commit, conflict.

Re-exported by `pagestore.wire`; calls `fields` and `history`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pagestore.api import (
    Begin,
    Changes,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    Durability,
    Lease,
    LeaseWish,
    PageNumber,
    PageWrite,
    StoredPage,
)
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.wire.fields import (
    WireError,
    listed_of,
    namespace_id_of,
    numbers_message,
    numbers_of,
    optional_version_of,
    page_number_of,
    page_set_message,
    page_set_of,
    runs_of,
    some_numbers,
    token_of,
    version_of,
)
from pagestore.wire.history import allocation_message, allocation_of, packed_message, packed_of


def begin_message(begin: Begin) -> pb.BeginResponse:
    message = pb.BeginResponse(
        version=begin.version,
        page_size=begin.page_size,
        read_version=begin.read_version or b"",
        told=begin.told,
    )
    if begin.changes is None:
        message.forget = True
    elif begin.changes:
        message.changes = packed_message(begin.changes)
    if begin.allocation is not None:
        message.allocation.CopyFrom(allocation_message(begin.allocation))
    return message


def begin_of(message: pb.BeginResponse) -> Begin:
    return Begin(
        version=version_of(message.version),
        changes=None if message.forget else packed_of(message.changes),
        page_size=message.page_size,
        allocation=allocation_of(message.allocation) if message.HasField("allocation") else None,
        read_version=optional_version_of(message.read_version, "read_version"),
        told=message.told,
    )


def page_message(number: PageNumber, page: StoredPage | None) -> pb.Page:
    if page is None:
        return pb.Page(number=number)
    return pb.Page(number=number, version=page.version, blobs=page.blobs)


def page_of(message: pb.Page) -> StoredPage | None:
    if not message.version and not message.blobs:
        return None
    if not message.blobs:
        raise WireError(f"page {message.number} has a version but no content")
    return StoredPage(
        page_number_of(message.number), version_of(message.version, "page"), tuple(message.blobs)
    )


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


def lease_message(lease: Lease) -> pb.Lease:
    return pb.Lease(id=lease.id, numbers=numbers_message(lease.numbers), seconds=lease.seconds)


def lease_of(message: pb.Lease) -> Lease | None:
    """None: there is no lease."""
    return Lease(message.id, numbers_of(message.numbers), message.seconds) if message.id else None


def wish_message(wish: LeaseWish) -> pb.LeaseWish:
    return pb.LeaseWish(want=wish.want, seconds=wish.seconds, replaces=wish.replaces or b"")


def wish_of(message: pb.LeaseWish) -> LeaseWish:
    return LeaseWish(message.want, message.seconds, message.replaces or None)


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
        read_version=request.read_version or b"",
        without_others=not request.tells_others,
        wants_begin=request.wants_begin,
    )


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
        read_version=optional_version_of(message.read_version, "read_version"),
        tells_others=not message.without_others,
        wants_begin=message.wants_begin,
    )


def _part_message(part: CommitPart) -> pb.CommitPart:
    return pb.CommitPart(
        namespace=part.namespace,
        reads=page_set_message(part.reads),
        writes=write_messages(part.writes),
        page_size=part.page_size,
        lease=part.lease or b"",
        reads_all=part.reads_all,
        staged=some_numbers(part.staged),
        allocated=some_numbers(part.allocated),
        freed=some_numbers(part.freed),
    )


def _part_of(message: pb.CommitPart) -> CommitPart:
    return CommitPart(
        namespace=namespace_id_of(message.namespace),
        reads=page_set_of(message.reads),
        writes=writes_of(message.writes),
        page_size=message.page_size,
        allocated=listed_of(message.allocated),
        freed=listed_of(message.freed),
        lease=message.lease or None,
        reads_all=message.reads_all,
        staged=runs_of(message.staged),
    )


def committed_message(committed: Committed) -> pb.Committed:
    return pb.Committed(
        version=committed.version,
        time_us=committed.time_us,
        others=[pb.Others(changes=packed_message(changes)) for changes in committed.others or ()],
        without_others=committed.others is None,
    )


def committed_of(
    message: pb.Committed,
    omitted: Callable[[int], Changes],
    *,
    lease: Lease | None = None,
    begin: Begin | None = None,
) -> Committed:
    """`omitted` is called for the changes of a part, by its index, that the answer had no room for.  `lease`,
    `begin`: what came along."""
    others: list[Changes] = []
    for index, part in enumerate(message.others):
        others.append(omitted(index) if part.omitted else packed_of(part.changes))
    return Committed(
        version=version_of(message.version),
        time_us=message.time_us,
        others=None if message.without_others else tuple(others),
        lease=lease,
        begin=begin,
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
