"""Order statistics: percentiles, and a median with an interval that assumes nothing about the noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and two of the values that hold the true median between them with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values, sorted ascending, that `percent` of them do not exceed (nearest rank)."""
    if not ordered:
        raise ValueError("no values")
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(rank, 1) - 1]


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median of independent values, with the narrowest symmetric order-statistic interval that covers.

    For n values the k-th smallest and the k-th largest hold the median between them with probability
    1 - 2 P(Binomial(n, 1/2) < k).  Seven values give their smallest and largest, 98.4 %; five or fewer
    cannot reach 95 %, which `coverage` then tells."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    count = len(ordered)
    best, coverage = 1, _coverage(count, 1)
    for k in range(2, count // 2 + 1):
        if _coverage(count, k) >= confidence:
            best, coverage = k, _coverage(count, k)
    return Interval(statistics.median(ordered), ordered[best - 1], ordered[-best], coverage)


def _coverage(count: int, k: int) -> float:
    return max(0.0, 1.0 - 2.0 * sum(math.comb(count, i) for i in range(k)) / 2.0**count)
