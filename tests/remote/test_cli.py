"""Every command of `mvctl` on a store behind a service does what it does on a folder."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mvvfs
import mvvfs.cli.app
from mvvfs.cli.exits import Exit
from pagestore import history
from pagestore.store import PageStore

Mvctl = Callable[..., str]

VERSION = r"v[0-9a-f]{20}"

ELSEWHERE = {"backup", "renew", "restore", "version"}
"""What is about folders, or about no store at all."""


@pytest.fixture(params=["service", "folder"])
def mvctl(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch, capsys) -> Mvctl:
    """Runs `mvctl --store ...`: its output, and that its exit code is `code`."""
    folder: str = request.getfixturevalue("folder")
    request.getfixturevalue("backing")
    store = request.getfixturevalue("url") if request.param == "service" else folder
    monkeypatch.chdir(tmp_path)

    def run(*args: object, code: int = 0) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        returned = mvvfs.cli.app.run(["--store", store, *map(str, args)])
        out, err = capsys.readouterr()
        assert returned == code, f"{args}: {returned}\n{out}\n{err}"
        assert "Traceback" not in err
        return out if not code else err

    run.store = store  # type: ignore[attr-defined]
    return run


@pytest.fixture
def app(mvctl: Mvctl, tmp_path: Path) -> list[str]:
    """The database `app` with three commits; their versions, newest first."""
    plain = sqlite3.connect(tmp_path / "plain.sqlite")
    plain.executescript(
        "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
        "INSERT INTO item SELECT i, 'item ' || i FROM n; CREATE TABLE other(x)"
    )
    plain.close()
    mvctl("import", "plain.sqlite", "app", "-m", "first")
    mvctl("shell", "app", "-c", "UPDATE item SET name = 'changed' WHERE id = 7")
    mvctl("shell", "app", "-c", "INSERT INTO other VALUES(1)")
    return versions(mvctl)


def versions(mvctl: Mvctl) -> list[str]:
    return [json.loads(line)["version"] for line in mvctl("log", "app", "--json").splitlines()]


def test_create_list_rename_drop(mvctl: Mvctl) -> None:
    mvctl("create", "b", "--page-size", "1024")
    mvctl("create", "a")
    mvctl("create", "a", code=Exit.EXISTS)
    assert re.findall(r"[ab]$", mvctl("list"), re.MULTILINE) == ["a", "b"]
    assert [json.loads(line)["name"] for line in mvctl("list", "--json").splitlines()] == ["a", "b"]
    mvctl("rename", "a", "c")
    mvctl("info", "a", code=Exit.NOT_FOUND)
    mvctl("drop", "c", code=Exit.USAGE)
    mvctl("drop", "c", "--yes")
    assert [json.loads(line)["name"] for line in mvctl("list", "--json").splitlines()] == ["b"]


def test_info_and_log(mvctl: Mvctl, app: list[str]) -> None:
    facts = json.loads(mvctl("info", "app", "--json"))
    assert (facts["store"], facts["newest"], facts["versions"]) == (mvctl.store, app[0], 3)
    assert len(mvctl("log", "app", "-n", "2").splitlines()) == 2
    tables = [json.loads(line)["tables"] for line in mvctl("log", "app", "--tables", "--json").splitlines()]
    assert tables[:2] == [["other"], ["item"]]
    assert len(mvctl("log", "app", "--table", "item", "--json").splitlines()) == 2
    assert "changed" in mvctl("show", "app", app[1])
    assert "changed" in mvctl("diff", "app", app[2], app[0], "--sql")
    mvctl("show", "app", "v" + "f" * 20, code=Exit.NOT_FOUND)


def test_a_short_log_fetches_no_more_than_it_shows(mvctl: Mvctl, app: list[str], monkeypatch) -> None:
    connection = mvvfs.connect("app", store=mvctl.store)  # type: ignore[attr-defined]
    for i in range(40):
        connection.execute("INSERT INTO other VALUES(?)", (i,))
    connection.close()
    fetched: list[tuple[bytes, bytes]] = []
    original = history._rows

    def rows(*args: Any) -> list[tuple[bytes, bytes]]:
        found = original(*args)
        fetched.extend(found)
        return found

    monkeypatch.setattr(history, "_rows", rows)
    shown = mvctl("log", "app", "-n", "3").splitlines()
    assert (len(shown), len(fetched)) == (3, 4)  # and the one before, which tells what the last one changed
    fetched.clear()
    assert len(mvctl("log", "app", "-n", "2", "--table", "other").splitlines()) == 2
    assert len(fetched) == 3
    fetched.clear()
    found = mvctl("log", "app", "-n", "1", "--table", "item")
    assert (found.split()[0], len(fetched)) == (app[1], 43)  # behind 41 others: pieces of 2, 4, 8, 16, 32
    assert len(mvctl("log", "app").splitlines()) == 43


def test_files(mvctl: Mvctl, app: list[str], tmp_path: Path) -> None:
    mvctl("checkout", "app", "--at", app[2], "-o", "old.sqlite")
    mvctl("export", "app", "new.sqlite")
    for name, changed in (("old", 0), ("new", 1)):
        file = sqlite3.connect(tmp_path / f"{name}.sqlite")
        assert file.execute("SELECT count(*) FROM item WHERE name = 'changed'").fetchone() == (changed,)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        file.close()
    mvctl("import", "plain.sqlite", "app", code=Exit.EXISTS)
    mvctl("import", "plain.sqlite", "app", "--force")
    assert mvctl("shell", "app", "-c", "SELECT count(*) FROM item WHERE name = 'changed'").strip() == "0"
    at = mvctl("shell", "app", "--at", app[0], "-c", "SELECT count(*) FROM item WHERE name = 'changed'")
    assert at.strip() == "1"


def test_the_past_is_kept_and_brought_back(mvctl: Mvctl, app: list[str]) -> None:
    def changed(name: str) -> str:
        return mvctl("shell", name, "-c", "SELECT count(*) FROM item WHERE name = 'changed'").strip()

    mvctl("tag", "app", "first", "--at", app[2])
    assert [json.loads(line)["tag"] for line in mvctl("tags", "app", "--json").splitlines()] == ["first"]
    mvctl("branch", "app", "old", "--at", app[2])
    assert (changed("old"), changed("app")) == ("0", "1")
    mvctl("revert", "app", "--to", app[2], "--dry-run")
    assert changed("app") == "1"
    mvctl("revert", "app", "--to", app[2])
    assert changed("app") == "0"
    mvctl("retain", "app", "--for", "7d")
    assert "7" in mvctl("retain", "app")
    mvctl("gc", "app", "--dry-run")
    mvctl("gc", "app")
    mvctl("du", "app", "--json")
    mvctl("untag", "app", "first")
    mvctl("untag", "app", "first", code=Exit.NOT_FOUND)
    mvctl("drop", "old", "--yes")
    assert "old" in mvctl("dropped")
    mvctl("undrop", "old", "--as", "older")
    assert changed("older") == "0"


def test_cache(mvctl: Mvctl, app: list[str], tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    mvctl("cache", "fill", "app", "--cache-dir", kept)
    assert "app" in mvctl("cache", "info", "--cache-dir", kept)
    mvctl("cache", "clear", "app", "--cache-dir", kept)


def test_copy(mvctl: Mvctl, app: list[str], tmp_path: Path) -> None:
    mvctl("copy", "app", "app", "--to", tmp_path / "copy.db")
    copy = mvvfs.connect("app", store=str(tmp_path / "copy.db"), mode="ro")
    assert copy.execute("SELECT count(*) FROM item").get == 300
    copy.close()


def test_ping(mvctl: Mvctl, app: list[str]) -> None:
    lines = mvctl("ping", "-n", "3").splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(rf"{re.escape(mvctl.store)}: .*, \d+\.\d\d ms", line) for line in lines)


def test_watch(mvctl: Mvctl, app: list[str], backing: PageStore) -> None:
    writer = threading.Timer(0.5, write_twice, (backing.url,))
    writer.start()
    told = [json.loads(line) for line in mvctl("watch", "app", "-n", "2", "--json").splitlines()]
    writer.join()
    assert [one["version"] for one in told] == versions(mvctl)[1::-1]
    assert all(re.fullmatch(VERSION, one["version"]) for one in told)


def write_twice(store: str) -> None:
    connection = mvvfs.connect("app", store=store)
    for i in range(2):
        connection.execute("INSERT INTO other VALUES(?)", (i,))
    connection.close()


def test_what_is_about_folders(mvctl: Mvctl, url: str, tmp_path: Path) -> None:
    for args in (("backup", url, "file"), ("restore", "file", url)):
        (tmp_path / "file").unlink(missing_ok=True)
        if args[0] == "restore":
            (tmp_path / "file").write_bytes(b"")
        assert "only a store folder" in mvctl(*args, code=Exit.FAILED)


def test_nobody_there(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setenv("MV_TIMEOUT", "0.2")
    assert mvvfs.cli.app.run(["ping", f"grpc+unix:{tmp_path}/nobody"]) == Exit.UNAVAILABLE
    assert mvvfs.cli.app.run(["ping", "grpc://user:secret@host:1"]) == Exit.USAGE
    assert "secret" not in capsys.readouterr().err


def test_all_commands_were_tried() -> None:
    used = set(re.findall(r'mvctl\("(\w+)"', Path(__file__).read_text()))
    assert set(mvvfs.cli.app.app.commands) - used == ELSEWHERE
