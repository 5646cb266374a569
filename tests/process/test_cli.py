"""`mvctl` from end to end, as a user sees it."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sqlite3
import subprocess

import pytest

import mvvfs.cli.app
from mvvfs.options import to_uri
from tests.process.mvctl import MVCTL, SCRIPT, TIME, VERSION, dump, environment, plain, versions

# ---- history ----


def test_log_is_newest_first(mvctl, app):
    lines = mvctl("log", "app.db").stdout.splitlines()
    assert len(lines) == 3
    assert [line.split()[0] for line in lines] == app == sorted(app, reverse=True)
    assert all(re.match(rf"{VERSION}  {TIME}  +\d+ pages? ", line) for line in lines)
    assert [line.split("  ")[-1].strip() for line in lines] == ["third", "second", "import of plain.sqlite"]


def test_log_as_json_with_tables(mvctl, app):
    entries = [json.loads(line) for line in mvctl("log", "app.db", "--json", "--tables").stdout.splitlines()]
    assert [entry["tables"] for entry in entries] == [["other"], ["item"], ["item", "other", "sqlite_schema"]]
    assert [entry["pages"] for entry in entries][:2] == [1, 3]
    assert all(re.fullmatch(TIME, entry["time"]) for entry in entries)
    limited = mvctl("log", "app.db", "--json", "--tables", "--limit", 2).stdout.splitlines()
    assert [json.loads(line) for line in limited] == entries[:2]


def test_a_dropped_tables_pages_are_still_named(mvctl, app):
    mvctl("shell", "app.db", "-c", "DROP TABLE item")
    entry = json.loads(mvctl("log", "app.db", "--json", "--tables", "-n", 1).stdout)
    assert entry["tables"] == ["item", "sqlite_schema"]


def test_log_limit(mvctl, app):
    assert versions(mvctl, "app.db")[:1] == [mvctl("log", "app.db", "-n", 1).stdout.split()[0]]


def test_a_message_cannot_play_with_the_terminal(mvctl, app):
    mvctl("shell", "app.db", "-c", "INSERT INTO other VALUES (2)", MV_MESSAGE="two\nlines \x1b[31m")
    line = mvctl("log", "app.db", "-n", 1).stdout
    assert line.count("\n") == 1
    assert "two\\nlines \\x1b[31m" in line
    assert json.loads(mvctl("log", "app.db", "-n", 1, "--json").stdout)["message"] == "two\nlines \x1b[31m"


@pytest.mark.parametrize("when", ["HEAD~2", "{oldest}", "{oldest:short}", "{time}"])
def test_checkout_tells_what_it_came_to(mvctl, tmp_path, app, when):
    time_of_oldest = json.loads(mvctl("log", "app.db", "--json").stdout.splitlines()[-1])["time"]
    short = "v" + app[-1][1:].lstrip("0")
    when = (
        when.replace("{oldest}", app[-1]).replace("{oldest:short}", short).replace("{time}", time_of_oldest)
    )
    done = mvctl("checkout", "app.db", "--at", when, "-o", "old.sqlite")
    assert f"at {app[-1]} of {time_of_oldest}" in done.stdout
    assert dump(tmp_path / "old.sqlite") == dump(tmp_path / "plain.sqlite")


def test_checkout_of_several_databases_is_one_cut(mvctl, tmp_path):
    connection = mvvfs.connect("a", store=str(tmp_path / "store"))
    connection.execute("ATTACH ? AS b", (to_uri("b", store=str(tmp_path / "store")),))
    for sql in ("CREATE TABLE {0}.t(n)", "INSERT INTO {0}.t VALUES(1)", "INSERT INTO {0}.t VALUES(2)"):
        connection.execute(f"BEGIN; {sql.format('main')}; {sql.format('b')}; COMMIT")
    version = json.loads(mvctl("log", "a", "--store", "store", "--json").stdout.splitlines()[1])["version"]
    connection.close()
    done = mvctl("checkout", "--store", "store", "a", "b", "--at", version, "-o", "then")
    assert f"all as of {version}" in done.stdout
    for name in ("a", "b"):
        with sqlite3.connect(tmp_path / "then" / f"{name}.sqlite") as file:
            assert file.execute("SELECT n FROM t").fetchall() == [(1,)]
    mvctl("checkout", "--store", "store", "a", "b", "--at", version, "-o", "then", code=4)
    mvctl("checkout", "--store", "store", "a", "b", "--at", "HEAD~1", "-o", "other", code=2)
    mvctl("checkout", "--store", "store", "a", "b", "--at", "HEAD", "--shell", code=2)
    mvctl("checkout", "--store", "store", "a", "c", "--at", "HEAD", "-o", "other", code=3)
    assert not (tmp_path / "other").exists()


def test_checkout_in_a_shell_is_read_only(mvctl, app):
    done = mvctl(
        "checkout", "app.db", "--at", "HEAD~2", "--shell", text="SELECT name FROM item WHERE id = 7;\n"
    )
    assert "item 7" in done.stdout
    assert f"at {app[2]} of" in done.stderr
    mvctl("shell", "app.db", "--at", "HEAD~2", "-c", "DELETE FROM item", code=7, notes=1)
    assert versions(mvctl, "app.db") == app


@pytest.mark.parametrize(
    ("when", "code"),
    [("2999-01-01", 3), ("yesterday", 3), ("HEAD~3", 3), ("v1" + "0" * 19, 3), ("soon", 2), ("vx", 2)],
)
def test_moments_that_cannot_be_checked_out(mvctl, tmp_path, app, when, code):
    mvctl("checkout", "app.db", "--at", when, "-o", "old.sqlite", code=code)
    assert not (tmp_path / "old.sqlite").exists()


def test_a_script_stops_at_its_first_error(mvctl, app):
    script = "INSERT INTO other VALUES (2);\nSELECT nonsense;\nINSERT INTO other VALUES (3);\n"
    assert "nonsense" in mvctl("shell", "app.db", text=script, code=1).stderr
    assert "2" in mvctl("shell", "app.db", text="SELECT max(x) FROM other;\n").stdout
    assert mvctl("shell", "app.db", "-c", "SELECT 1", "-c", "SELECT 2").stdout.split() == ["1", "2"]
    mvctl("shell", "app.db", "-c", ".nonsense", code=1)


# ---- databases ----


def test_create_list_rename_drop(mvctl, tmp_path):
    mvctl("--store", "s", "create", "one", "--page-size", 1024)
    mvctl("create", "two", "--store", "s")
    mvctl("create", "two", MV_STORE="s", code=4)
    assert [line.split()[-1] for line in mvctl("list", "s").stdout.splitlines()] == ["one", "two"]
    mvctl("--store", "s", "rename", "two", "three")
    mvctl("--store", "s", "rename", "three", "one", code=4)
    mvctl("--store", "s", "rename", "two", "four", code=3)
    listed = [json.loads(line) for line in mvctl("list", "--json", MV_STORE="s").stdout.splitlines()]
    assert [(entry["name"], entry["page_size"]) for entry in listed] == [("one", 1024), ("three", 0)]
    mvctl("--store", "s", "drop", "one", code=2)
    mvctl("--store", "s", "drop", "one", "--yes")
    assert [line.split()[-1] for line in mvctl("list", "s").stdout.splitlines()] == ["three"]


def test_a_store_folder_is_not_renamed_by_mvctl(mvctl, app):
    assert "mv" in mvctl("rename", "app.db", "other.db", code=1).stderr
    assert versions(mvctl, "app.db") == app


def test_info(mvctl, tmp_path, app):
    shown = mvctl("info", "app.db").stdout
    assert str(tmp_path / "app.db") in shown
    assert app[0] in shown
    facts = json.loads(mvctl("info", "app.db", "--json").stdout)
    assert (facts["page_size"], facts["versions"], facts["newest"]) == (4096, 3, app[0])
    assert facts["live_pages"] > 10
    assert facts["history_pages"] > 0
    assert "MV_STORE" in json.loads(mvctl("info", "main", "--json", MV_STORE="app.db").stdout)["why"]


def test_info_of_an_empty_database(mvctl):
    mvctl("create", "app.db")
    assert "nothing committed yet" in mvctl("info", "app.db").stdout
    assert "nothing committed yet" in mvctl("log", "app.db").stderr


@pytest.mark.parametrize(
    "command",
    [
        ["info"],
        ["log"],
        ["export"],
        ["checkout", "--at", "HEAD", "-o", "x.sqlite"],
        ["checkout", "--at", "HEAD", "--shell"],
        ["shell"],
        ["drop", "--yes"],
    ],
)
def test_only_create_and_import_create(mvctl, tmp_path, command):
    verb, *options = command
    mvctl(verb, "nothing.db", *options, code=3)
    assert list(tmp_path.iterdir()) == []
    mvctl("create", "one", "--store", "s")
    assert "mvctl list" in mvctl(verb, "nothing.db", "--store", "s", *options, code=3).stderr


def test_an_ordinary_file_is_named_as_such(mvctl, tmp_path):
    plain(tmp_path / "plain.sqlite", SCRIPT)
    assert "mvctl import" in mvctl("info", "./plain.sqlite", code=6).stderr
    assert "mvctl import" in mvctl("create", "plain.sqlite", code=6).stderr


def test_a_folder_with_other_things_is_refused(mvctl, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    mvctl("create", "./photos", code=6)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


# ---- backup ----


def test_backup_and_restore_keep_all_history(mvctl, tmp_path, app):
    mvctl("backup", "app.db", "app.backup")
    mvctl("backup", "app.db", "app.backup", code=4)
    mvctl("restore", "app.backup", "back.db")
    assert versions(mvctl, "back.db") == app
    mvctl("checkout", "back.db", "--at", "HEAD~2", "-o", "old.sqlite")
    assert dump(tmp_path / "old.sqlite") == dump(tmp_path / "plain.sqlite")
    mvctl("restore", "app.backup", "app.db", code=4)
    mvctl("shell", "back.db", "-c", "INSERT INTO other VALUES (9)")
    assert versions(mvctl, "back.db")[1:] == app


def test_a_damaged_backup_is_refused(mvctl, tmp_path, app):
    mvctl("backup", "app.db", "app.backup")
    data = bytearray((tmp_path / "app.backup").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)
    (tmp_path / "app.backup").write_bytes(data)
    mvctl("restore", "app.backup", "back.db", code=6)
    mvctl("restore", "nothing.backup", "back.db", code=3)
    assert not (tmp_path / "back.db").exists()


# ---- the command itself ----


@pytest.mark.parametrize(
    "args",
    [
        ["log"],
        ["log", "x", "--no-such"],
        ["nonsense"],
        ["checkout", "x"],
        ["create", "x", "--page-size", "1000"],
        ["checkout", "x", "--at", "HEAD"],
        ["log", "x", "-n", "-1"],
        ["info", ""],
        ["info", "grpc://host/x"],
    ],
)
def test_usage_errors_are_one_line(mvctl, args):
    mvctl(*args, code=2)


def test_the_entry_point():
    done = subprocess.run(
        [*MVCTL, "info", ""], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mvctl: ")


def test_help_and_version(mvctl):
    assert "checkout" in mvctl("--help").stdout
    assert "--at WHEN" in mvctl("checkout", "--help").stdout
    assert "SQLite 3." in mvctl("version").stdout


def test_without_a_command_there_is_help():
    done = subprocess.run(MVCTL, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "checkout" in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path, app):
    command = " ".join(map(shlex.quote, MVCTL)) + " log app.db | head -c 1"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_an_interrupt_exits_with_130(tmp_path, app):
    # the shell shows a row once it has the next one: when it has shown the first, SQLite looks for a third
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i <= 2"
    process = subprocess.Popen(
        [*MVCTL, "shell", "app.db", "-c", endless],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    try:
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert complaint.strip() == "mvctl: interrupted"


def test_copy_goes_to_another_store_and_goes_on(mvctl):
    mvctl("shell", "app.db", "-c", "SELECT 1", code=3)
    for statement in ("CREATE TABLE t(x)", "INSERT INTO t VALUES (1)"):
        connection = mvvfs.connect("app.db")
        connection.execute(statement)
        connection.close()
    done = mvctl("copy", "app.db", "copy", "--to", "other")
    assert re.fullmatch(
        rf"copied \S+/app\.db to copy in \S+/other: 2 commits, \d pages in .* s, newest {VERSION} of {TIME}: "
        r"verified\n",
        done.stdout,
    )
    assert "2 earlier ones" in mvctl("copy", "app.db", "copy", "--to", "other").stdout
    assert mvctl("shell", "copy", "--store", "other", "-c", "SELECT * FROM t").stdout == "1\n"
    mvctl("copy", "app.db", "app.db", code=4)
