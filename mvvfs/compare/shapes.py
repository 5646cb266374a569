"""What the bytes of a table or index mean: columns, keys, their order.

Called by `schema`, `locate` and `merge`.  SQLite itself reads the schema: the rows of `sqlite_schema` are
put into an empty database in memory, whose pragmas are then asked.  So no SQL is parsed here, and names of
collations and functions that this process does not have do no harm.

1. A record of a rowid table holds its columns in order, without virtual ones; an INTEGER PRIMARY KEY stands
   there as NULL.  One of a WITHOUT ROWID table begins with its key; `PRAGMA index_xinfo` tells the order.
2. A record that is shorter than its table was written before columns were added: these have their defaults.
3. Keys are compared only where that needs no collation but BINARY (`KeyOrder.exact`); elsewhere the order is
   that in which the tree holds them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import apsw

from mvvfs.compare.btree import Cell
from mvvfs.compare.records import Damaged, Encoding, Value, decode_text, encode_text, fields, value
from mvvfs.compare.walk import Key

SchemaRow: TypeAlias = tuple[str, str, str, int, str | None]
"""type, name, tbl_name, rootpage, sql."""

_VIRTUAL, _STORED = 2, 3  # of the column `hidden` in PRAGMA table_xinfo
_KNOWN = ("BINARY", "NOCASE", "RTRIM")
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


@functools.total_ordering
class _Descending:
    """A part of a key that sorts the other way round."""

    __slots__ = ("part",)

    def __init__(self, part: tuple[int, Any]) -> None:
        self.part = part

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.part == other.part

    def __lt__(self, other: _Descending) -> bool:
        return other.part < self.part

    def __hash__(self) -> int:
        return hash(self.part)


class KeyOrder:
    """How the entries of an index, or of a WITHOUT ROWID table, are ordered."""

    def __init__(self, parts: Iterable[tuple[str, bool]], encoding: Encoding) -> None:
        """`parts`: collation and whether it descends, for each column of the key."""
        self._parts = tuple((collation.upper(), descends) for collation, descends in parts)
        self._encoding = encoding
        self.exact = all(collation == "BINARY" for collation, _ in self._parts)
        """Whether keys compare as SQLite compares them, whatever a program may have registered."""
        self.known = all(collation in _KNOWN for collation, _ in self._parts)
        """Whether they probably do."""

    def is_like(self, other: KeyOrder) -> bool:
        return (self._parts, self._encoding) == (other._parts, other._encoding)

    def key(self, payload: bytes) -> Key:
        """Raises Damaged."""
        found = fields(payload, len(self._parts))
        if len(found) < len(self._parts):
            raise Damaged(f"an entry of {len(found)} values in an index of {len(self._parts)}")
        return tuple(
            self._part(kind, data, collation, descends)
            for (kind, data), (collation, descends) in zip(found, self._parts, strict=True)
        )

    def key_of(self, cell: Cell) -> Key | None:
        """The key of a cell, from what lies on its page; None if that is too little (or damaged)."""
        try:
            return self.key(cell.local)
        except Damaged:
            return None

    def _part(self, kind: int, data: bytes, collation: str, descends: bool) -> tuple[int, Any] | _Descending:
        if kind >= 12 and not kind & 1:
            part: tuple[int, Any] = (3, data)
        elif kind >= 12:
            part = (2, self._text(data, collation))
        else:
            number = value(kind, data, self._encoding)
            part = (0, 0) if number is None else (1, number)
        return _Descending(part) if descends else part

    def _text(self, data: bytes, collation: str) -> bytes:
        if collation == "BINARY":
            return data  # in the database's own encoding, as SQLite does
        if self._encoding != "utf-8":
            data = decode_text(data, self._encoding).encode("utf-8", "surrogatepass")
        return data.lower() if collation == "NOCASE" else data.rstrip(b" ")


class Index(NamedTuple):
    """A tree that is no table, and the one that it belongs to."""

    name: str
    table: str
    root: int
    width: int
    """Values in an entry."""
    order: KeyOrder


class Column(NamedTuple):
    name: str
    field: int
    """Where in the record it stands."""
    is_real: bool
    """Whole numbers are stored as integers, and read as floats."""
    declared: str
    default: str | None
    """SQL."""


class Table:
    """A table that has a tree."""

    def __init__(
        self,
        name: str,
        root: int,
        columns: tuple[Column, ...],
        width: int,
        *,
        alias: int | None,
        order: KeyOrder | None,
        key_columns: tuple[str, ...],
        primary_key: tuple[str, ...],
        unique_columns: frozenset[str] | None,
        is_strict: bool,
        encoding: Encoding,
    ) -> None:
        self.name = name
        self.root = root
        self.columns = columns
        """Those that can be written; not the generated ones."""
        self.width = width
        """Values in a record."""
        self.alias = alias
        """Which column is the rowid, if any: its number in `columns`."""
        self.order = order
        """Of a WITHOUT ROWID table; None: it is ordered by rowid."""
        self.key_columns = key_columns
        """Of a WITHOUT ROWID table, in the order of its key."""
        self.primary_key = primary_key
        """As declared, in its order; empty: none."""
        self.unique_columns = unique_columns
        """All that any UNIQUE index looks at (but not the rowid); None: an expression, so maybe any."""
        self.is_strict = is_strict
        self.encoding = encoding
        self.names = tuple(column.name for column in columns)
        self._defaults: dict[int, Value] = {}

    @property
    def is_index(self) -> bool:
        """Whether it is stored like one: WITHOUT ROWID."""
        return self.order is not None

    @property
    def rowid_name(self) -> str | None:
        """By which name SQL reaches the rowid; None if columns took all of them."""
        if self.alias is not None:
            return self.names[self.alias]
        taken = {name.lower() for name in self.names}
        return next((name for name in _ROWID_NAMES if name not in taken), None)

    def matches(self, other: Table) -> bool:
        """Whether rows of both are identified, and ordered, alike, so that they can be compared."""
        if self.order is None or other.order is None:
            return self.order is other.order
        same_names = [n.lower() for n in self.key_columns] == [n.lower() for n in other.key_columns]
        return same_names and self.order.is_like(other.order)

    def row(self, rowid: int, payload: bytes) -> tuple[Value, ...]:
        """The values of `columns`.  Raises Damaged."""
        found = fields(payload)
        if len(found) > self.width:
            raise Damaged(f"a row of {len(found)} values in a table of {self.width}")
        out: list[Value] = []
        for at, column in enumerate(self.columns):
            if at == self.alias:
                out.append(rowid)
            elif column.field < len(found):
                one = value(*found[column.field], self.encoding)
                out.append(float(one) if column.is_real and isinstance(one, int) else one)
            else:
                out.append(self.default(at))
        return tuple(out)

    def default(self, at: int) -> Value:
        """What a column has in rows that were written before it was added."""
        if at not in self._defaults:
            self._defaults[at] = _default(self.columns[at], self.is_strict)
        return self._defaults[at]


class Shapes(NamedTuple):
    tables: dict[int, Table]
    """By root page."""
    indexes: dict[int, Index]
    """By root page; without the trees of WITHOUT ROWID tables."""


def load(rows: list[SchemaRow], encoding: Encoding, schema_format: int) -> Shapes:
    """The tables and indexes of a schema.  Raises Damaged where SQLite can't read it."""
    connection = apsw.Connection(":memory:")
    try:
        _fill(connection, rows)
        reader = _Reader(connection, encoding, schema_format)
        tables = {root: reader.table(name, root) for kind, name, _, root, _ in rows if kind == "table"}
        indexes = {
            root: reader.index(name, table, root)
            for kind, name, table, root, _ in rows
            if kind == "index" and root not in tables
        }
    except (apsw.Error, UnicodeError) as exc:
        raise Damaged(f"a schema that SQLite {apsw.sqlite_lib_version()} can't read: {exc}") from exc
    finally:
        connection.close()
    return Shapes(tables, indexes)


