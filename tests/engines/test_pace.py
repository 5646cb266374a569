"""How fast work goes on beside others: what is done, not how long it takes."""

from __future__ import annotations

import pytest

from pagestore.engines import pace
from pagestore.engines.base import Engine, Transaction
from pagestore.engines.pace import Pace

MOST = 256


class Clock:
    """Each look at the wall clock is a millisecond later, each at the processor's a tenth of one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.cpu = 100.0
        self.rests: list[float] = []
        monkeypatch.setattr(pace.time, "monotonic", self._look)
        monkeypatch.setattr(pace.time, "thread_time", self._look_at_cpu)
        monkeypatch.setattr(pace.time, "sleep", self.rests.append)

    def _look(self) -> float:
        self.now += 0.001
        return self.now

    def _look_at_cpu(self) -> float:
        self.cpu += 0.0001
        return self.cpu


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def write(tx: Transaction) -> str:
    tx.set(b"key", b"value")
    return "done"


def look(tx: Transaction) -> None:
    tx.get(b"key")


def step(run: Pace) -> None:
    assert run.transact(write, 5) == "done"
    run.rest()


def test_alone_it_takes_large_steps_and_no_rest(engine: Engine, clock: Clock) -> None:
    run = Pace(engine, MOST)
    sizes = []
    for _ in range(3):
        step(run)
        run.transact(look, 5)
        run.rest()
        sizes.append(run.size)
    assert sizes == ([128, MOST, MOST] if engine.one_writer else [MOST] * 3)
    assert clock.rests == []


def test_beside_others_it_takes_small_steps_and_rests(engine: Engine, clock: Clock) -> None:
    run = Pace(engine, MOST)
    step(run)
    for _ in range(10):
        engine.transact(write)
        step(run)
    if not engine.one_writer:
        assert (run.size, clock.rests) == (MOST, [])
        return
    assert run.size == 8  # the lock seemed to be held for a millisecond or more
    assert len(clock.rests) == 10
    assert all(0.001 < each < 0.1 for each in clock.rests)
    clock.now += 2 * pace.QUIET_SECONDS
    for size in (16, 32, 64, 128, MOST, MOST):
        step(run)
        assert run.size == size
    assert len(clock.rests) == 10


def test_its_steps_grow_while_they_are_short(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.one_writer:
        pytest.skip("all its steps are large")
    run = Pace(engine, MOST)
    step(run)
    for wanted, sizes in ((1e-9, [32, 16, 8, 8]), (0.5, [10, 12, 15, 18])):
        monkeypatch.setattr(pace, "HOLD_SECONDS", wanted)
        for size in sizes:
            engine.transact(write)
            step(run)
            assert run.size == size


def test_an_error_comes_out_as_it_is(engine: Engine) -> None:
    def fail(_tx: Transaction) -> None:
        raise KeyError("of the work")

    run = Pace(engine, MOST)
    with pytest.raises(KeyError, match="of the work"):
        run.transact(fail, 5)
    step(run)
