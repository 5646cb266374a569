"""Spans of time and sizes as people write them on the command line."""

from __future__ import annotations

import re

from mvvfs.errors import OptionError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_BYTES = {
    "": 1,
    **{unit + "b": 1000**power for power, unit in enumerate("kmgt", 1)},
    **{unit + "ib": 1024**power for power, unit in enumerate("kmgt", 1)},
}
_SPAN = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(s|m|h|d|w|y)", re.ASCII)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?i?b?)", re.ASCII | re.IGNORECASE)
_NO_LIMIT = ("forever", "unlimited", "none")


def parse_span(text: str) -> float | None:
    """Seconds; None for `forever`.  Raises OptionError."""
    if text in _NO_LIMIT:
        return None
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise OptionError(f"{text!r} is not a span of time; examples: 90s, 12h, 30d, 4w, 1y, forever")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int | None:
    """Bytes; None for `unlimited`.  Raises OptionError."""
    if text in _NO_LIMIT:
        return None
    match = _SIZE.fullmatch(text.strip())
    unit = match[2].lower().rstrip("b") if match else None
    factor = None if unit is None else 1 if not unit else _BYTES.get(unit + "b")
    if match is None or factor is None:
        raise OptionError(f"{text!r} is not a size; examples: 500MB, 20GB, 1.5TiB, unlimited")
    return round(float(match[1]) * factor)


def show_span(seconds: float | None) -> str:
    """The largest unit that leaves nothing over."""
    if seconds is None:
        return "forever"
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0 and (unit != "w" or seconds >= 8 * _SECONDS["w"]):
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
