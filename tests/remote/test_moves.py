"""Pages as deltas that move bytes, through a service: only where it says that it takes them."""

from __future__ import annotations

import random

import pytest

import mvvfs
from mvvfs.remote import RemoteStore
from pagestore.api import MAX_VERSION, PageNumber
from pagestore.encoding import is_moving
from pagestore.store import PageStore


@pytest.mark.parametrize("takes", [True, False])
def test_a_service_of_an_earlier_release_gets_none(
    backing: PageStore, remote: RemoteStore, url: str, takes: bool
) -> None:
    backing.takes_moves = takes
    rng = random.Random(1)
    connection = mvvfs.connect("app", store=url)
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    connection.executemany("INSERT INTO t(b) VALUES(?)", ((rng.randbytes(99),) for _ in range(60)))
    for row in range(1, 61):
        connection.execute("UPDATE t SET b=? WHERE a=?", (rng.randbytes(90 + row), row))
    rows = connection.execute("SELECT * FROM t").fetchall()
    connection.close()
    assert remote.info().takes_moves is takes
    namespace = backing.open("app").id
    blobs = [
        page.blobs[0]
        for change in backing.changelog(namespace, until=MAX_VERSION)
        for page in backing.read(namespace, change.version, [PageNumber(n) for n in change.pages])
        if page is not None
    ]
    assert any(map(is_moving, blobs)) is takes
    connection = mvvfs.connect("app", store=backing.url)
    assert connection.execute("SELECT * FROM t").fetchall() == rows
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()
