"""The same SQL on an mv database and on a plain file: every answer must be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

Answer = tuple[str, Any]


def rows(connection: apsw.Connection, sql: str, bindings: Any = ()) -> list[tuple[Any, ...]]:
    return connection.execute(sql, bindings or None).fetchall()


def value(connection: apsw.Connection, sql: str, bindings: Any = ()) -> Any:
    ((only,),) = rows(connection, sql, bindings)
    return only


def answer(connection: apsw.Connection, sql: str, bindings: Any = ()) -> Answer:
    """What came back, an error included, in a form that can be compared."""
    try:
        return "rows", rows(connection, sql, bindings)
    except apsw.Error as error:
        return "error", (getattr(error, "extendedresult", None), str(error))


def dump(connection: apsw.Connection) -> list[Any]:
    """The schema and every table's rows."""
    content: list[Any] = rows(
        connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"
    )
    names = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    for (name,) in names:
        content.append(
            (name, rows(connection, f"SELECT * FROM {apsw.format_sql_value(name)}".replace("'", '"')))
        )
    return content


def free_pages(image: bytes, page_size: int) -> set[int]:
    """The leaves of the freelist: https://www.sqlite.org/fileformat2.html#the_freelist."""
    found: set[int] = set()
    trunk = int.from_bytes(image[32:36])
    while trunk:
        page = image[(trunk - 1) * page_size : trunk * page_size]
        count = int.from_bytes(page[4:8])
        found.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i]) for i in range(count))
        trunk = int.from_bytes(page[:4])
    return found


def image(connection: apsw.Connection) -> list[bytes]:
    """The database's pages, without what may differ: free pages, and the counters of page 1."""
    data = bytearray(connection.serialize("main"))
    if not data:
        return []
    page_size = value(connection, "PRAGMA page_size")
    data[24:28] = bytes(4)
    data[92:100] = bytes(8)
    free = free_pages(data, page_size)
    count = len(data) // page_size
    return [
        b"free" if number in free else bytes(data[(number - 1) * page_size : number * page_size])
        for number in range(1, count + 1)
    ]


def is_intact(connection: apsw.Connection) -> None:
    assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
    assert rows(connection, "PRAGMA foreign_key_check") == []


class Twins:
    def __init__(
        self, connect: Callable[[], apsw.Connection], plain_file: Path, setup: Sequence[str] = ()
    ) -> None:
        self._connect = connect
        self._plain_file = plain_file
        self._setup = setup
        self.open()

    def open(self) -> None:
        self.mv = self._connect()
        self.plain = apsw.Connection(str(self._plain_file))
        for each in (self.mv, self.plain):
            for sql in self._setup:
                each.execute(sql)

    def reopen(self) -> None:
        self.close()
        self.open()

    def close(self) -> None:
        self.mv.close()
        self.plain.close()

    def __call__(self, sql: str, bindings: Any = ()) -> Any:
        """The rows; or ("error", ...) if both refused."""
        ours, theirs = (answer(each, sql, bindings) for each in (self.mv, self.plain))
        assert ours == theirs, sql
        return ours[1] if ours[0] == "rows" else ours

    def both(self, action: Callable[[apsw.Connection], Any]) -> Any:
        ours, theirs = action(self.mv), action(self.plain)
        assert ours == theirs
        return ours

    def check(self) -> None:
        """The same content, intact; and again after both were opened anew.  Page numbers may differ."""
        for _ in range(2):
            for each in (self.mv, self.plain):
                is_intact(each)
            for pragma in ("page_size", "encoding", "user_version", "application_id"):
                self(f"PRAGMA {pragma}")
            self.both(dump)
            self.reopen()
