"""Page numbers covered by few conflict ranges."""

from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pagestore import keys
from pagestore.api import NamespaceId, PageRuns
from pagestore.cover import cover, cover_runs
from pagestore.engines.base import pack_range, unpack_ranges

NUMBERS = st.lists(st.integers(1, 60) | st.integers(1, 0xFFFFFFFE), max_size=40)
ID = NamespaceId(300)


def covered(numbers: list[int], most: int) -> list[tuple[bytes, bytes]]:
    return list(unpack_ranges(cover(keys.conflict_prefix(ID), array("I", numbers).tobytes(), most)))


@given(NUMBERS, st.integers(1, 50))
def test_every_number_is_covered_and_nothing_that_need_not_be(numbers: list[int], most: int) -> None:
    ranges = covered(numbers, most)
    assert len(ranges) <= most
    points = {number: keys.conflicts(ID, number, number) for number in numbers}
    assert all(any(begin <= key < end for begin, end in ranges) for key, _ in points.values())
    assert {begin for begin, _ in ranges} <= {begin for begin, _ in points.values()}
    assert {end for _, end in ranges} <= {end for _, end in points.values()}
    assert all(a[1] < b[0] for a, b in pairwise(ranges))


@given(NUMBERS, st.integers(1, 50))
def test_the_same_in_runs(numbers: list[int], most: int) -> None:
    runs = cover_runs(PageRuns.of(numbers), most)
    assert [keys.conflicts(ID, first, last) for first, last in runs] == covered(numbers, most)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(runs))


def test_more_than_a_commit_has() -> None:
    numbers = list(range(1, 3000, 2))
    assert covered(numbers, 5000) == [keys.conflicts(ID, number, number) for number in numbers]
    assert len(covered(numbers, 1000)) == 1000


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=5))
def test_ranges_are_packed(ranges: list[tuple[bytes, bytes]]) -> None:
    assert list(unpack_ranges(b"".join(pack_range(*one) for one in ranges))) == ranges