def _fill(connection: apsw.Connection, rows: list[SchemaRow]) -> None:
    connection.pragma("page_size", 512)
    connection.execute("CREATE TABLE filler(x)")  # so that there are as many pages as trees
    connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (512 * (len(rows) + 8),))
    connection.pragma("writable_schema", 1)
    connection.execute("DELETE FROM sqlite_schema")
    connection.executemany(
        "INSERT INTO sqlite_schema"
        " VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?, CAST(? AS TEXT))",
        [  # as bytes, because a comment, say, may be no UTF-8
            (*map(encode_text, (kind, name, table)), at, None if sql is None else encode_text(sql))
            for at, (kind, name, table, _, sql) in enumerate(rows, start=3)
        ],
    )
    connection.pragma("writable_schema", "RESET")


class _Reader:
    """Asks SQLite's pragmas."""

    def __init__(self, connection: apsw.Connection, encoding: Encoding, schema_format: int) -> None:
        self._connection = connection
        self._encoding = encoding
        self._descending = schema_format >= 4  # before that, DESC in an index was ignored
        self._flags = {
            name: (bool(without_rowid), bool(strict))
            for _, name, _, _, without_rowid, strict in self._ask("PRAGMA main.table_list")
        }

    def _ask(self, sql: str, *bindings: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def _parts(self, index: str) -> list[tuple[Any, ...]]:
        """seqno, cid, name, desc, coll, key."""
        found = self._ask("SELECT * FROM pragma_index_xinfo(?)", index)
        if not found:
            raise Damaged(f"index {index}, which does not exist")
        return found

    def _order(self, parts: Iterable[tuple[Any, ...]]) -> KeyOrder:
        return KeyOrder([(part[4], bool(part[3]) and self._descending) for part in parts], self._encoding)

    def index(self, name: str, table: str, root: int) -> Index:
        parts = self._parts(name)
        return Index(name, table, root, len(parts), self._order(parts))

    def table(self, name: str, root: int) -> Table:
        if name not in self._flags:
            raise Damaged(f"table {name}, which does not exist")
        without_rowid, strict = self._flags[name]
        info = self._ask("SELECT * FROM pragma_table_xinfo(?)", name)
        indexes = self._ask('SELECT name, origin, "unique" FROM pragma_index_list(?)', name)
        key_index = next((index for index, origin, _ in indexes if origin == "pk"), None)
        by_key = sorted((row[5], row[1]) for row in info if row[5])
        primary_key = tuple(column for _, column in by_key)
        stored = [row[0] for row in info if row[6] != _VIRTUAL]
        order, key_columns = None, ()
        if without_rowid:
            parts = self._parts(key_index or "")
            stored = [part[1] for part in parts]
            own = [part for part in parts if part[5]]
            order, key_columns = self._order(own), tuple(part[2] for part in own)
        columns = tuple(
            Column(row[1], stored.index(row[0]), _affinity_is_real(row[2], strict), row[2], row[4])
            for row in info
            if row[6] not in (_VIRTUAL, _STORED)
        )
        alias = None
        if not without_rowid and key_index is None and primary_key:
            alias = next(at for at, column in enumerate(columns) if column.name == primary_key[0])
        return Table(
            name,
            root,
            columns,
            len(stored),
            alias=alias,
            order=order,
            key_columns=key_columns,
            primary_key=primary_key,
            unique_columns=self._unique([index for index, _, unique in indexes if unique]),
            is_strict=strict,
            encoding=self._encoding,
        )

    def _unique(self, indexes: list[str]) -> frozenset[str] | None:
        found: set[str] = set()
        for index in indexes:
            for part in self._parts(index):
                if part[5] and part[2] is None:
                    return None
                if part[5]:
                    found.add(part[2])
        return frozenset(found)


@functools.lru_cache(maxsize=256)
def _affinity_is_real(declared: str, strict: bool) -> bool:
    return isinstance(_stored(declared, strict, "DEFAULT 1"), float)


def _default(column: Column, strict: bool) -> Value:
    if column.default is None:
        return None
    failure: apsw.Error | None = None
    for clause in (f"DEFAULT {column.default}", f"DEFAULT ({column.default})"):  # the pragma drops brackets
        try:
            return _stored(column.declared, strict, clause)
        except apsw.Error as exc:
            failure = exc
    raise Damaged(f"a short row, though column {column.name} has the default {column.default}") from failure


def _stored(declared: str, strict: bool, clause: str) -> Value:
    """What a column of that type holds where nothing was given for it."""
    kind = declared if strict or not declared else '"' + declared.replace('"', '""') + '"'
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(f"CREATE TABLE t(c {kind} {clause}, d INT){' STRICT' if strict else ''}")
        connection.execute("INSERT INTO t(d) VALUES (1)")
        found: Value = connection.execute("SELECT c FROM t").get
        return found
    finally:
        connection.close()
