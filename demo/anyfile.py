"""A load for any SQLite file: it adds to numbers that nothing depends on, and keeps a book of what it added.

A job adds 1 to a number in some row of the file's tables, enters that in `mvvfs_demo_entries` and in the
table's running total in `mvvfs_demo_totals`; so every value can be checked against the file as it came.  The
load runs on copies only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apsw

from demo.load import DemoError, Job, Load, Totals, number

LARGEST = 2**52
"""Numbers up to here take a 1 more, also where they are stored as floating point."""
TABLES_AT_MOST = 8
ROWS_AT_MOST = 2_000

TOTALS_TABLE, ENTRIES_TABLE = "mvvfs_demo_totals", "mvvfs_demo_entries"
SCHEMA = f"""
CREATE TABLE {TOTALS_TABLE} (table_name TEXT PRIMARY KEY, added INTEGER NOT NULL);
CREATE TABLE {ENTRIES_TABLE} (id INTEGER PRIMARY KEY, table_name TEXT NOT NULL, row_id INTEGER NOT NULL,
  before INTEGER NOT NULL, writer INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Place:
    """A column that may be added to: whole numbers, in no key, index, check or generated column."""

    table: str
    column: str


@dataclass(frozen=True)
class Additions(Load):
    """Adds 1 to random rows of the places, `count` times in all."""

    places: tuple[Place, ...]
    count: int = 1_000
    noun = "additions"

    def prepare(self, connection: apsw.Connection) -> None:
        with connection:
            connection.execute(SCHEMA)
            names = sorted({place.table for place in self.places})
            connection.executemany(f"INSERT INTO {TOTALS_TABLE} VALUES (?, 0)", ((name,) for name in names))

    def jobs(self, connection: apsw.Connection) -> Sequence[Job]:
        rng = random.Random(self.count)
        rows = [list(self._rows(connection, place)) for place in self.places]
        picks = [rng.randrange(len(rows)) for _ in range(self.count)]
        return [(index, *rng.choice(rows[index])) for index in picks]

    def apply(self, connection: apsw.Connection, job: Job, writer: int) -> None:
        index, row_id, before = job
        place = self.places[index]
        table, column = quoted(place.table), quoted(place.column)
        connection.execute(f"UPDATE {table} SET {column} = {column} + 1 WHERE rowid = ?", (row_id,))
        connection.execute(
            f"UPDATE {TOTALS_TABLE} SET added = added + 1 WHERE table_name = ?",
            (place.table,),
        )
        connection.execute(
            f"INSERT INTO {ENTRIES_TABLE} (table_name, row_id, before, writer) VALUES (?, ?, ?, ?)",
            (place.table, row_id, before, writer),
        )

    def totals(self, connection: apsw.Connection) -> Totals:
        totals = {"additions": number(connection, f"SELECT sum(added) FROM {TOTALS_TABLE}")}
        for place in self.places:
            table, column = quoted(place.table), quoted(place.column)
            totals[f"sum of {place.table}.{place.column}"] = number(
                connection, f"SELECT sum({column}) FROM {table}"
            )
        return totals

    def applied(self, connection: apsw.Connection) -> int:
        return number(connection, f"SELECT count(*) FROM {ENTRIES_TABLE}")

    def disagreements(self, connection: apsw.Connection) -> list[str]:
        lines = [
            f"running total of {name}: {added}, entries: {entries}"
            for name, added, entries in connection.execute(
                f"SELECT table_name, added, (SELECT count(*) FROM {ENTRIES_TABLE} e"
                f" WHERE e.table_name = t.table_name) AS entries FROM {TOTALS_TABLE} t WHERE added <> entries"
            )
        ]
        for place in self.places:
            wrong = connection.execute(
                f"SELECT row_id, before, count(*) AS added, {quoted(place.column)} AS now"
                f" FROM {ENTRIES_TABLE} e JOIN {quoted(place.table)} t ON t.rowid = e.row_id"
                f" WHERE e.table_name = ? GROUP BY row_id HAVING now <> before + added",
                (place.table,),
            ).fetchall()
            lines += [f"{place.table}.{place.column}, row {row}" for row in wrong]
        return lines

    def _rows(self, connection: apsw.Connection, place: Place) -> Iterator[tuple[int, int]]:
        table, column = quoted(place.table), quoted(place.column)
        yield from connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL LIMIT {ROWS_AT_MOST}"
        )


def find_places(connection: apsw.Connection) -> tuple[Place, ...]:
    """One column for each table that has one, up to eight tables.  Raises DemoError if there is none."""
    places = []
    names = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND name IN"
        "  (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND wr = 0)"
        " AND lower(name) NOT IN (SELECT lower(tbl_name) FROM sqlite_schema WHERE type = 'trigger')"
    ).fetchall()
    for name, sql in names:
        column = _column(connection, str(name)) if "check" not in str(sql).lower() else None
        if column is not None:
            places.append(Place(str(name), column))
    if not places:
        raise DemoError(
            "this file has no table with numbers that could be added to (whole numbers outside keys, indexes"
            " and checks, in a table with row ids and no triggers); try another one"
        )
    return tuple(places[:TABLES_AT_MOST])


def _column(connection: apsw.Connection, table: str) -> str | None:
    """The first column of `table` that is free for additions, if any is."""
    taken = {
        str(column).lower()
        for (column,) in connection.execute(
            "SELECT info.name FROM pragma_index_list(?1) list, pragma_index_xinfo(list.name) info"
            " WHERE info.name IS NOT NULL"
            ' UNION SELECT "from" FROM pragma_foreign_key_list(?1)'
            " UNION SELECT name FROM pragma_table_xinfo(?1) WHERE pk > 0 OR hidden <> 0"
            ' UNION SELECT key."to" FROM sqlite_schema s, pragma_foreign_key_list(s.name) key'
            '  WHERE s.type = \'table\' AND lower(key."table") = lower(?1) AND key."to" IS NOT NULL',
            (table,),
        )
    }
    if _has_expression_index_or_generated(connection, table):
        return None
    for (column,) in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,)).fetchall():
        if str(column).lower() not in taken and _whole_numbers(connection, table, str(column)):
            return str(column)
    return None


def _has_expression_index_or_generated(connection: apsw.Connection, table: str) -> bool:
    """Whether something is computed from the table's columns: additions would change it too."""
    found = connection.execute(
        "SELECT 1 FROM pragma_table_xinfo(?1) WHERE hidden IN (2, 3) UNION ALL"
        " SELECT 1 FROM pragma_index_list(?1) list, pragma_index_xinfo(list.name) info"
        "  WHERE info.cid = -2 UNION ALL"
        " SELECT 1 FROM pragma_index_list(?1) WHERE partial",
        (table,),
    ).fetchone()
    return found is not None


def _whole_numbers(connection: apsw.Connection, table: str, column: str) -> bool:
    """Whether all values of the column are NULL or whole numbers, one at least, none too large."""
    name = quoted(column)
    ((others, smallest, largest),) = connection.execute(
        f"SELECT total(typeof({name}) NOT IN ('integer', 'null')), min({name}), max({name})"
        f" FROM {quoted(table)}"
    ).fetchall()
    return (
        not others
        and isinstance(smallest, int)
        and isinstance(largest, int)
        and -LARGEST < smallest <= largest < LARGEST
    )


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
