"""The command line: `python -m bench run`, `stopped`, `long`, `show`, `document`, `profile`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from bench import cluster, growth, large, service, sizes, suite, trouble
from bench.errors import BenchError
from bench.plot import svg
from bench.profiling import profile
from bench.report import TIMES, document, table
from bench.results import CaseResult, Finding, load, save
from bench.runner import Plan, run_case
from bench.targets import KINDS, ROOT, from_json
from bench.workloads import WORKLOADS

console = Console()
DIRECTORY = ROOT / "build" / "bench"
PAGE, DATA, PLOT = (ROOT / "docs" / f"benchmarks.{suffix}" for suffix in ("md", "json", "svg"))
LET_GO_OF = 100_000
"""Commits of the history that retention lets go of at most."""


@click.group()
def main() -> None:
    """mvvfs beside plain SQLite: same load, rounds that take turns, every result checked."""


@main.command()
@click.option(
    "--workload", "-w", "workloads", multiple=True, type=click.Choice(sorted(WORKLOADS)), help="Only these."
)
@click.option("--processes", "-p", multiple=True, type=int, help="Only these numbers of processes.")
@click.option(
    "--mode", "-m", "modes", multiple=True, type=click.Choice([mode.name for mode in suite.DURABLE_MODES])
)
@click.option(
    "--engine",
    type=click.Choice(["sqlite", "foundationdb"]),
    default="sqlite",
    show_default=True,
    help="foundationdb: small transactions on the cluster of FDB_CLUSTER_FILE, nothing else.",
)
@click.option("--bars", is_flag=True, help="Only cases that have a bar.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="A round of one side.")
@click.option(
    "--history", default=1_000_000, show_default=True, help="Commits of the long history; 0: leave it out."
)
@click.option(
    "--histories",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the two histories there, or take them from there: a million commits take minutes.",
)
@click.option("--quick", is_flag=True, help="Small databases, one round of 0.1 s: does everything still run?")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY,
    help="On the disk to measure; build/bench if not given.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DIRECTORY / "results.json",
    help="Results; cases measured earlier stay in it.  build/bench/results.json if not given.",
)
def run(
    *,
    workloads: tuple[str, ...],
    processes: tuple[int, ...],
    modes: tuple[str, ...],
    engine: str,
    bars: bool,
    rounds: int,
    seconds: float,
    history: int,
    histories: Path | None,
    quick: bool,
    directory: Path,
    output: Path,
) -> None:
    """Measure, save, and show a table; the plot goes beside the results."""
    plan = Plan(directory, 1, 0.1, True) if quick else Plan(directory, rounds, seconds)
    if engine == "foundationdb":
        with _errors_end_the_run():
            _run_cluster(plan, workloads, processes, output)
        _show(*load(output))
        return
    cases = [
        case
        for case in (*suite.against_plain(), *suite.behind_a_service(), *suite.branches())
        if (not workloads or case.workload in workloads)
        and (not processes or case.processes in processes)
        and (not modes or case.mode in modes)
        and (not bars or case.bar is not None)
    ]
    with _errors_end_the_run():
        for number, case in enumerate(cases, 1):
            save(output, [_measure(case, plan, f"{number}/{len(cases)} {case.key}")], {})
        if history and (not workloads or set(workloads) & set(suite.HISTORY)):
            _run_history(plan, 200 if quick else history, histories, workloads, output)
        for workload, run_sizes in (("branch-large", _run_branches), ("diff-row", _run_diffs)):
            if not workloads or workload in workloads:
                run_sizes(plan, output)
        if history and (not workloads or suite.BESIDE_RETENTION in workloads):
            _run_retention(plan, 200 if quick else min(history, LET_GO_OF), output)
        if not workloads or set(workloads) & set(suite.SERVICE):
            _run_service(plan, workloads, processes, output)
        if not output.exists():
            raise BenchError("no case is left: loosen --workload, --processes, --mode or --bars")
    results, sizes = load(output)
    output.with_suffix(".svg").write_text(svg(results))
    _show(results, sizes)


def _measure(case: suite.Case, plan: Plan, name: str) -> CaseResult:
    with console.status(name) as status:
        result = run_case(case, plan, lambda doing: status.update(f"{name}: {doing}"))
    ratio = result.ratio()
    console.print(
        f"{name}: {ratio.median:.2f} {TIMES} ({ratio.low:.2f} to {ratio.high:.2f})", highlight=False
    )
    return result


def _run_history(
    plan: Plan, commits: int, histories: Path | None, workloads: Sequence[str], output: Path
) -> None:
    plan.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="history-", dir=plan.directory) as scratch:
        with console.status("growing histories") as status:
            grown = growth.build(
                histories or Path(scratch),
                min(1_000, commits // 10),
                commits,
                plan.small,
                status.update,
            )
        cases = suite.short_and_long(grown.short, grown.long, plan.small)
        results = [
            _measure(case, plan, case.key) for case in cases if not workloads or case.workload in workloads
        ]
    save(output, results, {"bytes_per_commit": grown.bytes_per_commit})


@contextmanager
def _sizes(plan: Plan, build: Callable[[Path, bool], sizes.Sizes]) -> Iterator[sizes.Sizes]:
    plan.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sizes-", dir=plan.directory) as scratch:
        with console.status("a small and a large database"):
            built = build(Path(scratch), plan.small)
        yield built


def _run_branches(plan: Plan, output: Path) -> None:
    with _sizes(plan, sizes.branches) as built:
        case = suite.branches_by_size(built.small, built.large)
        save(output, [_measure(case, plan, case.key)], {})


def _run_diffs(plan: Plan, output: Path) -> None:
    with _sizes(plan, sizes.diffs) as built:
        case = suite.diffs_by_size(built.small, built.large)
        save(output, [_measure(case, plan, case.key)], {})
        _find(sizes.pages_read(built.large), output)


def _run_retention(plan: Plan, commits: int, output: Path) -> None:
    plan.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="retention-", dir=plan.directory) as scratch:
        with console.status("growing a history") as status:
            twins = growth.build_twins(Path(scratch), commits, plan.small, status.update)
        case = suite.beside_retention(*twins, plan.seconds, plan.small)
        save(output, [_measure(case, plan, case.key)], {})


def _run_service(plan: Plan, workloads: Sequence[str], processes: Sequence[int], output: Path) -> None:
    plan.directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="service-", dir=plan.directory) as scratch,
        service.running(Path(scratch)) as peers,
    ):
        for case in suite.over_the_service(peers, Path(scratch) / "main"):
            if (not workloads or case.workload in workloads) and (
                not processes or case.processes in processes
            ):
                save(output, [_measure(case, plan, case.key)], {})


def _run_cluster(plan: Plan, workloads: Sequence[str], processes: Sequence[int], output: Path) -> None:
    with _on_a_cluster(plan.directory) as stores:
        for case in suite.on_a_cluster(stores.direct, stores.served):
            if (not workloads or case.workload in workloads) and (
                not processes or case.processes in processes
            ):
                save(output, [_measure(case, plan, case.key)], {})


@contextmanager
def _on_a_cluster(directory: Path) -> Iterator[cluster.Stores]:
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="cluster-", dir=directory) as scratch,
        cluster.running(Path(scratch)) as stores,
    ):
        yield stores


@main.command("cluster")
@click.option("--quick", is_flag=True, help="Short histories, a small transaction: does it still run?")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=DIRECTORY)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DIRECTORY / "results.json")
def cluster_command(*, quick: bool, directory: Path, output: Path) -> None:
    """On FoundationDB: commit latency by pages and by history, and a transaction of 1 GiB."""
    with _errors_end_the_run(), _on_a_cluster(directory) as stores, console.status("cluster") as status:
        found = cluster.findings(stores.direct, quick, status.update)
    _find(found, output)


@main.command("stopped")
@click.option("--quick", is_flag=True, help="For a smaller time: does it still run?")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=DIRECTORY)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DIRECTORY / "results.json")
def stopped_command(*, quick: bool, directory: Path, output: Path) -> None:
    """What 8 workers do while a ninth is stopped (SIGSTOP) in its transaction, and after it is killed."""
    _find(trouble.stopped(directory, quick), output)


@main.command("long")
@click.option("--quick", is_flag=True, help="On a small table: does it still run?")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=DIRECTORY)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DIRECTORY / "results.json")
def long_command(*, quick: bool, directory: Path, output: Path) -> None:
    """Long transactions beside 8 writers of the same table: how many tries, how long."""
    _find(trouble.long(directory, quick), output)


@main.command("large")
@click.option("--gib", default=20.0, show_default=True, help="How large the database is.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=DIRECTORY)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DIRECTORY / "large.json")
def large_command(*, gib: float, directory: Path, output: Path) -> None:
    """Time and memory of import, diff, checkout, export, branch, revert, backup ... of a large database.

    Takes two and a half times its size on the disk of the directory."""
    with _errors_end_the_run(), console.status("large") as status:

        def told(doing: str) -> None:
            status.update(doing)
            if not console.is_terminal:
                console.print(doing, highlight=False)

        found = large.findings(directory, gib, told)
    _find(found, output)


def _find(findings: Sequence[Finding], output: Path) -> None:
    for found in findings:
        console.print(f"{found.what}: {found.found:g} {found.unit}", highlight=False)
    save(output, [], {}, findings)


@main.command()
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=DATA)
def show(results: Path) -> None:
    """Show measured RESULTS (docs/benchmarks.json if not given) as a table."""
    _show(*load(results))


@main.command("document")
@click.option(
    "--check", is_flag=True, help="Change nothing; exit 1 if page or plot differ from the measured data."
)
@click.option(
    "--publish",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="First take these results as the measured data.",
)
def document_command(check: bool, publish: Path | None) -> None:
    """Write the measured part of docs/benchmarks.md and its plot from docs/benchmarks.json."""
    with _errors_end_the_run():
        if publish is not None and not check:
            DATA.write_text(publish.read_text())
        wanted = {PAGE: document(PAGE, DATA)}
        if DATA.exists():
            wanted[PLOT] = svg(load(DATA)[0])
        stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        if check and stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
            raise BenchError(f"not what was measured: {names} (python -m bench document)")
        for path in stale:
            path.write_text(wanted[path])


@main.command("profile")
@click.argument("workload", type=click.Choice(sorted(WORKLOADS)))
@click.option("--side", type=click.Choice(sorted(KINDS)), default="mv", show_default=True)
@click.option("--durability", type=click.Choice(["full", "normal"]), default="normal", show_default=True)
@click.option("--operations", default=3_000, show_default=True)
def profile_command(workload: str, side: str, durability: str, operations: int) -> None:
    """Show where the time goes in a WORKLOAD with one process."""
    target = from_json({"kind": side, "durability": durability})
    click.echo(profile(workload, target, operations, DIRECTORY))


def _show(results: Sequence[CaseResult], sizes: dict[str, float]) -> None:
    wide = console if console.width >= 190 else Console(width=190)
    wide.print(table(results))
    for name, value in sizes.items():
        console.print(f"{name}: {value:,.0f}", highlight=False)


@contextmanager
def _errors_end_the_run() -> Iterator[None]:
    try:
        yield
    except BenchError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/]: {error}", highlight=False, markup=True)
        sys.exit(1)
