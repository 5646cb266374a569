"""README.md and docs/guide.md do what they say: what they show is run, top to bottom, in an empty folder."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs.cli.app import run
from tests.documents import DOCS, README, Block, blocks
from tests.process.mvctl import environment
from tests.process.served import Served

TOLD = re.compile(r"^print\(.*\) +# (\[.*)$", re.MULTILINE)
"""A line of an example that says what it prints."""

NOT_HERE = ("make ", "pip ")
"""Commands that set things up, which has happened."""

SERVE = ("serve", "--store", "/srv/data", "--create", "--listen")

Runner = Callable[[Block], None]


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Runs the Python blocks of a page, one after the other; what they say that they print is checked."""
    monkeypatch.chdir(tmp_path)
    for name in ("MV_STORE", "MV_AT", "MV_MODE"):
        monkeypatch.delenv(name, raising=False)
    names: dict[str, object] = {}

    def run_block(block: Block) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, f"line {block.line}", "exec"), names)
        assert TOLD.findall(block.text) == [line for line in printed.getvalue().splitlines() if "[" in line]

    yield run_block
    for value in names.values():
        if isinstance(value, apsw.Connection | sqlite3.Connection):
            value.close()


def command(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def test_the_readme(python: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    service = Served(str(tmp_path / "served"))
    commands = 0
    with contextlib.ExitStack() as stack:
        for block in blocks(README):
            text = block.text.replace("127.0.0.1:7420", service.address)
            if block.language == "python":
                python(block._replace(text=text))
                continue
            for program, *arguments in filter(None, map(command, text.splitlines())):
                if program == "mvctl":
                    assert run(arguments) == 0, (block.line, arguments)
                    commands += 1
                elif program == "pagestore":
                    assert arguments == [
                        "serve",
                        "--store",
                        "/srv/data",
                        "--create",
                        "--listen",
                        service.address,
                    ]
                    service.start()
                    stack.callback(service.stop)
                else:
                    assert f"{program} " in NOT_HERE, block
    assert commands > 8
    assert Path("before.sqlite").exists()


MOMENTS = ("2026-11-20 10:00", "yesterday")
"""Of the guide's: here, where everything is young, they are the newest commit."""

ELSEWHERE = ("db.example", "a.example", "# settings.py")
"""Of the guide: what needs other machines, or a project of Django."""


def test_the_guide(python: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare()
    ran = 0
    for block in blocks(DOCS / "guide.md"):
        if block.language != "python" or any(word in block.text for word in ELSEWHERE):
            continue
        if "sqlalchemy" in block.text and importlib.util.find_spec("sqlalchemy") is None:
            continue
        python(block._replace(text=re.sub("|".join(MOMENTS), "HEAD", block.text)))
        ran += 1
    assert ran > 8


def prepare() -> None:
    """The tables that the guide's examples are about."""
    with contextlib.closing(mvvfs.connect("app.db")) as db:
        db.execute("CREATE TABLE seat(id TEXT PRIMARY KEY, name TEXT)")
        db.execute("INSERT INTO seat VALUES ('12A', NULL)")
        db.execute("CREATE TABLE account(name TEXT, balance INTEGER)")
        db.execute("INSERT INTO account VALUES ('ann', 70)")
    with contextlib.closing(mvvfs.connect("stock", store="data")) as db:
        db.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, left INTEGER); INSERT INTO item VALUES (1, 10)")
    with contextlib.closing(mvvfs.connect("orders", store="data")) as db:
        db.execute("CREATE TABLE orders(item INTEGER)")


DJANGO = """
import sys
from django.conf import settings
names = {"BASE_DIR": sys.argv[1]}
exec(sys.stdin.read(), names)
settings.configure(
    DATABASES=names["DATABASES"], INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"]
)
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
call_command("migrate", verbosity=0)
with transaction.atomic():
    User.objects.create(username="ann")
try:
    with transaction.atomic():
        User.objects.create(username="bob")
        raise KeyError
except KeyError:
    print(list(User.objects.values_list("username", flat=True)))
"""


@pytest.mark.skipif(importlib.util.find_spec("django") is None, reason="the guide's example needs Django")
def test_the_guide_with_django(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(DOCS / "guide.md") if "# settings.py" in block.text)
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, str(tmp_path)],
        check=True,
        input=block.text,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert done.stdout == "['ann']\n"
    with contextlib.closing(mvvfs.connect(str(tmp_path / "app.db"))) as db:
        assert db.execute("SELECT username FROM auth_user").get == "ann"
