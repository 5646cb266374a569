"""Page numbers covered by few ranges: the conflict ranges of a commit on an optimistic engine.

Called by `commit`; calls native/cover.c.
"""

from __future__ import annotations

from pagestore.api import PageRuns
from pagestore.native import ffi, lib


def cover(prefix: bytes, numbers: bytes, most: int) -> bytes:
    """At most `most` ranges of keys, packed (`engines.base.pack_range`), that cover what `prefix` and these
    page numbers (packed as `PageSet.packed`) make: the narrowest gaps are covered too.

    Where a gap is covered, a commit may have to look again at what did not concern it; it is not lost."""
    count = len(numbers) // 4
    out = ffi.new("uint8_t[]", min(count, most) * (2 * len(prefix) + lib.MV_COVER_ROOM))
    size = lib.mv_cover_keys(prefix, len(prefix), numbers, count, most, out)
    if size < 0:
        raise MemoryError("no memory for the conflict ranges of a commit")
    return bytes(ffi.buffer(out, size))


def cover_runs(numbers: PageRuns, most: int) -> list[tuple[int, int]]:
    """The same of numbers in runs: the first and the last number of each range."""
    runs = [(int(run.first), run.first + run.length - 1) for run in numbers.runs()]
    if len(runs) <= most:
        return runs
    gaps = sorted(range(1, len(runs)), key=lambda at: runs[at - 1][1] - runs[at][0])[: most - 1]
    starts = [0, *sorted(gaps)]
    ends = [*(at - 1 for at in starts[1:]), len(runs) - 1]
    return [(runs[start][0], runs[end][1]) for start, end in zip(starts, ends, strict=True)]
