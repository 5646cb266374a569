"""Page numbers covered by few ranges: the conflict ranges of a commit on an optimistic engine.

Called by `commit`; calls native/cover.c.
"""

from __future__ import annotations

from pagestore._native import ffi, lib
from pagestore.api import PageRuns


def cover(numbers: bytes, most: int) -> list[tuple[int, int]]:
    """At most `most` ranges, first and last, that cover page numbers (packed as `PageSet.packed`): the
    narrowest gaps are covered too.

    Where a gap is covered, a commit may have to look again at what did not concern it; it is not lost."""
    count = len(numbers) // 4
    out = ffi.new("uint32_t[]", 2 * min(count, most))
    found = lib.mv_cover(numbers, count, most, out)
    if count and not found:
        raise MemoryError("no memory for the conflict ranges of a commit")
    ends = iter(ffi.unpack(out, 2 * found)) if found else iter(())
    return list(zip(ends, ends, strict=True))


def cover_runs(numbers: PageRuns, most: int) -> list[tuple[int, int]]:
    """The same, of numbers in runs."""
    runs = [(int(run.first), run.first + run.length - 1) for run in numbers.runs()]
    if len(runs) <= most:
        return runs
    gaps = sorted(range(1, len(runs)), key=lambda at: runs[at - 1][1] - runs[at][0])[: most - 1]
    starts = [0, *sorted(gaps)]
    ends = [*(at - 1 for at in starts[1:]), len(runs) - 1]
    return [(runs[start][0], runs[end][1]) for start, end in zip(starts, ends, strict=True)]
