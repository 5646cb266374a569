"""`mvvfs.transaction`, where a try may run ahead: it starts where the last commit of the process left off.

Two clients with page caches of their own.  What the store was asked is counted; what comes out must be what
it would have been if every transaction had asked, also where "a moment ago" is as long as the whole test.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import database
from mvvfs.errors import ConflictError, OpenCursorError, StoreUnavailableError
from mvvfs.remote import RemoteStore
from pagestore.api import Begin
from pagestore.opener import open_store
from pagestore.service.server import serving
from pagestore.service.settings import Settings
from pagestore.store import PageStore
from tests.conftest import NAME, fresh, on_cluster
from tests.proxy import Fault, Proxy, between
from tests.sql.twins import is_intact

ROWS = 200

LAGGING = pytest.mark.parametrize("pair", ["service", on_cluster()], indirect=True)
"""Where a try that runs ahead does not see what others did since; the store in memory tells the newest."""


@dataclass
class Pair:
    one: apsw.Connection
    other: apsw.Connection
    proxy: Proxy | None
    """Between `one` and the service, if it goes through one."""
    asked: list[str] = field(default_factory=list)
    """The begins of `one` that asked for the newest version."""

    def bump(self, key: int = 1) -> int:
        value: int = self.one.execute("SELECT v FROM t WHERE id = ?", (key,)).get
        self.one.execute("UPDATE t SET v = ? WHERE id = ?", (value + 1, key))
        return value + 1

    def read(self, key: int = 1) -> int:
        value: int = self.one.execute("SELECT v FROM t WHERE id = ?", (key,)).get
        return value

    def run(self, function: Callable[..., Any], *arguments: object, **options: Any) -> Any:
        return mvvfs.transaction(self.one, **options).run(function, *arguments)

    def warm(self) -> None:
        """Until the next transaction of `one` runs ahead."""
        for _ in range(3):
            self.run(self.bump, ROWS)
        self.asked.clear()

    def changed(self, key: int = 1, value: int = 1000) -> None:
        self.other.execute("UPDATE t SET v = ? WHERE id = ?", (value, key))


@pytest.fixture(autouse=True)
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "AHEAD_SECONDS", 1000.0)


@pytest.fixture(params=["service", "memory", on_cluster()])
def pair(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """`one` by way of a service, or straight to a distant store; `other` always by way of the service."""
    kind = request.param
    with fresh("folder" if kind == "service" else kind, tmp_path) as url:
        store = open_store(url, create=True)
        try:
            yield from _serve(kind, url, tmp_path, monkeypatch)
        finally:
            store.close()


def _serve(kind: str, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    address = f"unix:{folder}/service"
    with serving(Settings(store=url, listen=(address,))), between(address, f"{folder}/proxy") as proxy:
        by_way = f"grpc+unix:{folder}/proxy" if kind == "service" else url
        one = mvvfs.connect(NAME, store=by_way, timeout=2.0)
        other = mvvfs.connect(NAME, store=f"grpc+{address}")
        one.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, p); CREATE TABLE u(x, p)")
        one.executemany("INSERT INTO t VALUES(?, 0, zeroblob(300))", [(n,) for n in range(1, ROWS + 1)])
        pair = Pair(one, other, proxy if kind == "service" else None)
        here = threading.current_thread()
        for store_type in (RemoteStore, PageStore):

            def begin(store: Any, *a: Any, real: Any = store_type.begin, **keywords: Any) -> Begin:
                is_one = threading.current_thread() is here and store.url == by_way
                if is_one and not keywords.get("reaching"):
                    pair.asked.append(store.url)
                start: Begin = real(store, *a, **keywords)
                return start

            monkeypatch.setattr(store_type, "begin", begin)
        yield pair
        is_intact(other)
        one.close(True)
        other.close(True)


def test_writes_in_a_row_do_not_ask(pair: Pair) -> None:
    pair.warm()
    assert [pair.run(pair.bump) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert pair.asked == []
    assert pair.other.execute("SELECT v FROM t WHERE id = 1").get == 5
    if pair.proxy is not None:
        pair.proxy.counts.clear()
        pair.run(pair.bump)
        assert pair.proxy.counts == {"Commit": 1}


def test_the_first_of_them_asks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.warm()
    monkeypatch.setattr(database, "AHEAD_SECONDS", 0.0)
    pair.run(pair.bump)
    pair.asked.clear()
    for _ in range(3):
        pair.run(pair.bump)
    assert len(pair.asked) == 3


def test_who_did_not_ask_for_it_asks(pair: Pair) -> None:
    pair.warm()
    pair.run(pair.bump, ahead=False)
    with mvvfs.transaction(pair.one):
        pair.bump()
    pair.one.execute("UPDATE t SET v = v + 1 WHERE id = 1")
    pair.run(pair.bump, mode="IMMEDIATE")
    assert len(pair.asked) >= 4
    assert pair.read() == 4


def test_a_conflict_is_met_and_the_try_does_not_count(pair: Pair) -> None:
    for n in range(1, 6):
        pair.warm()
        pair.changed(value=100 * n)
        assert pair.run(pair.bump, tries=1) == 100 * n + 1
    assert pair.read() == 501


def test_the_last_try_that_asked_counts(pair: Pair) -> None:
    pair.warm()
    calls: list[int] = []

    def lose() -> None:
        calls.append(pair.read())
        pair.changed(value=calls[-1] + 1)
        pair.bump()

    with pytest.raises(ConflictError) as caught:
        pair.run(lose, tries=2, turn_after=9)
    assert calls == [0, 1, 2]
    assert caught.value.tries == 2


@LAGGING
def test_what_is_given_out_is_the_newest(pair: Pair) -> None:
    """Of a function that only reads."""
    pair.warm()
    seen: list[int] = []

    def look() -> int:
        seen.append(pair.read())
        return seen[-1]

    pair.changed(value=7)
    assert pair.run(look) == 7
    assert seen == [0, 7]
    pair.warm()
    assert pair.run(look) == 7
    assert seen == [0, 7, 7]
    assert len(pair.asked) == 1


def test_pages_that_were_allocated_count(pair: Pair) -> None:
    pair.warm()
    pair.run(lambda: pair.one.execute("SELECT count(*) FROM u").get)
    pair.warm()
    pages = pair.other.execute("PRAGMA page_count").get
    pair.other.execute("INSERT INTO u VALUES(1, zeroblob(50000))")
    assert pair.run(lambda: pair.one.execute("PRAGMA page_count").get) > pages


def test_what_is_raised_is_true(pair: Pair) -> None:
    pair.warm()
    pair.changed(value=-1)

    def refuse() -> int:
        value = pair.read()
        if value >= 0:
            raise LookupError("there is enough")
        pair.bump(2)
        return value

    assert pair.run(refuse) == -1
    pair.warm()
    pair.changed(value=1)
    pair.run(pair.bump, 3)
    with pytest.raises(LookupError):
        pair.run(refuse)
    assert not pair.one.in_transaction


@LAGGING
def test_a_second_try_that_reads_nothing_is_not_asked_about(pair: Pair) -> None:
    """What the first one had read is not its own."""
    pair.warm()
    pair.changed()
    tries: list[int] = []

    def read_once() -> int:
        assert len(tries) < 3
        tries.append(len(tries))
        return pair.read() if len(tries) == 1 else -1

    assert pair.run(read_once) == -1
    assert tries == [0, 1]


def test_what_ends_the_program_is_not_asked_about(pair: Pair) -> None:
    pair.warm()
    pair.changed()

    def leave() -> None:
        raise SystemExit(pair.read())

    with pytest.raises(SystemExit):
        pair.run(leave)
    assert not pair.one.in_transaction


def test_what_others_did_elsewhere_does_not_matter(pair: Pair) -> None:
    pair.changed(key=ROWS // 2, value=4)  # what SQLite has in its cache counts as read: it goes
    pair.warm()
    pair.changed(key=ROWS // 2, value=5)
    calls: list[int] = []
    assert pair.run(lambda: calls.append(pair.bump(1)) or calls[-1]) == 1
    assert (calls, pair.asked) == ([1], [])
    assert pair.run(pair.bump, ROWS // 2) == 6


@LAGGING
def test_whoever_loses_asks_for_a_while(pair: Pair) -> None:
    pair.warm()
    tries: list[int] = []
    for n in range(1, 31):
        pair.changed(value=10 * n)
        pair.run(lambda: tries.append(pair.bump()))
    assert len(pair.asked) == 30  # where a try was lost, the second one did
    assert 3 <= len(tries) - 30 <= 6
    for _ in range(60):
        pair.run(pair.bump, 3)
    pair.asked.clear()
    for _ in range(60):
        pair.run(pair.bump, 3)
    assert pair.asked == []


def test_a_table_that_others_made_or_dropped(pair: Pair) -> None:
    pair.warm()
    pair.other.execute("CREATE TABLE new(x); INSERT INTO new VALUES(4)")
    assert pair.run(lambda: pair.one.execute("SELECT x FROM new").get) == 4
    pair.warm()
    pair.other.execute("DROP TABLE new")
    with pytest.raises(apsw.SQLError, match="no such table"):
        pair.run(lambda: pair.one.execute("INSERT INTO new VALUES(5)"))


def test_inserts_beside_each_other(pair: Pair) -> None:
    """Pages that both allocate are never the same ones."""
    for n in range(40):
        pair.run(lambda: pair.one.execute("INSERT INTO u VALUES(1, zeroblob(5000))"))
        if n % 3 == 0:
            pair.other.execute("INSERT INTO u VALUES(2, zeroblob(9000))")
        if n % 7 == 0:
            pair.other.execute("DELETE FROM u WHERE rowid = (SELECT min(rowid) FROM u)")
    is_intact(pair.one)
    count = "SELECT count(*), sum(length(p)) FROM u"
    assert pair.one.execute(count).fetchall() == pair.other.execute(count).fetchall()


def test_a_cursor_that_stays_open_is_told_of(pair: Pair) -> None:
    pair.warm()
    held: list[object] = []

    def leave_open() -> None:
        cursor = pair.one.execute("SELECT id FROM t")
        next(cursor)
        held.append(cursor)
        pair.changed()
        pair.bump()

    with pytest.raises(OpenCursorError):
        pair.run(leave_open)
    held.clear()
    assert pair.run(pair.bump) == 1001


@pytest.mark.parametrize("pair", ["service"], indirect=True)
def test_nothing_is_given_out_unconfirmed(pair: Pair) -> None:
    """Where the store can't be asked."""
    assert pair.proxy is not None
    pair.warm()
    pair.changed()
    pair.proxy.faults = lambda method, _data: Fault.CUT_BEFORE if method == "Begin" else Fault.NONE
    with pytest.raises(StoreUnavailableError):
        pair.run(pair.read)
    pair.proxy.faults = lambda _method, _data: Fault.NONE
    assert pair.run(pair.read) == 1000


