"""Which row an operation picks: every row alike, or a few of them most of the time."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable
from functools import cache

ZIPF_EXPONENT = 0.99
"""YCSB's (Cooper et al., Benchmarking cloud serving systems with YCSB, 2010)."""


def uniform(rows: int, rng: random.Random) -> Callable[[], int]:
    """Draws 1..rows, each alike."""
    return lambda: int(rng.random() * rows) + 1


def zipfian(rows: int, rng: random.Random) -> Callable[[], int]:
    """Draws 1..rows so that the k-th most popular comes up in proportion to k ** -0.99.

    Popular rows are spread over the table, in the same places for every process, as YCSB's scrambled
    generator does: side by side they would share a page."""
    cumulative, places = _zipf_table(rows)
    return lambda: places[bisect.bisect_left(cumulative, rng.random() * cumulative[-1])]


@cache
def _zipf_table(rows: int) -> tuple[list[float], list[int]]:
    cumulative = list(itertools.accumulate(rank**-ZIPF_EXPONENT for rank in range(1, rows + 1)))
    places = list(range(1, rows + 1))
    random.Random(rows).shuffle(places)
    return cumulative, places


DISTRIBUTIONS = {"uniform": uniform, "zipfian": zipfian}
