"""Which tables pages belong to: for the message of a conflict.

Called by `retry`; asks SQLite's `dbstat` virtual table on the connection that lost.  (What commits changed
in the past is looked for by `mvvfs.compare`, which reads less.)
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

SCHEMA = "sqlite_schema"


def table_map(connection: apsw.Connection, schema: str = "main") -> dict[int, str]:
    """For each page in use, the table it holds (a part of) or an index of which it holds.

    `schema`: which of the connection's databases, by its name in ATTACH.
    Walks the whole database: seconds for a large one.  Raises apsw.SQLError if SQLite was built
    without `dbstat`."""
    quoted = '"' + schema.replace('"', '""') + '"'
    tables = dict(connection.execute(f"SELECT name, tbl_name FROM {quoted}.sqlite_schema WHERE rootpage > 0"))
    walk = connection.execute("SELECT pageno, name FROM dbstat(?) WHERE aggregate = FALSE", (schema,))
    return {number: tables.get(name, SCHEMA) for number, name in walk}


def tables_of(pages: Iterable[int], known: dict[int, str]) -> tuple[str, ...]:
    """The tables of these pages, by name; pages that are not in use belong to none."""
    return tuple(sorted({known[number] for number in pages if number in known}))
