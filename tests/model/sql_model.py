"""Several connections to one mv database against plain SQLite as the oracle.

Each rule is one step of one connection, so the order of all steps is known.  Checked at every step:

1. A statement's answer is what plain SQLite answers at the transaction's snapshot.
2. A commit that goes through gives the same answers when replayed after all earlier ones.
3. A commit, or a write lock, is refused only if someone else has written pages of a database that the
   transaction holds after the version that it stands at, or has asked for the write lock at the start; the
   pages that the refusal names are among these.  A transaction that only reads is never refused.
4. Every version keeps its content, and its b-trees are whole.
"""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import apsw
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import mvvfs
from mvvfs.options import to_uri
from pagestore.api import Version, format_version, parse_version
from pagestore.opener import open_store
from tests.conftest import fresh
from tests.model.oracle import PAGES_IN_USE, Answer, Moment, Oracle, Shadow, answer

TABLES = ("a", "b", "c")
CONNECTIONS = 3
COUNT = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {})"

_CREATES = re.compile(r"(CREATE (?:TABLE|INDEX) (?:IF NOT EXISTS )?)([abc])\b")

who = st.integers(0, CONNECTIONS - 1)
tables = st.sampled_from(TABLES)
numbers = st.integers(0, 40)
sizes = st.sampled_from([0, 10, 200, 1500, 9000])


@st.composite
def writes(draw: st.DrawFn) -> str:
    table, n, m, size = draw(tables), draw(numbers), draw(numbers), draw(sizes)
    return draw(
        st.sampled_from(
            [
                f"INSERT INTO {table}(k, data) VALUES({n}, zeroblob({size}))",
                f"INSERT INTO {table} VALUES({n}, {m}, zeroblob({size}))",
                f"INSERT OR REPLACE INTO {table} VALUES({n}, {m}, zeroblob({size})) RETURNING id",
                f"INSERT INTO {table}(k, data) {COUNT.format(n)} SELECT i, zeroblob({size}) FROM n",
                f"UPDATE {table} SET k = k + {m} WHERE id = {n}",
                f"UPDATE {table} SET data = zeroblob({size}) WHERE k < {n}",
                f"DELETE FROM {table} WHERE id = {n}",
                f"DELETE FROM {table} WHERE k % 3 = {n % 3}",
                f"DELETE FROM {table}",
                f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, k INT, data BLOB)",
                f"CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY, k INT UNIQUE, data BLOB)",
                f"DROP TABLE IF EXISTS {table}",
                f"CREATE INDEX IF NOT EXISTS {table}_k ON {table}(k, id)",
                f"DROP INDEX IF EXISTS {table}_k",
                f"INSERT INTO {table}(k) SELECT k + {m} FROM {draw(tables)} WHERE id <= {n}",
            ]
        )
    )


@st.composite
def reads(draw: st.DrawFn) -> str:
    table, n = draw(tables), draw(numbers)
    return draw(
        st.sampled_from(
            [
                f"SELECT count(*), sum(k), sum(length(data)) FROM {table}",
                f"SELECT id, k FROM {table} WHERE id = {n}",
                f"SELECT id FROM {table} WHERE k > {n} ORDER BY k, id",
                f"SELECT max(id) FROM {table}",
                "SELECT name FROM sqlite_schema ORDER BY name",
                PAGES_IN_USE,
            ]
        )
    )


class Base(NamedTuple):
    """The version that a transaction stands at, in the databases that it holds."""

    version: Version
    schemas: tuple[str, ...]


class Clock:
    """Of turns.  It stands still but while somebody waits for one to end: for a connection that does nothing
    meanwhile, as all of them take their steps one after the other.  So what a step does never depends on how
    long those before it took."""

    def __init__(self) -> None:
        self._seconds = time.time()

    def now_us(self) -> int:
        return int(self._seconds * 1e6)

    def monotonic(self) -> float:
        return self._seconds

    def sleep(self, _seconds: float) -> None:
        self._seconds += 1


