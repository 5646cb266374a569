"""Results as tables: for the terminal (rich) and for docs/benchmarks.md (markdown), from the same cells."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.table import Table

from bench.errors import BenchError
from bench.results import CaseResult, Finding, Round, load, load_findings
from bench.suite import LIMITS, Limits
from bench.workloads import WORKLOADS

TIMES = "\u00d7"
BEGIN_MARK = "<!-- measured: begin -->"
END_MARK = "<!-- measured: end -->"

SIZE_BARS: dict[str, tuple[str, float]] = {
    "bytes_per_commit": ("bytes stored per single-row update commit", 400),
}
"""Name of a size → what it is, and what it should be less than."""

COLUMNS = (
    "workload",
    "processes",
    "mode",
    "baseline /s",
    "ours /s",
    "ratio",
    "interval",
    "p50 µs",
    "p99 µs",
    "slowest/fastest",
    "conflicts",
    "flushes/op",
)


def cells(result: CaseResult) -> tuple[str, ...]:
    """One case's row for `COLUMNS`; two figures in a cell are the baseline's and ours."""
    ours, theirs = result.candidate, result.baseline
    ratio = result.ratio()
    return (
        title(result),
        str(result.case.processes),
        result.case.mode,
        _number(_median(theirs, "rate")),
        _number(_median(ours, "rate")),
        f"{ratio.median:.2f} {TIMES}",
        f"{ratio.low:.2f} to {ratio.high:.2f}",
        f"{_number(_median(theirs, 'p50_us'))} · {_number(_median(ours, 'p50_us'))}",
        f"{_number(_median(theirs, 'p99_us'))} · {_number(_median(ours, 'p99_us'))}",
        "-"
        if result.case.processes == 1
        else f"{_median(theirs, 'fairness'):.2f} · {_median(ours, 'fairness'):.2f}",
        f"{_share(theirs, 'conflicts'):.1%} · {_share(ours, 'conflicts'):.1%}",
        f"{_share(theirs, 'flushes'):.2f} · {_share(ours, 'flushes'):.2f}",
    )


def title(result: CaseResult) -> str:
    return WORKLOADS[result.case.workload].title


def table(results: Iterable[CaseResult]) -> Table:
    """For the terminal."""
    shown = Table(title="ours against the baseline: medians of all rounds")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in {"workload", "mode"} else "right")
    for result in results:
        style = {True: "green", False: "red", None: None}[result.meets()]
        shown.add_row(*cells(result), style=style)
    return shown


def markdown(results: Sequence[CaseResult], sizes: dict[str, float], findings: Sequence[Finding] = ()) -> str:
    """What stands between the marks of docs/benchmarks.md."""
    lines = ["### Against the bars", ""]
    lines += _markdown_table(
        ("workload", "processes", "mode", "", "found", "interval", "wanted", ""),
        [row for result in results for row in (*_bar_cells(result), *_limit_cells(result))],
    )
    if findings:
        lines += ["", "### Against a time limit", ""]
        lines += _markdown_table(
            ("`python -m bench`", "what", "found", "wanted", ""), [_finding_cells(each) for each in findings]
        )
    for name, value in sizes.items():
        what, limit = SIZE_BARS[name]
        lines += [
            "",
            f"{what.capitalize()}: {value:,.0f}, wanted under {limit:,.0f}: {_verdict(value < limit)}.",
        ]
    lines += ["", "### Everything", ""]
    lines += _markdown_table(COLUMNS, [cells(result) for result in results])
    lines += ["", *_conditions(results)]
    return "\n".join(lines) + "\n"


def document(page: Path, data: Path) -> str:
    """The text of `page`, its measured part made anew from `data`; BenchError if the marks are missing."""
    text = page.read_text()
    try:
        head, rest = text.split(BEGIN_MARK)
        _, tail = rest.split(END_MARK)
    except ValueError:
        raise BenchError(f"{page} does not hold {BEGIN_MARK} and {END_MARK} once each") from None
    measured = markdown(*load(data), load_findings(data)) if data.exists() else "Nothing measured yet.\n"
    return f"{head}{BEGIN_MARK}\n\n{measured}\n{END_MARK}{tail}"


def _bar_cells(result: CaseResult) -> Iterator[tuple[str, ...]]:
    """The row for its ratio, if there is a bar for it."""
    if result.case.bar is None:
        return
    ratio = result.ratio()
    yield (
        title(result),
        str(result.case.processes),
        result.case.mode,
        "ratio",
        f"{ratio.median:.2f} {TIMES}",
        f"{ratio.low:.2f} to {ratio.high:.2f}",
        f"at least {result.case.bar:.2f} {TIMES}",
        _verdict(bool(result.meets())),
    )


def _limit_cells(result: CaseResult) -> Iterator[tuple[str, ...]]:
    """The rows for what else was asked of our side of that case."""
    case, ours = result.case, result.candidate
    limits = LIMITS.get((case.workload, case.processes, case.mode), Limits())
    head = (title(result), str(case.processes), case.mode)
    if limits.conflicts is not None:
        share = _share(ours, "conflicts")
        wanted = f"under {limits.conflicts:.0%}"
        yield *head, "conflicts per commit", f"{share:.2%}", "", wanted, _verdict(share < limits.conflicts)
    if limits.fairness is not None:
        values = [each.fairness for each in ours]
        middle, span = statistics.median(values), f"{min(values):.2f} to {max(values):.2f}"
        wanted, verdict = f"at least {limits.fairness:.2f}", _verdict(middle >= limits.fairness)
        yield *head, "slowest/fastest", f"{middle:.2f}", span, wanted, verdict
    if limits.tries is not None:
        most = max(each.most_tries for each in ours)
        yield *head, "most tries", f"{most}", "", f"at most {limits.tries}", _verdict(most <= limits.tries)
    if limits.p50_us is not None:
        values = [each.p50_us for each in ours]
        middle, span = statistics.median(values), f"{_number(min(values))} to {_number(max(values))}"
        wanted, verdict = f"at most {_number(limits.p50_us)}", _verdict(middle <= limits.p50_us)
        yield *head, "p50 µs", _number(middle), span, wanted, verdict


def _finding_cells(found: Finding) -> tuple[str, ...]:
    wanted = "" if found.at_most is None else f"at most {found.at_most:g} {found.unit}".rstrip()
    meets = found.meets()
    verdict = "" if meets is None else _verdict(meets)
    return found.command, found.what, f"{found.found:g} {found.unit}".rstrip(), wanted, verdict


def _conditions(results: Sequence[CaseResult]) -> list[str]:
    if not results:
        return []
    rounds = sorted({len(result.baseline) for result in results})
    seconds = sorted({result.seconds for result in results})
    disk = [result.disk_flush_ms for result in results]
    coverage = min(result.ratio().coverage for result in results)
    return [
        f"Rounds: {_span(rounds)}; seconds a round and side: {_span(seconds)}; a 4 KiB append and "
        f"`fdatasync`, not lengthened, took {min(disk):.2f} to {max(disk):.2f} ms (median before each case). "
        f"The intervals hold the true median with a probability of at least {coverage:.1%}."
    ]


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def _median(rounds: Sequence[Round], field: str) -> float:
    return statistics.median(float(getattr(each, field)) for each in rounds)


def _share(rounds: Sequence[Round], field: str) -> float:
    """That field of all rounds, per operation."""
    total = sum(int(getattr(each, field)) for each in rounds)
    return total / sum(each.operations for each in rounds)


def _number(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"
