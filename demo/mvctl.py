"""Runs mvctl as a person would, and shows the command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from demo.load import DemoError

Show = Callable[[str], None]


def run(*arguments: str, store: str | None, show: Show) -> str:
    """Its standard output.  Raises DemoError, with what it said, if it fails."""
    environment = dict(os.environ)
    if store is not None:
        environment["MV_STORE"] = store
    show(f"$ mvctl {shlex.join(arguments)}")
    done = subprocess.run(
        [*_command(), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise DemoError(
            f"mvctl {arguments[0]} ended with status {done.returncode}: {done.stderr or done.stdout}"
        )
    return done.stdout


def _command() -> list[str]:
    """The script beside this interpreter, or the same entry point where the package is not installed."""
    script = Path(sysconfig.get_path("scripts")) / "mvctl"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from mvvfs.cli import main; main()"]
