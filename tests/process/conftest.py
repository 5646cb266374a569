"""Fixtures of the tests of `mvctl`."""

from __future__ import annotations

import io
import os
import sys

import pytest

import mvvfs.cli.app
from tests.process.mvctl import SCRIPT, Done, Mvctl, plain, versions


@pytest.fixture
def mvctl(tmp_path, monkeypatch, capsys) -> Mvctl:
    """Run mvctl in an empty folder; checks the exit code, and that a failure is one line (after `notes`).

    In this process, because starting one takes longer than most commands."""
    for name in [name for name in os.environ if name.startswith("MV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*args: object, code: int = 0, text: str = "", notes: int = 0, **environ: str) -> Done:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(text))
            for name, value in environ.items():
                patch.setenv(name, value)
            returned = mvvfs.cli.app.run([str(arg) for arg in args])
        done = Done(*capsys.readouterr())
        assert returned == code, f"{args}: {returned}\n{done.stdout}\n{done.stderr}"
        if code:
            lines = done.stderr.splitlines()[notes:]
            assert len(lines) == 1, done.stderr
            assert lines[0].startswith("mvctl: ")
        return done

    return run


@pytest.fixture
def app(mvctl, tmp_path) -> list[str]:
    """app.db, with three commits; returns their versions, newest first."""
    plain(tmp_path / "plain.sqlite", SCRIPT)
    mvctl("import", "plain.sqlite", "app.db")
    mvctl("shell", "app.db", "-c", "UPDATE item SET name = 'changed' WHERE id = 7", MV_MESSAGE="second")
    mvctl("shell", "app.db", "-c", "INSERT INTO other VALUES (1)", MV_MESSAGE="third")
    return versions(mvctl, "app.db")
