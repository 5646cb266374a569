"""What was measured, in memory and as the JSON file from which tables, plot and docs/benchmarks.md are made.

The file holds every round's figures; medians and intervals are worked out when they are shown.  Running some
cases again replaces those and keeps the others.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw

from bench.stats import Interval, median_interval
from bench.suite import Arm, Case
from bench.targets import from_json

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Round:
    """One side's figures in one round, over all its processes."""

    rate: float
    """Units a second that ended in time, from the common start to the last of them."""
    operations: int
    p50_us: float
    p99_us: float
    """Latency of an operation, all its tries and waits included."""
    fairness: float
    """Operations of the slowest process by those of the fastest."""
    conflicts: int
    """Tries that had to be made again (mv: refused commits; plain: busy timeouts that ran out)."""
    flushes: int
    most_tries: int = 0
    """Of any operation; 0: not looked at (a single statement, which mvvfs runs again by itself)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure that is no comparison of two sides: what `python -m bench` `command` found."""

    command: str
    what: str
    found: float
    at_most: float | None = None
    """What it should be; None: nothing was asked of it."""
    unit: str = ""

    def meets(self) -> bool | None:
        return None if self.at_most is None else self.found <= self.at_most


@dataclass(frozen=True, slots=True)
class CaseResult:
    """All rounds of one case."""

    case: Case
    disk_flush_ms: float
    """What a 4 KiB append and fdatasync took on the disk, before the case, not lengthened."""
    seconds: float
    rounds: dict[str, list[Round]]
    """By the label of the side."""

    @property
    def baseline(self) -> list[Round]:
        return self.rounds[self.case.baseline.label]

    @property
    def candidate(self) -> list[Round]:
        return self.rounds[self.case.candidate.label]

    def ratio(self) -> Interval:
        """Round by round, of what the case compares; above 1 the candidate is better."""
        pairs = zip(self.baseline, self.candidate, strict=True)
        if self.case.compares == "latency":
            return median_interval([theirs.p50_us / ours.p50_us for theirs, ours in pairs])
        if self.case.compares == "p99":
            return median_interval([theirs.p99_us / ours.p99_us for theirs, ours in pairs])
        return median_interval([ours.rate / theirs.rate for theirs, ours in pairs])

    def meets(self) -> bool | None:
        """Whether the median ratio is at least the bar; None where there is no bar."""
        return None if self.case.bar is None else self.ratio().median >= self.case.bar

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case.key,
            "workload": self.case.workload,
            "processes": self.case.processes,
            "flush_us": self.case.flush_us,
            "operations": self.case.operations,
            "bar": self.case.bar,
            "compares": self.case.compares,
            "mode": self.case.mode,
            "arms": [{"label": arm.label, "target": arm.target.to_json()} for arm in self.case.arms],
            "disk_flush_ms": self.disk_flush_ms,
            "seconds": self.seconds,
            "rounds": {label: [asdict(each) for each in rounds] for label, rounds in self.rounds.items()},
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> CaseResult:
        baseline, candidate = (Arm(arm["label"], from_json(arm["target"])) for arm in fields["arms"])
        case = Case(
            workload=fields["workload"],
            processes=fields["processes"],
            mode=fields["mode"],
            flush_us=fields["flush_us"],
            operations=fields["operations"],
            bar=fields["bar"],
            compares=fields["compares"],
            baseline=baseline,
            candidate=candidate,
        )
        return cls(
            case=case,
            disk_flush_ms=fields["disk_flush_ms"],
            seconds=fields["seconds"],
            rounds={label: [Round(**each) for each in rounds] for label, rounds in fields["rounds"].items()},
        )


def environment() -> dict[str, Any]:
    """What the figures depend on and a reader may ask."""
    return {
        "python": platform.python_version(),
        "sqlite": apsw.SQLITE_VERSION_NUMBER,
        "apsw": apsw.apsw_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
    }


def save(
    path: Path, measured: Sequence[CaseResult], sizes: dict[str, float], findings: Sequence[Finding] = ()
) -> None:
    """Write them to `path`, over earlier results of the same cases and beside those of others."""
    old, old_sizes = load(path) if path.exists() else ([], {})
    found = {each.what: each for each in [*load_findings(path), *findings]}
    cases = {each.case.key: each for each in [*old, *measured]}
    content = {
        "format": FORMAT,
        "environment": environment(),
        "sizes": old_sizes | sizes,
        "findings": [asdict(each) for each in found.values()],
        "cases": [each.to_json() for each in cases.values()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(path)


def load(path: Path) -> tuple[list[CaseResult], dict[str, float]]:
    """The cases and the sizes of a file that `save` wrote."""
    content = json.loads(path.read_text())
    return [CaseResult.from_json(each) for each in content["cases"]], content["sizes"]


def load_findings(path: Path) -> list[Finding]:
    """The findings of such a file; none if there is no file."""
    if not path.exists():
        return []
    return [Finding(**each) for each in json.loads(path.read_text()).get("findings", ())]
