"""The list-append workload: random transactions that append to lists and read lists, and their history.

A list is stored in one of two ways, so that both rows that change in place and b-trees that grow and
split are exercised:

    TextLists    one row a list, the values in one text; the rows are spread over several tables
    RowLists     one row a value, in a table WITHOUT ROWID with an index beside it

and, to see that databases which are attached to each other are one, as TextLists whose tables lie in several.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Protocol

import apsw

import mvvfs
from mvvfs.errors import OutcomeUnknownError
from tests.checker import Append, Read, Status, Transaction
from tests.checker.history import Operation
from tests.process import knockout
from tests.process.place import Place, roll_back

KEYS = 9
LIST_LENGTH = 40
"""Appends of one process after which it moves on to new keys, so that lists stay short."""
MAX_PROCESSES = 100


class Lists(Protocol):
    def create(self, connection: apsw.Connection) -> None: ...
    def read(self, connection: apsw.Connection, key: int) -> tuple[int, ...]: ...
    def append(self, connection: apsw.Connection, key: int, value: int) -> None: ...


class TextLists:
    TABLES: ClassVar[int] = 3

    def create(self, connection: apsw.Connection) -> None:
        for i in range(self.TABLES):
            connection.execute(f"CREATE TABLE lists{i}(key INTEGER PRIMARY KEY, list TEXT)")

    def read(self, connection: apsw.Connection, key: int) -> tuple[int, ...]:
        sql = f"SELECT list FROM lists{key % self.TABLES} WHERE key = ?"
        found = connection.execute(sql, (key,)).fetchall()
        return tuple(int(part) for part in found[0][0].split(",")) if found else ()

    def append(self, connection: apsw.Connection, key: int, value: int) -> None:
        connection.execute(
            f"INSERT INTO lists{key % self.TABLES} VALUES(?, ?) "
            "ON CONFLICT(key) DO UPDATE SET list = list || ',' || excluded.list",
            (key, str(value)),
        )


class AttachedLists(TextLists):
    """One table in each of several databases.  An unqualified name is looked for in all of them."""

    SCHEMAS: ClassVar[tuple[str, ...]] = ("main", "second", "third")

    def create(self, connection: apsw.Connection) -> None:
        for i, schema in enumerate(self.SCHEMAS):
            connection.execute(f"CREATE TABLE {schema}.lists{i}(key INTEGER PRIMARY KEY, list TEXT)")


class RowLists:
    def create(self, connection: apsw.Connection) -> None:
        connection.execute(
            "CREATE TABLE items(key INT, place INT, value INT, pad BLOB, PRIMARY KEY(key, place))"
            " WITHOUT ROWID;"
            "CREATE INDEX items_value ON items(value)"
        )

    def read(self, connection: apsw.Connection, key: int) -> tuple[int, ...]:
        sql = "SELECT value FROM items WHERE key = ? ORDER BY place"
        return tuple(value for (value,) in connection.execute(sql, (key,)).fetchall())

    def append(self, connection: apsw.Connection, key: int, value: int) -> None:
        connection.execute(
            "INSERT INTO items SELECT ?1, coalesce(max(place), 0) + 1, ?2, zeroblob(100) "
            "FROM items WHERE key = ?1",
            (key, value),
        )


SINGLE = ("texts", "rows")
KINDS: dict[str, Callable[[], Lists]] = {"texts": TextLists, "rows": RowLists, "attached": AttachedLists}


@dataclass(frozen=True)
class Job:
    """What one worker process does."""

    place: Place
    kind: str
    process: int
    seed: int
    transactions: int
    """Each thread's attempts."""
    threads: int = 1
    pause: float = 0.001
    """Seconds at most between the statements of a transaction, so that transactions meet."""
    knocked_out: str | None = None


def work(job: Job) -> list[Transaction]:
    """The history of one process; each of its threads, with a connection of its own, counts as a process."""
    if job.knocked_out:
        knockout.apply(job.knocked_out)
    clients = [Client(job, job.process * job.threads + i) for i in range(job.threads)]
    with ThreadPoolExecutor(job.threads) as pool:
        return [transaction for history in pool.map(Client.run, clients) for transaction in history]


class _GivenUpError(Exception):
    """Raised by a transaction that is not to be committed."""


