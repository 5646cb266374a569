"""Page numbers as runs: what a large commit touched, or what is free, in memory that goes with the gaps.

Re-exported by `pagestore.api`, which is where everyone else gets them; calls `numbers`.

1. Numbers are ascending and distinct, runs as well, and no two of them touch.
2. Whatever has runs on both sides costs time and memory by the runs, however many numbers they stand for.

Worked example: pages 1-9 but for 4 and 7 are the runs (1, 3) (5, 2) (8, 2): first number and length.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import add, eq, lt, sub
from typing import cast, overload

from pagestore.numbers import PageNumber, PageRun

_AT_ONCE = 65_536


def runs_in(numbers: Sequence[int]) -> Iterator[PageRun]:
    """The runs of ascending, distinct numbers.  Long ones are found by doubling the step."""
    if isinstance(numbers, PageRuns):
        yield from numbers.runs()
        return
    at, size = 0, len(numbers)
    while at < size:
        first, last, step = numbers[at] - at, at, 1
        while last + step < size and numbers[last + step] - last - step == first:
            last += step
            step *= 2
        while step := step // 2:
            if last + step < size and numbers[last + step] - last - step == first:
                last += step
        yield PageRun(PageNumber(numbers[at]), last - at + 1)
        at = last + 1


def united(*sources: Iterable[PageRun]) -> Iterator[PageRun]:
    """The runs of all numbers in any of them.  A source need not be in order."""
    first = end = 0
    for start, length in sorted(chain(*sources)):
        if start > end and end:
            yield PageRun(PageNumber(first), end - first)
        if start > end or not end:
            first = start
        end = max(end, start + length)
    if end:
        yield PageRun(PageNumber(first), end - first)


def without(runs: Iterable[PageRun], taken: Iterable[PageRun]) -> Iterator[PageRun]:
    """The runs of the numbers that are not in `taken`; both in order."""
    others = iter(taken)
    other = next(others, None)
    for first, length in runs:
        start, end = int(first), first + length
        while other is not None and other.first + other.length <= start:
            other = next(others, None)
        while other is not None and other.first < end:
            if other.first > start:
                yield PageRun(PageNumber(start), other.first - start)
            start = other.first + other.length
            if start >= end:
                break
            other = next(others, None)
        if start < end:
            yield PageRun(PageNumber(start), end - start)


def in_arrays(numbers: Iterable[int]) -> Iterator[array[int]]:
    """All of them, some tens of thousands at a time."""
    rest = iter(numbers)
    while some := array("I", islice(rest, _AT_ONCE)):
        yield some


def _checked(numbers: array[int]) -> array[int]:
    if not all(map(lt, numbers, islice(numbers, 1, None))):
        raise ValueError("page numbers that are not ascending and distinct")
    return numbers


class PageRuns(Sequence[PageNumber]):
    """Ascending, distinct page numbers; equal to any sequence of the same ones."""

    __slots__ = ("_count", "_firsts", "_places")

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        """Of first numbers and lengths.  Raises ValueError unless these are ascending and apart, or touch."""
        self._firsts = array("I")
        self._places = array("I")
        """Of each run, how many numbers come before it."""
        self._count = 0
        end = 0
        for first, length in runs:
            if first < end or length < 1:
                raise ValueError(f"{length} numbers from {first} on, after those below {end}")
            if first != end or not self._firsts:
                self._firsts.append(first)
                self._places.append(self._count)
            self._count += length
            end = first + length

    @classmethod
    def of(cls, numbers: Iterable[int]) -> PageRuns:
        """Of numbers in any order."""
        return cls(united(*(runs_in(sorted(set(some))) for some in in_arrays(numbers))))

    @classmethod
    def ascending(cls, numbers: Iterable[int]) -> PageRuns:
        """Raises ValueError unless they are ascending and distinct."""
        if isinstance(numbers, PageRuns):
            return cls(numbers.runs())
        return cls.of_parts(in_arrays(numbers))

    @classmethod
    def of_parts(cls, parts: Iterable[array[int]]) -> PageRuns:
        """The same, of numbers that come in parts."""
        return cls(run for some in parts for run in runs_in(_checked(some)))

    def runs(self) -> Iterator[PageRun]:
        return map(PageRun, cast(Iterable[PageNumber], self._firsts), self._lengths())

    def _lengths(self) -> Iterator[int]:
        return map(sub, chain(islice(self._places, 1, None), (self._count,)), self._places)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PageNumber]:
        runs = map(range, self._firsts, map(add, self._firsts, self._lengths()))
        return cast(Iterator[PageNumber], chain.from_iterable(runs))

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        run = bisect_right(self._firsts, number) - 1
        return run >= 0 and number - self._firsts[run] < self._end(run) - self._places[run]

    def _end(self, run: int) -> int:
        return self._places[run + 1] if run + 1 < len(self._places) else self._count

    @overload
    def __getitem__(self, index: int) -> PageNumber: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PageNumber]: ...
    def __getitem__(self, index: int | slice) -> PageNumber | Sequence[PageNumber]:
        if isinstance(index, slice):
            wanted = range(self._count)[index]
            if wanted.step == 1:
                return PageRuns(self._between(wanted.start, wanted.stop))
            return tuple(self[at] for at in wanted)
        place = range(self._count)[index]
        run = bisect_right(self._places, place) - 1
        return PageNumber(self._firsts[run] + place - self._places[run])

    def _between(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        run = bisect_right(self._places, start) - 1
        while start < stop:
            end = min(self._end(run), stop)
            yield self._firsts[run] + start - self._places[run], end - start
            start, run = end, run + 1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PageRuns):
            ours, theirs = (self._count, self._firsts), (other._count, other._firsts)
            return ours == theirs and self._places == other._places
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(other) == self._count and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"PageRuns({[(int(first), length) for first, length in self.runs()]})"


class RunSet:
    """A set of page numbers that changes: runs, and a few numbers by which it differs from them by now."""

    _MOST_APART = 65_536

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        self._runs = PageRuns(runs)
        self._added: set[int] = set()
        self._gone: set[int] = set()

    def update(self, numbers: Sequence[int]) -> None:
        """`numbers` ascending and distinct, here and in `difference_update`."""
        if len(numbers) > self._MOST_APART:
            self._runs = PageRuns(united(self.runs(), runs_in(numbers)))
            return
        self._gone.difference_update(numbers)
        self._added.update(numbers)
        self._keep_few()

    def difference_update(self, numbers: Sequence[int]) -> None:
        if len(numbers) > self._MOST_APART:
            self._runs = PageRuns(without(self.runs(), runs_in(numbers)))
            return
        self._added.difference_update(numbers)
        self._gone.update(numbers)
        self._keep_few()

    def _keep_few(self) -> None:
        if len(self._added) + len(self._gone) > self._MOST_APART:
            self.runs()

    def runs(self) -> Iterator[PageRun]:
        """As it is now, whatever is done to it meanwhile."""
        return self.numbers().runs()

    def numbers(self) -> PageRuns:
        if self._added or self._gone:
            kept = without(self._runs.runs(), runs_in(sorted(self._gone)))
            self._runs = PageRuns(united(kept, runs_in(sorted(self._added))))
            self._added, self._gone = set(), set()
        return self._runs

    def __contains__(self, number: object) -> bool:
        return number in self._added or (number not in self._gone and number in self._runs)

    def __bool__(self) -> bool:
        return bool(self._added) or bool(self.numbers())
