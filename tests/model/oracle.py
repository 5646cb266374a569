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

PAGES_IN_USE = "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
"""The same however pages are numbered, and however many free ones a connection is shown."""


def answer(connection: apsw.Connection, sql: str) -> Answer:
    """What came back, in a form that can be compared; errors of SQL itself included."""
    try:
        return "rows", connection.execute(sql).fetchall()
    except (apsw.ConstraintError, apsw.SQLError) as error:
        return "error", str(error)


def dump(connection: apsw.Connection) -> list[Any]:
    """The schema, the number of pages in use, and all rows in their order on disk."""
    schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY rowid").fetchall()
    used = connection.execute(PAGES_IN_USE).fetchall()
    tables = sorted(name for kind, name, _ in schema if kind == "table")
    return [
        schema,
        used,
        *((name, connection.execute(f"SELECT * FROM {name}").fetchall()) for name in tables),
    ]


@dataclass(frozen=True)
class Moment:
    """The state after a commit."""

    version: str
    content: list[Any]
    image: bytes


@dataclass
class Shadow:
    """An open transaction on a copy of what its snapshot holds."""

    plain: apsw.Connection
    moment: Moment
    statements: list[tuple[str, Answer]] = field(default_factory=list)
    writes: bool = False

    def run(self, sql: str) -> Answer:
        expected = answer(self.plain, sql)
        self.statements.append((sql, expected))
        return expected


class Oracle:
    def __init__(self) -> None:
        self.plain = apsw.Connection(":memory:")
        self.history: list[Moment] = []
        """Every version, oldest first."""

    def begin(self, moment: Moment, statements: list[tuple[str, Answer]] = []) -> Shadow:  # noqa: B006 (never changed)
        """A transaction at that moment, in which the statements get the answers that they had elsewhere."""
        plain = apsw.Connection(":memory:")
        plain.deserialize("main", moment.image)
        plain.execute("BEGIN")
        shadow = Shadow(plain, moment)
        for sql, expected in statements:
            same = shadow.run(sql) == expected
            assert same or sql == PAGES_IN_USE, f"the snapshot moved, and it shows: {sql}"
        return shadow

    def commit(self, shadow: Shadow) -> None:
        """Replay a transaction that committed: in this order, every answer must be what it was.

        But for the number of pages in use: those who only allocate don't conflict, so it may have changed."""
        self.plain.execute("BEGIN")
        for sql, expected in shadow.statements:
            assert answer(self.plain, sql) == expected or sql == PAGES_IN_USE, f"not serializable: {sql}"
        self.plain.execute("COMMIT")

    def committed(self, version: str) -> None:
        """Note that what was done to the plain database is now `version` of the other."""
        assert not self.history or version > self.history[-1].version, "a later commit has an older version"
        self.history.append(Moment(version, dump(self.plain), self.plain.serialize("main")))

    def moment(self, version: str) -> Moment:
        return next(moment for moment in reversed(self.history) if moment.version <= version)

    def close(self) -> None:
        self.plain.close()
