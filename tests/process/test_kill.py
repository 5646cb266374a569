"""kill -9 of a writer at any moment loses nothing that was acknowledged and leaves nothing half-applied."""

from __future__ import annotations

import random
import time
from pathlib import Path

import mvvfs
from pagestore.opener import open_store
from tests.conftest import LONG_ON_CLUSTER
from tests.process import crew, ledger
from tests.process.kills import killing
from tests.process.place import Place, Variant, value

WRITERS = 3
LONGEST_LIFE = 0.25  # seconds


@killing(("deferred", "small caches", "normal durability"), 35, 1000, on_a_cluster=(15, 120))
def test_writers_die(shared: str, tmp_path: Path, seed: int, variant: Variant, kills: int) -> None:
    rng = random.Random(seed)
    place = Place(shared, variant)
    ledger.create(place, WRITERS)
    acks = [tmp_path / f"acknowledged-{i}" for i in range(WRITERS)]

    def start(i: int) -> crew.Worker[None]:
        return crew.Worker(ledger.write_until_killed, place, i, rng.randrange(1 << 30), str(acks[i]))

    writers = [start(i) for i in range(WRITERS)]
    found = dict.fromkeys(range(WRITERS), 0)
    """Each writer's total at its last death: the next one goes on from there, acknowledged or not."""
    observer = place.connect()
    try:
        for _ in range(kills):
            time.sleep(rng.uniform(0, LONGEST_LIFE / WRITERS))
            victim = rng.randrange(WRITERS)
            writers[victim].kill()
            sure = max(found[victim], ledger.last_acknowledged(acks[victim]))
            found[victim] = ledger.check(observer)[victim]
            assert found[victim] in (sure, sure + 1)  # the one that it died in may have made it
            writers[victim] = start(victim)
    finally:
        for writer in writers:
            assert writer.process.is_alive()  # none ended by itself
            writer.kill()
    totals = ledger.check(place.connect())
    for i in range(WRITERS):
        sure = max(found[i], ledger.last_acknowledged(acks[i]))
        assert totals[i] in (sure, sure + 1)
    assert sum(totals.values()) > WRITERS
    check_history(place, rng)


def check_history(place: Place, rng: random.Random) -> None:
    """The invariants and the b-trees at the newest version and at some older ones."""
    store = open_store(place.store, create=False)
    versions = [change.version for change in store.changelog(store.open(place.name).id)]
    store.close()
    oldest = 3  # the first commits make the three tables, the next one fills them
    for version in [versions[-1], *rng.sample(versions[oldest:], min(6, len(versions) - oldest))]:
        past = place.connect(at="v" + version.hex())
        ledger.check(past)
        assert value(past, "PRAGMA integrity_check") == "ok"
        past.close()


def create_and_write(place: Place, number: int, acknowledged: str) -> None:
    connection = place.connect()
    connection.execute("CREATE TABLE IF NOT EXISTS t(n)")
    connection.execute("INSERT INTO t VALUES(?)", (number,))
    Path(acknowledged).touch()


def test_a_process_dies_while_it_creates_the_store(tmp_path: Path, seed: int) -> None:
    """Whatever it left behind, the next one can open or create the database, and use it."""
    rng = random.Random(seed)
    done = 0
    for i in range(25):
        place, acknowledged = Place(str(tmp_path / f"store-{i}")), tmp_path / f"acknowledged-{i}"
        first = crew.Worker(create_and_write, place, 1, str(acknowledged))
        time.sleep(rng.uniform(0, 0.06))
        first.kill()
        connection = place.connect()
        connection.execute("CREATE TABLE IF NOT EXISTS t(n)")
        connection.execute("INSERT INTO t VALUES(2)")
        found = {n for (n,) in connection.execute("SELECT n FROM t").fetchall()}
        assert found in ({2}, {1, 2})
        if acknowledged.exists():
            assert found == {1, 2}
            done += 1
        assert value(connection, "PRAGMA integrity_check") == "ok"
        connection.close()
    print(f"{done} of 25 had finished")


@LONG_ON_CLUSTER
def test_a_dead_writer_blocks_nobody(shared: str, tmp_path: Path) -> None:
    """Killed in the middle of a transaction, with the write lock of its own connection held."""
    place = Place(shared)
    ledger.create(place, 1)
    survivor = place.connect(timeout=5)
    for i in range(2):
        victim = crew.Worker(hold_a_transaction, place, str(tmp_path / f"held-{i}"))
        deadline = time.monotonic() + 30
        while not (tmp_path / f"held-{i}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        victim.kill()
        started = time.monotonic()
        mvvfs.transaction(survivor).run(survivor.execute, "UPDATE accounts SET money = money WHERE id = 0")
        assert time.monotonic() - started < 2
    assert ledger.check(survivor) == {0: 0}


def hold_a_transaction(place: Place, held: str) -> None:
    connection = place.connect()
    connection.execute("BEGIN IMMEDIATE; UPDATE accounts SET money = 0")
    Path(held).touch()
    time.sleep(600)
