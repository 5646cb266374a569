"""`mvctl` as the tests of this folder run it, and a database to run it on."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mvvfs

VERSION = r"v[0-9a-f]{20}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
MVCTL = [sys.executable, "-c", "from mvvfs.cli import main; main()"]


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


Mvctl = Callable[..., Done]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without options, and with the package under test."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MV_")}
    return clean | {"PYTHONPATH": str(Path(mvvfs.__file__).parents[1])} | more


def plain(path: Path, script: str, page_size: int = 4096, journal: str = "delete") -> Path:
    """An ordinary SQLite file."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.executescript(script)
    connection.close()
    return path


SCRIPT = """
    CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, filling BLOB);
    CREATE INDEX item_name ON item(name);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO item SELECT i, 'item ' || i, randomblob(100) FROM n;
    CREATE TABLE other(x);
"""


def dump(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())
    finally:
        connection.close()


def versions(mvctl: Mvctl, name: str) -> list[str]:
    return [json.loads(line)["version"] for line in mvctl("log", name, "--json").stdout.splitlines()]
