"""The checker accepts what is strictly serializable and names what is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.checker import Append, Read, Status, Transaction, check, load, save
from tests.checker.graph import realtime_edges
from tests.checker.history import Operation


def operation(text: str) -> Operation:
    """`1+5` appends 5 to key 1; `1=4,5` read key 1 as [4, 5]."""
    if "+" in text:
        key, value = text.split("+")
        return Append(int(key), int(value))
    key, values = text.split("=")
    return Read(int(key), tuple(int(value) for value in values.split(",") if value))


def transaction(process: int, start: int, end: int, body: str, status: Status = Status.OK) -> Transaction:
    return Transaction(process, start, end, status, tuple(operation(text) for text in body.split()))


def kinds(*history: Transaction) -> set[str]:
    return {anomaly.kind for anomaly in check(history)}


def test_an_empty_history_is_fine() -> None:
    assert check([]) == []


def test_transactions_one_after_the_other_are_fine() -> None:
    assert not kinds(
        transaction(0, 0, 10, "1= 1+1 1=1"),
        transaction(1, 11, 20, "1=1 1+2 2+1"),
        transaction(0, 21, 30, "1=1,2 2=1"),
    )


def test_transactions_at_the_same_time_are_fine_in_any_order() -> None:
    assert not kinds(
        transaction(0, 0, 10, "1= 2+1"),
        transaction(1, 0, 10, "2=1 3+1"),
        transaction(2, 0, 10, "3=1 1=1"),
        transaction(3, 0, 10, "1+1"),
    )


def test_a_lost_update() -> None:
    found = kinds(
        transaction(0, 0, 10, "1= 1+1"),
        transaction(1, 0, 10, "1= 1+2"),
        transaction(2, 20, 30, "1=2"),
    )
    assert {"lost-update", "lost-append"} <= found


def test_a_lost_update_that_kept_both_appends() -> None:
    found = kinds(
        transaction(0, 0, 10, "1= 1+1"), transaction(1, 0, 10, "1= 1+2"), transaction(2, 20, 30, "1=1,2")
    )
    assert found == {"lost-update", "G-single"}


def test_write_skew_is_a_cycle_of_two_anti_dependencies() -> None:
    found = kinds(
        transaction(0, 0, 10, "1= 2+1"),
        transaction(1, 0, 10, "2= 1+1"),
        transaction(2, 20, 30, "1=1 2=1"),
    )
    assert found == {"G2"}


def test_write_skew_shows_even_if_nobody_reads_afterwards() -> None:
    assert kinds(transaction(0, 0, 10, "1= 2+1"), transaction(1, 0, 10, "2= 1+1")) == {"G2"}


def test_the_anomaly_of_a_read_only_transaction() -> None:
    """Fekete et al. 2004: serializable but for the reader, which saw T1 and not T0."""
    found = kinds(
        transaction(0, 0, 100, "1= 2= 1+1"),
        transaction(1, 10, 20, "2= 2+1"),
        transaction(2, 30, 40, "1= 2=1"),
        transaction(3, 200, 210, "1=1 2=1"),
    )
    assert found == {"G2"}


def test_the_same_without_the_reader_is_fine() -> None:
    assert not kinds(
        transaction(0, 0, 100, "1= 2= 1+1"),
        transaction(1, 10, 20, "2= 2+1"),
        transaction(3, 200, 210, "1=1 2=1"),
    )


def test_a_torn_read() -> None:
    found = kinds(
        transaction(0, 0, 10, "1+1 2+1"), transaction(1, 0, 10, "1=1 2="), transaction(2, 20, 30, "2=1")
    )
    assert found == {"G-single"}


def test_circular_information_flow() -> None:
    assert kinds(transaction(0, 0, 10, "1+1 2=1"), transaction(1, 0, 10, "2+1 1=1")) == {"G1c"}


def test_writes_in_two_orders() -> None:
    found = kinds(
        transaction(0, 0, 10, "1+1 2+1"),
        transaction(1, 0, 10, "1+2 2+2"),
        transaction(2, 20, 30, "1=1,2 2=2,1"),
    )
    assert found == {"G0"}


def test_an_aborted_read() -> None:
    found = kinds(transaction(0, 0, 10, "1+1", Status.FAILED), transaction(1, 0, 10, "1=1"))
    assert found == {"aborted-read"}


def test_a_failed_transaction_must_have_read_a_snapshot_too() -> None:
    found = kinds(
        transaction(0, 0, 10, "1+1 2+1"),
        transaction(1, 0, 10, "1=1 2= 3+1", Status.FAILED),
        transaction(2, 20, 30, "2=1 3="),
    )
    assert found == {"G-single"}


def test_an_intermediate_read() -> None:
    found = kinds(
        transaction(0, 0, 10, "1+1 1+2"), transaction(1, 0, 10, "1=1"), transaction(2, 20, 30, "1=1,2")
    )
    assert "intermediate-read" in found


def test_a_value_from_nowhere() -> None:
    assert kinds(transaction(0, 0, 10, "1=7")) == {"never-appended"}


def test_a_value_twice() -> None:
    assert "duplicate" in kinds(transaction(0, 0, 10, "1+1"), transaction(1, 20, 30, "1=1,1"))


def test_lists_that_do_not_continue_each_other() -> None:
    found = kinds(
        transaction(0, 0, 10, "1+1"),
        transaction(1, 0, 10, "1+2"),
        transaction(2, 0, 30, "1=1"),
        transaction(3, 0, 30, "1=2"),
    )
    assert "incompatible-order" in found


def test_an_acknowledged_append_that_is_gone() -> None:
    assert kinds(transaction(0, 0, 10, "1+1"), transaction(1, 20, 30, "1=")) == {
        "lost-append",
        "G-single-realtime",
    }


def test_an_append_that_nobody_read_afterwards_may_be_anywhere() -> None:
    assert not kinds(transaction(0, 0, 10, "1+1"), transaction(1, 5, 30, "1="))


def test_a_stale_read_breaks_the_order_in_time_only() -> None:
    found = kinds(transaction(0, 0, 10, "1+1"), transaction(1, 20, 30, "1="), transaction(2, 25, 40, "1=1"))
    assert found == {"G-single-realtime"}


def test_a_transaction_that_forgets_its_own_append() -> None:
    assert kinds(transaction(0, 0, 10, "1+1 1=")) == {"internal"}


def test_a_read_that_does_not_repeat() -> None:
    assert "internal" in kinds(transaction(0, 0, 10, "1+1"), transaction(1, 0, 10, "1= 1=1"))


def test_an_unknown_outcome_may_be_either() -> None:
    lost = transaction(0, 0, 0, "1+1 2+1", Status.UNKNOWN)
    assert not kinds(lost, transaction(1, 20, 30, "1= 2="))
    assert not kinds(lost, transaction(1, 20, 30, "1=1 2=1"))
    assert not kinds(lost, transaction(1, 20, 30, "1= 2="), transaction(2, 40, 50, "1=1 2=1"))


def test_an_unknown_outcome_is_whole_or_nothing() -> None:
    found = kinds(transaction(0, 0, 0, "1+1 2+1", Status.UNKNOWN), transaction(1, 20, 30, "1=1 2="))
    assert found == {"G-single"}


def test_a_value_appended_twice_is_a_useless_history() -> None:
    with pytest.raises(ValueError, match="twice"):
        check([transaction(0, 0, 1, "1+1"), transaction(1, 0, 1, "1+1")])


def test_what_is_said_names_transactions_and_keys() -> None:
    (anomaly,) = check([transaction(4, 0, 10, "1= 2+1"), transaction(5, 0, 10, "2= 1+1")])
    assert str(anomaly) == (
        "G2: T0[4] -rw-> T1[5] (key 1: read without what was appended); "
        "T1[5] -rw-> T0[4] (key 2: read without what was appended)"
    )


def test_a_history_survives_the_file(tmp_path: Path) -> None:
    history = [
        transaction(0, 0, 10, "1= 1+1"),
        transaction(1, 5, 9, "1=1", Status.UNKNOWN),
        transaction(2, 5, 9, ""),
    ]
    save(tmp_path / "history.jsonl", history)
    assert load(tmp_path / "history.jsonl") == history


def test_realtime_edges_imply_all_that_they_leave_out() -> None:
    rng = random.Random(5)
    spans = [
        (node, start, start + rng.randrange(30)) for node, start in enumerate(rng.choices(range(200), k=60))
    ]
    edges = set(realtime_edges(spans))
    reach = {node: {b for a, b in edges if a == node} for node, _, _ in spans}
    for node, _, _ in sorted(spans, key=lambda span: -span[1]):  # later ones are complete already
        reach[node] |= {far for near in reach[node] for far in reach[near]}
    assert reach == {a: {b for b, start, _ in spans if end < start} for a, _, end in spans}
    assert len(edges) < sum(map(len, reach.values()))


class Simulator:
    """A store of lists with a chosen fault, driven by one thread that interleaves transactions."""

    def __init__(
        self, rng: random.Random, check_reads: bool, check_writes: bool, stale: bool = False
    ) -> None:
        self.rng = rng
        self.check_reads, self.check_writes, self.stale = check_reads, check_writes, stale
        self.versions: list[dict[int, tuple[int, ...]]] = [{}]
        self.changed: list[set[int]] = [set()]
        self.clock = 0
        self.values = 0

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def transactions(self, processes: int, count: int) -> list[Transaction]:
        history: list[Transaction] = []
        running = [self.run(process, history) for process in range(processes)]
        while len(history) < count:
            next(self.rng.choice(running))
        return history

    def run(self, process: int, history: list[Transaction]):  # type: ignore[no-untyped-def]  # a coroutine of steps
        while True:
            start, base = self.tick(), len(self.versions) - 1
            if self.stale and self.rng.random() < 0.1:
                base = max(0, base - 3)
            own: dict[int, tuple[int, ...]] = {}
            read: set[int] = set()
            operations: list[Operation] = []
            for _ in range(self.rng.randrange(1, 5)):
                yield
                key = self.rng.randrange(4)
                before = own.get(key, self.versions[base].get(key, ()))
                read.add(key)
                if self.rng.random() < 0.5:
                    operations.append(Read(key, before))
                else:
                    self.values += 1
                    own[key] = (*before, self.values)
                    operations.append(Append(key, self.values))
            yield
            passed = set().union(*self.changed[base + 1 :])
            refused = (self.check_reads and read & passed) or (self.check_writes and own.keys() & passed)
            status = Status.FAILED if own and refused else Status.OK
            if own and not refused:
                self.versions.append(self.versions[-1] | own)
                self.changed.append(set(own))
            history.append(Transaction(process, start, self.tick(), status, tuple(operations)))


@pytest.mark.parametrize("seed", range(5))
def test_a_correct_store_passes(seed: int) -> None:
    history = Simulator(random.Random(seed), check_reads=True, check_writes=True).transactions(6, 400)
    assert any(t.status is Status.FAILED for t in history)
    assert check(history) == []


@pytest.mark.parametrize("seed", range(5))
def test_snapshot_isolation_shows_write_skew_and_nothing_else(seed: int) -> None:
    history = Simulator(random.Random(seed), check_reads=False, check_writes=True).transactions(6, 400)
    found = kinds(*history)
    assert "G2" in found
    assert found <= {"G2", "G2-realtime"}


@pytest.mark.parametrize("seed", range(5))
def test_a_store_without_checks_loses_updates(seed: int) -> None:
    history = Simulator(random.Random(seed), check_reads=False, check_writes=False).transactions(6, 400)
    assert {"lost-append", "incompatible-order"} & kinds(*history)


@pytest.mark.parametrize("seed", range(5))
def test_stale_snapshots_break_the_order_in_time(seed: int) -> None:
    history = Simulator(random.Random(seed), check_reads=True, check_writes=True, stale=True).transactions(
        6, 400
    )
    found = kinds(*history)
    assert found - {"lost-append"}  # that one, if nobody read the append before the history ended
    assert all(kind.endswith("-realtime") for kind in found - {"lost-append"})