class Client:
    """A connection, and the transaction that it has open."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.shadow: Shadow | None = None
        """The open transaction, once its snapshot has begun."""
        self.base: Base | None = None
        """Where it stands: `shadow.moment` may be later, if what was committed in between looks the same."""
        self.savepoints = 0
        self.doomed = False
        """It was refused the write lock: it may go on reading, but never write."""
        self.queues = False
        """It has asked for the write lock at the start, so others may have to wait for it."""
        self.has_turn = False
        """It got it, for the open transaction."""


class SqlModel(RuleBasedStateMachine):
    options: dict[str, Any] = {}  # noqa: RUF012 (subclasses replace it)
    cache_size = -2000
    schemas: tuple[str, ...] = ("main",)
    """The databases: "main" is called `app` in the store, an attached one as here."""
    homes: dict[str, str] = {}  # noqa: RUF012
    """The tables that live in an attached database."""
    kind = "folder"
    """Of store."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = ExitStack()
        clock = Clock()
        self.ends.enter_context(mock.patch("pagestore.turns._now_us", clock.now_us))
        self.ends.enter_context(mock.patch("pagestore.waiting.time", clock))
        folder = self.ends.enter_context(tempfile.TemporaryDirectory(prefix="mvvfs-model-"))
        self.url = self.ends.enter_context(fresh(self.kind, Path(folder)))
        self.store = open_store(self.url, create=True)  # patient, though connections have no timeout
        self.ends.callback(open_store(self.url, create=False, read_only=True).close)
        self.oracle = Oracle(self.schemas)
        self.checked = 0
        self.made = 0
        """The first moment at which each database has a commit."""
        self.clients = [Client(self.open()) for _ in range(CONNECTIONS)]
        self.namespaces = [self.store.open(name).id for name in ("app", *self.schemas[1:])]

    def open(self, **more: Any) -> apsw.Connection:
        options = {
            "store": self.url,
            "durability": "normal",
            "timeout": 0,
            **self.options,
            **more,
        }
        connection = mvvfs.connect("app", **options)
        for name in self.schemas[1:]:
            connection.execute(f"ATTACH ? AS {name}", (to_uri(name, **options),))
        for schema in self.schemas:
            connection.execute(f"PRAGMA {schema}.cache_size = {self.cache_size}")
        return connection

    def teardown(self) -> None:
        for client in self.clients:
            client.connection.close()
        self.store.close()
        self.oracle.close()
        self.ends.close()

    # ---- steps ----

    @initialize(rows=numbers, size=sizes)
    def fill(self, rows: int, size: int) -> None:
        for table in TABLES:
            self.autocommit(0, f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, k INT, data BLOB)")
            self.autocommit(
                0, f"INSERT INTO {table}(k, data) {COUNT.format(rows)} SELECT i, zeroblob({size}) FROM n"
            )

        if self.homes:
            self.made = len(self.oracle.history) - 1

    @rule(i=who, sql=reads())
    def read(self, i: int, sql: str) -> None:
        self.in_transaction(i, sql)

    @rule(i=who, sql=writes())
    def write(self, i: int, sql: str) -> None:
        self.in_transaction(i, sql)

    @rule(i=who, sql=reads(), then=writes(), commit=st.booleans())
    def read_and_write(self, i: int, sql: str, then: str, commit: bool) -> None:
        self.in_transaction(i, sql)
        self.in_transaction(i, then)
        if commit and self.clients[i].connection.in_transaction:
            self.end(self.clients[i])

    @precondition(lambda self: self.having(open=False))
    @rule(data=st.data(), sql=writes())
    def write_at_once(self, data: st.DataObject, sql: str) -> None:
        self.autocommit(self.choose(data, open=False), sql)

    @precondition(lambda self: self.having(open=False))
    @rule(data=st.data())
    def vacuum(self, data: st.DataObject) -> None:
        self.autocommit(self.choose(data, open=False), "VACUUM")

    @precondition(lambda self: self.having(open=False))
    @rule(data=st.data())
    def begin_immediate(self, data: st.DataObject) -> None:
        """With nothing read, the write lock is to be had, in turn."""
        client = self.clients[self.choose(data, open=False)]
        try:
            client.connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as conflict:
            assert conflict.extendedresult == apsw.SQLITE_BUSY  # noqa: PT017
            assert self.others_queue(client)
            client.queues = True
            return
        client.queues = client.has_turn = True
        client.shadow, client.base = self.oracle.begin(self.oracle.history[-1]), self.base_of(client)
        client.shadow.writes = True

    @precondition(lambda self: self.having(open=True))
    @rule(data=st.data())
    def savepoint(self, data: st.DataObject) -> None:
        i = self.choose(data, open=True)
        self.clients[i].savepoints += 1
        self.in_transaction(i, f"SAVEPOINT s{self.clients[i].savepoints}")

    @precondition(lambda self: any(client.savepoints for client in self.clients))
    @rule(data=st.data(), back=st.integers(0, 3), how=st.sampled_from(["RELEASE", "ROLLBACK TO"]))
    def end_savepoint(self, data: st.DataObject, back: int, how: str) -> None:
        i = data.draw(st.sampled_from([i for i, client in enumerate(self.clients) if client.savepoints]))
        chosen = max(1, self.clients[i].savepoints - back)
        self.clients[i].savepoints = chosen - (how == "RELEASE")
        self.in_transaction(i, f"{how} s{chosen}")

    @precondition(lambda self: self.having(open=True))
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        client = self.clients[self.choose(data, open=True)]
        client.connection.execute("ROLLBACK")
        self.forget(client)

    @precondition(lambda self: self.having(open=True))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.end(self.clients[self.choose(data, open=True)])

    @rule(i=who)
    def reopen(self, i: int) -> None:
        client = self.clients[i]
        client.connection.close()
        self.forget(client)
        client.queues = False
        client.connection = self.open()

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        moments = self.oracle.history[self.made :]
        moment = moments[data.draw(st.integers(0, len(moments) - 1))]
        past = self.open(at=moment.version)
        assert self.oracle.content(past) == moment.content
        self.check_whole(past)
        past.close()

    @invariant()
    def a_new_connection_sees_what_was_committed(self) -> None:
        if self.checked == len(self.oracle.history):
            return
        self.checked = len(self.oracle.history)
        fresh = self.open(mode="ro")
        assert self.oracle.content(fresh) == self.oracle.content(self.oracle.plain)
        self.check_whole(fresh)
        fresh.close()

    def check_whole(self, connection: apsw.Connection) -> None:
        for schema in self.schemas:
            assert connection.execute(f"PRAGMA {schema}.integrity_check").fetchall() == [("ok",)]

    # ---- what the steps are made of ----

    def having(self, *, open: bool) -> list[int]:
        """The clients that have a transaction open, or not."""
        return [i for i, client in enumerate(self.clients) if client.connection.in_transaction == open]

    def choose(self, data: st.DataObject, *, open: bool) -> int:
        return data.draw(st.sampled_from(self.having(open=open)))

    def autocommit(self, i: int, sql: str) -> None:
        """Nobody else takes a step in between, so it is refused only if it is someone else's turn."""
        before, sql = self.newest(), self.at_home(sql)
        try:
            ours = answer(self.clients[i].connection, sql)
        except apsw.BusyError:
            assert self.others_queue(self.clients[i])
            assert self.newest() == before
            return
        is_commit = self.newest() != before
        assert ours == self.oracle.autocommit(sql, is_commit=is_commit), sql
        if is_commit:
            self.oracle.committed(self.newest())

    def end(self, client: Client) -> None:
        """COMMIT."""
        before, shadow, lost = self.newest(), client.shadow, False
        try:
            client.connection.execute("COMMIT")
        except apsw.BusyError as conflict:
            self.check_refusal(client, conflict)
            lost = True
            assert shadow is not None
            assert shadow.writes
            assert not client.connection.in_transaction
        else:
            if self.newest() != before:
                assert shadow is not None
                assert not client.doomed, "what it had read had changed"
                self.oracle.commit(shadow)
                self.oracle.committed(self.newest())
            elif shadow is not None:
                assert self.oracle.content(shadow.plain) == shadow.moment.content, "a commit was dropped"
        self.forget(client, lost=lost)

    def in_transaction(self, i: int, sql: str) -> None:
        """Opens the transaction if need be; its snapshot begins with the first statement that reads."""
        client, sql = self.clients[i], self.at_home(sql)
        if not client.connection.in_transaction:
            client.connection.execute("BEGIN")
        try:
            ours = answer(client.connection, sql)
        except apsw.BusyError as conflict:
            self.check_refusal(client, conflict)
            client.doomed = True
            if not client.connection.in_transaction:
                self.forget(client)
            return
        if client.shadow is None and sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK TO")):
            assert ours == ("rows", [])
            return  # no snapshot yet
        shadow = self.shadow_of(client, sql)
        assert ours == shadow.run(sql), sql
        if self.is_of_cached_schema(client, ours):
            shadow.statements.pop()
        state = client.connection.txn_state()
        shadow.writes |= state == apsw.SQLITE_TXN_WRITE
        if not self.homes:  # that of another database is given: the commit will be refused
            assert not (shadow.writes and client.doomed), "the write lock was refused, and then given"
        if state == apsw.SQLITE_TXN_NONE:  # it failed when it was prepared: no snapshot is held yet
            shadow.plain.close()
            client.shadow = client.base = None

    def is_of_cached_schema(self, client: Client, ours: Answer) -> bool:
        """Whether it failed when it was prepared ("no such table"), beside databases that the transaction
        does not hold: SQLite looked at their schemas without keeping a snapshot, and they may change."""
        kind, text = ours
        holds_all = client.base is not None and client.base.schemas == self.schemas
        return kind == "error" and "constraint failed" not in text and not holds_all

    def shadow_of(self, client: Client, sql: str) -> Shadow:
        """The transaction on plain SQLite, at the snapshot at which the client stands after `sql`.

        It may have moved forward when `sql` took the write lock, if no answer so far would differ."""
        client.base = self.base_of(client)
        moment = self.moment_of(client)
        shadow = client.shadow
        if shadow is None:
            assert moment is self.oracle.history[-1], "a snapshot does not begin at the newest version"
            client.shadow = self.oracle.begin(moment)
            for i in range(client.savepoints):
                client.shadow.run(f"SAVEPOINT s{i + 1}")
        elif moment is not shadow.moment:
            same = moment.images == shadow.moment.images  # a commit that changed nothing came between
            assert not shadow.writes or self.homes or same, "the snapshot of a writing transaction moved"
            assert moment.version > shadow.moment.version
            client.shadow = self.oracle.begin(moment, shadow.statements)
            client.shadow.writes = shadow.writes
            shadow.plain.close()
        assert client.shadow is not None
        return client.shadow

    def check_refusal(self, client: Client, conflict: apsw.BusyError) -> None:
        assert conflict.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
        assert client.shadow is not None
        base = self.base_of(client) or client.base  # a refused statement may have moved it
        assert base is not None
        pages = {schema: self.written_after(base.version, schema) for schema in base.schemas}
        assert any(pages.values()) or self.others_queue(client), "refused, though nobody else has committed"
        if isinstance(conflict, mvvfs.ConflictError) and conflict.pages:
            schema = conflict.schema or "main"
            assert pages[schema].issuperset(conflict.pages), "refused for pages that nobody else has written"

    def written_after(self, version: Version, schema: str) -> set[int]:
        namespace = self.namespaces[self.schemas.index(schema)]
        return {page for change in self.store.changelog(namespace, after=version) for page in change.pages}

    def others_queue(self, client: Client) -> bool:
        return any(other.queues for other in self.clients if other is not client)

    def forget(self, client: Client, *, lost: bool = False) -> None:
        """The transaction has ended; one that was refused keeps its place in the queue."""
        if client.shadow is not None:
            client.shadow.plain.close()
        client.queues = client.queues and (lost or not client.has_turn)
        client.shadow = client.base = None
        client.savepoints, client.doomed, client.has_turn = 0, False, False

    def newest(self) -> str:
        return format_version(max(self.store.begin(namespace).version for namespace in self.namespaces))

    def home(self, table: str) -> str:
        """What to put before the name of a table that is created."""
        return f"{self.homes[table]}." if table in self.homes else ""

    def at_home(self, sql: str) -> str:
        """A table or index that is created belongs where its name says."""
        return _CREATES.sub(lambda match: match[1] + self.home(match[2]) + match[2], sql)

    def base_of(self, client: Client) -> Base | None:
        """Where its open transaction stands: at one version, in all the databases that it holds."""
        connection = client.connection
        held = tuple(s for s in self.schemas if connection.txn_state(s) != apsw.SQLITE_TXN_NONE)
        if not held:
            return None
        (version,) = {str(connection.pragma("mv_version", schema=s)) for s in held}
        return Base(parse_version(version), held)

    def moment_of(self, client: Client) -> Moment:
        """What its open transaction sees: the latest that will do, as long as its databases do not change."""
        base = self.base_of(client)
        if base is None:
            return self.oracle.history[-1]
        return self.oracle.moment(format_version(base.version), base.schemas)


class SqlModelWithSmallCaches(SqlModel):
    """Pages spill in mid-transaction, some to a file, and the process's page cache evicts."""

    options = {"cache_bytes": 20_000, "spill_bytes": 3_000}  # noqa: RUF012
    cache_size = 5


class SqlModelWithoutLeases(SqlModel):
    options = {"leases": "off"}  # noqa: RUF012


class SqlModelOfTwoDatabases(SqlModel):
    """Two of the three tables live in attached databases."""

    schemas = ("main", "second", "third")
    homes = {"b": "second", "c": "third"}  # noqa: RUF012


class SqlModelOfTwoDatabasesWithSmallCaches(SqlModelOfTwoDatabases):
    options = {"cache_bytes": 20_000, "spill_bytes": 0}  # noqa: RUF012
    cache_size = 5


class SqlModelFarAway(SqlModel):
    """Where what others committed meanwhile is told by the next begin only."""

    kind = "memory"


MODELS = [
    SqlModel,
    SqlModelFarAway,
    SqlModelWithSmallCaches,
    SqlModelWithoutLeases,
    SqlModelOfTwoDatabases,
    SqlModelOfTwoDatabasesWithSmallCaches,
]
