"""Runs one case: rounds in which both sides take turns, each in fresh processes that start together.

`cli` calls `run_case`; a round builds (or takes) the database, starts `worker` processes, has the workload
check the outcome and SQLite its own structure, and keeps the figures.

1. Whatever goes wrong in a worker (it dies, it is silent past its deadline) ends the run with a BenchError.
2. No worker outlives a round: those still there at its end are killed.
3. The side that goes first changes from round to round.
"""

from __future__ import annotations

import json
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import flush
from bench.errors import BenchError
from bench.results import CaseResult, Round
from bench.stats import percentile
from bench.suite import Arm, Case
from bench.targets import ROOT
from bench.worker import Assignment, Report
from bench.workloads import WORKLOADS
from bench.workloads.base import Workload, expect

START_DELAY_S = 0.05
"""Between the last "ready" and the common start."""
PATIENCE_S = 120.0
"""For a worker's silence, beside its loop: opening, warming up, a last operation that waits long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often; the same for every case of a run."""

    directory: Path
    """Databases are built here: the disk that is measured."""
    rounds: int = 7
    seconds: float = 2.0
    small: bool = False


def run_case(case: Case, plan: Plan, told: Callable[[str], None]) -> CaseResult:
    """All rounds of a case; `told` hears what is being done.  Raises BenchError, CheckFailedError."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mvvfs-bench-") as tools, _scratch(plan.directory) as scratch:
        bench = _Bench(case, plan, flush.build(Path(tools)), scratch)
        disk_ms = flush.probe(scratch)
        rounds: dict[str, list[Round]] = {arm.label: [] for arm in case.arms}
        for number in range(plan.rounds):
            arms = case.arms if number % 2 == 0 else case.arms[::-1]
            for arm in arms:
                told(f"round {number + 1} of {plan.rounds}, {arm.label}")
                rounds[arm.label].append(bench.round(arm, number))
        return CaseResult(case=case, disk_flush_ms=disk_ms, seconds=plan.seconds, rounds=rounds)


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="run-", dir=directory) as scratch:
        yield Path(scratch)


class _Bench:
    """The databases of one case, and what it takes to run a round on them."""

    def __init__(self, case: Case, plan: Plan, library: Path, scratch: Path) -> None:
        self._case, self._plan, self._library, self._scratch = case, plan, library, scratch
        workload = WORKLOADS[case.workload]
        self._workload: Workload = workload.small() if plan.small else workload
        self._built: dict[str, Path] = {}

    def round(self, arm: Arm, number: int) -> Round:
        """One measurement of one side, checked."""
        path = self._database(arm)
        with arm.target.running(path, self._environment()):
            with _Crew(self._assignments(arm, path, number), self._environment()) as crew:
                reports, latencies = crew.run(self._plan.seconds)
            connection = arm.target.connect(path)
            self._workload.check(connection, [report.evidence for report in reports])
            if self._workload.kind == "write" or number == 0:
                expect("integrity_check", connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            connection.close()
        return _summary(reports, latencies, self._workload.units)

    def _database(self, arm: Arm) -> Path:
        """A fresh database, or the one that earlier rounds read or (prepared ones) wrote."""
        if arm.database is not None:
            return arm.database
        if (self._workload.kind == "read" or self._workload.lasting) and arm.label in self._built:
            return self._built[arm.label]
        directory = self._scratch / arm.label.replace("/", "_")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        path = arm.target.place(directory)
        with arm.target.running(path, self._environment()):
            connection = arm.target.relaxed.connect(path)
            self._workload.load(connection, self._case.processes)
            connection.close()
        self._built[arm.label] = path
        return path

    def _assignments(self, arm: Arm, path: Path, number: int) -> list[Assignment]:
        return [
            Assignment(
                workload=self._case.workload,
                small=self._plan.small,
                target=arm.target.to_json(),
                database=str(path),
                index=index,
                seed=number * 1000 + index,
                seconds=self._plan.seconds,
                operations=self._case.operations,
                report=str(self._scratch / f"report-{index}.json"),
                latencies=str(self._scratch / f"latencies-{index}.bin"),
            )
            for index in range(self._case.processes)
        ]

    def _environment(self) -> dict[str, str]:
        return flush.environment(self._library, self._case.flush_us)


class _Crew:
    """Worker processes, from start to end."""

    def __init__(self, assignments: Sequence[Assignment], environment: dict[str, str]) -> None:
        self._assignments, self._environment = assignments, environment
        self._workers: list[subprocess.Popen[bytes]] = []
        self._errors: list[Path] = []

    def __enter__(self) -> Self:
        try:
            for assignment in self._assignments:
                self._start(assignment)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def run(self, seconds: float) -> tuple[list[Report], list[array[int]]]:
        """Start them together, wait for all, read what they left behind."""
        self._await("ready", PATIENCE_S)
        self._tell(f"{time.monotonic() + START_DELAY_S!r}")
        self._await("done", seconds + PATIENCE_S)
        self._tell("close")
        for worker, errors in zip(self._workers, self._errors, strict=True):
            try:
                status = worker.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise BenchError(f"a worker did not close its database within {PATIENCE_S:.0f} s") from None
            if status != 0:
                raise BenchError(f"a worker ended with status {status}:\n{errors.read_text()}")
        reports = [Report(**json.loads(Path(each.report).read_text())) for each in self._assignments]
        return reports, [_read_latencies(Path(each.latencies)) for each in self._assignments]

    def _start(self, assignment: Assignment) -> None:
        orders = Path(assignment.report).with_suffix(".assignment.json")
        orders.write_text(json.dumps(asdict(assignment)))
        errors = orders.with_suffix(".stderr")
        with errors.open("wb") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-m", "bench.worker", str(orders)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=self._environment,
                bufsize=0,
            )
        self._workers.append(worker)
        self._errors.append(errors)

    def _await(self, word: str, patience: float) -> None:
        """Until every worker has said the word; BenchError if one ends or the time is up."""
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            for index, worker in enumerate(self._workers):
                assert worker.stdout is not None
                selector.register(worker.stdout, selectors.EVENT_READ, index)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise BenchError(f"{len(selector.get_map())} worker(s) not {word} after {patience:.0f} s")
                for key, _ in ready:
                    said = key.fileobj.readline().strip()  # type: ignore[union-attr]
                    if said != word.encode():
                        self._workers[key.data].wait(PATIENCE_S)
                        raise BenchError(
                            f"worker {key.data} ended early:\n{self._errors[key.data].read_text()}"
                        )
                    selector.unregister(key.fileobj)

    def _tell(self, line: str) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{line}\n".encode())

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()


def _read_latencies(path: Path) -> array[int]:
    latencies = array("q")
    latencies.frombytes(path.read_bytes())
    return latencies


def _summary(reports: Sequence[Report], latencies: Sequence[array[int]], units: int) -> Round:
    """One round's figures, over all its processes."""
    counts = [report.operations for report in reports]
    if not any(counts):
        raise BenchError("no operation ended in time: give it more seconds")
    ordered = sorted(value for each in latencies for value in each)
    return Round(
        rate=sum(counts) * units / max(report.elapsed for report in reports),
        operations=sum(counts),
        p50_us=percentile(ordered, 50) / 1000,
        p99_us=percentile(ordered, 99) / 1000,
        fairness=min(counts) / max(counts),
        conflicts=sum(report.conflicts for report in reports),
        flushes=sum(report.flushes for report in reports),
        most_tries=max(report.most_tries for report in reports),
    )
