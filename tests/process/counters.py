"""Read-modify-write: each transaction reads numbers, adds in Python, and writes them back."""

from __future__ import annotations

import random
import time
from collections import Counter

import apsw

import mvvfs
from tests.process.place import Place

ROWS = 200
TOTAL = 1000 * ROWS


def create(place: Place) -> None:
    connection = place.connect()
    connection.execute("CREATE TABLE counters(id INTEGER PRIMARY KEY, n INT, pad BLOB)")
    connection.execute("CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INT, pad BLOB)")
    with connection:
        for i in range(ROWS):
            connection.execute("INSERT INTO counters VALUES(?, 0, zeroblob(300))", (i,))
            connection.execute("INSERT INTO accounts VALUES(?, ?, zeroblob(300))", (i, TOTAL // ROWS))
    connection.close()


def increment(place: Place, seed: int, seconds: float) -> Counter[int]:
    """Adds to random counters; how often to which, as far as acknowledged."""
    rng = random.Random(seed)
    connection = place.connect()
    done: Counter[int] = Counter()
    deadline = time.monotonic() + seconds

    def add(chosen: list[int]) -> None:
        for i in chosen:
            ((n,),) = connection.execute("SELECT n FROM counters WHERE id = ?", (i,)).fetchall()
            connection.execute("UPDATE counters SET n = ? WHERE id = ?", (n + 1, i))

    while time.monotonic() < deadline:
        chosen = rng.sample(range(ROWS), rng.randrange(1, 4))
        mvvfs.transaction(connection, tries=1000).run(add, chosen)
        done.update(chosen)
    connection.close()
    return done


def transfer(place: Place, seed: int, seconds: float) -> int:
    """Moves money between random accounts; how many transfers went through."""
    rng = random.Random(seed)
    connection = place.connect()
    done = 0
    deadline = time.monotonic() + seconds

    def move(source: int, target: int, wanted: int) -> None:
        amount = min(wanted, _balance(connection, source))
        there = _balance(connection, target)
        connection.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, source))
        connection.execute("UPDATE accounts SET balance = ? WHERE id = ?", (there + amount, target))

    while time.monotonic() < deadline:
        source, target = rng.sample(range(ROWS), 2)
        mvvfs.transaction(connection, tries=1000).run(move, source, target, rng.randrange(1, 50))
        done += 1
    connection.close()
    return done


def _balance(connection: apsw.Connection, account: int) -> int:
    ((balance,),) = connection.execute("SELECT balance FROM accounts WHERE id = ?", (account,)).fetchall()
    assert balance >= 0
    return int(balance)


def audit(place: Place, seed: int, seconds: float) -> int:
    """Adds up all accounts again and again, in one statement or in many of one transaction; how often."""
    rng = random.Random(seed)
    connection = place.connect()
    done = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if rng.random() < 0.5:
            ((total,),) = connection.execute("SELECT sum(balance) FROM accounts").fetchall()
        else:
            with connection:
                total = sum(_balance(connection, i) for i in rng.sample(range(ROWS), ROWS))
        assert total == TOTAL
        done += 1
    connection.close()
    return done
