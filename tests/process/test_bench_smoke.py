"""The benchmark harness still runs, checks what it measures, and fails loudly; its statistics are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import flush, large, runner, service, sizes, suite
from bench.errors import BenchError, CheckFailedError
from bench.report import markdown
from bench.results import CaseResult, Finding, load, load_findings, save
from bench.stats import median_interval, percentile
from bench.targets import MvTarget, PlainTarget
from bench.workloads import WORKLOADS
from bench.workloads.updates import ReadModifyWrite

ROOT = Path(__file__).resolve().parents[2]


def quick(directory: Path, workload: str, processes: int = 2, mode: suite.Mode = suite.AS_IS) -> CaseResult:
    return measured(directory, suite.plain_and_mv(workload, processes, mode))


def measured(directory: Path, case: suite.Case) -> CaseResult:
    """Without patience first: on a busy machine the first operation may take longer than that."""
    for seconds in (0.1, 2.0):
        plan = runner.Plan(directory, rounds=1, seconds=seconds, small=True)
        try:
            return runner.run_case(case, plan, lambda doing: None)
        except BenchError as exc:
            if "no operation ended in time" not in str(exc):
                raise
    pytest.fail("no operation ended in two seconds")


@pytest.mark.parametrize(
    "workload",
    [
        "insert-own",
        "claim-jobs",
        "bulk",
        "scan",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("insert-random", "rmw-zipfian", "ycsb-a", "open")
        ),
    ],
)
def test_a_case_runs_on_both_sides_and_is_checked(tmp_path: Path, workload: str) -> None:
    result = quick(tmp_path, workload, processes=1 if workload in {"bulk", "open", "scan"} else 2)
    assert result.ratio().median > 0
    assert all(each.operations > 0 for rounds in result.rounds.values() for each in rounds)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workload", ["bounded-reads", "served-updates"])
def test_a_service_is_measured_beside_an_embedded_store(tmp_path: Path, workload: str) -> None:
    (case,) = (c for c in suite.behind_a_service() if (c.workload, c.processes) == (workload, 1))
    result = measured(tmp_path, case)
    assert all(each.operations > 0 for rounds in result.rounds.values() for each in rounds)
    assert list(tmp_path.iterdir()) == []


def test_every_durable_commit_of_plain_sqlite_is_flushed_and_the_flush_is_longer(tmp_path: Path) -> None:
    result = quick(tmp_path, "insert-one", 1, suite.LONGER)
    for rounds in (result.baseline, result.candidate):
        assert rounds[0].flushes >= rounds[0].operations
        assert rounds[0].p50_us >= suite.LONGER_US


def test_python_flushes_are_counted_too(tmp_path: Path) -> None:
    library = flush.build(tmp_path)
    program = (
        "import os; from bench import flush; count = flush.counter(); fd = os.open('.', os.O_RDONLY);"
        " os.fsync(fd); os.fdatasync(fd); print(count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=flush.environment(library, 0),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "2"


def test_a_lost_update_fails_the_check(tmp_path: Path) -> None:
    target = PlainTarget()
    connection = target.connect(target.place(tmp_path))
    workload = WORKLOADS["rmw-uniform"].small()
    assert isinstance(workload, ReadModifyWrite)
    workload.load(connection, 1)
    connection.execute("UPDATE counters SET value = value + 1 WHERE id IN (3, 4)")
    workload.check(connection, [[[3, 1]], [[4, 1]]])
    with pytest.raises(CheckFailedError, match="increments"):
        workload.check(connection, [[[3, 2]], [[4, 1]]])
    with pytest.raises(CheckFailedError, match="rows whose counter is wrong"):
        workload.check(connection, [[[3, 2]]])


def test_a_worker_that_dies_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainTarget, "to_json", lambda self: {"kind": "plain", "durability": "no such"})
    with pytest.raises(BenchError, match="ended early"):
        quick(tmp_path, "insert-one")


@pytest.mark.long
def test_history_is_grown_and_compared(tmp_path: Path) -> None:
    places = ("--directory", str(tmp_path), "--output", str(tmp_path / "results.json"))
    names = set(suite.HISTORY) - {"history-reads"}
    wanted = [option for name in sorted(names) for option in ("--workload", name)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--quick", *wanted, *places],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results, sizes = load(tmp_path / "results.json")
    assert {result.case.workload for result in results} == names
    assert sizes["bytes_per_commit"] > 0


@pytest.mark.parametrize(
    "key", ["branch/1/full", pytest.param("template-served/1/full", marks=pytest.mark.long)]
)
def test_branches_are_measured(tmp_path: Path, key: str) -> None:
    (case,) = (case for case in suite.branches() if case.key == key)
    result = measured(tmp_path, case)
    assert all(each.operations > 0 for rounds in result.rounds.values() for each in rounds)
    assert ("p50 µs" in markdown([result], {}).split("### Everything")[0]) == key.startswith("template")


@pytest.mark.long
def test_what_must_not_go_with_the_size_is_measured(tmp_path: Path) -> None:
    branched, compared = sizes.branches(tmp_path / "a", True), sizes.diffs(tmp_path / "b", True)
    for case in (
        suite.branches_by_size(branched.small, branched.large),
        suite.diffs_by_size(compared.small, compared.large),
    ):
        result = measured(tmp_path, case)
        assert all(each.operations > 0 for rounds in result.rounds.values() for each in rounds)
    found = sizes.pages_read(compared.large)
    assert len(found) == 5
    assert all(0 < each.found <= 10 for each in found)


@pytest.mark.long
def test_retention_is_measured_beside_writers(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    places = ("--directory", str(tmp_path), "--output", str(output))
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--quick", "--workload", suite.BESIDE_RETENTION, *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ((result,), _) = load(output)
    assert result.case.compares == "p99"
    (theirs,), (ours,) = result.baseline, result.candidate
    assert result.ratio().median == pytest.approx(theirs.p99_us / ours.p99_us)


def test_results_survive_the_file_and_are_replaced_case_by_case(tmp_path: Path) -> None:
    first, again = (quick(tmp_path / "work", "point-reads", 1) for _ in range(2))
    other = quick(tmp_path / "work", "point-reads", 2)
    path = tmp_path / "results.json"
    save(path, [first, other], {"bytes_per_commit": 1.0})
    save(path, [again], {})
    assert load(path) == ([again, other], {"bytes_per_commit": 1.0})
    assert json.loads(path.read_text())["format"] == 1


def test_findings_are_kept_and_replaced_by_what_they_are_about(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(path, [], {}, [Finding("long", "tries", 3, 2), Finding("long", "seconds", 1.5, None, "s")])
    save(path, [], {"bytes_per_commit": 1.0}, [Finding("long", "tries", 2, 2)])
    found = load_findings(path)
    assert [(each.what, each.found, each.meets()) for each in found] == [
        ("tries", 2, True),
        ("seconds", 1.5, None),
    ]
    assert "| long | tries | 2 | at most 2 | met |" in markdown([], {}, found)


@pytest.mark.long
def test_a_hot_row_is_held_to_its_limits(tmp_path: Path) -> None:
    result = quick(tmp_path, "hot-row", 8, suite.LONGER)
    assert 1 <= max(each.most_tries for each in result.candidate) <= 10
    assert "most tries" in markdown([result], {})


def test_conflicts_of_single_statements_are_counted(tmp_path: Path) -> None:
    """mvvfs.connect runs them again by itself: only its own counter knows."""
    result = quick(tmp_path, "insert-one", 4)
    assert sum(each.conflicts for each in result.candidate) > 0


def test_leases_are_compared_with_none(tmp_path: Path) -> None:
    result = measured(tmp_path, suite.leases_on_and_off(suite.LONGER))
    assert [arm.target.to_json()["leases"] for arm in result.case.arms] == ["off", "on"]


@pytest.mark.long
@pytest.mark.parametrize("command", ["stopped", "long"])
def test_trouble_is_measured(tmp_path: Path, command: str) -> None:
    places = ("--directory", str(tmp_path), "--output", str(tmp_path / "results.json"))
    done = subprocess.run(
        [sys.executable, "-m", "bench", command, "--quick", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {each.command for each in load_findings(tmp_path / "results.json")} == {command}


@pytest.mark.long
def test_a_large_database_is_measured(tmp_path: Path) -> None:
    found = large.findings(tmp_path, 0.01, lambda doing: None)
    peaks = {each.what: each.found for each in found if each.unit == "MB"}
    assert len(peaks) == 14
    assert all(10 < peak < 300 for peak in peaks.values())
    assert os.listdir(tmp_path) == []


def test_a_large_database_needs_the_disk(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="on the disk of"):
        large.findings(tmp_path, 1e6, lambda doing: None)


def test_targets_travel_as_json() -> None:
    from bench.targets import from_json

    for target in (PlainTarget("normal"), MvTarget(cache_bytes=1)):
        assert from_json(json.loads(json.dumps(target.to_json()))) == target


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [(1, 1, 1, 0.0), (5, 1, 5, 0.9375), (7, 1, 7, 0.984375), (9, 2, 8, 0.9609375), (20, 6, 15, 0.9586)],
)
def test_median_intervals_cover(count: int, low: float, high: float, coverage: float) -> None:
    interval = median_interval([float(value) for value in range(count, 0, -1)])
    assert (interval.low, interval.high) == (low, high)
    assert interval.coverage == pytest.approx(coverage, abs=1e-4)


@pytest.mark.long
def test_calls_of_a_service_are_compared_with_empty_ones(tmp_path: Path) -> None:
    plan = runner.Plan(tmp_path, rounds=1, seconds=0.6, small=True)
    wanted = {
        "service-read-32/1/normal",
        "service-commit/1/normal",
        "scan-cold/1/normal",
        "look-up-cold/1/normal",
    }
    with service.running(tmp_path) as peers:
        for case in suite.over_the_service(peers, tmp_path / "main"):
            if case.key in wanted:
                result = runner.run_case(case, plan, lambda doing: None)
                assert result.ratio().median > 0
                wanted.remove(case.key)
    assert not wanted
