"""Several databases on one connection: what the tests of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest

from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.conftest import Connect
from tests.sql.twins import rows, value

FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
MAINS = ["mv", "memory", "delete", "wal"]
MODES = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY"]
SYNCHRONOUS = ["OFF", "NORMAL", "FULL", "EXTRA"]
BUSY_SNAPSHOT = apsw.SQLITE_BUSY_SNAPSHOT

Open = Callable[..., apsw.Connection]


@pytest.fixture
def open_all(connect: Connect, store: str, tmp_path: Path) -> Iterator[Open]:
    """`open_all(main)`: a connection whose main database is of that kind, with a and b of the store."""
    made: list[apsw.Connection] = []
    for name in ("a", "b"):
        connection = connect(name, durability="normal")
        connection.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
        connection.execute("INSERT INTO t VALUES(1, 100)")

    def open_(main: str = "mv", *, journal_mode: str = "DELETE", **options: object) -> apsw.Connection:
        options = {"durability": "normal"} | options
        if main == "mv":
            connection = connect("a", **options)
        elif main == "memory":
            connection = apsw.Connection(":memory:", flags=FLAGS)
        else:
            path = tmp_path / (f"{main}.sqlite" if not made else f"{main}-{len(made)}.sqlite")
            connection = apsw.Connection(plain_uri(path), flags=FLAGS)
            connection.execute("CREATE TABLE IF NOT EXISTS p(x)")
        for name in ("a", "b") if main != "mv" else ("b",):
            connection.execute(f"ATTACH ? AS {name}", (to_uri(name, store=store, **options),))
        made.append(connection)
        if main != "mv":  # unqualified: the attached ones as well; an mv database as main would answer itself
            connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        if main == "wal":
            assert rows(connection, "PRAGMA main.journal_mode = WAL") == [("wal",)]
        return connection

    yield open_
    for connection in made:
        connection.close(True)


def plain_uri(path: Path) -> str:
    return f"file:{quote(str(path))}?vfs=unix"


def table_a(main: str) -> str:
    return "main.t" if main == "mv" else "a.t"


def transfer(connection: apsw.Connection, main: str, amount: int = 1) -> None:
    a = table_a(main)
    connection.execute(
        f"BEGIN; UPDATE {a} SET v = v - {amount}; UPDATE b.t SET v = v + {amount} WHERE id = 1; COMMIT"
    )


def balances(connect: Connect) -> tuple[int, int]:
    return value(connect("a"), "SELECT sum(v) FROM t"), value(connect("b"), "SELECT sum(v) FROM t")


def newest_change(store: str, name: str) -> bytes:
    opened = open_store(store, create=False)
    try:
        (change,) = opened.changelog(opened.open(name).id, newest_first=True, limit=1)
        return change.version
    finally:
        opened.close()


def refused(connection: apsw.Connection, sql: str = "COMMIT") -> apsw.BusyError:
    with pytest.raises(apsw.BusyError) as caught:
        connection.execute(sql)
    assert caught.value.extendedresult == BUSY_SNAPSHOT
    assert not connection.in_transaction
    return caught.value
