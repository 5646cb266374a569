"""Page numbers covered by few conflict ranges."""

from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pagestore.api import PageRuns
from pagestore.cover import cover, cover_runs

NUMBERS = st.lists(st.integers(1, 60) | st.integers(1, 0xFFFFFFFE), max_size=40)


@given(NUMBERS, st.integers(1, 50))
def test_every_number_is_covered_and_nothing_that_need_not_be(numbers: list[int], most: int) -> None:
    ranges = cover(array("I", numbers).tobytes(), most)
    assert len(ranges) <= most
    assert all(any(first <= n <= last for first, last in ranges) for n in numbers)
    assert all(first in numbers and last in numbers for first, last in ranges)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(NUMBERS, st.integers(1, 50))
def test_the_same_in_runs(numbers: list[int], most: int) -> None:
    assert cover_runs(PageRuns.of(numbers), most) == cover(array("I", numbers).tobytes(), most)
