"""Runs a load: writer processes that start together, and a reader that holds one snapshot all the while.

`story` calls `run_load`, on either side; everything that a process has to tell comes back through one queue.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from bench.targets import Target
from demo.load import DemoError, Job, Load, Totals

WRITERS = 4
SECONDS_AT_MOST = 10.0
"""On a disk whose flushes are slow a side stops here, with fewer jobs done."""
PATIENCE_S = 60.0
PAUSE_S = 0.001
"""Of the reader between two verifications: it is there to watch, not to take a processor from the writers."""


@dataclass(frozen=True)
class Written:
    """What one writer did."""

    commits: int
    retries: int
    """Tries beyond the first."""
    met: int
    """Jobs that needed more than one try."""
    seconds: float
    """From its start to its last commit."""
    ended: float
    """time.monotonic, after its last commit."""


@dataclass(frozen=True)
class Held:
    """What the reader saw."""

    verifications: int
    """How often it read all totals again, within its snapshot."""
    moved: int
    """How often they were not what they had been at first: must be 0."""
    before: Totals
    after: Totals
    """In a new snapshot, when all writers were done."""


@dataclass(frozen=True)
class Outcome:
    """One side's run."""

    commits: int
    retries: int
    met: int
    seconds: float
    fairness: float
    """The slowest writer's commits a second by the fastest one's."""
    held: Held

    @property
    def rate(self) -> float:
        """Commits a second."""
        return self.commits / self.seconds


@dataclass(frozen=True)
class Failed:
    """A process that could not do its part."""

    reason: str


Told = Written | Held | Failed


@dataclass(frozen=True)
class Stage:
    """What every process of a run is given."""

    load: Load
    target: Target
    path: Path
    barrier: Barrier
    done: Event
    told: Queue[Told]


def run_load(load: Load, target: Target, path: Path, jobs: Sequence[Job]) -> Outcome:
    """Apply all jobs, or as many as the time allows.  Raises DemoError if a process fails or does not end."""
    context = multiprocessing.get_context("spawn")
    stage = Stage(load, target, path, context.Barrier(WRITERS + 2), context.Event(), context.Queue())
    crew = [
        context.Process(target=_write, args=(stage, jobs[index::WRITERS], index)) for index in range(WRITERS)
    ]
    crew.append(context.Process(target=_hold, args=(stage,)))
    try:
        for process in crew:
            process.start()
        _start(stage)
        started = time.monotonic()
        written = [_heard(stage.told) for _ in range(WRITERS)]
        stage.done.set()
        held = _heard(stage.told)
        for process in crew:
            process.join(PATIENCE_S)
    finally:
        for process in crew:
            if process.is_alive():
                process.kill()
    return _outcome([each for each in written if isinstance(each, Written)], held, started)


def _outcome(written: Sequence[Written], held: Told, started: float) -> Outcome:
    assert isinstance(held, Held)
    rates = [each.commits / each.seconds for each in written]
    return Outcome(
        commits=sum(each.commits for each in written),
        retries=sum(each.retries for each in written),
        met=sum(each.met for each in written),
        seconds=max(each.ended for each in written) - started,
        fairness=min(rates) / max(rates),
        held=held,
    )


def _start(stage: Stage) -> None:
    try:
        stage.barrier.wait(PATIENCE_S)
    except threading.BrokenBarrierError:
        _heard(stage.told)
        raise DemoError("a process of the demo did not start") from None


def _heard(told: Queue[Told]) -> Told:
    try:
        news = told.get(timeout=SECONDS_AT_MOST + PATIENCE_S)
    except queue.Empty:
        raise DemoError("a process of the demo fell silent") from None
    if isinstance(news, Failed):
        raise DemoError(news.reason)
    return news


def _write(stage: Stage, jobs: Sequence[Job], writer: int) -> None:
    with _telling_failure(stage, f"writer {writer}"):
        connection = stage.target.connect(stage.path)
        stage.load.applied(connection)  # schema and first pages are read before the start
        stage.barrier.wait(PATIENCE_S)
        started = time.monotonic()
        deadline = started + SECONDS_AT_MOST
        commits = retries = met = 0
        for job in jobs:
            if time.monotonic() > deadline:
                break
            tries = stage.target.transaction(connection, partial(stage.load.apply, connection, job, writer))
            commits += 1
            retries += tries - 1
            met += tries > 1
        ended = time.monotonic()
        stage.told.put(Written(commits, retries, met, ended - started, ended))
        connection.close()


def _hold(stage: Stage) -> None:
    with _telling_failure(stage, "reader"):
        connection = stage.target.connect(stage.path)
        connection.execute("BEGIN")
        before = stage.load.totals(connection)
        stage.barrier.wait(PATIENCE_S)
        verifications = moved = 0
        while not (stage.done.is_set() and verifications):
            moved += stage.load.totals(connection) != before
            verifications += 1
            time.sleep(PAUSE_S)
        connection.execute("COMMIT")
        stage.told.put(Held(verifications, moved, before, stage.load.totals(connection)))
        connection.close()


@contextmanager
def _telling_failure(stage: Stage, who: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        stage.told.put(Failed(f"{who}: {type(error).__name__}: {error}"))
        stage.barrier.abort()
        raise
