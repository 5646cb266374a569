"""The table of keys and values, as one transaction of one connection sees it.

Called by `sqlite`, and for files that no engine has open by `sqlite_file`.  Calls APSW and `clock`.

`kv(k, v)` holds the keys, in a B-tree of their own, with their values if these are short; a long value
lies in `large(id, d)`, where several share a page, and `v` is its number.  (A long one beside its key
would take an overflow page of its own, and make the tree deep.)  The clock record's key, 0xff, is behind
all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast

import apsw

from pagestore.api import NamespaceId, Version
from pagestore.engines import clock
from pagestore.engines.base import KeyRange, Snapshot, Transaction

_MAX_INLINE = 500
"""Bytes of the longest value that lies beside its key: several rows must fit into a B-tree page."""

_CLOCK_KEY = b"\xff"

SCHEMA = """
    CREATE TABLE kv (k BLOB PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE large (id INTEGER PRIMARY KEY, d BLOB);
"""
_VALUE = "CASE typeof(v) WHEN 'blob' THEN v ELSE (SELECT d FROM large WHERE id = v) END"
_GET = f"SELECT {_VALUE} FROM kv WHERE k = ?"
_SCAN = f"SELECT k, {_VALUE} FROM kv WHERE k >= ? AND k < ? ORDER BY k"
_SCAN_REVERSE = f"SELECT k, {_VALUE} FROM kv WHERE k >= ? AND k < ? ORDER BY k DESC"
SET = "INSERT OR REPLACE INTO kv VALUES (?, ?)"
_LAST_LARGE = "SELECT ifnull(max(id), 0) FROM large"
_MOVE = "UPDATE kv SET k = ? WHERE k = ?"
_SET_LARGE = "INSERT INTO large VALUES (?, ?)"
_CLEAR_LARGE = (
    "DELETE FROM large WHERE id IN (SELECT v FROM kv WHERE k >= ? AND k < ? AND typeof(v) = 'integer')"
)
_CLEAR = "DELETE FROM kv WHERE k >= ? AND k < ?"


class SqliteSnapshot(Snapshot):
    """A read transaction of one connection."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._cursors: list[apsw.Cursor] = []
        self._clock: clock.Clock | None = None

    def clock(self) -> clock.Clock:
        if self._clock is None:
            self._clock = clock.unpack(self.get(_CLOCK_KEY))
        return self._clock

    def read_version(self) -> Version:
        return self.clock().version

    def get(self, key: bytes) -> bytes | None:
        return cast("bytes | None", self._db.execute(_GET, (key,)).get)

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._db.cursor()
        self._cursors.append(cursor)
        return _scan(cursor, wanted)

    def scan_many(self, wanted: Sequence[KeyRange]) -> list[Iterator[tuple[bytes, bytes]]]:
        cursor = self._db.cursor()
        self._cursors.append(cursor)
        return [_scan_later(cursor, one) for one in wanted]

    def close_scans(self) -> None:
        for cursor in self._cursors:
            cursor.close()


def _scan(cursor: apsw.Cursor, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
    sql = _SCAN_REVERSE if wanted.reverse else _SCAN
    rows = cast("Iterator[tuple[bytes, bytes]]", cursor.execute(sql, (wanted.begin, wanted.end)))
    return islice(rows, wanted.limit) if wanted.limit else rows  # `LIMIT ?` prepares anew each time


def _scan_later(cursor: apsw.Cursor, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
    yield from _scan(cursor, wanted)


class Announced(NamedTuple):
    """See `Transaction.announce`."""

    namespace: NamespaceId
    before: Version | None
    numbers: bytes


class SqliteTransaction(SqliteSnapshot, Transaction):
    """The write transaction of a connection: what is set waits in a list until `work` is through."""

    optimistic = False

    def __init__(self, db: apsw.Connection, here: clock.Place) -> None:
        super().__init__(db)
        self._here = here
        self._rows: list[tuple[bytes, bytes | int]] = []
        self._large: list[tuple[int, bytes]] = []
        self._moves: list[tuple[bytes, bytes]] = []
        self._last_large: int | None = None
        self._next: Version | None = None
        self._time_us = 0
        self._cleared = False
        self.announced: list[Announced] = []

    def _version(self) -> Version:
        if self._next is None:
            self._next = clock.next_version(self.clock(), self._here)
        return self._next

    def set(self, key: bytes, value: bytes) -> None:
        self._rows.append((key, value))

    def set_new(self, key: bytes, value: bytes) -> None:
        self._rows.append((key, self._short(value)))

    def move(self, key: bytes, new_key: bytes, value: bytes) -> None:
        self._moves.append((new_key, key))  # a long value stays where it is

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        short = value if len(value) <= _MAX_INLINE else self._short(value)
        self._rows.append((prefix + (self._next or self._version()) + suffix, short))

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self._rows.append((key, prefix + self._version() + suffix))

    def _short(self, value: bytes) -> int:
        """What goes beside a key that was never set before, instead of a long value.

        (Where another value may be replaced, as in `set`, it stays beside the key however long it is:
        else each `set` would have to look for the old one's row in `large`.)"""
        if self._last_large is None:
            self._last_large = cast(int, self._db.execute(_LAST_LARGE).get)
        self._last_large += 1
        self._large.append((self._last_large, value))
        return self._last_large

    def clear(self, key: bytes) -> None:
        self.clear_range(key, key + b"\0")

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.clear_ranges([(begin, end)])

    def clear_ranges(self, ranges: Sequence[tuple[bytes, bytes]]) -> None:
        self._apply()
        self._db.executemany(_CLEAR_LARGE, ranges)
        self._db.executemany(_CLEAR, ranges)
        self._cleared = True

    def _apply(self) -> None:
        if self._moves:
            self._db.executemany(_MOVE, self._moves)
            self._moves.clear()
        if self._large:
            self._db.executemany(_SET_LARGE, self._large)
            self._large.clear()
        if self._rows:
            self._db.executemany(SET, self._rows)
            self._rows.clear()

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        """Nothing to do: nobody else writes meanwhile."""

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        """Nothing to do."""

    def announce(self, namespace: NamespaceId, before: Version | None = None, numbers: bytes = b"") -> None:
        self.announced.append(Announced(namespace, before, numbers))

    def commit_time(self, now_us: int) -> int:
        self._time_us = max(now_us, self.clock().time_us)
        return self._time_us

    def free_pages(self) -> tuple[int, int]:
        """Unused pages of the file, and all pages."""
        return int(self._db.pragma("freelist_count")), int(self._db.pragma("page_count"))

    def shorten(self, pages: int) -> None:
        """Move pages from the file's end into unused ones, at most so many, and cut it there."""
        for _ in self._db.execute(f"PRAGMA incremental_vacuum({pages})"):
            pass

    def finish(self) -> Version | None:
        """Write what is left and the clock; the commit's version, or None if nothing was written."""
        if not self._rows and not self._cleared and not self._moves:
            return None
        version = self._version()
        time_us = self._time_us or self.clock().time_us
        self._rows.append((_CLOCK_KEY, clock.pack(clock.Clock(version, time_us, self._here))))
        self._apply()
        return version
