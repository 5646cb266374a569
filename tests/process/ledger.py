"""A workload that shows half-applied and forgotten transactions, for writers that get killed.

Transaction `n` of a writer inserts PARTS rows over several pages, removes those of the transaction KEPT
before it (so that to look at all of them takes no longer and longer), counts itself in the writer's total,
and moves money between two accounts.  At every version: each transaction has all its parts, a writer's
total is the number of its transactions, which have no gaps, and the money adds up.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import apsw

import mvvfs
from tests.process.place import Place, value

PARTS = 6
KEPT = 200
ACCOUNTS = 8
MONEY = 100 * ACCOUNTS


def create(place: Place, writers: int) -> None:
    connection = place.connect()
    connection.execute(
        "CREATE TABLE parts(writer INT, n INT, part INT, pad BLOB, PRIMARY KEY(writer, n, part))"
        " WITHOUT ROWID;"
        "CREATE TABLE totals(writer INTEGER PRIMARY KEY, n INT);"
        "CREATE TABLE accounts(id INTEGER PRIMARY KEY, money INT, pad BLOB)"
    )
    with connection:
        connection.executemany("INSERT INTO totals VALUES(?, 0)", ((i,) for i in range(writers)))
        connection.executemany(
            "INSERT INTO accounts VALUES(?, ?, zeroblob(1500))",
            ((i, MONEY // ACCOUNTS) for i in range(ACCOUNTS)),
        )
    connection.close()


def write_until_killed(place: Place, writer: int, seed: int, acknowledged: str) -> None:
    """Transactions without end.  `acknowledged` gets a line for each, once COMMIT has returned.

    A line that was written before the kill survives it: only the process dies, not the machine."""
    rng = random.Random(seed)
    acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    connection = place.connect()

    def transact() -> int:
        n = 1 + number_of(connection, writer)
        connection.execute("UPDATE totals SET n = ? WHERE writer = ?", (n, writer))
        connection.executemany(
            "INSERT INTO parts VALUES(?, ?, ?, zeroblob(?))",
            ((writer, n, part, rng.randrange(2500)) for part in range(PARTS)),
        )
        connection.execute("DELETE FROM parts WHERE writer = ? AND n = ?", (writer, n - KEPT))
        source, target = rng.sample(range(ACCOUNTS), 2)
        connection.execute("UPDATE accounts SET money = money - 1 WHERE id = ?", (source,))
        connection.execute("UPDATE accounts SET money = money + 1 WHERE id = ?", (target,))
        return n

    while True:
        n = mvvfs.transaction(connection, tries=10_000).run(transact)
        os.write(acks, b"%d\n" % n)


def number_of(connection: apsw.Connection, writer: int) -> int:
    ((n,),) = connection.execute("SELECT n FROM totals WHERE writer = ?", (writer,)).fetchall()
    return int(n)


def last_acknowledged(path: Path) -> int:
    """The newest transaction that the file tells of; 0 if none."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return int(lines[-1]) if lines else 0


def check(connection: apsw.Connection) -> dict[int, int]:
    """The invariants, as of the connection's snapshot; each writer's total."""
    with connection:
        totals = dict(connection.execute("SELECT writer, n FROM totals").fetchall())
        assert value(connection, "SELECT sum(money) FROM accounts") == MONEY
        incomplete = connection.execute(
            "SELECT writer, n, count(*) FROM parts GROUP BY writer, n HAVING count(*) != ?", (PARTS,)
        ).fetchall()
        assert incomplete == []
        found = connection.execute(
            "SELECT writer, max(n), min(n), count(*) FROM parts GROUP BY writer ORDER BY writer"
        ).fetchall()
    assert found == [
        (writer, n, max(n - KEPT, 0) + 1, min(n, KEPT) * PARTS) for writer, n in sorted(totals.items()) if n
    ]
    return totals
