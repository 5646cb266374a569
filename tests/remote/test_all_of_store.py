"""Calls of the interface that the contract does not reach: staging, retention, tags, branches, drops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import mvvfs
from mvvfs.remote import RemoteStore, open_remote
from pagestore import retention, sweep
from pagestore.api import (
    CommitRequest,
    NameTakenError,
    NoSuchNamespaceError,
    NoSuchVersionError,
    PageRuns,
    Retention,
    Store,
    new_token,
)
from pagestore.store import PageStore
from tests.pages import Pages, content
from tests.proxy import Fault, Proxy


@pytest.fixture
def remote(url: str) -> Iterator[RemoteStore]:
    """With time for a disk that stalls: nothing here waits for an answer that never comes."""
    store = open_remote(url, None, None, None, None, 20.0)
    yield store
    store.close()


def test_nothing_of_the_interface_is_left_out() -> None:
    """What `Store` has an answer of its own for is a call of the service here."""
    offered = {name for name, value in vars(Store).items() if callable(value) and not name.startswith("_")}
    own = {
        "settle",
        "operations",
        "signal",
        "incarnation",
        "renew",
    }  # what the service does or knows for itself
    assert offered - set(vars(RemoteStore)) == own


def test_staged_pages(pages: Pages, proxy: Proxy) -> None:
    base, token = pages.version(), new_token()
    part = pages.part({n: content(n) for n in range(1, 200)}, base)
    faults = [Fault.CUT_AFTER, Fault.NONE]
    proxy.faults = lambda method, _: faults.pop(0) if method == "Stage" and faults else Fault.NONE
    pages.store.stage(pages.id, token, part.writes[:150])
    pages.store.stage(pages.id, token, part.writes[:10])
    staged = replace(part, writes=part.writes[150:], staged=PageRuns.of(w.number for w in part.writes[:150]))
    done = pages.store.commit(CommitRequest(token, base, [staged]))
    assert all(pages.read(n, done.version) == content(n) for n in (1, 10, 150, 151, 199))
    (change,) = pages.store.changelog(pages.id)
    assert change.pages == tuple(range(1, 200))


def test_a_large_transaction(url: str, remote: RemoteStore) -> None:
    connection = mvvfs.connect("large", store=url, timeout=30)
    size = 2 * remote.info().max_commit_bytes
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    with connection:
        for _ in range(size // 1_000_000):
            connection.execute("INSERT INTO t(b) VALUES(randomblob(1000000))")
    assert connection.execute("SELECT sum(length(b)) FROM t").get == size // 1_000_000 * 1_000_000
    connection.close()


def test_retention_and_tags(remote: RemoteStore, pages: Pages) -> None:
    versions = [pages.commit({1: content(n)}).version for n in range(3)]
    for kept in (Retention(None, None), Retention(60.0, None), Retention(3600.5, 1 << 40)):
        remote.set_retention(pages.id, kept)
        assert remote.retention(pages.id) == kept
    tag = remote.tag(pages.id, "first", versions[0])
    assert (tag.name, tag.version) == ("first", versions[0])
    assert remote.tags(pages.id) == remote.tags(pages.id, "first") == [tag]
    assert remote.tags(pages.id, "second") == []
    with pytest.raises(NameTakenError):
        remote.tag(pages.id, "first", versions[1])
    remote.untag(pages.id, "first")
    with pytest.raises(NoSuchVersionError):
        remote.untag(pages.id, "first")
    assert remote.tags(pages.id) == []
    hold = remote.hold(pages.id, versions[1], 60)
    assert remote.hold(pages.id, versions[1], 60, hold) == hold
    remote.unhold(pages.id, hold)
    assert remote.collect(pages.id, dry_run=True).complete


def test_a_long_run_of_retention_is_several_calls(
    remote: RemoteStore, pages: Pages, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(sweep, "STEP", 1)
    monkeypatch.setattr("mvvfs.remote.store._COLLECT_SECONDS", 1e-6)
    for step in range(5):
        pages.commit({2: content(str(step))})
    remote.set_retention(pages.id, Retention(0))
    went = remote.collect(pages.id)
    assert went.complete
    assert went.versions == 4
    assert len(list(remote.changelog(pages.id))) == 1


def test_branches_and_reverts(remote: RemoteStore, pages: Pages, proxy: Proxy) -> None:
    old = pages.commit({2: content("old")}).version
    pages.commit({2: content("new")})
    branch = remote.branch(pages.id, "branch", old)
    assert branch.parent == (pages.id, old)
    assert Pages(remote, branch.id).read(2) == content("old")
    faults = [Fault.CUT_AFTER]
    proxy.faults = lambda method, _: faults.pop() if method == "Revert" and faults else Fault.NONE
    done = remote.revert(pages.id, old, message="back")
    assert pages.read(2) == content("old")
    assert [change.message for change in remote.changelog(pages.id)] == ["", "", "back"]
    assert done.version == pages.version()


def test_drops_and_returns(remote: RemoteStore, pages: Pages, backing: PageStore) -> None:
    pages.commit({1: content(1)})
    remote.drop("main")
    (dropped,) = remote.dropped()
    assert (dropped.id, dropped.name) == (pages.id, "main")
    assert remote.undrop(pages.id, "again").name == "again"
    assert pages.read(1) == content(1)
    remote.drop("again")
    remote.purge(pages.id)
    assert remote.dropped() == []
    with pytest.raises(NoSuchNamespaceError):
        remote.undrop(pages.id, "main")
    remote.create("other")
    remote.drop("other", now=True)
    assert remote.dropped() == []
