"""Store folders for the tests beside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from pagestore.opener import open_store
from tests.pages import Pages, content


def make(folder: Path, commits: int = 1) -> Pages:
    """A store that stays open, with a database of some history."""
    store = open_store(str(folder), create=True)
    pages = Pages(store, store.create("main").id)
    for n in range(commits):
        pages.commit({1: content(n), 2 + n % 5: content(n)})
    return pages


# ---- engine files that are none ----


def empty(file: Path) -> None:
    os.truncate(file, 0)


def text(file: Path) -> None:
    file.write_text("This is not a database, but longer than the header of one. " * 10)


def foreign(file: Path) -> None:
    file.unlink()
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE kv (k BLOB PRIMARY KEY, v) WITHOUT ROWID")
    db.close()
