"""`mvctl` given what it can't work with: one clear line, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mvvfs.cli.exits import Exit
from tests.process.mvctl import environment, plain
from tests.process.test_trouble import build_preload

NOBODY = 65534


@pytest.fixture
def files(mvctl, tmp_path) -> Path:
    """Files and folders of every wrong kind, and app.db."""
    plain(tmp_path / "good.sqlite", "CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(50000))")
    mvctl("import", "good.sqlite", "app.db")
    mvctl("backup", "app.db", "app.backup")
    whole = (tmp_path / "good.sqlite").read_bytes()
    (tmp_path / "short.sqlite").write_bytes(whole[:5000])
    (tmp_path / "torn.sqlite").write_bytes(whole[:4096] + b"\xee" * 8192 + whole[12288:])
    (tmp_path / "half.backup").write_bytes((tmp_path / "app.backup").read_bytes()[:9000])
    (tmp_path / "garbage").write_text("nothing that SQLite wrote " * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("import nowhere x.db", Exit.NOT_FOUND, "nowhere: no such file"),
        ("import empty x.db", Exit.UNAVAILABLE, "empty: a folder, not an SQLite file"),
        ("import garbage x.db", Exit.CORRUPT, "garbage: file is not a database"),
        ("import short.sqlite x.db", Exit.CORRUPT, "short.sqlite: database disk image is malformed"),
        ("import torn.sqlite x.db", Exit.CORRUPT, "torn.sqlite: "),
        ("import good.sqlite app.db", Exit.EXISTS, "app.db already"),
        ("import good.sqlite full", Exit.CORRUPT, "not empty (it holds 'letter')"),
        ("import good.sqlite garbage", Exit.CORRUPT, "is a file, not a store"),
        ("create app.db", Exit.EXISTS, "app.db already"),
        ("info garbage", Exit.CORRUPT, "is a file, not a store"),
        ("info full", Exit.CORRUPT, "not empty"),
        ("list http://example.org", Exit.USAGE, "no such kind of store"),
        ("list grpc://", Exit.USAGE, "grpc://HOST"),
        ("export app.db garbage", Exit.EXISTS, "--force overwrites it"),
        ("export app.db empty", Exit.UNAVAILABLE, "empty: a folder"),
        ("export app.db nowhere/x", Exit.NOT_FOUND, "nowhere/x: no such file or directory"),
        ("backup app.db nowhere/x", Exit.NOT_FOUND, "nowhere/x: no such file or directory"),
        ("backup app.db empty", Exit.UNAVAILABLE, "empty: a folder"),
        ("backup nowhere x", Exit.NOT_FOUND, "there is no store"),
        ("restore nowhere x.db", Exit.NOT_FOUND, "nowhere: no such file"),
        ("restore empty x.db", Exit.UNAVAILABLE, "empty: a folder, not a store's backup"),
        ("restore garbage x.db", Exit.CORRUPT, "garbage is not a store's backup"),
        ("restore good.sqlite x.db", Exit.CORRUPT, "good.sqlite is not a store's backup"),
        ("restore half.backup x.db", Exit.CORRUPT, "half.backup is damaged"),
        ("restore app.backup app.db", Exit.EXISTS, "there is a store already"),
        ("restore app.backup full", Exit.CORRUPT, "not empty"),
        ("checkout app.db --at= -o x", Exit.USAGE, "'' is not a version or time"),
        ("shell app.db --at=", Exit.USAGE, "'' is not a version or time"),
        ("revert app.db --to=", Exit.USAGE, "'' is not a version or time"),
        ("show app.db yesterday", Exit.NOT_FOUND, "yesterday (20"),
        ("cache fill app.db --cache-dir garbage", Exit.USAGE, "it is not a folder"),
    ],
)
def test_one_line_and_nothing_changed(mvctl, files, command, code, said):
    before = sorted(files.rglob("*"))
    assert said in mvctl(*command.split(), code=code).stderr
    assert sorted(files.rglob("*")) == before


def test_an_empty_database_says_so(mvctl, tmp_path):
    (tmp_path / "nothing.sqlite").touch()
    assert "nothing to commit" in mvctl("import", "nothing.sqlite", "app.db").stdout


AS_NOBODY = f"""
import contextlib, io, json, os, sys
import mvvfs.cli.app
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = mvvfs.cli.app.run(arguments)
    print(json.dumps((int(code), out.getvalue(), err.getvalue())))
"""


READS = ("info app.db", "log app.db", "diff app.db HEAD~1", "gc app.db --dry-run")
WRITES = ("drop app.db --yes", "tag app.db t", "gc app.db")


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_a_store_of_somebody_else_can_be_read(mvctl, monkeypatch):
    """Whoever may not write reads with the same commands, and is told why the others fail."""

    def run(*commands: str) -> list[tuple[int, str, str]]:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY],
            check=True,
            input=json.dumps([shlex.split(command) for command in commands]),
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.chdir(folder)
        mvctl("create", "app.db")
        mvctl("shell", "app.db", "-c", "CREATE TABLE t(x); INSERT INTO t VALUES (7)")
        *reads, row = run(*READS, "shell app.db -c 'SELECT x FROM t'")
        for code, out, err in reads:
            assert (code, err) == (Exit.OK, "")
            assert out
        assert row == (Exit.OK, "7\n", "")
        *writes, backup, export = run(*WRITES, "backup app.db copy", "export app.db copy")
        for code, _, err in writes:
            assert (code, err.count("may not write to the store's files")) == (Exit.UNAVAILABLE, 1)
        assert backup == export == (Exit.UNAVAILABLE, "", "mvctl: copy: permission denied\n")
        assert sorted(os.listdir(folder)) == ["app.db"]
        monkeypatch.undo()  # out of the folder


FULL_DISK = """
import contextlib, io, json, os, pathlib, sys
import mvvfs.cli.app
keeps = mvvfs.connect("app.db") if "open" in sys.argv else None
pathlib.Path(os.environ["MV_TEST_DISK_FULL"]).touch()
answers = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = mvvfs.cli.app.run(arguments)
    answers.append((int(code), out.getvalue(), err.getvalue()))
print(json.dumps(answers))  # to a pipe
"""


@pytest.mark.parametrize("others", ["open", "nobody"])
def test_a_full_disk(mvctl, files, tmp_path_factory, others):
    """Whether somebody has the store open or not."""
    elsewhere = tmp_path_factory.mktemp("preload")
    library, flag = build_preload(elsewhere), elsewhere / "full"
    commands = (
        "export app.db x",
        "checkout app.db --at HEAD -o x",
        "backup app.db x",
        "restore app.backup x.db",
        "import good.sqlite x.db",
        "shell app.db -c 'INSERT INTO t VALUES (1)'",
    )
    before = sorted(files.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, others],
        check=True,
        input=json.dumps([shlex.split(command) for command in commands]),
        stdout=subprocess.PIPE,
        text=True,
        cwd=files,
        env=environment(LD_PRELOAD=str(library), MV_TEST_DISK_FULL=str(flag)),
    )
    for command, (code, out, err) in zip(commands, json.loads(done.stdout), strict=True):
        assert (code, out) == (Exit.UNAVAILABLE, ""), (command, err)
        assert "no space" in err.lower(), (command, err)
        assert "not an error" not in err
        assert err.count("\n") == 1, (command, err)
    assert sorted(files.rglob("*")) == before
    assert mvctl("shell", "app.db", "-c", "SELECT count(*) FROM t").stdout == "1\n"
