"""What the demo tells, step by step; `__main__` calls `tell`.

1. The reader's own file (`--db`) is only read: by `mvctl import`, and to compare.
2. Everything else happens in one working folder, made anew each time.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
from rich.console import Console
from rich.table import Table

from bench.targets import MvTarget, PlainTarget, Target
from demo import anyfile, compare, flights, mvctl
from demo.crew import WRITERS, Outcome, run_load
from demo.load import DemoError, Load

LOG_LINES = 8
console = Console(highlight=False)


@dataclass(frozen=True)
class Scene:
    """Where everything is."""

    folder: Path
    original: Path
    """The plain SQLite file that is imported."""
    load: Load
    mv: MvTarget
    name: str
    """The mv database, as mvctl is told."""

    @property
    def database(self) -> Path:
        return Path(self.name)

    def mvctl(self, *arguments: str) -> str:
        return mvctl.run(
            *arguments, store=self.mv.store, show=lambda line: console.print(f"  [dim]{line}[/]")
        )


def tell(folder: Path, archive: Path, db: Path | None, store: str | None) -> None:
    """The whole demo.  Raises DemoError where something is not as promised."""
    started = time.monotonic()
    scene = _set(folder, archive, db, store)
    base = _import(scene)
    plain, mv = _replay(scene)
    _show_outcomes(scene.load, plain, mv)
    _show_log(scene)
    _travel_back(scene, base)
    _prove(scene, mv)
    console.print(
        f"\n[bold green]All of it held.[/] {time.monotonic() - started:.0f} s; left behind in {folder}:"
    )
    console.print(f"  try [bold]mvctl log {scene.name}[/] or [bold]mvctl shell {scene.name}[/]")


def _set(folder: Path, archive: Path, db: Path | None, store: str | None) -> Scene:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mv = MvTarget(store=store)
    stem = "flights" if db is None else db.stem
    name = str(folder / f"{stem}.db") if store is None else f"demo-{stem}-{time.time_ns():x}"
    if db is not None:
        _step("Your file")
        original = db.resolve()
        load: Load = anyfile.Additions(_find_places(original))
        console.print(f"  {original}, {original.stat().st_size:,} bytes; it is read, never written")
    else:
        _step("A plain SQLite file: all flights that left New York City in 2013")
        original, load = folder / "flights.sqlite", flights.Departures()
        rows = flights.build(archive, original)
        console.print("  " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))
        console.print(f"  {original}, {original.stat().st_size:,} bytes")
    return Scene(folder, original, load, mv, name)


def _find_places(file: Path) -> tuple[anyfile.Place, ...]:
    connection = _open_original(file)
    places = anyfile.find_places(connection)
    connection.close()
    return places


def _open_original(file: Path) -> apsw.Connection:
    try:
        return apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise DemoError(f"{file}: {error}") from None


def _import(scene: Scene) -> str:
    """The version that the import left, as `v` and hex digits."""
    _step("Import it")
    started = time.monotonic()
    scene.mvctl("import", str(scene.original), scene.name)
    connection = scene.mv.connect(scene.database)
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    ((version,),) = connection.execute("PRAGMA mv_version").fetchall()
    scene.load.prepare(connection)
    connection.close()
    console.print(f"  {time.monotonic() - started:.1f} s, version {version}")
    return str(version)


def _replay(scene: Scene) -> tuple[Outcome, Outcome]:
    """Both sides, one after the other, each in a database of its own."""
    jobs_from = scene.mv.connect(scene.database)
    jobs = scene.load.jobs(jobs_from)
    jobs_from.close()
    _step(f"{len(jobs):,} {scene.load.noun}, {WRITERS} writer processes at once, one transaction each")
    plain = PlainTarget()
    copy = plain.place(scene.folder)
    _copy(scene.original, copy)
    connection = plain.connect(copy)
    scene.load.prepare(connection)
    connection.close()
    sides: Sequence[tuple[str, Target, Path]] = (
        ("plain SQLite", plain, copy),
        ("mvvfs", scene.mv, scene.database),
    )
    outcomes = []
    for label, target, path in sides:
        with console.status(f"  {label}"):
            outcomes.append(run_load(scene.load, target, path, jobs))
    _check_sides(scene.load, plain, copy)
    return outcomes[0], outcomes[1]


def _copy(original: Path, copy: Path) -> None:
    """By SQLite's backup, so that a file in WAL mode comes over whole."""
    source, destination = _open_original(original), apsw.Connection(str(copy))
    with destination.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(1000)
    destination.close()
    source.close()


