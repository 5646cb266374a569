"""A store that is put back from a backup while clients of its service keep running."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import bridge, errors
from mvvfs.cli.app import run
from mvvfs.remote import open_remote
from pagestore import embedded
from pagestore.api import NoSuchNamespaceError
from pagestore.opener import open_store
from pagestore.service.server import serving
from pagestore.service.settings import Settings
from tests.sql.twins import is_intact, rows


class Place:
    """A folder with a store, a service in front of it, and a backup of an earlier time."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.file = str(tmp_path / "store"), str(tmp_path / "backup")
        self.address = f"unix:{tmp_path}/service"
        self.url = f"grpc+unix:{tmp_path}/service"
        self._running = ExitStack()

    def start(self) -> None:
        settings = Settings(store=self.folder, create=True, listen=(self.address,), min_heartbeat=0.005)
        self._running.enter_context(serving(settings))

    def stop(self) -> None:
        self._running.close()

    def back_up(self) -> None:
        embedded.backup(self.folder, self.file)

    def put_back(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
        embedded.restore(self.file, self.folder)
        self.start()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.start()
    yield place
    place.stop()


@pytest.fixture(params=["", "cache_dir", "bounded"])
def connect(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    options: dict[str, Any] = {"timeout": 5.0}
    if request.param == "cache_dir":
        options["cache_dir"] = str(tmp_path / "near")
    if request.param == "bounded":
        options["freshness"] = "bounded:100"
    opened: list[apsw.Connection] = []

    def connect(name: str = "app", **more: Any) -> apsw.Connection:
        opened.append(mvvfs.connect(name, store=place.url, **options, **more))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close(True)


def again_and_again(client: apsw.Connection, statement: str) -> None:
    """With bounded freshness, what was heard before may serve for a moment.  And what became of a commit
    whose answer a service kept to itself when it went down, nobody can tell."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(errors.OutcomeUnknownError):
            rows(client, statement)
        time.sleep(0.01)


def filled(place: Place, connection: apsw.Connection) -> apsw.Connection:
    """Of its commits, some are in the backup."""
    connection.execute("CREATE TABLE t(x, filler)")
    connection.execute("INSERT INTO t VALUES ('before', zeroblob(20000))")
    place.back_up()
    for i in range(5):
        connection.execute("INSERT INTO t VALUES (?, zeroblob(20000))", (f"lost {i}",))
    return connection


def test_a_running_client_is_told_and_begins_anew(place: Place, connect: Callable[..., Any]) -> None:
    client = filled(place, connect())
    assert len(rows(client, "SELECT x FROM t")) == 6
    place.put_back()
    for _ in range(2):
        with pytest.raises(errors.NoSuchDatabaseError, match="put back from a backup"):
            again_and_again(client, "SELECT x, filler FROM t")
        with pytest.raises(errors.NoSuchDatabaseError, match="put back from a backup"):
            client.execute("INSERT INTO t VALUES ('too late', 1)")
    anew = connect()
    assert rows(anew, "SELECT x FROM t") == [("before",)]
    anew.execute("INSERT INTO t VALUES ('after', zeroblob(20000))")
    assert rows(connect(), "SELECT x, length(filler) FROM t") == [("before", 20000), ("after", 20000)]
    is_intact(anew)


def test_a_transaction_of_before_does_not_commit_after(place: Place, connect: Callable[..., Any]) -> None:
    client = filled(place, connect())
    client.execute("BEGIN")
    found = rows(client, "SELECT count(*) FROM t")
    client.execute("INSERT INTO t SELECT 'derived from ' || count(*), 1 FROM t")
    place.put_back()
    with pytest.raises((errors.NoSuchDatabaseError, errors.OutcomeUnknownError), match="Connect anew"):
        client.execute("COMMIT")  # unknown, if it was sent to a service that was just going down
    assert found == [(6,)]
    assert not client.in_transaction
    assert rows(connect(), "SELECT x FROM t") == [("before",)]


def test_a_reader_of_before_is_served_nothing_of_after(place: Place, connect: Callable[..., Any]) -> None:
    filled(place, connect()).close()
    client = connect(cache_bytes=20_000)
    client.execute("BEGIN")
    rows(client, "SELECT count(*) FROM sqlite_schema")
    place.put_back()
    connect().execute("INSERT INTO t VALUES ('after', zeroblob(20000))")
    with pytest.raises(errors.NoSuchDatabaseError, match="put back"):
        rows(client, "SELECT x, filler FROM t")
    client.execute("ROLLBACK")


def test_a_client_of_before_goes_to_no_moment(place: Place, connect: Callable[..., Any]) -> None:
    client = filled(place, connect())
    lost = client.execute("PRAGMA mv_version").get
    place.put_back()
    with pytest.raises(errors.NoSuchDatabaseError, match="put back"):
        client.execute(f"PRAGMA mv_at = '{lost}'")


def test_what_belongs_to_a_client_of_before_is_refused(place: Place) -> None:
    """All ids are others: of what was made before the backup, and of what is made after."""
    store = open_remote(place.url, None, None, None, None, 5.0)
    old = store.create("app")
    other = store.branch(old.id, "branch", old.horizon)
    store.create("gone")
    store.drop("gone")
    place.back_up()
    place.put_back()
    new = store.open("app")
    assert new.id != old.id
    branch = store.open("branch")
    assert branch.parent == (new.id, old.horizon)
    assert {each.id for each in store.list()} == {new.id, branch.id}
    assert {branch.id >> 32, new.id >> 32, store.dropped()[0].id >> 32} == {new.id >> 32} != {0}
    store.undrop(store.dropped()[0].id, "back again")
    lease = store.lease(new.id, 16, 60.0)
    for work in (
        lambda: store.lease(old.id, 16, 60.0),
        lambda: store.release(old.id, lease.id),
        lambda: store.outcome(old.id, bytes(16)),
        lambda: store.hold(old.id, old.horizon, 60.0),
        lambda: list(store.changelog(old.id)),
        lambda: store.tag(other.id, "t", old.horizon),
        lambda: store.purge(old.id),
    ):
        with pytest.raises(NoSuchNamespaceError):
            work()
    store.close()


def test_a_conflict_names_the_database_by_its_new_id(place: Place, connect: Callable[..., Any]) -> None:
    filled(place, connect()).close()
    place.put_back()
    one, two = connect(), connect()
    for connection in (one, two):
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM t").fetchall()
        connection.execute("INSERT INTO t VALUES (1, 2)")
    one.execute("COMMIT")
    with pytest.raises(mvvfs.ConflictError) as caught:
        two.execute("COMMIT")
    assert caught.value.schema == "main"


def test_a_copied_folder_is_noticed_by_its_service(place: Place, connect: Callable[..., Any]) -> None:
    client = connect()
    client.execute("CREATE TABLE t(x, filler)")
    place.stop()
    copy = f"{place.folder}.copy"
    shutil.copytree(place.folder, copy)
    place.start()
    client.execute("INSERT INTO t VALUES ('lost', 1)")
    place.stop()
    shutil.rmtree(place.folder)
    shutil.move(copy, place.folder)
    place.start()
    with pytest.raises(errors.NoSuchDatabaseError, match="put back"):
        again_and_again(client, "INSERT INTO t VALUES ('too late', 1)")
    assert rows(connect(), "SELECT x FROM t") == []


def test_a_service_that_only_starts_again_is_the_same(place: Place, connect: Callable[..., Any]) -> None:
    client = filled(place, connect())
    place.stop()
    place.start()
    client.execute("INSERT INTO t VALUES ('more', 1)")
    assert len(rows(client, "SELECT x FROM t")) == 7


def test_renew(place: Place, connect: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    client = filled(place, connect())
    assert run(["renew", place.url]) != 0
    assert "service" in capsys.readouterr().err
    place.stop()
    assert run(["renew", place.folder]) == 0
    assert "renewed" in capsys.readouterr().out
    place.start()
    with pytest.raises(errors.NoSuchDatabaseError, match="put back"):
        again_and_again(client, "INSERT INTO t VALUES ('too late', 1)")
    assert len(rows(connect(), "SELECT x FROM t")) == 6


def test_nothing_is_left_of_the_old_database(place: Place, connect: Callable[..., Any]) -> None:
    client = filled(place, connect())
    place.put_back()
    connect()
    assert len(bridge._databases._open) == 2
    client.close(True)
    assert len(bridge._databases._open) == 1
    store = open_store(place.folder, create=False)
    assert store.incarnation() != 0
    store.close()
