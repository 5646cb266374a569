"""Retention, branches and reverts beside connections that are in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs import errors, holding
from mvvfs.when import resolve
from pagestore import retention
from pagestore.api import Namespace, Retention, Store, Version, parse_version
from pagestore.opener import open_store


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it becomes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        holding._wake.set()  # its thread may have begun to wait before the time was made short
        time.sleep(0.005)
    return True


def is_held(version: Version) -> bool:
    """Whether this process holds it, or another: `holding.held` also counts what was in use a moment ago."""
    return any(version in watched.holds for watched in list(holding._watched.values()))


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.store: Store = open_store(self.folder, create=True)

    def connect(self, name: str = "main", **options: object) -> apsw.Connection:
        return mvvfs.connect(name, store=self.folder, **options)  # type: ignore[arg-type]

    def namespace(self, name: str = "main") -> Namespace:
        return self.store.open(name)

    def let_go(self) -> None:
        self.store.set_retention(self.namespace().id, Retention(0))
        self.store.collect(self.namespace().id)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "store")


def fill(db: apsw.Connection, rows: int) -> None:
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    with db:
        db.executemany("INSERT INTO t VALUES(?, randomblob(500))", [(n,) for n in range(rows)])


def count(db: apsw.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM t").fetchone()[0])  # type: ignore[index]


# ---- below the horizon ----


def test_the_past_of_a_tag_is_looked_at_like_any_other(place: Place) -> None:
    db = place.connect()
    fill(db, 50)
    id_ = place.namespace().id
    place.store.tag(id_, "before", place.store.begin(id_).version)
    db.execute("UPDATE t SET b = 'x' WHERE a = 7")
    db.execute("DELETE FROM t WHERE a = 9")
    db.execute("UPDATE t SET b = 'y' WHERE a = 7")
    lost = db.pragma("mv_version")
    db.execute("INSERT INTO t VALUES(100, 'z')")
    expected = [(c.op, c.key) for c in mvvfs.diff("main", "tag:before", store=place.folder)]  # type: ignore[union-attr]
    place.let_go()
    with pytest.raises(errors.BelowHorizonError, match="oldest readable"):
        place.connect(at=lost)
    past = place.connect(at="tag:before")
    assert count(past) == 50
    past.close()
    found = [(c.op, c.key) for c in mvvfs.diff("main", "tag:before", store=place.folder)]  # type: ignore[union-attr]
    assert found == expected
    assert len(found) == 3
    with pytest.raises(errors.BelowHorizonError):
        list(mvvfs.changes("main", "tag:before", store=place.folder))
    with pytest.raises(errors.NoSuchVersionError, match="no tag"):
        place.connect(at="tag:after")
    db.close()


def test_a_connection_that_fell_behind_starts_anew(place: Place) -> None:
    behind, ahead = place.connect(cache_bytes=1 << 20), place.connect()
    fill(ahead, 300)
    assert count(behind) == 300
    for step in range(30):
        ahead.execute("UPDATE t SET b = randomblob(500) WHERE a % 30 = ?", (step,))
    ahead.execute("DELETE FROM t WHERE a >= 100")
    place.let_go()
    assert count(behind) == 100
    assert behind.pragma("integrity_check") == "ok"
    behind.execute("INSERT INTO t VALUES(1000, 1)")
    assert count(ahead) == 101
    ahead.close()
    behind.close()


# ---- holds ----


def test_an_open_snapshot_is_held(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "OLD_SECONDS", 0.0)
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.02)
    reader, writer = place.connect(cache_bytes=1 << 20), place.connect()
    fill(writer, 3000)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t WHERE a < 10").fetchone() == (10,)
    version = parse_version(reader.pragma("mv_version"))
    writer.execute("UPDATE t SET b = 'x'")
    assert wait_for(lambda: is_held(version))
    for _ in range(3):
        writer.execute("UPDATE t SET b = randomblob(300)")
    place.let_go()
    assert reader.execute("SELECT count(*), min(length(b)), max(length(b)) FROM t").fetchone() == (
        3000,
        500,
        500,
    )
    reader.execute("COMMIT")
    assert wait_for(lambda: holding.held() == 0)
    assert wait_for(lambda: not holding.is_running())
    place.let_go()
    log = list(place.store.changelog(place.namespace().id))
    assert len(log) == 1
    reader.close()
    writer.close()


def test_a_snapshot_is_held_that_began_when_nobody_looked(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without any; all that it reads at first is in the cache."""
    monkeypatch.setattr(holding, "OLD_SECONDS", 0.0)
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.02)
    db = place.connect()
    fill(db, 100)
    assert count(db) == 100
    assert wait_for(lambda: not holding.is_running())
    db.execute("BEGIN")
    assert count(db) == 100
    version = parse_version(db.pragma("mv_version"))
    assert wait_for(lambda: is_held(version))
    db.execute("COMMIT")
    assert wait_for(lambda: not holding.is_running())
    db.close()


