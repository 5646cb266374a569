"""What plain SQLite makes of the same statements: the oracle of `test_sql_model`.

Committed transactions are replayed, in commit order, on one plain database: that is what every mv
connection must see.  A transaction that is still open runs beside it on a copy of the state at which its
snapshot began: every answer that it gets must be the copy's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apsw

Answer = tuple[str, Any]


def answer(connection: apsw.Connection, sql: str) -> Answer:
    """What came back, in a form that can be compared; errors of SQL itself included."""
    try:
        return "rows", connection.execute(sql).fetchall()
    except (apsw.ConstraintError, apsw.SQLError) as error:
        return "error", str(error)


def dump(connection: apsw.Connection) -> list[Any]:
    """The schema and all rows, in their order on disk."""
    schema = connection.execute(
        "SELECT type, name, rootpage, sql FROM sqlite_schema ORDER BY name"
    ).fetchall()
    tables = [name for kind, name, _, _ in schema if kind == "table"]
    return [schema, *((name, connection.execute(f"SELECT * FROM {name}").fetchall()) for name in tables)]


def new_plain() -> apsw.Connection:
    return apsw.Connection(":memory:")


def copy_of(connection: apsw.Connection) -> apsw.Connection:
    copy = new_plain()
    with copy.backup("main", connection, "main") as backup:
        backup.step(-1)
    return copy


@dataclass
class Shadow:
    """An open transaction on a copy of what was committed when its snapshot began."""

    plain: apsw.Connection
    based_on: int
    """Commits before its snapshot."""
    before: list[Any]
    """The content when it began."""
    statements: list[tuple[str, Answer]] = field(default_factory=list)
    writes: bool = False


class Oracle:
    def __init__(self) -> None:
        self.plain = new_plain()
        self.commits = 0
        self.history: list[tuple[str, list[Any]]] = []
        """Each version with its content, oldest first."""

    def begin(self) -> Shadow:
        plain = copy_of(self.plain)
        plain.execute("BEGIN")
        return Shadow(plain, self.commits, dump(plain))

    def commit(self, shadow: Shadow) -> None:
        """Replay a transaction that committed: in this order, every answer must be what it was."""
        self.plain.execute("BEGIN")
        for sql, expected in shadow.statements:
            assert answer(self.plain, sql) == expected, f"not serializable: {sql}"
        self.plain.execute("COMMIT")

    def committed(self, version: str) -> None:
        """Note that something was committed as `version`."""
        assert not self.history or version > self.history[-1][0], "a later commit has an older version"
        self.commits += 1
        self.history.append((version, dump(self.plain)))

    def close(self) -> None:
        self.plain.close()
