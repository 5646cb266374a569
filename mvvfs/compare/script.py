"""A comparison as an SQL script: run on the older version it makes the newer one.

Called by the command line; calls `comparison`.

1. In a table with a UNIQUE index the rows that it loses come first, those that it gains last, so that no
   constraint is in the way; a row is updated in place only where no such index looks at what changes.
2. Triggers of a table are dropped before its rows change and made again at the end; foreign keys are not
   enforced meanwhile.
3. A table whose definition changed gets its new columns where that is all, which SQLite is asked to confirm;
   else it is made anew with all its rows.
4. Virtual tables are entered into the schema as they are, and their shadow tables are tables like others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

import apsw

from mvvfs.compare.changes import Row, RowChange, SchemaChange
from mvvfs.compare.comparison import Comparison, Pair
from mvvfs.compare.records import Encoding, Value, encode_text, same
from mvvfs.compare.schema import Entry, fold
from mvvfs.compare.shapes import Table
from mvvfs.errors import UnsupportedError
from pagestore.api import format_version

_SEQUENCE = "sqlite_sequence"
_STATISTICS = "sqlite_stat"


def literal(value: Value, encoding: Encoding = "utf-8") -> str:
    """A value as SQL reads it back to the bit, in a database of that encoding."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "9e999" if value > 0 else "-9e999"
    if isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        return f"CAST(X'{encode_text(value, encoding).hex()}' AS TEXT)"
    return apsw.format_sql_value(value)


def name(text: str) -> str:
    """An identifier, quoted."""
    return '"' + text.replace('"', '""') + '"'


def script(comparison: Comparison) -> Iterator[str]:
    """The statements, each with its semicolon.  Raises UnsupportedError (a table whose rowid no SQL reaches),
    and as `Comparison` does."""
    yield from _Script(comparison).statements()


