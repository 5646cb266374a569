"""What the demo tells, step by step; `__main__` calls `tell`.

1. The reader's own file (`--db`) is only read: to find what may be added to, to import it, to copy it and to
   compare.
2. Everything else happens in one working folder, made anew each time.
3. What is shown as true was checked; what was not as promised ends the demo with a DemoError.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import flush
from bench.targets import MvTarget, PlainTarget, Target
from demo import anyfile, compare, flights, mvctl
from demo.crew import WRITERS, Outcome, run_load
from demo.load import DemoError, Job, Load
from demo.slow_disk import SLOWER_US, slow_disk

LOG_LINES = "6"
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
        """The same for `MvTarget.connect`."""
        return Path(self.name)

    def mvctl(self, command: str, *arguments: str, show: Callable[[str], None] | None = None) -> None:
        """Run it on this scene's store; `show` instead of the terminal."""
        mvctl.run(command, *self.options, *arguments, show=show or _say)

    @property
    def options(self) -> tuple[str, ...]:
        """What mvctl has to be told beside the name."""
        return () if self.mv.store is None else ("--store", self.mv.store)

    def second(self) -> Scene:
        """The same with another mv database."""
        if self.mv.store is None:
            return replace(self, name=str(self.database.with_suffix(".slow.db")))
        return replace(self, name=f"{self.name}-slow")


def tell(folder: Path, archive: Path, db: Path | None, store: str | None) -> None:
    """The whole demo.  Raises DemoError where something is not as promised."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scene = _flights_scene(folder, archive, store) if db is None else _own_scene(folder, db, store)
    base = _import(scene)
    outcome = _replay(scene)
    _show_log(scene)
    _travel_back(scene, base)
    _prove(scene, outcome)
    console.print(f"\n[bold green]All of it held.[/] {time.monotonic() - started:.0f} s. Look around:")
    for command in ("shell", "info", "log"):
        _say(f"$ mvctl {shlex.join([command, *scene.options, scene.name])}")


# ---- the database ----


def _flights_scene(folder: Path, archive: Path, store: str | None) -> Scene:
    _step("A plain SQLite file: all flights that left New York City in 2013")
    original = folder / "flights.sqlite"
    rows = flights.build(archive, original)
    _say(", ".join(f"{count:,} {table}" for table, count in rows.items()))
    _say(f"{original}: {original.stat().st_size / 1e6:.1f} MB")
    return Scene(
        folder, original, flights.Departures(), MvTarget(store=store), _name(folder, "flights", store)
    )


def _own_scene(folder: Path, db: Path, store: str | None) -> Scene:
    _step("Your file")
    _say(f"{db}: {db.stat().st_size / 1e6:.1f} MB; it is read, never written")
    with _opened(db) as connection:
        load = anyfile.Additions(anyfile.find_places(connection))
    _say("numbers to add to: " + ", ".join(f"{place.table}.{place.column}" for place in load.places))
    return Scene(folder, db, load, MvTarget(store=store), _name(folder, db.stem, store))


def _name(folder: Path, stem: str, store: str | None) -> str:
    """In a folder of its own, or one that a store does not have yet."""
    return str(folder / f"{stem}.db") if store is None else f"demo-{stem}-{time.time_ns():x}"


@contextmanager
def _opened(file: Path) -> Iterator[apsw.Connection]:
    """A plain SQLite file, to read."""
    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        raise DemoError(f"{file}: {error}") from None
    try:
        yield connection
    finally:
        connection.close()


def _import(scene: Scene) -> str:
    """The version that the import left, as `v` and hex digits."""
    _step("Import it")
    scene.mvctl("import", str(scene.original), scene.name)
    connection = scene.mv.connect(scene.database)
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    ((version,),) = connection.execute("PRAGMA mv_version").fetchall()
    scene.load.prepare(connection)
    connection.close()
    return str(version)


# ---- many writers ----


def _replay(scene: Scene) -> Outcome:
    """On both sides, with the disk as it is and with a slower one; ours with the disk as it is."""
    connection = scene.mv.connect(scene.database)
    jobs = scene.load.jobs(connection)
    connection.close()
    _step(f"{len(jobs):,} {scene.load.noun}, {WRITERS} writer processes at once, one transaction each")
    second = scene.second()
    second.mvctl("import", str(second.original), second.name, show=lambda line: None)
    connection = second.mv.connect(second.database)
    second.load.prepare(connection)
    connection.close()
    as_is = _both_sides(scene, jobs)
    with slow_disk():
        slower = _both_sides(second, jobs)
    here = f"this disk:\n{flush.probe(scene.folder):.1f} ms a flush"
    _show_outcomes(scene.load, {here: as_is, f"a cloud disk:\n{SLOWER_US / 1000:.0f} ms longer": slower})
    _show_snapshot(as_is[1])
    return as_is[1]


def _both_sides(scene: Scene, jobs: Sequence[Job]) -> tuple[Outcome, Outcome]:
    """Plain SQLite and ours, one after the other, each in a database of its own."""
    plain = PlainTarget()
    copy = plain.place(scene.folder)
    plain.remove(copy)
    _copy(scene.original, copy)
    connection = plain.connect(copy)
    scene.load.prepare(connection)
    connection.close()
    with console.status("  plain SQLite"):
        theirs = run_load(scene.load, plain, copy, jobs)
    _check(scene.load, plain, copy, theirs)
    with console.status("  mvvfs"):
        ours = run_load(scene.load, scene.mv, scene.database, jobs)
    _check(scene.load, scene.mv, scene.database, ours)
    return theirs, ours


def _copy(original: Path, copy: Path) -> None:
    """By SQLite's backup, so that a file in WAL mode comes over whole."""
    destination = apsw.Connection(str(copy))
    with _opened(original) as source, destination.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(1000)
    destination.close()