class Client:
    def __init__(self, job: Job, process: int) -> None:
        self.job = job
        self.process = process
        self.lists = KINDS[job.kind]()
        self.rng = random.Random(f"{job.seed} {process}")
        self.appends = 0
        self.history: list[Transaction] = []

    def run(self) -> list[Transaction]:
        connection = self.job.place.connect()
        for _ in range(self.job.transactions):
            self.attempt(connection)
        connection.close()
        return self.history

    def attempt(self, connection: apsw.Connection) -> None:
        operations: list[Operation] = []
        start = time.monotonic_ns()
        try:
            status = self.transact(connection, operations)
        except OutcomeUnknownError:
            roll_back(connection)
            status = Status.UNKNOWN
        except apsw.BusyError:
            roll_back(connection)
            status = Status.FAILED
        end = time.monotonic_ns()
        if operations:
            self.history.append(Transaction(self.process, start, end, status, tuple(operations)))

    def transact(self, connection: apsw.Connection, operations: list[Operation]) -> Status:
        if self.rng.random() < 0.2:
            self.operate(connection, operations)  # autocommit
            return Status.OK
        if self.job.place.variant.runs:
            return self.run_one(connection, operations)
        connection.execute(self.job.place.variant.begin)
        for _ in range(self.rng.randrange(1, 5)):
            self.operate(connection, operations)
        if self.rng.random() < 0.1:
            self.undone(connection)
        self.pause()
        if self.rng.random() < 0.1:
            connection.execute("ROLLBACK")
            return Status.FAILED
        connection.execute("COMMIT")
        return Status.OK

    def run_one(self, connection: apsw.Connection, operations: list[Operation]) -> Status:
        """The same by `mvvfs.transaction`: what it raises holds as well, if it has only read."""

        def attempt() -> None:
            if operations:
                self.lost(operations)
            for _ in range(self.rng.randrange(1, 4)):
                self.operate(connection, operations)
            self.pause()
            if self.rng.random() < 0.1:
                raise _GivenUpError

        try:
            mvvfs.transaction(connection, tries=2).run(attempt)
        except _GivenUpError:
            return Status.OK if all(isinstance(each, Read) for each in operations) else Status.FAILED
        return Status.OK

    def lost(self, operations: list[Operation]) -> None:
        """A try that is run again: nobody may ever see what it did.  What it read was given out to nobody."""
        now = time.monotonic_ns()
        appends = tuple(each for each in operations if isinstance(each, Append))
        self.history.append(Transaction(self.process, now, now, Status.FAILED, appends))
        operations.clear()

    def operate(self, connection: apsw.Connection, operations: list[Operation]) -> None:
        if operations:
            self.pause()
        key = self.key()
        if self.rng.random() < 0.5:
            operations.append(Read(key, self.lists.read(connection, key)))
        else:
            operations.append(Append(key, self.next_value()))  # before it is tried: it may fail
            self.lists.append(connection, key, operations[-1].value)

    def pause(self) -> None:
        if self.rng.random() < 0.5:
            time.sleep(self.rng.uniform(0, self.job.pause))

    def undone(self, connection: apsw.Connection) -> None:
        """An append that is taken back within the transaction: nobody may ever see it."""
        value, key = self.next_value(), self.key()
        now = time.monotonic_ns()
        self.history.append(Transaction(self.process, now, now, Status.FAILED, (Append(key, value),)))
        connection.execute("SAVEPOINT undone")
        self.lists.append(connection, key, value)
        connection.execute("ROLLBACK TO undone")

    def key(self) -> int:
        return KEYS * (self.appends // LIST_LENGTH) + self.rng.randrange(KEYS)

    def next_value(self) -> int:
        self.appends += 1
        return self.appends * MAX_PROCESSES + self.process


def create(place: Place, kind: str) -> None:
    connection = place.connect()
    KINDS[kind]().create(connection)
    connection.close()


def read_all(place: Place, kind: str, keys: Iterable[int]) -> Transaction:
    """One more transaction, after all others, that reads every list."""
    connection = place.connect()
    lists = KINDS[kind]()
    start = time.monotonic_ns()
    with connection:
        operations = tuple(Read(key, lists.read(connection, key)) for key in sorted(keys))
    end = time.monotonic_ns()
    connection.close()
    return Transaction(-1, start, end, Status.OK, operations)