class _Script:
    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._old = comparison.old.schema
        self._new = comparison.new.schema
        self._encoding = comparison.old.snapshot.encoding
        self._changes = comparison.schema_changes()
        self._renamed = {change.name: change.table for change in self._changes if change.op == "renamed"}
        self._added_columns: dict[str, list[str]] = {}
        self._rebuilt = {fold(change.name) for change in self._changes if self._is_rebuilt(change)}
        self._dropped_triggers: set[str] = set()

    def statements(self) -> Iterator[str]:
        body = chain(self._drops(), self._tables(), self._rows(), self._rest())
        first = list(islice(body, 1))
        versions = (
            format_version(side.snapshot.version) for side in (self._comparison.old, self._comparison.new)
        )
        yield f"-- from {' to '.join(versions)}"
        if first:
            yield "PRAGMA foreign_keys = OFF;"
            yield "BEGIN IMMEDIATE;"
            yield from first
            yield from body
            yield "COMMIT;"

    # ---- the schema ----

    def _is_rebuilt(self, change: SchemaChange) -> bool:
        """Whether a table that both versions have is made anew; else notes what to add to it."""
        if change.kind != "table" or change.op not in ("altered", "renamed"):
            return False
        if change.op == "renamed" or self._is_virtual(change.old) or self._is_virtual(change.new):
            return True
        columns = _added_columns(change.name, change.old or "", change.new or "")
        if columns is None:
            return True
        self._added_columns[fold(change.name)] = columns
        return False

    @staticmethod
    def _is_virtual(sql: str | None) -> bool:
        return sql is not None and sql.upper().split()[:2] == ["CREATE", "VIRTUAL"]

    def _gone(self, kind: str) -> Iterator[SchemaChange]:
        """What the script drops, perhaps to make it again."""
        for change in self._changes:
            anew = change.op == "altered" and (kind != "table" or fold(change.name) in self._rebuilt)
            if change.kind == kind and (change.op in ("dropped", "renamed") or anew):
                yield change

    def _come(self, kind: str) -> Iterator[Entry]:
        """What the script makes."""
        changed = {(change.kind, fold(change.name)) for change in self._changes if change.op != "dropped"}
        anew = self._rebuilt | {fold(change.name) for change in self._gone("view")}
        for entry in self._new.entries:
            if entry.kind != kind or entry.sql is None:
                continue
            with_table = kind != "table" and fold(entry.table) in anew
            again = kind == "trigger" and entry.name in self._dropped_triggers
            kept = kind == "table" and fold(entry.name) in self._added_columns
            if (entry.key in changed and not kept) or with_table or again:
                yield entry

    def _drops(self) -> Iterator[str]:
        for trigger in self._gone("trigger"):
            yield self._drop_trigger(trigger.name)
        for kind in ("view", "index"):
            for change in self._gone(kind):
                yield f"DROP {kind.upper()} {name(change.name)};"
        virtual = [change for change in self._gone("table") if self._is_virtual(change.old)]
        if virtual:
            listed = ", ".join(literal(self._renamed.get(change.name, change.name)) for change in virtual)
            yield "PRAGMA writable_schema = ON;"
            yield f"DELETE FROM sqlite_schema WHERE type = 'table' AND rootpage = 0 AND name IN ({listed});"
            yield "PRAGMA writable_schema = RESET;"
        for change in self._gone("table"):
            if change not in virtual and change.name != _SEQUENCE:
                yield f"DROP TABLE {name(self._renamed.get(change.name, change.name))};"

    def _drop_trigger(self, trigger: str) -> str:
        self._dropped_triggers.add(trigger)
        return f"DROP TRIGGER {name(trigger)};"

    def _tables(self) -> Iterator[str]:
        for entry in self._come("table"):
            if entry.name.startswith(_STATISTICS):
                yield "ANALYZE sqlite_schema;"
            elif entry.root and entry.name != _SEQUENCE:
                yield f"{entry.sql};"
        for table, columns in self._added_columns.items():
            for column in columns:
                yield f"ALTER TABLE {name(table)} ADD COLUMN {column};"

    def _rest(self) -> Iterator[str]:
        for kind in ("index", "view"):
            for entry in self._come(kind):
                yield f"{entry.sql};"
        virtual = [entry for entry in self._come("table") if not entry.root]
        if virtual:
            yield "PRAGMA writable_schema = ON;"
            for entry in virtual:
                values = ", ".join(map(literal, (entry.kind, entry.name, entry.table, 0, entry.sql)))
                yield f"INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES ({values});"
            yield "PRAGMA writable_schema = RESET;"
        for entry in self._come("trigger"):
            yield f"{entry.sql};"
        for change in self._changes:
            if change.kind == "pragma":
                yield f"PRAGMA {change.name} = {change.new};"

    # ---- rows ----

    def _rows(self) -> Iterator[str]:
        own: list[Pair] = []
        for pair in self._comparison.tables():
            if pair.new is None:
                continue
            if pair.name.startswith((_SEQUENCE, _STATISTICS)):
                own.append(pair)
            elif pair.old is None or fold(pair.name) in self._rebuilt:
                for change in self._comparison.all_rows(pair.new):
                    yield self._insert(pair.new, change)
            else:
                yield from self._changed(pair, pair.old, pair.new)
        for pair in own:
            yield from self._own(pair)

    def _own(self, pair: Pair) -> Iterator[str]:
        """A table that SQLite keeps: other statements of the script have changed it as well."""
        counts = pair.name == _SEQUENCE and self._comparison.changed
        if pair.new is not None and (self._changes or counts or next(self._comparison.rows(pair), None)):
            yield f"DELETE FROM {name(pair.name)};"
            for change in self._comparison.all_rows(pair.new):
                yield self._insert(pair.new, change)

    def _changed(self, pair: Pair, old: Table, new: Table) -> Iterator[str]:
        changes = self._comparison.rows(pair)
        first = next(changes, None)
        if first is None:
            return
        at_once = new.unique_columns == frozenset()
        for trigger in self._old.of_table(old.name, "trigger"):
            if trigger.name not in self._dropped_triggers:
                yield self._drop_trigger(trigger.name)
        for change in chain((first,), changes):
            if change.old is None:
                if at_once:
                    yield self._insert(new, change)
            elif change.new is not None and _may_update(new, change):
                yield self._update(new, change, change.old, change.new)
            else:
                yield self._delete(new, change)
        if at_once:
            return
        for change in self._comparison.rows(pair):
            if change.new is not None and (change.old is None or not _may_update(new, change)):
                yield self._insert(new, change)

    def _insert(self, table: Table, change: RowChange) -> str:
        assert change.new is not None
        row = dict(change.new)
        if not table.is_index and table.alias is None:
            row = {self._rowid(table): change.key[0], **row}
        columns, values = ", ".join(map(name, row)), ", ".join(map(self._literal, row.values()))
        return f"INSERT INTO {name(table.name)}({columns}) VALUES ({values});"

    def _delete(self, table: Table, change: RowChange) -> str:
        return f"DELETE FROM {name(table.name)} WHERE {self._where(table, change)};"

    def _update(self, table: Table, change: RowChange, old: Row, new: Row) -> str:
        values = ", ".join(
            f"{name(column)} = {self._literal(new[column])}" for column in changed_columns(old, new)
        )
        return f"UPDATE {name(table.name)} SET {values} WHERE {self._where(table, change)};"

    def _where(self, table: Table, change: RowChange) -> str:
        columns = table.key_columns if table.is_index else (self._rowid(table),)
        return " AND ".join(
            f"{name(column)} = {self._literal(value)}"
            for column, value in zip(columns, change.key, strict=True)
        )

    def _rowid(self, table: Table) -> str:
        if table.rowid_name is None:
            raise UnsupportedError(
                f"table {table.name} has columns named rowid, oid and _rowid_: no SQL reaches its row ids"
            )
        return table.rowid_name

    def _literal(self, value: Value) -> str:
        return literal(value, self._encoding)


