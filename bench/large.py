"""A large database: the time and memory of each thing that mvctl does with it.

Called by `cli`.  The database is an SQLite file made for it, with rows of 100 KB to 1 MB of zeros: many
pages that are small when stored, so that the number of pages is measured rather than the disk.  Each step is
a process of its own; what it wrote is compared where there is something to compare it with.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

import mvvfs
from bench.errors import BenchError
from bench.results import Finding

PAGE_SIZE = 4096
_SIZES = (100_000, 300_000, 1_000_000)
_NEEDS = 2.5
"""Bytes of disk for each byte of the database: the file, one that is written from it, stores and a backup."""

_MEASURED = """
import json, pathlib, resource, sys
from bench.memory import peak
from mvvfs.cli.app import main
report, *sys.argv[1:] = sys.argv[1:]
code = 0
try:
    main()
except SystemExit as exc:
    code = exc.code
used = resource.getrusage(resource.RUSAGE_SELF)
pathlib.Path(report).write_text(json.dumps({"peak": peak(), "cpu": used.ru_utime + used.ru_stime}))
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of mvctl."""

    name: str
    seconds: float
    cpu: float
    peak: int
    """Bytes."""


def findings(directory: Path, gib: float, told: Callable[[str], None]) -> list[Finding]:
    """Raises BenchError if a step fails, or what it wrote is wrong."""
    size = int(gib * 2**30)
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < _NEEDS * size:
        wanted = f"{_NEEDS * gib:.0f} GiB on the disk of {directory}"
        raise BenchError(f"{gib:g} GiB take {wanted}: there are {free >> 30}")
    found = []
    with _scratch(directory) as place:
        for step in _steps(place, size, told):
            what = f"{gib:g} GiB: {step.name}"
            found += [
                Finding("large", what, round(step.seconds, 1), unit="s"),
                Finding("large", f"{what}, processor", round(step.cpu, 1), unit="s"),
                Finding("large", f"{what}, most memory", round(step.peak / 1e6, 1), unit="MB"),
            ]
            told(
                f"{step.name}: {step.seconds:.1f} s, {step.cpu:.1f} s of processor, {step.peak / 1e6:.0f} MB"
            )
    return found


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    place = directory / f"large-{os.getpid()}"
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _steps(place: Path, size: int, told: Callable[[str], None]) -> Iterator[Step]:
    source, copy = place / "source.sqlite", place / "copy.sqlite"
    store, backup, restored = place / "store", place / "backup", place / "restored"

    def run(name: str, *arguments: object) -> Step:
        told(name)
        return _run(place, name, ["--store", str(store), *map(str, arguments)])

    told("making a file")
    rows = _make(source, size)
    yield run("import", "import", source, "app")
    _change(store, rows)
    yield run("diff of five rows", "diff", "app", "HEAD~1", "--json")
    _expect_changes(place, 5)
    yield run("checkout of the version before", "checkout", "app", "--at", "HEAD~1", "-o", copy)
    _expect_same(source, copy)
    copy.unlink()
    yield run("export", "export", "app", copy)
    _expect_rows(copy, rows)
    copy.unlink()
    yield run("branch", "branch", "app", "twig", "--at", "HEAD~1")
    yield run("revert of five rows", "revert", "app", "--to", "HEAD~1")
    yield run("du", "du", "app")
    yield run("du of the branch", "du", "twig")
    yield run("gc --dry-run", "gc", "app", "--dry-run")
    yield run("backup", "backup", store, backup)
    yield run("restore", "restore", backup, restored)
    shutil.rmtree(restored)
    backup.unlink()
    source.unlink()
    _make(source, size, "hex(zeroblob(? / 2))")
    yield run("import --force, every page changed", "import", "--force", source, "app")
    yield run("revert, every page changed", "revert", "app", "--to", "HEAD~1")
    yield run("info", "info", "app")


def _run(place: Path, name: str, arguments: Sequence[str]) -> Step:
    report = place / "report"
    command = [sys.executable, "-c", _MEASURED, str(report), *arguments]
    started = time.monotonic()
    with (place / "output").open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode:
        raise BenchError(f"{name} failed: {done.stderr.strip()}")
    measured = json.loads(report.read_text())
    return Step(name, seconds, measured["cpu"], measured["peak"])


def _make(path: Path, size: int, blob: str = "zeroblob(?)") -> int:
    """How many rows it has."""
    connection = apsw.Connection(str(path))
    for pragma in (f"page_size={PAGE_SIZE}", "journal_mode=OFF", "synchronous=OFF", "cache_size=-4096"):
        connection.pragma(*pragma.split("="))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, b BLOB); CREATE INDEX n ON t(name)")
    rows = 0
    with connection:
        while rows < 5 or connection.pragma("page_count") * PAGE_SIZE < size:
            rows += 1
            values = rows, f"row {rows}", _SIZES[rows % len(_SIZES)]
            connection.execute(f"INSERT INTO t VALUES(?, ?, {blob})", values)
    connection.close()
    return rows


def _change(store: Path, rows: int) -> None:
    connection = mvvfs.connect("app", store=str(store), mode="rw", slow_ms=0)
    with connection:
        connection.execute("UPDATE t SET name = 'changed' WHERE id IN (1, ?, ?)", (rows // 2, rows))
        connection.execute("DELETE FROM t WHERE id = ?", (rows // 3 + 1,))
        connection.execute("INSERT INTO t VALUES(?, 'new', zeroblob(500000))", (rows + 1,))
    connection.close()


def _expect_changes(place: Path, wanted: int) -> None:
    lines = (place / "output").read_text().splitlines()
    if len(lines) != wanted:
        raise BenchError(f"diff tells of {len(lines)} changes, not of {wanted}")


def _expect_same(source: Path, copy: Path) -> None:
    """But for page 1, in which an mv database keeps its own counters."""
    with source.open("rb") as one, copy.open("rb") as other:
        one.seek(PAGE_SIZE)
        other.seek(PAGE_SIZE)
        same = source.stat().st_size == copy.stat().st_size
        while same and (part := one.read(1 << 20)):
            same = part == other.read(1 << 20)
    if not same:
        raise BenchError("what was checked out is not what was imported")


def _expect_rows(path: Path, rows: int) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = connection.execute("SELECT count(*), sum(name = 'changed'), max(id) FROM t").fetchall()
    connection.close()
    if found != [(rows, 3, rows + 1)]:
        raise BenchError(f"what was exported holds {found}")
