"""Transactions over two databases by processes that are killed at any moment: both change, or none."""

from __future__ import annotations

import random
import time
from pathlib import Path

from pagestore.opener import open_store
from tests.process import crew, transfers
from tests.process.kills import killing
from tests.process.ledger import last_acknowledged
from tests.process.place import Place, Variant, value

WRITERS = 8
LONGEST_LIFE = 0.8  # seconds


@killing(("deferred", "immediate", "small caches"), 25, 500, on_a_cluster=(10, 100))
def test_money_is_neither_made_nor_lost(
    shared: str, tmp_path: Path, seed: int, variant: Variant, kills: int
) -> None:
    rng = random.Random(seed)
    place = Place(shared, variant)
    transfers.create(place)
    acks = [tmp_path / f"acknowledged-{i}" for i in range(WRITERS)]

    def start(i: int) -> crew.Worker[None]:
        return crew.Worker(transfers.write_until_killed, place, i, rng.randrange(1 << 30), str(acks[i]))

    writers = [start(i) for i in range(WRITERS)]
    found = dict.fromkeys(range(WRITERS), 0)
    observers = {main: transfers.both(place, main) for main in (*transfers.SIDES, ":memory:")}
    try:
        for _ in range(kills):
            time.sleep(rng.uniform(0, LONGEST_LIFE / WRITERS))
            victim = rng.randrange(WRITERS)
            writers[victim].kill()
            sure = max(found[victim], last_acknowledged(acks[victim]))
            main = rng.choice(list(observers))
            found[victim] = transfers.check(observers[main], main).get(victim, 0)
            assert found[victim] in (sure, sure + 1)  # the one that it died in may have made it
            writers[victim] = start(victim)
        time.sleep(0.5)
    finally:
        for writer in writers:
            assert writer.process.is_alive()  # none ended by itself
            writer.kill()
    totals = transfers.check(transfers.both(place, "left"), "left")
    for i in range(WRITERS):
        sure = max(found[i], last_acknowledged(acks[i]))
        assert totals.get(i, 0) in (sure, sure + 1)
    assert sum(totals.values()) > 0
    check_history(place, rng, sum(totals.values()))


def check_history(place: Place, rng: random.Random, total: int) -> None:
    """Each transfer is one version of both; at this and every other one, both are read together."""
    store = open_store(place.store, create=False)
    logs = {side: list(store.changelog(store.open(side).id)) for side in transfers.SIDES}
    store.close()
    made = 3  # by `create`, in each of them
    left, right = ([change.version for change in logs[side][made:]] for side in transfers.SIDES)
    assert left == right
    assert len(left) == total
    for version in [left[0], left[-1], *rng.sample(left, min(15, len(left)))]:
        main = rng.choice([*transfers.SIDES, ":memory:"])
        past = transfers.both(place, main, at="v" + version.hex())
        transfers.check(past, main)
        for name in transfers.SIDES:
            assert value(past, f"PRAGMA {'main' if name == main else name}.integrity_check") == "ok"
        past.close()
