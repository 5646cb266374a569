"""Page numbers as runs, beside Python's sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore import runs
from pagestore.api import PageNumber, PageRun, PageRuns, RunSet, runs_in, united, without

pages = st.sets(st.integers(1, 300).map(PageNumber), max_size=200)


def numbers(found: object) -> list[int]:
    return list(PageRuns(found))  # type: ignore[arg-type]


def test_the_worked_example() -> None:
    found = PageRuns.of(n for n in range(1, 10) if n not in (4, 7))
    assert list(found.runs()) == [(1, 3), (5, 2), (8, 2)]
    assert repr(found) == "PageRuns([(1, 3), (5, 2), (8, 2)])"
    assert (len(found), found[0], found[-1], found[3]) == (7, 1, 9, 5)
    with pytest.raises(IndexError):
        found[7]


@given(pages)
def test_it_is_the_sequence_of_its_numbers(some: set[PageNumber]) -> None:
    listed, found = sorted(some), PageRuns.of(some)
    assert found == listed
    assert tuple(listed) == found == PageRuns.ascending(listed) == PageRuns(found.runs())
    assert hash(found) == hash(tuple(listed))
    assert list(found) == listed
    assert [found[at] for at in range(len(listed))] == listed
    assert found[3:11] == listed[3:11]
    assert found[-5:] == listed[-5:]
    assert found[::2] == tuple(listed[::2])
    assert [n for n in range(302) if n in found] == listed
    assert "1" not in found
    assert found != [*listed, 301]
    assert (found == 5) is False


@given(pages, pages)
def test_sets_of_runs(one: set[PageNumber], other: set[PageNumber]) -> None:
    a, b = PageRuns.of(one), PageRuns.of(other)
    assert numbers(united(a.runs(), b.runs())) == sorted(one | other)
    assert numbers(without(a.runs(), b.runs())) == sorted(one - other)
    between = list(united(a.runs(), b.runs()))
    assert all(x.first + x.length < y.first for x, y in pairwise(between))


@given(st.lists(st.tuples(st.booleans(), pages), max_size=12), st.sampled_from([3, 65_536]))
def test_a_set_that_changes(steps: list[tuple[bool, set[PageNumber]]], apart: int) -> None:
    found, truth = RunSet(), set[PageNumber]()
    found._MOST_APART = apart  # type: ignore[misc]
    for adds, some in steps:
        listed: Sequence[PageNumber] = PageRuns.of(some) if len(some) % 2 else sorted(some)
        if adds:
            found.update(listed)
            truth |= some
        else:
            found.difference_update(listed)
            truth -= some
        assert [n for n in range(302) if n in found] == sorted(truth)
    assert found.numbers() == sorted(truth)
    assert bool(found) == bool(truth)


@pytest.mark.parametrize("wrong", [[5, 3], [5, 5], [1, 2, 9, 4], [1, 2, 3, 3, 4]])
def test_what_does_not_ascend_is_refused(wrong: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="page numbers"):
        PageRuns.ascending(wrong)
    monkeypatch.setattr(runs, "_AT_ONCE", 2)
    with pytest.raises(ValueError, match="numbers"):
        PageRuns.ascending(wrong)


@pytest.mark.parametrize("wrong", [[(1, 3), (3, 1)], [(5, 2), (1, 1)], [(1, 0)]])
def test_runs_that_overlap_are_refused(wrong: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="numbers from"):
        PageRuns(wrong)


def test_long_runs_are_found_without_looking_at_each_number() -> None:
    class Looked(Sequence[int]):
        looks = 0

        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, at: int) -> int:  # type: ignore[override]
            self.looks += 1
            return at + (1 if at < 700_000 else 5)

    looked = Looked()
    assert list(runs_in(looked)) == [PageRun(PageNumber(1), 700_000), PageRun(PageNumber(700_005), 300_000)]
    assert looked.looks < 200
