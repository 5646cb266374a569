"""A comparison in SQLite's changeset format, for `sqlite3changeset_apply()`.

Called by the command line; calls `comparison`.  The format is described in ext/session/sqlite3session.c of
SQLite's source and at https://www.sqlite.org/sessionintro.html.

    table     'T', number of columns (varint), for each its place in the primary key (0: none), name, NUL
    change    operation (9 delete, 18 insert, 23 update), 0, the old row and the new one, if there is one
    value     0 not given | 1 integer (8 bytes) | 2 float (8) | 3 text (size as a varint) | 4 blob | 5 NULL

1. Rows are known by the declared primary key.  Tables without one, and rows with NULL in it, have no place in
   a changeset; nor have changes of the schema.  Those that were left out are told.
2. All deletions and updates of a table come before its insertions, so that a key that goes from one row to
   another is free when it is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from mvvfs.compare.changes import Row, RowChange
from mvvfs.compare.comparison import Comparison, Pair
from mvvfs.compare.records import Value, encode_text, same
from mvvfs.compare.shapes import Table

_DELETE, _INSERT, _UPDATE = 9, 18, 23
_UNDEFINED, _INTEGER, _FLOAT, _TEXT, _BLOB, _NULL = (bytes((kind,)) for kind in range(6))
_OWN = "sqlite_"


def write(comparison: Comparison, out: BinaryIO) -> list[str]:
    """Write the changeset; returns what was left out, as phrases.  Raises as `Comparison` does."""
    left_out = [
        f"{change.op} {change.kind} {change.name}"
        for change in comparison.schema_changes()
        if change.kind != "pragma"
    ]
    for pair in comparison.tables():
        if not pair.name.startswith(_OWN):
            left_out.extend(_write_table(comparison, pair, out))
    return left_out


def _write_table(comparison: Comparison, pair: Pair, out: BinaryIO) -> Iterator[str]:
    table = pair.new or pair.old
    assert table is not None
    reason = _obstacle(pair, table)
    if reason:
        if next(comparison.rows(pair), None) is not None:
            yield f"table {pair.name}, {reason}"
        return
    writer = _Writer(table, out)
    for inserting in (False, True):
        for change in comparison.rows(pair):
            writer.write(change, inserting)
    if writer.without_key:
        yield f"{writer.without_key} rows of table {pair.name} with NULL in their primary key"


def _obstacle(pair: Pair, table: Table) -> str | None:
    if not table.primary_key:
        return "which has no PRIMARY KEY"
    if pair.old is not None and pair.old.names != table.names:
        return "whose columns differ"
    if pair.old is not None and pair.old.primary_key != table.primary_key:
        return "whose primary key differs"
    return None


class _Writer:
    def __init__(self, table: Table, out: BinaryIO) -> None:
        self._table = table
        self._out = out
        self._begun = False
        self.without_key = 0

    def write(self, change: RowChange, inserting: bool) -> None:
        """A change's part in the pass for deletions and updates, or in the one for insertions."""
        old, new = change.old, change.new
        if old is not None and new is not None and not self._same_key(old, new):
            if inserting:
                self._put(_INSERT, new, self._whole(new))
            else:
                self._put(_DELETE, old, self._whole(old))
        elif old is None and new is not None and inserting:
            self._put(_INSERT, new, self._whole(new))
        elif not inserting and old is not None and new is None:
            self._put(_DELETE, old, self._whole(old))
        elif not inserting and old is not None and new is not None:
            self._put(_UPDATE, new, self._both(old, new))

    def _put(self, operation: int, row: Row, values: Iterator[bytes]) -> None:
        if any(row[column] is None for column in self._table.primary_key):
            self.without_key += 1
            return
        if not self._begun:
            self._out.write(self._header())
            self._begun = True
        self._out.write(bytes((operation, 0)) + b"".join(values))

    def _header(self) -> bytes:
        table = self._table
        places = {column: at for at, column in enumerate(table.primary_key, start=1)}
        keys = bytes(places.get(column, 0) for column in table.names)
        return b"T" + _varint(len(keys)) + keys + encode_text(table.name) + b"\0"

    def _same_key(self, old: Row, new: Row) -> bool:
        return all(same(old[column], new[column]) for column in self._table.primary_key)

    @staticmethod
    def _whole(row: Row) -> Iterator[bytes]:
        return map(_value, row.values())

    def _both(self, old: Row, new: Row) -> Iterator[bytes]:
        """The old row: key and what changed; the new one: what changed."""
        key = self._table.primary_key
        changed = {column for column in new if not same(old[column], new[column])}
        before = (_value(old[c]) if c in key or c in changed else _UNDEFINED for c in old)
        after = (_value(new[c]) if c in changed else _UNDEFINED for c in new)
        return chain(before, after)


def _value(value: Value) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, int):
        return _INTEGER + struct.pack(">q", value)
    if isinstance(value, float):
        return _FLOAT + struct.pack(">d", value)
    kind, data = (_TEXT, encode_text(value)) if isinstance(value, str) else (_BLOB, value)
    return kind + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """As in SQLite's file format, for numbers below 2**56."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))