def _check(load: Load, target: Target, path: Path, outcome: Outcome) -> None:
    """What is promised of either side after the load; DemoError if it is not so."""
    side, connection = target.kind, target.connect(path)
    wrong = load.disagreements(connection)
    if wrong:
        raise DemoError(f"{side}: totals and entries disagree: {'; '.join(wrong[:5])}")
    applied = load.applied(connection)
    if applied != outcome.commits:
        raise DemoError(f"{side}: {applied} {load.noun} in the database, {outcome.commits} acknowledged")
    if outcome.held.moved:
        raise DemoError(f"{side}: a held snapshot moved")
    if outcome.held.after == outcome.held.before:
        raise DemoError(f"{side}: a new snapshot does not show the commits")
    _check_integrity(side, connection)
    connection.close()


def _check_integrity(what: str, connection: apsw.Connection) -> None:
    found = connection.execute("PRAGMA integrity_check").fetchall()
    if found != [("ok",)]:
        raise DemoError(f"{what}: integrity_check: {found[:5]}")


def _show_outcomes(load: Load, disks: dict[str, tuple[Outcome, Outcome]]) -> None:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("")
    outcomes = []
    for disk, (theirs, ours) in disks.items():
        table.add_column(f"{disk}\nplain SQLite", justify="right")
        table.add_column("\n\nmvvfs", justify="right")
        outcomes += [theirs, ours]
    table.add_row("commits", *(f"{each.commits:,}" for each in outcomes))
    table.add_row("commits/s, durable", *(f"[bold]{each.rate:,.0f}[/]" for each in outcomes))
    table.add_row("conflicts = retries", *(f"{each.retries:,}" for each in outcomes))
    table.add_row(f"{load.noun} retried", *(f"{each.met:,}" for each in outcomes))
    table.add_row("slowest/fastest writer", *(f"{each.fairness:.2f}" for each in outcomes))
    table.add_row("snapshot verified", *(f"{each.held.verifications:,} x" for each in outcomes))
    table.add_row("... and had moved", *(f"{each.held.moved} x" for each in outcomes))
    console.print(table)
    _say("plain SQLite: WAL, synchronous=FULL, busy timeout, BEGIN IMMEDIATE")
    _say("mvvfs: durability=full")


def _show_snapshot(ours: Outcome) -> None:
    _say("a reader held its snapshot all the while; then it looked again in a new one:")
    for name, before in ours.held.before.items():
        _say(f"  {name}: {before:,} all the while, then {ours.held.after[name]:,}")


# ---- history ----


def _show_log(scene: Scene) -> None:
    _step("What happened")
    scene.mvctl("log", "-n", LOG_LINES, "--tables", scene.name)


def _travel_back(scene: Scene, version: str) -> None:
    _step("The state before the first of them, checked out to a file")
    before = scene.folder / "before.sqlite"
    scene.mvctl("checkout", scene.name, "--at", version, "-o", str(before))
    with _opened(scene.original) as one, _opened(before) as other:
        compared = list(compare.tables(one, other))
        for each in compared:
            if not each.equal:
                raise DemoError(f"{each.table}: row {each.rows + 1} of the checkout is not what was imported")
        _check_integrity("the checkout", other)
    rows = sum(each.rows for each in compared)
    _say(f"{len(compared)} tables, {rows:,} rows, compared one by one: equal to {scene.original.name}")


def _prove(scene: Scene, outcome: Outcome) -> None:
    _step("And the state now")
    _check(scene.load, scene.mv, scene.database, outcome)
    _say(f"{outcome.commits:,} {scene.load.noun} acknowledged, all there; running totals agree with them")
    _say("integrity_check: ok (plain SQLite, mvvfs, the checkout)")


def _step(title: str) -> None:
    console.print(f"\n[bold cyan]{title}[/]")


def _say(line: str) -> None:
    style = "dim" if line.startswith("$") else ""
    console.print(f"  {escape(line)}", style=style, soft_wrap=True)