def _check_sides(load: Load, target: Target, path: Path) -> None:
    """What is promised of either side's database after the load; DemoError if it is not so."""
    connection = target.connect(path)
    wrong = load.disagreements(connection)
    if wrong:
        raise DemoError(f"{target.kind}: totals and entries disagree: {'; '.join(wrong[:5])}")
    found = connection.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise DemoError(f"{target.kind}: integrity_check: {found[:5]}")
    connection.close()


def _show_outcomes(load: Load, plain: Outcome, mv: Outcome) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for column in ("", "plain SQLite, WAL, FULL", "mvvfs, full"):
        table.add_column(column, justify="left" if not column else "right")
    sides = (plain, mv)
    table.add_row("commits", *(f"{side.commits:,}" for side in sides))
    table.add_row("commits/s, all flushed to disk", *(f"[bold]{side.rate:,.0f}[/]" for side in sides))
    table.add_row(f"{load.noun} that met a conflict", *(f"{side.met:,}" for side in sides))
    table.add_row("retries", *(f"{side.retries:,}" for side in sides))
    table.add_row("commits by writer", *(" ".join(f"{each}" for each in side.per_writer) for side in sides))
    table.add_row("snapshot verified, times", *(f"{side.held.verifications:,}" for side in sides))
    table.add_row("snapshot moved, times", *(f"{side.held.moved:,}" for side in sides))
    console.print(table)
    for label, side in (("plain SQLite", plain), ("mvvfs", mv)):
        if side.held.moved:
            raise DemoError(f"{label}: a held snapshot moved")
        if side.held.after == side.held.before:
            raise DemoError(f"{label}: the reader does not see the commits in a new snapshot")
    console.print(
        f"  the reader's totals while it held its snapshot: {mv.held.before}, in a new one: {mv.held.after}"
    )


def _show_log(scene: Scene) -> None:
    _step("What happened")
    lines = scene.mvctl("log", scene.name).splitlines()
    for line in lines[:LOG_LINES]:
        console.print(f"  {line}", markup=False)
    if len(lines) > LOG_LINES:
        console.print(f"  [dim]... {len(lines) - LOG_LINES:,} more lines[/]")


def _travel_back(scene: Scene, version: str) -> None:
    _step("The state before the first of them, checked out to a file")
    before = scene.folder / "before.sqlite"
    scene.mvctl("checkout", scene.name, "--at", version, "-o", str(before))
    one, other = _open_original(scene.original), _open_original(before)
    compared = list(compare.tables(one, other))
    for each in compared:
        if not each.equal:
            raise DemoError(f"{each.table}: row {each.rows + 1} of the checkout is not what was imported")
    found = other.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise DemoError(f"the checkout: integrity_check: {found[:5]}")
    rows = sum(each.rows for each in compared)
    console.print(f"  equal to what was imported: {len(compared)} tables, {rows:,} rows, compared one by one")
    one.close()
    other.close()


def _prove(scene: Scene, mv: Outcome) -> None:
    _step("And the state now")
    _check_sides(scene.load, scene.mv, scene.database)
    connection = scene.mv.connect(scene.database)
    applied = scene.load.applied(connection)
    connection.close()
    if applied != mv.commits:
        raise DemoError(f"{applied} {scene.load.noun} in the database, {mv.commits} acknowledged")
    console.print(
        f"  {applied:,} {scene.load.noun} acknowledged, {applied:,} there; running totals agree with them"
    )
    console.print("  integrity_check: ok, of the mv database, the checkout and the plain SQLite file")


def _step(title: str) -> None:
    console.print()
    console.rule(f"[bold]{title}[/]", align="left")
