"""docs/undo.md does what it says: its Python runs, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mvvfs.cli.app import run
from tests.documents import DOCS, blocks

PAGE = DOCS / "undo.md"

DIFFERS = (
    (re.compile(r"v[0-9a-f]{20}"), "VERSION"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "TIME"),
    (re.compile(r"\d[\d,]* bytes"), "SIZE"),
    (re.compile(r" {2,}"), "  "),
)


def steps(block: str) -> list[tuple[str, str]]:
    """Commands and what they print."""
    return [
        (command, output)
        for command, _, output in (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.M)[1:])
    ]


def bare(text: str, here: str) -> str:
    for pattern, word in DIFFERS:
        text = pattern.sub(word, text)
    return text.replace(here + "/", "")


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MV_STORE", raising=False)
    names: dict[str, object] = {}
    commands = 0
    for _, language, text in blocks(PAGE):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
            continue
        for command, expected in steps(text):
            program, *arguments = shlex.split(command)
            assert program == "mvctl"
            capfd.readouterr()
            code = run(arguments)
            told = capfd.readouterr()
            assert code == 0, (command, told.err)
            assert bare(told.out, str(tmp_path)) == bare(expected, str(tmp_path)), command
            commands += 1
    assert commands > 15
    names["db"].close()  # type: ignore[attr-defined]
