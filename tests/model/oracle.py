"""What plain SQLite makes of the same statements: the oracle of `sql_model`.

Committed transactions are replayed, in commit order, on one plain database: that is what every mv
connection must see.  A transaction that is still open runs beside it on a copy of the state at which its
snapshot began: every answer that it gets must be the copy's.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def dump(connection: apsw.Connection, schemas: Sequence[str] = ("main",)) -> list[Any]:
    """Of each database: the schema, the number of pages in use, and all rows in their order on disk."""
    content: list[Any] = []
    for schema in schemas:
        listed = connection.execute(f"SELECT type, name, sql FROM {schema}.sqlite_schema ORDER BY rowid")
        entries = listed.fetchall()
        pages, free = (connection.pragma(name, schema=schema) for name in ("page_count", "freelist_count"))
        tables = sorted(name for kind, name, _ in entries if kind == "table")
        content += [
            entries,
            pages - free,
            *((name, connection.execute(f"SELECT * FROM {schema}.{name}").fetchall()) for name in tables),
        ]
    return content


def plain_connection(schemas: Sequence[str]) -> apsw.Connection:
    """Plain SQLite in memory, with as many databases."""
    plain = apsw.Connection(":memory:")
    for schema in schemas[1:]:
        plain.execute(f"ATTACH ':memory:' AS {schema}")
    return plain


@dataclass(frozen=True)
class Moment:
    """The state after a commit."""

    version: str
    content: list[Any]
    images: dict[str, bytes]
    """By database."""


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
    def __init__(self, schemas: Sequence[str] = ("main",)) -> None:
        self.schemas = schemas
        self.plain = plain_connection(schemas)
        self.history: list[Moment] = []
        """Every version, oldest first."""

    def begin(self, moment: Moment, statements: list[tuple[str, Answer]] = []) -> Shadow:  # noqa: B006 (never changed)
        """A transaction at that moment, in which the statements get the answers that they had elsewhere."""
        plain = plain_connection(self.schemas)
        for schema, image in moment.images.items():
            if image:
                plain.deserialize(schema, image)
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

    def autocommit(self, sql: str, *, is_commit: bool) -> Answer:
        """The answer to a single statement.  One that is no commit must leave everything as it is."""
        if sql == "VACUUM":  # not within a transaction; it always makes a version
            assert is_commit
            return answer(self.plain, sql)
        self.plain.execute("BEGIN")
        expected = answer(self.plain, sql)
        if not is_commit:
            assert self.content(self.plain) == self.history[-1].content, f"a commit was dropped: {sql}"
        self.plain.execute("COMMIT" if is_commit else "ROLLBACK")  # free pages may differ
        return expected

    def committed(self, version: str) -> None:
        """Note that what was done to the plain database is now `version` of the other."""
        assert not self.history or version > self.history[-1].version, "a later commit has an older version"
        images = {schema: self.plain.serialize(schema) for schema in self.schemas}
        self.history.append(Moment(version, self.content(self.plain), images))

    def content(self, connection: apsw.Connection) -> list[Any]:
        return dump(connection, self.schemas)

    def moment(self, version: str, schemas: Sequence[str] = ("main",)) -> Moment:
        """The newest one at which these databases are what they were at `version`."""
        found = max(i for i, moment in enumerate(self.history) if moment.version <= version)
        images = self.history[found].images
        for later in self.history[found + 1 :]:
            if any(later.images[schema] != images[schema] for schema in schemas):
                break
            found += 1
        return self.history[found]

    def close(self) -> None:
        self.plain.close()
