"""Which cases there are: a workload, how many processes, how durable, the two sides, and the bar if any.

To compare something else (two options of mvvfs, say), add `Case`s with other arms: nothing downstream
assumes that the baseline is plain SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.service import Peers
from bench.targets import (
    CallTarget,
    ClusterTarget,
    Durability,
    MvTarget,
    PastTarget,
    PlainTarget,
    RetainedTarget,
    ServedTarget,
    Target,
)

PROCESSES = (1, 2, 4, 8)
SMALL_CACHE = 65_536
"""Bytes: a table's inner pages fit, its leaves do not."""
LONGER_US = 2_000
"""What a cloud disk's flush costs, about: see flush_delay.c."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How durable both sides are, and how much longer each flush takes."""

    name: str
    durability: Durability
    flush_us: int


LONGER = Mode("full, +2 ms", "full", LONGER_US)
AS_IS = Mode("full", "full", 0)
NORMAL = Mode("normal", "normal", 0)
DURABLE_MODES = (LONGER, AS_IS, NORMAL)


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a case."""

    label: str
    target: Target
    database: Path | None = None
    """A database made beforehand, which all rounds go on with; None: the workload builds a fresh one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A comparison.  The ratio is that of `candidate` to `baseline`; above 1 the candidate is better."""

    workload: str
    processes: int
    mode: str
    flush_us: int
    baseline: Arm
    candidate: Arm
    bar: float | None = None
    """The ratio that the project wants at least."""
    operations: int = 0
    """At most so many a process and round; 0: what the time allows."""
    compares: Literal["rate", "latency", "p99"] = "rate"
    """Operations a second, their median latency, or its 99th percentile."""

    @property
    def arms(self) -> tuple[Arm, Arm]:
        return self.baseline, self.candidate

    @property
    def key(self) -> str:
        return f"{self.workload}/{self.processes}/{self.mode}"


BARS: dict[tuple[str, int, str], float] = {
    ("point-reads", 1, AS_IS.name): 1.2,
    ("scan", 1, AS_IS.name): 0.9,
    ("scan-cached", 1, AS_IS.name): 0.9,
    ("insert-one", 1, LONGER.name): 0.9,
    ("rmw-uniform", 8, LONGER.name): 4.0,
    ("insert-own-1k", 8, LONGER.name): 5.0,
    ("insert-random", 8, LONGER.name): 4.0,
    ("insert-one", 8, LONGER.name): 1.0,
    ("hot-row", 8, LONGER.name): 1.0,
    ("hot-row-immediate", 8, LONGER.name): 1.0,
    ("claim-jobs", 8, LONGER.name): 1.0,
    ("claim-jobs-immediate", 8, LONGER.name): 1.0,
    ("leases", 1, LONGER.name): round(1 / 1.05, 3),
    ("bulk", 1, LONGER.name): 0.6,
    ("bulk", 1, AS_IS.name): 0.6,
    ("look-up-cold", 1, NORMAL.name): 0.95,
    ("bounded-reads", 1, AS_IS.name): round(1 / 1.3, 3),
    ("branch", 1, LONGER.name): 0.95,
} | {
    (f"service-{call}", processes, NORMAL.name): 0.6
    for call in ("begin", "read", "read-32", "commit")
    for processes in (1, 8)
}
"""Workload, processes and mode → the ratio that the project wants at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What else a case asks of our side; None: nothing."""

    conflicts: float | None = None
    """Per commit, less than."""
    fairness: float | None = None
    """Commits of the slowest process by those of the fastest, at least."""
    tries: int | None = None
    """Of any transaction, at most."""
    p50_us: float | None = None
    """Median latency, at most."""


LIMITS: dict[tuple[str, int, str], Limits] = {
    ("rmw-uniform", 8, LONGER.name): Limits(fairness=0.6),
    ("insert-own-1k", 8, LONGER.name): Limits(conflicts=0.01),
    ("insert-random", 8, LONGER.name): Limits(conflicts=0.05),
    ("hot-row", 8, LONGER.name): Limits(fairness=0.6, tries=10),
    ("hot-row-immediate", 8, LONGER.name): Limits(fairness=0.6, tries=10),
    ("template", 1, AS_IS.name): Limits(p50_us=10_000),
    ("template-served", 1, AS_IS.name): Limits(p50_us=10_000),
}
"""By workload, processes and mode, beside the ratio."""


def plain_and_mv(workload: str, processes: int, mode: Mode) -> Case:
    """Plain SQLite in WAL mode against mvvfs, at the same durability."""
    return Case(
        workload=workload,
        processes=processes,
        mode=mode.name,
        flush_us=mode.flush_us,
        bar=BARS.get((workload, processes, mode.name)),
        baseline=Arm("plain", PlainTarget(durability=mode.durability)),
        candidate=Arm(
            "mv",
            MvTarget(
                durability=mode.durability,
                begin="IMMEDIATE" if workload.endswith("-immediate") else "DEFERRED",
            ),
        ),
    )


MEETING = (
    "insert-own-1k",
    "insert-random",
    "hot-row",
    "hot-row-immediate",
    "claim-jobs",
    "claim-jobs-immediate",
)
"""Workloads whose writers meet, or would if each did not have page numbers of its own."""


BESIDE_RETENTION = "beside-retention"


def leases_on_and_off(mode: Mode) -> Case:
    """What leases cost a single writer."""
    return Case(
        workload="leases",
        processes=1,
        mode=mode.name,
        flush_us=mode.flush_us,
        bar=BARS["leases", 1, mode.name],
        baseline=Arm("leases off", MvTarget(durability=mode.durability, leases="off")),
        candidate=Arm("leases on", MvTarget(durability=mode.durability, leases="on")),
    )


def against_plain() -> Iterator[Case]:
    """Every case that needs no history, what has a bar and is short first."""
    for mode in DURABLE_MODES:
        yield plain_and_mv("bulk", 1, mode)
    for workload in ("scan", "scan-cached", "open"):
        yield plain_and_mv(workload, 1, AS_IS)
    for workload in ("point-reads", "ycsb-c"):
        for processes in PROCESSES:
            yield plain_and_mv(workload, processes, AS_IS)
    for workload in MEETING:
        yield plain_and_mv(workload, 8, LONGER)
    yield leases_on_and_off(LONGER)
    for workload in ("insert-own", "insert-one", "rmw-uniform", "rmw-zipfian", "ycsb-a", "ycsb-b"):
        for mode in DURABLE_MODES:
            for processes in PROCESSES:
                yield plain_and_mv(workload, processes, mode)


_CALLS = ("service-begin", "service-read", "service-read-32", "service-commit")
_COLD = ("scan-cold", "look-up-cold")
SERVICE = (*_CALLS, *_COLD)
"""Workloads that need a service."""


def over_the_service(peers: Peers, path: Path) -> Iterator[Case]:
    """Calls of a service against empty ones, and read-ahead through it: `bench.service` runs both ends."""
    yield from _read_ahead(peers)
    for workload in _CALLS:
        for mode in (NORMAL, AS_IS) if workload == "service-commit" else (NORMAL,):
            for processes in (1, 8):
                empty, call = (
                    CallTarget(
                        durability=mode.durability,
                        store=f"grpc://{peers.service}",
                        service=peers.service,
                        peer=peers.echo,
                        echo=echo,
                    )
                    for echo in (True, False)
                )
                yield Case(
                    workload=workload,
                    processes=processes,
                    mode=mode.name,
                    flush_us=0,
                    bar=BARS.get((workload, processes, mode.name)),
                    baseline=Arm("empty call", empty, path),
                    candidate=Arm("service", call, path),
                )


CLUSTER = {"fdb-rmw": 0.7, "fdb-rmw-service": 0.5}
"""Workloads on a cluster, and the ratio that the project wants."""


def on_a_cluster(direct: str, served: str) -> Iterator[Case]:
    """Small transactions against bare FoundationDB ones: `bench.cluster` makes the store at these URLs."""
    for workload, bar in CLUSTER.items():
        url = served if workload.endswith("service") else direct
        for processes in (1, 8):
            yield Case(
                workload=workload,
                processes=processes,
                mode=AS_IS.name,
                flush_us=0,
                bar=bar,
                baseline=Arm(
                    "bare FoundationDB", ClusterTarget(store=direct, bare=True, reads_page=processes > 1)
                ),
                candidate=Arm("mv", ClusterTarget(store=url)),
            )


def _read_ahead(peers: Peers) -> Iterator[Case]:
    """What read-ahead gains a scan over the service, and costs a look-up."""
    for workload in _COLD:
        off, on = (
            MvTarget(durability=NORMAL.durability, store=f"grpc://{peers.service}", read_ahead=which)
            for which in ("off", "on")
        )
        yield Case(
            workload=workload,
            processes=1,
            mode=NORMAL.name,
            flush_us=0,
            bar=BARS.get((workload, 1, NORMAL.name)),
            baseline=Arm("read-ahead off", off),
            candidate=Arm("read-ahead on", on),
        )


def behind_a_service() -> Iterator[Case]:
    """mvvfs on a store behind a service, against the same store embedded: what the calls cost.

    (How many there are is counted by tests/remote/test_round_trips.py.)"""
    for workload, freshness in (
        ("bounded-reads", "bounded:1000"),
        ("served-reads", "latest"),
        ("bounded-updates", "bounded:1000"),
        ("served-updates", "latest"),
    ):
        for processes in (1, 8):
            mode = AS_IS if workload.endswith("reads") else LONGER
            yield Case(
                workload=workload,
                processes=processes,
                mode=mode.name,
                flush_us=mode.flush_us,
                bar=BARS.get((workload, processes, mode.name)),
                baseline=Arm("embedded", MvTarget(durability=mode.durability)),
                candidate=Arm("served", ServedTarget(durability=mode.durability, freshness=freshness)),
            )


def branches() -> Iterator[Case]:
    """Branches against commits, and against other ways to make a database.

    A branch is one small commit, whatever the size, so with flushes of some length it is as fast as the
    commit of a row: what it costs beside the flush may differ by a twentieth of it (the bar)."""
    for mode in (LONGER, AS_IS):
        yield Case(
            workload="branch",
            processes=1,
            mode=mode.name,
            flush_us=mode.flush_us,
            bar=BARS.get(("branch", 1, mode.name)),
            baseline=Arm("commit", MvTarget(durability=mode.durability)),
            candidate=Arm("branch", MvTarget(durability=mode.durability, branches=True)),
        )
    for workload, kind in (("template", MvTarget), ("template-served", ServedTarget)):
        yield Case(
            workload=workload,
            processes=1,
            mode=AS_IS.name,
            flush_us=0,
            baseline=Arm("script", kind(durability="full")),
            candidate=Arm("branch", kind(durability="full", branches=True)),
        )


def branches_by_size(small: Path, large: Path) -> Case:
    """Branches of a small and of a large database: `bench.sizes` makes the two.

    The bar: latencies within 1.2 times of each other."""
    target = MvTarget(durability="full", branches=True)
    return Case(
        workload="branch-large",
        processes=1,
        mode=AS_IS.name,
        flush_us=0,
        bar=round(1 / 1.2, 3),
        operations=500,
        compares="latency",
        baseline=Arm("small", target, small),
        candidate=Arm("large", target, large),
    )


def diffs_by_size(small: Path, large: Path) -> Case:
    """Differences of one row in a small and in a large table: `bench.sizes` makes the two.

    The bar: twice as long at most, because a tree is deeper by a level or two."""
    target = MvTarget(durability="normal")
    return Case(
        workload="diff-row",
        processes=1,
        mode=NORMAL.name,
        flush_us=0,
        bar=0.5,
        compares="latency",
        baseline=Arm("small", target, small),
        candidate=Arm("large", target, large),
    )


HISTORY = ("history-commits", "history-reads", "open-past", "open-version", "open-tag", "open-back")
"""Workloads that need a long history."""


def beside_retention(without: Path, beside: Path, seconds: float, small: bool) -> Case:
    """4 writers while retention lets go of a long history, against 4 that keep theirs: `bench.growth` makes
    the two databases, `seconds` is how long a round lasts.

    The bar: their p99 within 1.2 times of each other."""
    return Case(
        workload=BESIDE_RETENTION,
        processes=4,
        mode=AS_IS.name,
        flush_us=AS_IS.flush_us,
        bar=round(1 / 1.2, 3),
        compares="p99",
        baseline=Arm("history kept", MvTarget(durability=AS_IS.durability), without),
        candidate=Arm(
            "retention beside",
            RetainedTarget(durability=AS_IS.durability, seconds=seconds, may_end=small),
            beside,
        ),
    )


def short_and_long(short: Path, long: Path, small: bool) -> Iterator[Case]:
    """mvvfs on a short history against mvvfs on a long one: `bench.growth` makes the two databases.

    The bar: latencies within 1.2 times of each other.  Commits are few a round, so that the short history
    stays short."""
    usual = MvTarget(durability="normal")
    uncached = MvTarget(durability="normal", cache_bytes=SMALL_CACHE)
    for workload, operations, target in (
        ("history-commits", 20 if small else 200, usual),
        ("history-reads", 0, uncached),
    ):
        yield Case(
            workload=workload,
            processes=1,
            mode=NORMAL.name,
            flush_us=0,
            bar=round(1 / 1.2, 3),
            operations=operations,
            compares="latency",
            baseline=Arm("short history", target, short),
            candidate=Arm("long history", target, long),
        )
    moments: tuple[tuple[str, Literal["time", "version", "tag", "back"]], ...] = (
        ("open-past", "time"),
        ("open-version", "version"),
        ("open-tag", "tag"),
        ("open-back", "back"),
    )
    for workload, by in moments:
        yield Case(
            workload=workload,
            processes=1,
            mode=NORMAL.name,
            flush_us=0,
            bar=0.5,
            compares="latency",
            baseline=Arm("now", usual, long),
            candidate=Arm("then", PastTarget(durability="normal", by=by), long),
        )
