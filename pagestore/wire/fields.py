"""Single fields: versions, tokens, ids and page numbers, checked for what their types promise.

Re-exported by `pagestore.wire`; called by its other files.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from operator import sub
from typing import Final

from pagestore.api import (
    TOKEN_SIZE,
    VERSION_SIZE,
    LimitError,
    NamespaceId,
    PageNumber,
    PageRuns,
    PageSet,
    Version,
)
from pagestore.v1 import pagestore_pb2 as pb

MAX_PAGE: Final = 0xFFFFFFFE
"""SQLite's limit (https://www.sqlite.org/limits.html#max_page_count)."""

MAX_NUMBERS: Final = 4_000_000
"""Page numbers of one set: sixteen gigabytes of usual pages."""

_FEW: Final = 10_000


class WireError(ValueError):
    """A message that no well-behaved peer sends."""


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


def page_number_of(field: int) -> PageNumber:
    if not 1 <= field <= MAX_PAGE:
        raise WireError(f"page numbers are 1 to {MAX_PAGE}, not {field}")
    return PageNumber(field)


def page_numbers_of(field: Sequence[int]) -> list[PageNumber]:
    """Not a set: as they were asked for."""
    if field and not 1 <= min(field) <= max(field) <= MAX_PAGE:
        raise WireError(f"page numbers are 1 to {MAX_PAGE}")
    return list(map(PageNumber, field))


def numbers_message(ascending: Sequence[int]) -> pb.PageNumbers:
    """`ascending`: distinct."""
    if len(ascending) < 2:
        return pb.PageNumbers(gaps=ascending)
    gaps = [ascending[0]]
    gaps.extend(map(sub, ascending[1:], ascending))
    return pb.PageNumbers(gaps=gaps)


def some_numbers(ascending: Sequence[int]) -> pb.PageNumbers | None:
    """A field that is left out where there are none."""
    return numbers_message(ascending) if ascending else None


def numbers_of(message: pb.PageNumbers) -> tuple[PageNumber, ...]:
    return tuple(map(PageNumber, _packed_of(message)))


def listed_of(message: pb.PageNumbers) -> Sequence[PageNumber]:
    """Many as runs."""
    return runs_of(message) if len(message.gaps) > _FEW else numbers_of(message)


_NO_RUNS = PageRuns()


def runs_of(message: pb.PageNumbers) -> PageRuns:
    numbers = _packed_of(message)
    return PageRuns.ascending(numbers) if numbers else _NO_RUNS


def page_set_message(pages: PageSet) -> pb.PageNumbers:
    return numbers_message(sorted(pages.as_set()))


def page_set_of(message: pb.PageNumbers) -> PageSet:
    return PageSet(_packed_of(message).tobytes())


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
