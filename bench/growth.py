"""Grows the databases of the history cases, and weighs what a commit leaves on disk on the way.

Called by `cli`; the commits are real ones, through SQL.  A million take minutes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.suite import BESIDE_RETENTION
from bench.targets import MvTarget
from bench.workloads import WORKLOADS
from bench.workloads.history import HistoryWorkload, grow

STEP = 10_000


@dataclass(frozen=True, slots=True)
class Histories:
    """A database with a short history and one with a long one, else alike."""

    short: Path
    long: Path
    bytes_per_commit: float
    """Of single-row updates: how much larger the store got, by the number of commits in between."""


def build(directory: Path, short: int, long: int, small: bool, told: Callable[[str], None]) -> Histories:
    """Both databases in `directory`: `short` commits, a copy of it that goes on to `long`.

    If an earlier call made them there, those, whatever their lengths."""
    target = MvTarget(durability="normal")
    weight = directory / "bytes"
    if weight.exists():
        few, many = (target.place(directory / name) for name in ("short", "long"))
        return Histories(few, many, float(weight.read_text()))
    rng = random.Random(short)
    workload, few = _begun(target, directory / "short", "history-commits", small)
    connection = target.connect(few)
    grow(connection, short, workload.rows, rng)
    connection.close()
    many = _copied(target, few, directory / "long")
    before = folder_bytes(many)
    _go_on(target, many, workload, short, long, rng, told)
    bytes_per_commit = (folder_bytes(many) - before) / (long - short)
    weight.write_text(repr(bytes_per_commit))
    return Histories(few, many, bytes_per_commit)


def build_twins(directory: Path, commits: int, small: bool, told: Callable[[str], None]) -> tuple[Path, Path]:
    """Two databases with the same history of so many commits."""
    target = MvTarget(durability="normal")
    workload, one = _begun(target, directory / "kept", BESIDE_RETENTION, small)
    _go_on(target, one, workload, 0, commits, random.Random(commits), told)
    return one, _copied(target, one, directory / "let-go-of")


def _begun(target: MvTarget, folder: Path, name: str, small: bool) -> tuple[HistoryWorkload, Path]:
    """A workload, and a database in `folder` that it has loaded its table into."""
    workload = WORKLOADS[name]
    assert isinstance(workload, HistoryWorkload)
    if small:
        workload = workload.small()
    folder.mkdir(parents=True)
    path = target.place(folder)
    connection = target.connect(path)
    workload.load(connection, 1)
    connection.close()
    return workload, path


def _copied(target: MvTarget, path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    copy = target.place(folder)
    shutil.copytree(path, copy)
    return copy


def _go_on(
    target: MvTarget,
    path: Path,
    workload: HistoryWorkload,
    done: int,
    until: int,
    rng: random.Random,
    told: Callable[[str], None],
) -> None:
    """From `done` commits to `until`."""
    while done < until:
        step = min(STEP, until - done)
        connection = target.connect(path)
        grow(connection, step, workload.rows, rng)
        connection.close()
        done += step
        told(f"{done:,} of {until:,} commits")


def folder_bytes(folder: Path) -> int:
    """The bytes of its files, but for a closed database's log and its index, which the engine reuses."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if not path.name.endswith(("-wal", "-shm")))
