"""`mvctl diff`, `show` and what `log` tells of tables and rows."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from pathlib import Path

import apsw
import pytest

from tests.process.mvctl import MVCTL, Mvctl, dump, environment, versions

SCRIPT = """
    CREATE TABLE account(id INTEGER PRIMARY KEY, name TEXT, note);
    CREATE TABLE audit(x PRIMARY KEY, y) WITHOUT ROWID;
    CREATE TABLE loose(x);
    INSERT INTO account VALUES (3, 'ann', NULL), (7, 'bob', x'00ff');
"""


@pytest.fixture
def app(mvctl: Mvctl) -> list[str]:
    """app.db, with four commits; their versions, newest first."""
    for at, sql in enumerate(
        (
            f"BEGIN; {SCRIPT} COMMIT",
            "BEGIN; UPDATE account SET name = 'anna' WHERE id = 3; DELETE FROM account WHERE id = 7;"
            "INSERT INTO account VALUES (12, 'eve', 1e999); COMMIT",
            "INSERT INTO audit VALUES ('k', 'a long text' || hex(zeroblob(100)))",
            "CREATE INDEX by_name ON account(name)",
        )
    ):
        mvctl("create", "app.db") if not at else None
        mvctl("shell", "app.db", "-c", sql, MV_MESSAGE=f"commit {at}")
    return versions(mvctl, "app.db")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_diff_for_people(mvctl, app):
    assert mvctl("diff", "app.db", "HEAD~3").stdout.splitlines() == [
        "+ index by_name added  CREATE INDEX by_name ON account(name)",
        "table account",
        "  ~ 3  name: 'ann' -> 'anna'",
        "  - 7  id: 7  name: 'bob'  note: X'00FF'",
        "  + 12  id: 12  name: 'eve'  note: 9e999",
        "table audit",
        "  + 'k'  x: 'k'  y: 'a long text0000000000000000000'... (211 characters)",
    ]
    assert mvctl("diff", "app.db", "HEAD~3", "HEAD~2", "--table", "audit").stdout == ""
    assert "no difference" in mvctl("diff", "app.db", "HEAD", "HEAD").stderr


def test_diff_as_json(mvctl, app):
    assert lines(mvctl("diff", "app.db", "HEAD~3", "HEAD~2", "--json").stdout) == [
        {
            "change": "row",
            "table": "account",
            "op": "update",
            "key": [3],
            "old": {"id": 3, "name": "ann", "note": None},
            "new": {"id": 3, "name": "anna", "note": None},
        },
        {
            "change": "row",
            "table": "account",
            "op": "delete",
            "key": [7],
            "old": {"id": 7, "name": "bob", "note": {"blob": "00ff"}},
            "new": None,
        },
        {
            "change": "row",
            "table": "account",
            "op": "insert",
            "key": [12],
            "old": None,
            "new": {"id": 12, "name": "eve", "note": {"real": "Infinity"}},
        },
    ]
    (change,) = lines(mvctl("diff", "app.db", app[1], app[0], "--json").stdout)
    assert change == {
        "change": "schema",
        "op": "added",
        "kind": "index",
        "name": "by_name",
        "table": "account",
        "old": None,
        "new": "CREATE INDEX by_name ON account(name)",
    }


@pytest.mark.parametrize(("a", "b"), [("HEAD~3", "HEAD"), ("HEAD", "HEAD~3")])
def test_a_script_makes_the_one_of_the_other(mvctl, tmp_path, app, a, b):
    for name, when in (("a.sqlite", a), ("b.sqlite", b)):
        mvctl("checkout", "app.db", "--at", when, "-o", name)
    text = mvctl("diff", "app.db", a, b, "--sql").stdout
    connection = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
    connection.executescript(text)
    connection.close()
    assert dump(tmp_path / "a.sqlite") == dump(tmp_path / "b.sqlite")


def test_a_changeset_applies(mvctl, tmp_path, app):
    mvctl("shell", "app.db", "-c", "INSERT INTO loose VALUES (1)")
    mvctl("checkout", "app.db", "--at", "HEAD~4", "-o", "a.sqlite")
    done = mvctl("diff", "app.db", "HEAD~4", "--changeset", "c.changeset")
    assert [line.split(": ", 1)[1] for line in done.stderr.splitlines()] == [
        "added index by_name",
        "table loose, which has no PRIMARY KEY",
    ]
    mvctl("diff", "app.db", "HEAD~4", "--changeset", "c.changeset", code=4)
    connection = apsw.Connection(str(tmp_path / "a.sqlite"))
    apsw.Changeset.apply((tmp_path / "c.changeset").read_bytes(), connection, conflict=lambda *_: 2)
    found = connection.execute("SELECT id, name, typeof(note) FROM account").fetchall()
    assert found == [(3, "anna", "null"), (12, "eve", "real")]
    assert connection.execute("SELECT x FROM audit").get == "k"
    connection.close()


def test_show(mvctl, app):
    shown = mvctl("show", "app.db", "HEAD~2").stdout.splitlines()
    assert shown[0].startswith(app[2])
    assert shown[1:3] == ["commit 1", "table account"]
    assert len(shown) == 6
    first = mvctl("show", "app.db", "HEAD~3").stdout
    assert "+ table account added" in first
    assert "+ 3  id: 3" in first
    commit, change = lines(mvctl("show", "app.db", app[1], "--json").stdout)
    assert (commit["version"], commit["message"]) == (app[1], "commit 2")
    assert (change["version"], change["table"]) == (app[1], "audit")
    assert "nothing of loose changed" in mvctl("show", "app.db", "HEAD", "--table", "loose").stderr


def test_log_of_one_table(mvctl, app):
    def found(*args: object) -> list[object]:
        return [entry["version"] for entry in lines(mvctl("log", "app.db", "--json", *args).stdout)]

    assert found("--table", "audit") == [app[1], app[3]]
    assert found("--table", "ACCOUNT") == [app[0], app[2], app[3]]
    assert found("--table", "account", "-n", 1) == [app[0]]
    assert found("--table", "nothing") == []
    assert "no commit wrote to" in mvctl("log", "app.db", "--table", "nothing").stderr


def test_log_of_a_virtual_table(mvctl, app):
    mvctl("shell", "app.db", "-c", "CREATE VIRTUAL TABLE f USING fts5(x)")
    mvctl("shell", "app.db", "-c", "INSERT INTO f VALUES ('some words')")
    mvctl("shell", "app.db", "-c", "INSERT INTO loose VALUES (1)")
    found = lines(mvctl("log", "app.db", "--table", "f", "--json").stdout)
    assert [entry["version"] for entry in found] == versions(mvctl, "app.db")[1:3]


def test_log_with_rows(mvctl, app):
    entries = lines(mvctl("log", "app.db", "--json", "--rows", "-n", 3).stdout)
    assert [entry["version"] for entry in entries] == [app[0]] * 2 + [app[1]] * 2 + [app[2]] * 4
    text = mvctl("log", "app.db", "--rows", "--table", "audit", "-n", 1).stdout.splitlines()
    assert [line[:12] for line in text[1:]] == ["table audit", "  + 'k'  x: "]


def test_follow_shows_what_comes(mvctl, tmp_path, app):
    process = subprocess.Popen(
        [*MVCTL, "log", "app.db", "--follow", "-n", "1", "--json", "--rows"],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [entry["version"] for entry in first] == [app[0], app[0]]
        started = time.monotonic()
        mvctl("shell", "app.db", "-c", "INSERT INTO loose VALUES (5)")
        commit, row = (json.loads(process.stdout.readline()) for _ in range(2))
        assert time.monotonic() - started < 20
        assert commit["version"] == row["version"] == versions(mvctl, "app.db")[0]
        assert row["new"] == {"x": 5}
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["diff", "app.db", "HEAD", "--json", "--sql"], 2),
        (["diff", "app.db", "HEAD", "--table", "account", "--sql"], 2),
        (["diff", "app.db", "HEAD", "--table", "nothing"], 2),
        (["diff", "app.db", "soon"], 2),
        (["diff", "app.db", "HEAD~9"], 3),
        (["diff", "nothing.db", "HEAD"], 3),
        (["diff", "app.db"], 2),
        (["show", "app.db", "HEAD~9"], 3),
        (["show", "app.db"], 2),
        (["show", "nothing.db", "HEAD"], 3),
    ],
)
def test_mistakes(mvctl, app, args, code):
    mvctl(*args, code=code)


def test_a_new_database_has_nothing_to_show(mvctl):
    mvctl("create", "app.db")
    mvctl("show", "app.db", "HEAD", code=3)
    mvctl("diff", "app.db", "HEAD", code=3)
    assert not Path("c.changeset").exists()
