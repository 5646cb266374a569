"""Two streams of rows, of the same table at two versions, become one of changes.

Called by `comparison`; calls `walk`, `pages` and `shapes`.  The streams hold the rows of changed pages only:
a row that balancing has moved from one page to another is in both and compares equal.

1. Both streams come in the order of the tree.  By rowid, or where keys compare as bytes, they are merged:
   memory for one row of each.
2. With another collation only the tree knows the order, and it is the same in both streams: rows are
   matched by their keys, and what stands before a matched row on either side has no match.  This takes
   memory for the rows that lie between two matched ones.
3. A payload is put together only if it is needed: two cells that are equal to the byte, with the same
   overflow pages, are the same row as long as no overflow page was written over.
4. Values decide, not bytes: a row that was merely written in another form has not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mvvfs.compare.btree import Cell
from mvvfs.compare.changes import Row, RowChange
from mvvfs.compare.pages import Snapshot, payloads
from mvvfs.compare.records import Damaged, Value, same
from mvvfs.compare.shapes import Table
from mvvfs.compare.walk import Held, Key


class Side(NamedTuple):
    """A table at one version and the rows of it that may have changed."""

    snapshot: Snapshot
    table: Table
    rows: Iterator[Held]


class _Entry:
    """A row on its way."""

    __slots__ = ("_payload", "_row", "cell", "key", "number", "side")

    def __init__(self, side: Side, held: Held) -> None:
        self.side = side
        self.number, self.cell = held
        self._payload: bytes | None = None
        self._row: tuple[Value, ...] | None = None
        order = side.table.order
        self.key: Key = self.cell.rowid if order is None else self._ordered()

    def _ordered(self) -> Key:
        order = self.side.table.order
        assert order is not None
        try:
            key = order.key_of(self.cell)
            return order.key(self.payload()) if key is None else key
        except Damaged as exc:
            raise self.side.snapshot.corrupt(self.number, exc) from exc

    def payload(self) -> bytes:
        if not self.cell.overflow:
            return self.cell.local
        if self._payload is None:
            (whole,) = payloads(self.side.snapshot, [(self.number, self.cell)])
            self._payload = whole.data
        return self._payload

    def row(self) -> tuple[Value, ...]:
        if self._row is None:
            try:
                self._row = self.side.table.row(self.cell.rowid, self.payload())
            except Damaged as exc:
                raise self.side.snapshot.corrupt(self.number, exc) from exc
        return self._row

    def named(self) -> Row:
        return dict(zip(self.side.table.names, self.row(), strict=True))

    def identity(self) -> tuple[Value, ...]:
        """The rowid, or the primary key."""
        table = self.side.table
        if not table.is_index:
            return (self.cell.rowid,)
        row = self.named()
        return tuple(row[name] for name in table.key_columns)

    def exact_identity(self) -> tuple[tuple[type, Value], ...]:
        return tuple((type(part), part) for part in self.identity())


class Merge:
    """The changes between two streams of rows."""

    def __init__(self, name: str, *, trust_chains: bool) -> None:
        """`name`: of the table, for the changes.  `trust_chains`: no overflow page was written over."""
        self._name = name
        self._trust_chains = trust_chains

    def changes(self, old: Side | None, new: Side | None) -> Iterator[RowChange]:
        """None: there is no such table on this side.  Raises CorruptPageError, what `Store.read` raises."""
        before, after = _entries(old), _entries(new)
        some = old or new
        order = some.table.order if some is not None else None
        if order is None or order.exact:
            yield from self._merged(_ascending(before), _ascending(after))
        else:
            yield from self._matched(before, after)

    def _merged(self, before: Iterator[_Entry], after: Iterator[_Entry]) -> Iterator[RowChange]:
        one, other = next(before, None), next(after, None)
        while one is not None or other is not None:
            if other is None or (one is not None and one.key < other.key):
                assert one is not None
                yield self._deleted(one)
                one = next(before, None)
            elif one is None or other.key < one.key:
                yield self._inserted(other)
                other = next(after, None)
            else:
                yield from self._pair(one, other)
                one, other = next(before, None), next(after, None)

    def _matched(self, before: Iterator[_Entry], after: Iterator[_Entry]) -> Iterator[RowChange]:
        waiting: tuple[_Waiting, _Waiting] = ({}, {})
        streams = [before, after]
        at, ended = 0, [False, False]
        while not all(ended):
            at = 1 - at if not ended[1 - at] else at
            entry = next(streams[at], None)
            if entry is None:
                ended[at] = True
                continue
            match = waiting[1 - at].get(entry.exact_identity())
            if match is None:
                _wait(waiting[at], entry)
                if ended[1 - at] and not waiting[1 - at]:
                    yield from self._unmatched(waiting)
                continue
            one, other = (match, entry) if at == 1 else (entry, match)
            passed = _until(waiting[1 - at], match)
            yield from self._unmatched((passed, waiting[1]) if at == 1 else (waiting[0], passed))
            yield from self._pair(one, other)
        yield from self._unmatched(waiting)

    def _unmatched(self, waiting: tuple[_Waiting, _Waiting]) -> Iterator[RowChange]:
        deleted, inserted = (list(rows.values()) for rows in waiting)
        for rows in waiting:
            rows.clear()
        for entry in deleted:
            yield self._deleted(entry)
        for entry in inserted:
            yield self._inserted(entry)

    def _pair(self, one: _Entry, other: _Entry) -> Iterator[RowChange]:
        if one.cell == other.cell and one.side.table is other.side.table and self._same_chain(one.cell):
            return
        if one.side.table.is_index and one.exact_identity() != other.exact_identity():
            yield self._deleted(one)  # 1 and 1.0, say: the same place in the tree, but another key
            yield self._inserted(other)
        elif not _same_row(one, other):
            yield RowChange(self._name, "update", other.identity(), one.named(), other.named())

    def _same_chain(self, cell: Cell) -> bool:
        return not cell.overflow or self._trust_chains

    def _deleted(self, entry: _Entry) -> RowChange:
        return RowChange(self._name, "delete", entry.identity(), entry.named(), None)

    def _inserted(self, entry: _Entry) -> RowChange:
        return RowChange(self._name, "insert", entry.identity(), None, entry.named())


def _entries(side: Side | None) -> Iterator[_Entry]:
    if side is not None:
        for held in side.rows:
            yield _Entry(side, held)


_Waiting = dict[tuple[tuple[type, Value], ...], _Entry]


def _wait(rows: _Waiting, entry: _Entry) -> None:
    key = entry.exact_identity()
    if key in rows:
        raise entry.side.snapshot.corrupt(entry.number, "a key stands in its tree twice")
    rows[key] = entry


def _until(rows: _Waiting, match: _Entry) -> _Waiting:
    """Takes out the match and the rows before it; returns these."""
    passed: _Waiting = {}
    for key in list(rows):
        entry = rows.pop(key)
        if entry is match:
            break
        passed[key] = entry
    return passed


def _ascending(rows: Iterator[_Entry]) -> Iterator[_Entry]:
    """The same, as long as each key is greater than the one before it."""
    last: _Entry | None = None
    for row in rows:
        if last is not None and not last.key < row.key:
            raise row.side.snapshot.corrupt(row.number, "a key that is not greater than the one before it")
        yield row
        last = row


def _same_row(one: _Entry, other: _Entry) -> bool:
    """Whether all columns that both have are the same, and new ones hold their defaults."""
    before, after = one.side.table, other.side.table
    if before.names == after.names:
        return all(map(same, one.row(), other.row()))
    old = {name.lower(): value for name, value in one.named().items()}
    return all(
        same(old[name.lower()], value) if name.lower() in old else same(after.default(at), value)
        for at, (name, value) in enumerate(zip(after.names, other.row(), strict=True))
    )
