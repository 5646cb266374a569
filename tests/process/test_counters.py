"""No update gets lost, and no reader sees half of one, while many processes write."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import on_cluster
from tests.process import counters, crew
from tests.process.place import VARIANTS, Place, Variant, value

CHOSEN = {name: VARIANTS[name] for name in ("deferred", "small caches")}


SHORT = pytest.mark.parametrize(
    ("shared", "variant"),
    [
        *(pytest.param("folder", variant, id=name) for name, variant in CHOSEN.items()),
        *(
            on_cluster(variant, long=name != "deferred", id=f"cluster, {name}")
            for name, variant in CHOSEN.items()
        ),
    ],
    indirect=["shared"],
)


@SHORT
def test_increments_add_up(shared: str, seed: int, variant: Variant) -> None:
    place = Place(shared, variant)
    check_increments(place, seed, writers=6, seconds=1.5)


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_increments_add_up_for_longer(shared: str, seed: int, variant: Variant) -> None:
    check_increments(Place(shared, variant), seed, writers=8, seconds=20)


def check_increments(place: Place, seed: int, *, writers: int, seconds: float) -> None:
    counters.create(place)
    work = [(place, seed + i, seconds) for i in range(writers)]
    acknowledged: Counter[int] = sum(crew.run(counters.increment, work, seconds=seconds + 60), Counter())
    connection = place.connect()
    assert dict(connection.execute("SELECT id, n FROM counters WHERE n > 0").fetchall()) == acknowledged
    assert acknowledged.total() > 5 * writers  # on a busy machine, too
    assert value(connection, "PRAGMA integrity_check") == "ok"


@SHORT
def test_money_is_neither_made_nor_lost(shared: str, seed: int, variant: Variant) -> None:
    place = Place(shared, variant)
    counters.create(place)
    seconds = 1.5
    workers = [
        *(crew.Worker(counters.transfer, place, seed + i, seconds) for i in range(3)),
        *(crew.Worker(counters.audit, place, seed + 10 + i, seconds) for i in range(2)),
    ]
    done = crew.results(workers, seconds=seconds + 60)
    assert min(done) > 5
    connection = place.connect()
    assert value(connection, "SELECT sum(balance) FROM accounts") == counters.TOTAL
    assert value(connection, "PRAGMA integrity_check") == "ok"
