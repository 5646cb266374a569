"""One measured process: `python -m bench.worker ASSIGNMENT.json`, started by `runner`, flush wrapper loaded.

It opens the database, says "ready" on standard output, waits for a line with the moment to start
(CLOCK_MONOTONIC, the same in every process of the machine), operates until its time is up, and leaves two
files: what it did (JSON, `Report`) and how long each operation took (64-bit nanoseconds).
"""

from __future__ import annotations

import json
import random
import sys
import time
from array import array
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import flush
from bench.targets import from_json
from bench.workloads import WORKLOADS
from bench.workloads.base import Client, Evidence


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker is told."""

    workload: str
    small: bool
    target: dict[str, Any]
    database: str
    index: int
    seed: int
    seconds: float
    operations: int
    """At most so many; 0: as many as the time allows."""
    report: str
    latencies: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker did."""

    operations: int
    """Ended in time: these make the rate."""
    late: int
    """Begun in time, ended after it: 0 or 1."""
    elapsed: float
    """Seconds from the start to the end of the last operation that ended in time."""
    conflicts: int
    most_tries: int
    """Of any operation."""
    flushes: int
    evidence: Evidence


def main() -> None:
    assignment = Assignment(**json.loads(Path(sys.argv[1]).read_text()))
    workload = WORKLOADS[assignment.workload]
    if assignment.small:
        workload = workload.small()
    target = from_json(assignment.target)
    path = Path(assignment.database)
    connection = target.connect(path)
    client = workload.client(target, connection, path, assignment.index, random.Random(assignment.seed))
    client.warm()
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    lost = target.conflicts(connection)
    report, latencies = operate(client, start, assignment.seconds, assignment.operations)
    lost_now = target.conflicts(connection)
    if lost is not None and lost_now is not None:
        report = replace(report, conflicts=lost_now - lost)
    with Path(assignment.latencies).open("wb") as file:
        latencies.tofile(file)
    Path(assignment.report).write_text(json.dumps(asdict(report)))
    print("done", flush=True)
    sys.stdin.readline()  # until all are done: the last one to close a plain database checkpoints it
    connection.close()


def operate(client: Client, start: float, seconds: float, operations: int) -> tuple[Report, array[int]]:
    """The timed loop: from `start` (time.monotonic) for `seconds`, one look at the clock an operation."""
    count_flushes = flush.counter()
    clock = time.monotonic_ns
    latencies = array("q")
    conflicts, most = 0, 1
    begin = int(start * 1e9)
    deadline = begin + int(seconds * 1e9)
    time.sleep(max(0.0, start - time.monotonic()))
    flushed = count_flushes()
    before = clock()
    while before < deadline and (operations == 0 or len(latencies) < operations):
        tries = client.operate()
        after = clock()
        if tries > 1:
            conflicts += tries - 1
            most = max(most, tries)
        latencies.append(after - before)
        before = after
    late = 1 if before > deadline and latencies else 0  # on a busy machine the start may come after the end
    last = before - latencies[-1] if late else before
    report = Report(
        operations=len(latencies) - late,
        late=late,
        elapsed=max(last - begin, 1) / 1e9,
        conflicts=conflicts,
        most_tries=most,
        flushes=count_flushes() - flushed,
        evidence=client.evidence(),
    )
    return report, latencies


if __name__ == "__main__":
    main()