@pytest.mark.parametrize("pair", ["service"], indirect=True)
def test_answers_that_are_lost(pair: Pair) -> None:
    """The commit that was made, its begin lost, is found by its token; and the next one asks."""
    assert pair.proxy is not None
    pair.warm()
    rng = random.Random(1)
    cut = [Fault.CUT_AFTER, Fault.TWICE, Fault.NONE, Fault.NONE]
    pair.proxy.faults = lambda _method, _data: rng.choice(cut)
    for n in range(1, 30):
        assert pair.run(pair.bump) == n
    assert pair.other.execute("SELECT v FROM t WHERE id = 1").get == 29


@pytest.mark.parametrize("seed_", range(4))
def test_as_if_all_had_asked(pair: Pair, seed_: int) -> None:
    """Steps of two clients, one after the other, against a dictionary."""
    rng = random.Random(seed_)
    values = dict.fromkeys(range(1, ROWS + 1), 0)
    for _ in range(150):
        a, b = rng.sample(range(1, ROWS + 1, 8), 2)
        step = rng.random()
        if step < 0.5:

            def move(a: int = a, b: int = b) -> int:
                value = pair.read(a)
                if value < -3:
                    raise ValueError(value)
                pair.one.execute("UPDATE t SET v = v + 1 WHERE id = ?", (b,))
                pair.one.execute("UPDATE t SET v = v - 1 WHERE id = ?", (a,))
                return value

            if values[a] < -3:
                with pytest.raises(ValueError, match=f"^{values[a]}$"):
                    pair.run(move)
                continue
            assert pair.run(move) == values[a]
            values[a] -= 1
            values[b] += 1
        elif step < 0.7:
            assert pair.run(pair.read, a) == values[a]
        else:
            values[a] = rng.randrange(5)
            pair.changed(a, values[a])
    assert dict(pair.other.execute("SELECT id, v FROM t")) == values


