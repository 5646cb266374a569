"""How `mvctl` shows things: plain text for a pipe, colours and a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import IO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mvvfs.transfer import Progress as Report


def show(*parts: tuple[str, str]) -> None:
    """Print one line of (text, style) parts, unwrapped; styles are for terminals."""
    if sys.stdout.isatty():
        _console(sys.stdout).print(Text.assemble(*parts), soft_wrap=True)
    else:
        say("".join(text for text, _ in parts).rstrip())


@functools.cache
def _console(stream: IO[str]) -> Console:
    return Console(file=stream, highlight=False)


def say(text: str) -> None:
    """Print one line to stdout, as it is."""
    click.echo(text)


def note(text: str) -> None:
    """Print one line to stderr: about the work, not its result."""
    click.echo(text, err=True)


def columns(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
    """Print rows with their columns aligned, the last one as long as it likes."""
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(styles))]
    for row in rows:
        padded = [text.ljust(width) + "  " for text, width in zip(row[:-1], widths[:-1], strict=True)]
        show(*zip([*padded, row[-1]], styles, strict=True))


def one_line(text: str) -> str:
    """Text from a database as it may go to a terminal: what can't be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size(count: int) -> str:
    """Bytes for people: `12,345 bytes` and `4.1 MiB`."""
    if count < 10_000:
        return f"{count:,} bytes"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def counted(count: int, what: str) -> str:
    """`1 page`, `1,234 pages`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@contextlib.contextmanager
def progress(what: str, *, in_bytes: bool = False, unit: str = "pages") -> Iterator[Report | None]:
    """A progress bar on stderr, if that is a terminal; else None, which transfers take for "no report"."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield None
        return
    amount = (
        DownloadColumn() if in_bytes else TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}")
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        amount,
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=0)
        yield lambda done, total: bar.update(task, completed=done, total=total)