def changed_columns(old: Row, new: Row) -> list[str]:
    """The columns of the newer row that are not as in the older one."""
    before = {fold(column): value for column, value in old.items()}
    return [
        column
        for column, value in new.items()
        if fold(column) not in before or not same(before[fold(column)], value)
    ]


def _may_update(table: Table, change: RowChange) -> bool:
    if change.old is None or change.new is None or table.unique_columns is None:
        return False
    return table.unique_columns.isdisjoint(changed_columns(change.old, change.new))


def _added_columns(table: str, old: str, new: str) -> list[str] | None:
    """What ALTER TABLE ADD COLUMN has to be told to make one definition of the other; None: it can't.

    SQLite enters a new column's text before what followed the last one, so it is cut out of there, and then
    SQLite is asked."""
    end = next((at for at in range(len(old)) if new[: at + 1] != old[: at + 1]), len(old))
    tail = old[end:]
    if not new.endswith(tail) or len(new) < len(old):
        return None
    added = new[end : len(new) - len(tail)]
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(old)
        columns = []
        for column in _candidates(added, connection, table):
            connection.execute(f"ALTER TABLE {name(table)} ADD COLUMN {column}")
            columns.append(column)
        made: str = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).get
        return columns if columns and made == new else None
    except apsw.Error:
        return None  # a function or collation that only the program has, say: the table is made anew
    finally:
        connection.close()


def _candidates(added: str, connection: apsw.Connection, table: str) -> Iterator[str]:
    """One column as it is written, or several, where commas part them."""
    text = added.strip().removeprefix(",").strip()
    try:
        with connection:
            connection.execute(f"ALTER TABLE {name(table)} ADD COLUMN {text}")
            raise _UndoError
    except _UndoError:
        yield text
    except apsw.Error:
        yield from (part.strip() for part in text.split(", "))


class _UndoError(Exception):
    """Rolls a savepoint back."""