@LAGGING
def test_nobody_sees_less_than_was_acknowledged(pair: Pair) -> None:
    """Two threads: each result is at least as new as all that was acknowledged before its call."""
    acknowledged, lock = [0], threading.Lock()
    failures: list[object] = []

    def work(connection: apsw.Connection, seed: int) -> None:
        rng = random.Random(seed)

        def step(writes: bool) -> int:
            value: int = connection.execute("SELECT v FROM t WHERE id = 1").get
            if writes:
                connection.execute("UPDATE t SET v = ? WHERE id = 1", (value + 1,))
            elif rng.random() < 0.3:
                connection.execute("UPDATE t SET v = v + 1 WHERE id = ?", (rng.randrange(50, ROWS),))
            return value + writes

        try:
            for _ in range(150):
                before, writes = acknowledged[0], rng.random() < 0.5
                value = mvvfs.transaction(connection, tries=1000).run(step, writes)
                if value < before + writes:
                    failures.append((before, value))
                with lock:
                    acknowledged[0] = max(acknowledged[0], value)
        except BaseException as exc:  # noqa: BLE001 (told by the test)
            failures.append(exc)

    both = enumerate((pair.one, pair.other))
    threads = [threading.Thread(target=work, args=(connection, n)) for n, connection in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pair.read() == acknowledged[0]
