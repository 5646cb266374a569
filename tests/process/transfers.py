"""A workload over two databases of a store: money goes from one to the other, by writers that get killed.

A transfer moves money between an account of `left` and one of `right`, and notes itself in both, where the
last KEPT of each writer stay.  At every version that either of them has: the money of both adds up, both
tell the same transfers, and each writer's have no gaps.
"""

from __future__ import annotations

import os
import random

import apsw

import mvvfs
from mvvfs.options import to_uri
from tests.process.place import Place

SIDES = ("left", "right")
ACCOUNTS = 6
KEPT = 500
MONEY = 2 * ACCOUNTS * 100
FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


def create(place: Place) -> None:
    for side in SIDES:
        connection = mvvfs.connect(side, store=place.store)
        connection.execute(
            "CREATE TABLE accounts(id INTEGER PRIMARY KEY, money INT, pad BLOB);"
            "CREATE TABLE moved(writer INT, n INT, pad BLOB, PRIMARY KEY(writer, n)) WITHOUT ROWID"
        )
        with connection:
            connection.executemany(
                "INSERT INTO accounts VALUES(?, 100, zeroblob(1500))", ((i,) for i in range(ACCOUNTS))
            )
        connection.close()


def both(place: Place, main: str, at: str | None = None) -> apsw.Connection:
    """A connection with both databases as `left` and `right`; `main`: one of them, or `:memory:`."""
    options = dict(place.variant.options) | ({} if at is None else {"at": at})
    connection: apsw.Connection
    if main == ":memory:":
        mvvfs.register(sqlite3=False)
        connection = apsw.Connection(":memory:", flags=FLAGS)
        connection.set_busy_timeout(5000)
    else:
        connection = mvvfs.connect(main, store=place.store, **options)
    for side in SIDES:
        if side != main:
            connection.execute(f"ATTACH ? AS {side}", (to_uri(side, store=place.store, **options),))
    for _, name, _ in connection.execute("PRAGMA database_list").fetchall():
        connection.execute(f"PRAGMA {name}.cache_size = {place.variant.cache_size}")
    return connection


def write_until_killed(place: Place, writer: int, seed: int, acknowledged: str) -> None:
    """Transfers without end.  `acknowledged` gets a line for each, once COMMIT has returned."""
    rng = random.Random(seed)
    acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    main = rng.choice([*SIDES, ":memory:"])
    connection = both(place, main)
    left, right = ("main" if side == main else side for side in SIDES)

    def transact() -> int:
        ((last,),) = connection.execute(
            f"SELECT coalesce(max(n), 0) FROM {left}.moved WHERE writer = ?", (writer,)
        ).fetchall()
        amount = rng.choice([-1, 1])
        tables = [(left, -amount), (right, amount)]
        rng.shuffle(tables)
        for schema, change in tables:
            connection.execute(
                f"UPDATE {schema}.accounts SET money = money + ? WHERE id = ?",
                (change, rng.randrange(ACCOUNTS)),
            )
            connection.execute(
                f"INSERT INTO {schema}.moved VALUES(?, ?, zeroblob(?))",
                (writer, last + 1, rng.randrange(900)),
            )
            connection.execute(
                f"DELETE FROM {schema}.moved WHERE writer = ? AND n = ?", (writer, last + 1 - KEPT)
            )
        return int(last) + 1

    mode = "IMMEDIATE" if "IMMEDIATE" in place.variant.begin else "DEFERRED"
    while True:
        n = mvvfs.transaction(connection, tries=10_000, mode=mode).run(transact)
        os.write(acks, b"%d\n" % n)


def check(connection: apsw.Connection, main: str) -> dict[int, int]:
    """The invariants as of the connection's snapshot; how many transfers each writer has made."""
    left, right = ("main" if side == main else side for side in SIDES)
    with connection:
        ((money,),) = connection.execute(
            f"SELECT (SELECT sum(money) FROM {left}.accounts) + (SELECT sum(money) FROM {right}.accounts)"
        ).fetchall()
        found = [
            connection.execute(
                f"SELECT writer, max(n), count(*), min(n) FROM {schema}.moved GROUP BY writer ORDER BY writer"
            ).fetchall()
            for schema in (left, right)
        ]
    assert money == MONEY
    assert found[0] == found[1]
    assert all((count, first) == (min(n, KEPT), max(n - KEPT, 0) + 1) for _, n, count, first in found[0])
    return {writer: n for writer, n, _, _ in found[0]}
