"""Two things that no ratio tells: a writer that stops in the middle, and a long transaction beside writers.

Called by `cli` (`python -m bench stopped`, `long`); both are bounded in time, and both check what is in the
database afterwards.  Flushes are 2 ms longer, as in the cases with the bars.

1. The workers are processes of their own, started together; whoever does not end in time ends the run.
2. What they report is when each of their transactions was committed (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

import mvvfs
from bench import flush
from bench.errors import BenchError
from bench.results import Finding
from bench.suite import LONGER_US
from bench.targets import MvTarget
from bench.workloads.base import expect, payloads, scalar
from bench.workloads.jobs import ClaimJobs, first_open, take

WRITERS = 8
PATIENCE_S = 90.0
BEFORE_S, STOPPED_S, AFTER_S = 4.0, 10.0, 2.0
"""Of `stopped`: how long all claim jobs, how long one is stopped, how long after it was killed."""
RECOVERED = 0.9
"""Full speed: at least this share of the rate before."""
WINDOW_S = 1.0

_spawn = multiprocessing.get_context("spawn")


@contextmanager
def _prepared(directory: Path) -> Iterator[Path]:
    """A folder for the databases; processes started meanwhile have the longer flushes."""
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="mvvfs-bench-") as tools,
        tempfile.TemporaryDirectory(prefix="trouble-", dir=directory) as scratch,
    ):
        before = dict(os.environ)
        os.environ.update(flush.environment(flush.build(Path(tools)), LONGER_US))
        try:
            yield Path(scratch)
        finally:
            os.environ.clear()
            os.environ.update(before)


class _Worker:
    """A process that runs `work(*arguments)`, and what it sent back."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._pipe, theirs = _spawn.Pipe(duplex=False)
        self.process = _spawn.Process(target=_run, args=(theirs, work, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def result(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise BenchError(f"a worker took longer than {seconds:.0f} s more")
            return self._pipe.recv()
        except EOFError:
            raise BenchError("a worker died") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _run(pipe: Any, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    pipe.send(work(*arguments))


@contextmanager
def _killing(workers: Sequence[_Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


# A writer that stops -----------------------------------------------------------------------------------


def stopped(directory: Path, small: bool = False) -> list[Finding]:
    """Claims of jobs by 8 workers, while a ninth is stopped between two statements, and later killed."""
    return [
        finding
        for begin in ("DEFERRED", "IMMEDIATE")
        for finding in _stopped(directory, MvTarget(begin=begin), small)
    ]


def _stopped(directory: Path, target: MvTarget, small: bool) -> list[Finding]:
    before, pause, after = (3.0, 4.0, 0.5) if small else (BEFORE_S, STOPPED_S, AFTER_S)
    with _prepared(directory) as scratch:
        path = target.place(scratch)
        connection = target.relaxed.connect(path)
        ClaimJobs(name="", title="").load(connection, WRITERS)
        start = time.monotonic() + 2.0
        stop, end = start + before, start + before + pause + after
        workers = [_Worker(_claim, target, path, index, start, end) for index in range(WRITERS)]
        ninth = _Worker(_claim_and_stop, target, path, WRITERS, start, stop)
        with _killing([*workers, ninth]):
            stopped_at = _wait_until_stopped(ninth, stop + PATIENCE_S)
            time.sleep(max(0.0, stopped_at + pause - time.monotonic()))
            killed_at = time.monotonic()
            ninth.kill()
            claims = [worker.result(PATIENCE_S) for worker in workers]
        _check_claims(connection, claims)
        connection.close()
    times = sorted(moment for claimed in claims for _, moment in claimed)
    usual = _rate(times, start + (stopped_at - start) / 4, stopped_at)
    if not usual:
        raise BenchError("nobody claimed a job before the stop: the machine was too busy")
    gap = max(
        (b - a for a, b in itertools.pairwise(times) if b > stopped_at and a < killed_at),
        default=end - stopped_at,
    )
    what = f"8 workers claim jobs ({target.begin}), a ninth is stopped in its transaction"
    return [
        Finding(
            "stopped",
            f"{what}: back at {RECOVERED:.0%} of the rate before, after",
            _recovery(times, stopped_at, usual),
            10,
            "s",
        ),
        Finding("stopped", f"{what}: longest time without a claim", round(gap, 2), 10, "s"),
        Finding(
            "stopped",
            f"{what}: rate of its last seconds stopped, by that before",
            round(_rate(times, killed_at - pause / 3, killed_at) / usual, 2),
        ),
    ]


def _claim(target: MvTarget, path: Path, index: int, start: float, end: float) -> list[tuple[int, float]]:
    connection = target.connect(path)
    claimed: list[tuple[int, float]] = []
    job = 0

    def claim() -> None:
        nonlocal job
        job = first_open(connection)
        take(connection, job, index)

    time.sleep(max(0.0, start - time.monotonic()))
    while time.monotonic() < end:
        try:
            target.transaction(connection, claim)
        except apsw.BusyError:
            continue  # its busy timeout ran out while another one had the turn
        claimed.append((job, time.monotonic()))
    connection.close()
    return claimed


def _claim_and_stop(target: MvTarget, path: Path, index: int, start: float, stop: float) -> None:
    """Claim like the others, but from `stop` on read a job, stop, and never take it."""
    connection = target.connect(path)

    def claim() -> None:
        job = first_open(connection)
        if time.monotonic() >= stop:
            os.kill(os.getpid(), signal.SIGSTOP)
        take(connection, job, index)

    time.sleep(max(0.0, start - time.monotonic()))
    while True:
        target.transaction(connection, claim)


def _wait_until_stopped(worker: _Worker, deadline: float) -> float:
    status = Path(f"/proc/{worker.process.pid}/stat")
    while time.monotonic() < deadline:
        if not worker.process.is_alive():
            raise BenchError("the worker that should stop has ended")
        if status.read_text().rpartition(")")[2].split()[0] == "T":
            return time.monotonic()
        time.sleep(0.005)
    raise BenchError("the worker that should stop did not")


def _check_claims(connection: apsw.Connection, claims: Sequence[Sequence[tuple[int, float]]]) -> None:
    times = Counter(job for claimed in claims for job, _ in claimed)
    expect("jobs claimed twice", [job for job, count in times.items() if count > 1], [])
    found = scalar(connection, f"SELECT count(*) FROM jobs WHERE worker < {WRITERS}")
    expect("claimed jobs", found, len(times))
    expect("integrity_check", scalar(connection, "PRAGMA integrity_check"), "ok")


def _rate(times: Sequence[float], since: float, until: float) -> float:
    return sum(since <= moment < until for moment in times) / max(until - since, 1e-9)


def _recovery(times: Sequence[float], stopped_at: float, usual: float) -> float:
    """Seconds until a window begins in which the rate is what it was; the last window if none does."""
    for tenths in itertools.count():
        since = stopped_at + tenths / 10
        if _rate(times, since, since + WINDOW_S) >= RECOVERED * usual or since > times[-1]:
            return tenths / 10
    raise AssertionError


# Long transactions -------------------------------------------------------------------------------------


def long(directory: Path, small: bool = False) -> list[Finding]:
    """CREATE INDEX, a bulk UPDATE and an import, each beside 8 writers of the same table."""
    target = MvTarget()
    findings = []
    with _prepared(directory) as scratch:
        path = target.place(scratch)
        connection = target.relaxed.connect(path)
        rows = 20_000 if small else 1_000_000
        _load_big(connection, rows)
        for name, (work, options) in LONG.items():
            findings += _beside_writers(
                target, path, name, functools.partial(_do_long, work, options), rows, small
            )
        expect("integrity_check", scalar(connection, "PRAGMA integrity_check"), "ok")
        connection.close()
    return findings


def _load_big(connection: apsw.Connection, rows: int) -> None:
    rng = random.Random(rows)
    texts = payloads(rng, 24)
    connection.execute(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, value INTEGER, other INTEGER, payload TEXT)"
    )
    connection.execute("CREATE TABLE written (writer INTEGER PRIMARY KEY, commits INTEGER)")
    with connection:
        connection.executemany(
            "INSERT INTO big (value, other, payload) VALUES (0, ?, ?)",
            ((rng.getrandbits(30), texts[row % len(texts)]) for row in range(rows)),
        )


def _beside_writers(
    target: MvTarget, path: Path, name: str, work: Callable[..., tuple[int, float]], rows: int, small: bool
) -> list[Finding]:
    stop = path.with_name("stop")
    stop.unlink(missing_ok=True)
    connection = target.connect(path)
    sum_before = scalar(connection, "SELECT sum(value) FROM big")
    writers = [_Worker(_write, target, path, index, rows, stop) for index in range(WRITERS)]
    with _killing(writers):
        time.sleep(2.0)
        started = time.monotonic()
        tries, seconds = _Worker(work, target, path, rows).result(PATIENCE_S)
        ended = time.monotonic()
        time.sleep(0.5 if small else 2.0)
        stop.touch()
        found = [worker.result(PATIENCE_S) for worker in writers]
    increments = sum(len(moments) for moments, _ in found)
    expect("increments", scalar(connection, "SELECT sum(value) FROM big"), sum_before + increments)
    connection.close()
    times = sorted(moment for moments, _ in found for moment in moments)
    slowest = max(longest for _, longest in found)
    what = f"{name}, 8 writers of the same table beside it"
    during = _rate(times, started, ended)
    return [
        Finding("long", f"{what}: tries", tries, 2),
        Finding("long", f"{what}: seconds in all", round(seconds, 1), None, "s"),
        Finding("long", f"{what}: commits of the writers meanwhile", round(during), None, "/s"),
        Finding("long", f"{what}: slowest commit of a writer", round(slowest, 1), None, "s"),
    ]


def _write(target: MvTarget, path: Path, index: int, rows: int, stop: Path) -> tuple[list[float], float]:
    """Increment random rows until told to stop."""
    connection = target.connect(path)
    connection.set_busy_timeout(int(PATIENCE_S * 1000))
    rng = random.Random(index)
    row, moments, longest = 0, [], 0.0

    def increment() -> None:
        connection.execute("UPDATE big SET value = value + 1 WHERE id = ?", (row,))

    before = time.monotonic()
    while not stop.exists():
        row = rng.randint(1, rows)
        target.transaction(connection, increment)
        after = time.monotonic()
        moments.append(after)
        longest, before = max(longest, after - before), after
    connection.close()
    return moments, longest


def _do_long(
    work: Callable[[apsw.Connection, int], None],
    options: dict[str, Any],
    target: MvTarget,
    path: Path,
    rows: int,
) -> tuple[int, float]:
    connection = target.connect(path)
    tries, started = 0, time.monotonic()

    def once() -> None:
        nonlocal tries
        tries += 1
        work(connection, rows)

    mvvfs.transaction(connection, **options).run(once)
    seconds = time.monotonic() - started
    connection.close()
    return tries, seconds


def _create_index(connection: apsw.Connection, rows: int) -> None:
    connection.execute("CREATE INDEX big_other ON big (other)")


def _update_all(connection: apsw.Connection, rows: int) -> None:
    connection.execute("UPDATE big SET payload = upper(payload)")


def _import(connection: apsw.Connection, rows: int) -> None:
    texts = payloads(random.Random(0), 1_000)
    connection.execute("CREATE TABLE imported (id INTEGER PRIMARY KEY, payload TEXT)")
    connection.executemany(
        "INSERT INTO imported (payload) VALUES (?)", ((texts[row % len(texts)],) for row in range(rows // 10))
    )


LONG: dict[str, tuple[Callable[[apsw.Connection, int], None], dict[str, Any]]] = {
    "CREATE INDEX on 1,000,000 rows": (_create_index, {}),
    "UPDATE of 1,000,000 rows": (_update_all, {}),
    "import of 100 MB into a new table": (_import, {}),
}
"""What runs beside the writers, and how `mvvfs.transaction` is asked to."""
