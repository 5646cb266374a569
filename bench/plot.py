"""Results as one SVG: a dot for each case's median ratio with its interval, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from bench.report import TIMES, title
from bench.results import CaseResult

WIDTH, LABELS, RIGHT, TOP, ROW = 900, 340, 30, 60, 20
COLOURS = ("#0b6e99", "#c2570c", "#4d7c0f", "#7e22ce")
"""One per mode, in the order in which the modes come up."""
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def svg(results: Sequence[CaseResult]) -> str:
    """The drawing's text.  A row is a workload and a number of processes, a colour is a mode."""
    modes = list(dict.fromkeys(result.case.mode for result in results))
    colours = {mode: COLOURS[index % len(COLOURS)] for index, mode in enumerate(modes)}
    ordered = sorted(results, key=_row_key)
    rows = [(key, list(group)) for key, group in groupby(ordered, key=_row_key)]
    axis = _Axis(results)
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-size="14">Ratio to the baseline, median and interval'
        " (right of 1: ours is better)</text>",
        *_legend(colours),
        *axis.grid(TOP - 8, height - 24),
    ]
    for index, ((_, processes), group) in enumerate(rows):
        y = TOP + ROW * index + ROW / 2
        label = f"{title(group[0])}, {processes} process{'es' if processes > 1 else ''}"
        parts.append(f'<text x="{LABELS - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        for result in group:
            beside = 4 * (modes.index(result.case.mode) - (len(modes) - 1) / 2)
            parts += _dot(result, axis, y + beside, colours[result.case.mode])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row_key(result: CaseResult) -> tuple[str, int]:
    return result.case.workload, result.case.processes


class _Axis:
    """Ratios to x positions."""

    def __init__(self, results: Sequence[CaseResult]) -> None:
        ends = [end for result in results for end in (result.ratio().low, result.ratio().high)]
        self._low = min([0.5, *ends]) / 1.1
        self._high = max([2.0, *ends]) * 1.1

    def x(self, ratio: float) -> float:
        share = math.log(ratio / self._low) / math.log(self._high / self._low)
        return LABELS + share * (WIDTH - LABELS - RIGHT)

    def grid(self, top: float, bottom: float) -> list[str]:
        lines = []
        for tick in TICKS:
            if self._low <= tick <= self._high:
                x, colour = self.x(tick), "#444" if tick == 1 else "#ddd"
                lines.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>')
                lines.append(
                    f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g} {TIMES}</text>'
                )
        return lines


def _dot(result: CaseResult, axis: _Axis, y: float, colour: str) -> list[str]:
    ratio = result.ratio()
    low, middle, high = axis.x(ratio.low), axis.x(ratio.median), axis.x(ratio.high)
    parts = [
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"'
        ' opacity="0.5"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="3" fill="{colour}">'
        f"<title>{escape(result.case.key)}: {ratio.median:.2f} {TIMES}</title></circle>",
    ]
    if result.case.bar is not None:
        x = axis.x(result.case.bar)
        parts.append(
            f'<path d="M{x:.1f} {y - 4} v8" stroke="{colour}" stroke-width="2" stroke-dasharray="2 1"/>'
        )
    return parts


def _legend(colours: dict[str, str]) -> list[str]:
    parts, x = [], 14
    for mode, colour in colours.items():
        parts.append(f'<circle cx="{x}" cy="36" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="40">{escape(mode)}</text>')
        x += 30 + 7 * len(mode)
    parts.append(f'<text x="{x + 10}" y="40">dashed: the bar</text>')
    return parts
