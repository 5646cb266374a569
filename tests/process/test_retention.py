"""Retention while processes write: what is kept stays as it was, nobody is disturbed, little is left."""

from __future__ import annotations

import random
import time

import pytest

from pagestore import retention, sweep
from pagestore.api import BelowHorizonError, Retention
from pagestore.opener import open_store
from pagestore.store import PageStore
from pagestore.verify import verify
from tests.conftest import LONG_ON_CLUSTER
from tests.process import counters, crew
from tests.process.place import Place, value

GRACE = 2.0


def keep(place: Place, seed: int, seconds: float) -> int:
    """Let go of what is older than the grace period, again and again; how many versions went."""
    retention.GRACE_SECONDS = GRACE
    sweep.STEP = random.Random(seed).choice((7, 40, 256))
    store = open_store(place.store, create=False)
    id_ = store.open(place.name).id
    went = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        went += store.collect(id_).versions
        store.give_back()
        time.sleep(0.05)
    store.close()
    return went


def look_back(place: Place, seed: int, seconds: float) -> int:
    """Tag versions, branch off and revert in the branch; what was tagged must always add up."""
    chance = random.Random(seed)
    store = open_store(place.store, create=False)
    id_ = store.open(place.name).id
    tags: list[str] = []
    deadline = time.monotonic() + seconds
    done = 0
    while time.monotonic() < deadline:
        name = f"{seed}-{done}"
        store.tag(id_, name, store.begin(id_).version)
        tags.append(name)
        past = place.connect(at=f"tag:{chance.choice(tags)}")
        assert value(past, "SELECT sum(balance) FROM accounts") == counters.TOTAL
        past.close()
        if chance.random() < 0.3:
            store.branch(id_, name, store.begin(id_).version)
            branch = Place(place.store, place.variant, name).connect(durability="normal")
            branch.execute("UPDATE accounts SET balance = balance + 1")
            assert value(branch, "SELECT sum(balance) FROM accounts") > counters.TOTAL
            own = store.open(name)
            store.revert(own.id, own.horizon)
            assert value(branch, "SELECT sum(balance) FROM accounts") == counters.TOTAL
            branch.close()
            store.drop(name, now=chance.random() < 0.7)
        if len(tags) > 5:
            store.untag(id_, tags.pop(chance.randrange(len(tags))))
        done += 1
    store.close()
    return done


def check(place: Place, seed: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    counters.create(place)
    store = open_store(place.store, create=False)
    assert isinstance(store, PageStore)
    id_ = store.open(place.name).id
    store.set_retention(id_, Retention(0))
    first = store.begin(id_).version
    workers = [
        *(crew.Worker(counters.transfer, place, seed + i, seconds) for i in range(4)),
        *(crew.Worker(keep, place, seed + 10 + i, seconds) for i in range(2)),
        crew.Worker(look_back, place, seed + 20, seconds),
    ]
    *transfers, one, other, _ = crew.results(workers, seconds=seconds + 60)
    assert min(transfers) > 5
    assert one + other > 0
    store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))
    with pytest.raises(BelowHorizonError):
        store.allocation(id_, first)
    for tag in store.tags(id_):
        past = place.connect(at=f"tag:{tag.name}")
        assert value(past, "SELECT sum(balance) FROM accounts") == counters.TOTAL
        assert value(past, "PRAGMA integrity_check") == "ok"
        past.close()
        store.untag(id_, tag.name)
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    store.collect(id_)  # and branches that were dropped
    store.collect(id_)
    store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))
    assert len(list(store.changelog(id_))) == 1
    connection = place.connect()
    assert value(connection, "SELECT sum(balance) FROM accounts") == counters.TOTAL
    assert value(connection, "PRAGMA integrity_check") == "ok"
    connection.close()
    store.close()


@LONG_ON_CLUSTER
def test_retention_beside_writers(shared: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Place(shared), seed, 1.5, monkeypatch)


@pytest.mark.long
def test_retention_beside_writers_for_longer(shared: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Place(shared), seed, 60.0, monkeypatch)