def test_a_connection_to_the_past_is_held(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "OLD_SECONDS", 0.0)
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.02)
    db = place.connect()
    fill(db, 3000)
    db.execute("UPDATE t SET b = 'x'")
    past = place.connect(at="HEAD~1", cache_bytes=1 << 20)
    assert wait_for(lambda: is_held(parse_version(past.pragma("mv_version"))))
    db.execute("UPDATE t SET b = 'y'")
    place.let_go()
    assert past.execute("SELECT max(length(b)) FROM t").fetchone() == (500,)
    past.close()
    assert wait_for(lambda: holding.held() == 0)
    db.close()


def test_short_transactions_need_no_thread(place: Place) -> None:
    db = place.connect()
    fill(db, 10)
    for _ in range(20):
        assert count(db) == 10
    assert holding.held() == 0
    db.close()


# ---- branches and reverts ----


def test_a_branch_is_a_database(place: Place) -> None:
    db = place.connect()
    fill(db, 2000)
    db.execute("CREATE INDEX i ON t(b)")
    id_ = place.namespace().id
    place.store.branch(id_, "branch", place.store.begin(id_).version)
    branch = place.connect("branch")
    branch.execute("DELETE FROM t WHERE a % 2")
    branch.execute("CREATE TABLE u(x)")
    for step in range(20):
        branch.execute("UPDATE t SET b = ? WHERE a = ?", (step, 2 * step))
        db.execute("UPDATE t SET b = ? WHERE a = ?", (-step, 2 * step))
    assert (count(branch), count(db)) == (1000, 2000)
    assert branch.pragma("integrity_check") == db.pragma("integrity_check") == "ok"
    branch.execute("VACUUM")
    assert branch.pragma("integrity_check") == "ok"
    moment = resolve("HEAD", place.store, place.namespace("branch").id)
    assert moment.version > place.namespace("branch").horizon
    branch.close()
    db.close()


def test_a_revert_beside_open_connections(place: Place) -> None:
    db, other = place.connect(), place.connect()
    fill(db, 500)
    before = db.pragma("mv_version")
    assert count(other) == 500
    db.execute("CREATE TABLE u(x)")
    db.execute("INSERT INTO u VALUES(1)")
    assert other.execute("SELECT * FROM u").fetchone() == (1,)
    db.execute("DROP TABLE t")
    id_ = place.namespace().id
    with db:
        db.execute("INSERT INTO u VALUES(2)")
        place.store.revert(id_, resolve(before, place.store, id_).version)
        with pytest.raises(errors.ConflictError):
            db.execute("COMMIT")
        db.execute("BEGIN")
    for each in (db, other):
        assert count(each) == 500
        with pytest.raises(apsw.SQLError, match="no such table: u"):
            each.execute("SELECT * FROM u")
        assert each.pragma("integrity_check") == "ok"
    other.execute("CREATE TABLE v(x)")  # the schema cookie is one that db has not seen
    assert db.execute("SELECT * FROM v").fetchall() == []
    db.execute("INSERT INTO t SELECT a + 1000, b FROM t")
    assert count(other) == 1000
    assert other.pragma("integrity_check") == "ok"
    db.close()
    other.close()
