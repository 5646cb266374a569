"""Which versions of one page nobody needs any more.

Called by `sweep`; looks at rows that it is given.

1. Needed are: every version after the horizon; the newest one at or before the horizon and each kept version
   (`kept`); and the older ones that a needed one is a delta of.
2. The mark that a page was freed is needed as long as there is something older that it hides.

Worked example.  Page 5 has versions 10, 20 (a delta of 10), 30 and 40; the horizon moves to 35, 15 is
tagged.  30 is needed at 35, 40 after it, 10 at 15.  20 goes: nobody may read at 20 to 29.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from pagestore import keys
from pagestore.api import MAX_VERSION, Version
from pagestore.encoding import chain_of, is_freed


class Rows:
    """The rows of one page that can go, as its rows come in, newest first."""

    def __init__(self, points: Sequence[Version], *, hides: bool) -> None:
        """`points`: the versions to be readable, ascending.  `hides`: freed pages may hide an ancestor's."""
        self.removed: list[tuple[bytes, int]] = []
        """Keys, and how many bytes each row takes."""
        self._runs: list[list[bytes]] = []
        """The newest and the oldest key of neighbours that all go."""
        self._in_run = False
        self._points = points
        self._hides = hides
        self._newer = MAX_VERSION
        self._bases = 0
        """How many of the rows to come are those that a needed one is a delta of."""
        self._marks: list[tuple[bytes, int]] = []
        """Freed marks with nothing needed below, so far."""

    def add(self, key: bytes, blob: bytes) -> None:
        version = keys.version_of(key)
        point = bisect_left(self._points, version)
        needed = point < len(self._points) and self._points[point] < self._newer
        self._newer = version
        row = key, len(key) + len(blob)
        goes = not needed and not self._bases
        if needed and is_freed(blob):
            self._marks.append(row)
            self._bases = 0
        elif needed or self._bases:
            self._bases = max(self._bases - 1, chain_of(blob) if needed else 0)
            self._marks.clear()
        else:
            self.removed.append(row)
            if self._in_run:
                self._runs[-1][1] = key
            else:
                self._runs.append([key, key])
        self._in_run = goes

    def end(self) -> None:
        """There are no older rows."""
        if not self._hides:
            self.removed += self._marks
            self._runs += [[key, key] for key, _ in self._marks]

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """What goes, neighbours as one range."""
        return [(oldest, newest + b"\0") for newest, oldest in self._runs]


def add_window(found: Rows, rows: Iterable[tuple[bytes, bytes]], settled: Version) -> None:
    """The rows after `settled`, the newest one up to it, and those that this one is a delta of: older ones
    have not changed since they were last looked at."""
    left: int | None = None
    for key, blob in rows:
        found.add(key, blob)
        if left is not None:
            left -= 1
        elif keys.version_of(key) <= settled:
            left = chain_of(blob) + 1  # and one more, to see whether there is anything for a mark to hide
        if left == 0:
            return
    found.end()
