"""What the documents show: their code blocks, links and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
ALL = (README, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Block(NamedTuple):
    """A fenced code block."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Top to bottom."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        yield Block(text[: match.start()].count("\n") + 1, match[1], match[2])


def prose(page: Path) -> str:
    """Without the fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def shown_lines(page: Path) -> Iterator[str]:
    """Every line of code, in fenced blocks, in indented ones, and between backticks."""
    for block in blocks(page):
        yield from block.text.replace("\\\n", " ").splitlines()
    text = prose(page)
    for match in _INDENTED.finditer(text):
        yield from match[0].replace("\\\n", " ").splitlines()
    for match in _INLINE.finditer(text):
        yield match[1]
