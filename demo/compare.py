"""Proves two databases equal: the same schema, and the same rows in every table, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import apsw

from demo.anyfile import quoted


@dataclass(frozen=True)
class Comparison:
    """What was found out about one table."""

    table: str
    rows: int
    equal: bool


def tables(one: apsw.Connection, other: apsw.Connection) -> Iterator[Comparison]:
    """Each table that holds rows, sqlite_schema first: if that differs, so may the list of tables."""
    yield _compare("sqlite_schema", "type, name, tbl_name, sql", one, other)
    names = [
        str(name)
        for (name,) in one.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')"
            " AND name <> 'sqlite_schema' ORDER BY name"
        ).fetchall()
    ]
    for name in names:
        yield _compare(quoted(name), "*", one, other)


def _compare(table: str, columns: str, one: apsw.Connection, other: apsw.Connection) -> Comparison:
    """In the order in which the tables' b-trees keep their rows, which equal content decides."""
    statement = f"SELECT {columns} FROM {table}"
    rows = 0
    for mine, theirs in zip_longest(one.execute(statement), other.execute(statement)):
        if mine != theirs:
            return Comparison(table.strip('"'), rows, equal=False)
        rows += 1
    return Comparison(table.strip('"'), rows, equal=True)
