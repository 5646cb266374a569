"""Grows the two databases of the history cases, and weighs what a commit leaves on disk on the way.

Called by `cli`; the commits are real ones, through SQL.  A million take minutes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
    workload = WORKLOADS["history-commits"]
    assert isinstance(workload, HistoryWorkload)
    if small:
        workload = workload.small()
    rng = random.Random(short)
    paths = []
    for name in ("short", "long"):
        (directory / name).mkdir(parents=True)
        paths.append(target.place(directory / name))
    few, many = paths
    connection = target.connect(few)
    workload.load(connection, 1)
    grow(connection, short, workload.rows, rng)
    connection.close()
    shutil.copytree(few, many)
    before = folder_bytes(many)
    done = short
    while done < long:
        step = min(STEP, long - done)
        connection = target.connect(many)
        grow(connection, step, workload.rows, rng)
        connection.close()
        done += step
        told(f"{done:,} of {long:,} commits")
    bytes_per_commit = (folder_bytes(many) - before) / (long - short)
    weight.write_text(repr(bytes_per_commit))
    return Histories(few, many, bytes_per_commit)


def folder_bytes(folder: Path) -> int:
    """The bytes of its files, but for a closed database's log and its index, which the engine reuses."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if not path.name.endswith(("-wal", "-shm")))
