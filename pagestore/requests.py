"""What the request for a commit must be, whatever the store holds.

Called by `commit`; calls `encoding` for what a blob is.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from pagestore import encoding
from pagestore.api import (
    MAX_MESSAGE_BYTES,
    TOKEN_SIZE,
    VERSION_SIZE,
    CommitPart,
    CommitRequest,
    InvalidRequestError,
    LimitError,
    PageRuns,
    runs_in,
    united,
    without,
)
from pagestore.encoding import MAX_PAGE
from pagestore.namespaces import valid_page_size

_ALLOCATION = "the pages allocated and freed are not among those that are written so"


def check_request(request: CommitRequest) -> None:
    """Raises InvalidRequestError, LimitError."""
    if len(request.token) != TOKEN_SIZE or len(request.base) != VERSION_SIZE:
        raise InvalidRequestError(f"a token has {TOKEN_SIZE} bytes and a version {VERSION_SIZE}")
    parts = request.parts
    if len(parts) != 1 and (not parts or len({part.namespace for part in parts}) < len(parts)):
        raise InvalidRequestError("a commit has one part for each namespace, and at least one")
    if len(request.message.encode()) > MAX_MESSAGE_BYTES:
        raise LimitError(f"a changelog message holds at most {MAX_MESSAGE_BYTES} bytes")


def check_part(part: CommitPart, numbers: Sequence[int]) -> None:
    """`numbers`: of all pages written or staged, ascending.  Raises InvalidRequestError."""
    if numbers and not valid_page_size(part.page_size):
        raise InvalidRequestError(f"a page size is a power of two from 512 to 65536, not {part.page_size}")
    if numbers and not 1 <= numbers[0] <= numbers[-1] <= MAX_PAGE:
        raise InvalidRequestError(f"page numbers are 1 to {MAX_PAGE}")
    count = len(part.staged)
    if len(numbers if count else set(numbers)) < len(part.writes) + count:
        raise InvalidRequestError("a page is written twice in one commit")
    for number, blob in part.writes:
        encoding.check(number, blob, part.page_size)
    if part.allocated or part.freed:
        _check_allocation(part, numbers)


def _check_allocation(part: CommitPart, numbers: Sequence[int]) -> None:
    freed = {number for number, blob in part.writes if encoding.is_freed(blob)}
    if part.staged:
        _check_staged_allocation(part, numbers, freed)
        return
    for listed, allowed in ((part.freed, freed), (part.allocated, set(numbers) - freed)):
        if listed and (list(listed) != sorted(set(listed)) or not allowed.issuperset(listed)):
            raise InvalidRequestError(_ALLOCATION)


def _check_staged_allocation(part: CommitPart, numbers: Sequence[int], freed: Set[int]) -> None:
    """The same, where the lists are long; which of the staged pages are freed is compared with the stage
    later."""
    try:
        listed, allocated = (PageRuns.ascending(some) for some in (part.freed, part.allocated))
    except ValueError as exc:
        raise InvalidRequestError(str(exc)) from exc
    in_writes = list(runs_in(sorted(freed)))
    may_be_freed = united(in_writes, part.staged.runs())
    may_be_allocated = without(runs_in(numbers), united(in_writes, listed.runs()))
    for wanted, allowed in ((listed, may_be_freed), (allocated, may_be_allocated)):
        if any(True for _ in without(wanted.runs(), allowed)):
            raise InvalidRequestError(_ALLOCATION)
