"""Runs mvctl as a person would, and shows the command."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from demo.load import DemoError


def run(*arguments: str, show: Callable[[str], None]) -> None:
    """Shows the command and what it says.  Raises DemoError if it fails."""
    show(f"$ mvctl {shlex.join(arguments)}")
    command = [*_command(), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"mvctl {arguments[0]} ended with status {done.returncode}: {done.stdout}")
    for line in done.stdout.splitlines():
        show(line)


def _command() -> list[str]:
    """The script beside this interpreter, or the same entry point where the package is not installed."""
    script = Path(sysconfig.get_path("scripts")) / "mvctl"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from mvvfs.cli import main; main()"]
