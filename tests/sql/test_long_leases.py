"""Transactions that last longer than the lease whose page numbers they take."""

from __future__ import annotations

import time
from collections.abc import Iterator

import apsw
import pytest

from mvvfs import ConflictError, session
from mvvfs.stores import open_store
from pagestore.api import NamespaceId, Store, StoreUnavailableError
from pagestore.store import PageStore
from tests.conftest import NAME, Connect
from tests.sql.twins import is_intact, value

SHORT = 0.5
"""Seconds."""


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Leases are short; when which was renewed."""
    renewed: list[float] = []
    real = PageStore.renew_lease

    def renew_lease(self: PageStore, namespace: NamespaceId, lease: bytes, seconds: float) -> None:
        real(self, namespace, lease, seconds)
        renewed.append(time.monotonic())

    monkeypatch.setattr(session, "LEASE_SECONDS", SHORT)
    monkeypatch.setattr(PageStore, "renew_lease", renew_lease)
    return renewed


@pytest.fixture
def elsewhere(store: str) -> Iterator[Store]:
    opened = open_store(store, create=False)
    yield opened
    opened.close()


def insert(connection: apsw.Connection, count: int = 1) -> None:
    for _ in range(count):
        connection.execute("INSERT INTO t(v) VALUES (randomblob(3000))")


@pytest.fixture
def writer(connect: Connect, leases: list[float]) -> apsw.Connection:
    """One that has a lease, and a cache so small that pages are written before the commit."""
    connection = connect()
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); PRAGMA cache_size = 3")
    insert(connection, 2)
    return connection


def given_to_others(elsewhere: Store) -> set[int]:
    namespace = elsewhere.open(NAME).id
    lease = elsewhere.lease(namespace, 200, 60)
    elsewhere.release(namespace, lease.id)
    return set(lease.numbers)


def test_one_that_works_keeps_its_numbers(writer: apsw.Connection, leases: list[float]) -> None:
    writer.execute("BEGIN")
    before = value(writer, "PRAGMA page_count") - value(writer, "PRAGMA freelist_count")
    began = time.monotonic()
    while len(leases) < 4:
        insert(writer)
        assert time.monotonic() - began < 30
        time.sleep(SHORT / 20)
    assert time.monotonic() - began > SHORT  # else the lease would have lasted anyway
    after = value(writer, "PRAGMA page_count") - value(writer, "PRAGMA freelist_count")
    assert after - before > 4
    writer.execute("COMMIT")
    is_intact(writer)


def test_one_that_did_nothing_for_long_asks_at_its_commit(
    writer: apsw.Connection, leases: list[float]
) -> None:
    writer.execute("BEGIN")
    insert(writer, 3)
    time.sleep(SHORT * 1.1)
    writer.execute("COMMIT")
    assert leases
    assert value(writer, "SELECT count(*) FROM t") == 5
    is_intact(writer)


def test_numbers_that_others_were_given_are_theirs(
    writer: apsw.Connection, elsewhere: Store, leases: list[float]
) -> None:
    writer.execute("BEGIN")
    insert(writer, 3)
    time.sleep(SHORT * 1.1)
    assert given_to_others(elsewhere)
    with pytest.raises(ConflictError, match="lease"):
        writer.execute("COMMIT")
    assert not leases
    writer.execute("BEGIN")
    insert(writer, 3)
    time.sleep(SHORT * 1.1)
    given_to_others(elsewhere)
    writer.execute("COMMIT")  # it had none this time
    assert value(writer, "SELECT count(*) FROM t") == 5
    is_intact(writer)


def test_a_short_one_never_asks(
    writer: apsw.Connection, leases: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LEASE_SECONDS", 600.0)
    insert(writer, 100)  # takes other leases
    with writer:
        insert(writer, 100)
    assert not leases


def test_a_store_that_can_not_be_asked_is_asked_again_later(
    writer: apsw.Connection, leases: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = PageStore.renew_lease

    def renew_lease(self: PageStore, namespace: NamespaceId, lease: bytes, seconds: float) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise StoreUnavailableError("away")
        real(self, namespace, lease, seconds)

    monkeypatch.setattr(PageStore, "renew_lease", renew_lease)
    writer.execute("BEGIN")
    while len(asked) < 3:
        insert(writer)
        time.sleep(SHORT / 50)
    assert asked[1] - asked[0] >= SHORT / 8  # a sixth, of which the call took some
    writer.execute("COMMIT")
    is_intact(writer)
