"""`mvctl` from end to end, as a user sees it."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import mvvfs.cli.app
from mvvfs.options import to_uri

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


@pytest.fixture
def app(mvctl, tmp_path) -> list[str]:
    """app.db, with three commits; returns their versions, newest first."""
    plain(tmp_path / "plain.sqlite", SCRIPT)
    mvctl("import", "plain.sqlite", "app.db")
    mvctl("shell", "app.db", "-c", "UPDATE item SET name = 'changed' WHERE id = 7", MV_MESSAGE="second")
    mvctl("shell", "app.db", "-c", "INSERT INTO other VALUES (1)", MV_MESSAGE="third")
    return versions(mvctl, "app.db")


def versions(mvctl: Mvctl, name: str) -> list[str]:
    return [json.loads(line)["version"] for line in mvctl("log", name, "--json").stdout.splitlines()]


# ---- import and export ----


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_file_survives_the_round_trip(mvctl, tmp_path, page_size, journal):
    source = plain(tmp_path / "plain.sqlite", SCRIPT, page_size, journal)
    before = source.read_bytes()
    done = mvctl("import", source, "app.db")
    assert re.search(
        rf"imported .* into .*app\.db: \d+ pages of {page_size} bytes .*{VERSION} of {TIME}", done.stdout
    )
    assert source.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"plain.sqlite", "app.db"}
    mvctl("export", "app.db", "copy.sqlite")
    assert dump(tmp_path / "copy.sqlite") == dump(source)
    copy = (tmp_path / "copy.sqlite").read_bytes()
    assert copy[18:20] == b"\x01\x01"
    assert len(copy) == len(before)


def test_an_import_reads_the_wal_of_a_file_in_use(mvctl, tmp_path):
    source = plain(tmp_path / "plain.sqlite", SCRIPT, journal="wal")
    live = sqlite3.connect(source)
    live.execute("PRAGMA wal_autocheckpoint = 0")
    live.execute("INSERT INTO other VALUES ('in the wal')")
    live.commit()
    before = source.read_bytes()
    mvctl("import", source, "app.db")
    assert source.read_bytes() == before
    assert Path(f"{source}-wal").stat().st_size > 0
    mvctl("export", "app.db", "copy.sqlite")
    assert "INSERT INTO \"other\" VALUES('in the wal');" in dump(tmp_path / "copy.sqlite")
    live.close()


def test_a_file_left_in_the_middle_of_a_transaction_is_left_alone(mvctl, tmp_path):
    source = plain(tmp_path / "plain.sqlite", SCRIPT)
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("PRAGMA cache_size = 2")
    writer.execute("BEGIN")
    writer.execute("UPDATE item SET filling = randomblob(3000)")
    crashed = tmp_path / "crashed.sqlite"
    for suffix in ("", "-journal"):
        shutil.copy(f"{source}{suffix}", f"{crashed}{suffix}")
    writer.close()
    before = crashed.read_bytes()
    assert "open it once" in mvctl("import", crashed, "app.db", code=1).stderr
    assert crashed.read_bytes() == before
    assert not (tmp_path / "app.db").exists()
    mvctl("import", source, "app.db")


def test_an_empty_file_is_an_empty_database(mvctl, tmp_path):
    (tmp_path / "empty.sqlite").touch()
    mvctl("import", "empty.sqlite", "app.db")
    mvctl("export", "app.db", "copy.sqlite")
    assert dump(tmp_path / "copy.sqlite") == ["BEGIN TRANSACTION;", "COMMIT;"]


def test_a_database_that_nobody_wrote_to_can_be_exported(mvctl, tmp_path):
    mvctl("create", "app.db")
    mvctl("export", "app.db")
    assert dump(tmp_path / "app.sqlite") == ["BEGIN TRANSACTION;", "COMMIT;"]


def test_odd_names(mvctl, tmp_path):
    source = plain(tmp_path / "ein Fäßchen 100%?#&.sqlite", SCRIPT)
    mvctl("import", source.name, "ä b%20c?d=1&e#f'.db")
    mvctl("--store", "s s", "import", source.name, "a/b ünd c")
    mvctl("export", "a/b ünd c", "--store", "s s")
    assert dump(tmp_path / "b ünd c.sqlite") == dump(source)
    mvctl("export", "ä b%20c?d=1&e#f'.db", "out.sqlite")
    assert dump(tmp_path / "out.sqlite") == dump(source)


def test_a_second_import_needs_force_and_keeps_history(mvctl, tmp_path, app):
    newer = plain(tmp_path / "newer.sqlite", "CREATE TABLE fresh(x)")
    assert "--force" in mvctl("import", newer, "app.db", code=4).stderr
    assert versions(mvctl, "app.db") == app
    mvctl("import", newer, "app.db", "--force", "-m", "fresh start")
    assert versions(mvctl, "app.db")[1:] == app
    mvctl("export", "app.db", "copy.sqlite")
    assert dump(tmp_path / "copy.sqlite") == dump(newer)
    mvctl("checkout", "app.db", "--at", "HEAD~3", "-o", "old.sqlite")
    assert dump(tmp_path / "old.sqlite") == dump(tmp_path / "plain.sqlite")


def test_an_import_of_another_page_size_is_refused(mvctl, tmp_path, app):
    plain(tmp_path / "other.sqlite", SCRIPT, page_size=512)
    assert "4096" in mvctl("import", "other.sqlite", "app.db", "--force", code=1).stderr


@pytest.mark.parametrize("what", ["foreign", "truncated", "missing", "folder"])
def test_a_failed_import_leaves_nothing(mvctl, tmp_path, what):
    source = tmp_path / "plain.sqlite"
    if what == "foreign":
        source.write_bytes(b"not a database, but long enough to look at" * 100)
    elif what == "truncated":
        plain(source, SCRIPT)
        os.truncate(source, 3 * 4096 + 100)
    elif what == "folder":
        source.mkdir()
    before = {p.name for p in tmp_path.iterdir()}
    mvctl("import", source, "app.db", code={"missing": 3, "folder": 7}.get(what, 6))
    assert {p.name for p in tmp_path.iterdir()} == before


def test_a_failed_import_leaves_other_databases_alone(mvctl, tmp_path, app):
    (tmp_path / "foreign").write_bytes(b"not a database, but long enough to look at" * 100)
    mvctl("import", "foreign", "second", "--store", "app.db", code=6)
    assert [json.loads(line)["name"] for line in mvctl("list", "app.db", "--json").stdout.splitlines()] == [
        "main"
    ]
    assert versions(mvctl, "app.db") == app


def test_a_file_cannot_become_a_store_of_its_own_name(mvctl, tmp_path):
    plain(tmp_path / "plain.sqlite", SCRIPT)
    assert "another name" in mvctl("import", "plain.sqlite", "./plain.sqlite", code=1).stderr


def test_export_overwrites_only_when_told(mvctl, tmp_path, app):
    (tmp_path / "copy.sqlite").write_text("precious")
    mvctl("export", "app.db", "copy.sqlite", code=4)
    assert (tmp_path / "copy.sqlite").read_text() == "precious"
    mvctl("export", "app.db", "copy.sqlite", "--force")
    assert len(dump(tmp_path / "copy.sqlite")) > 300
    assert {p.name for p in tmp_path.iterdir()} == {"plain.sqlite", "app.db", "copy.sqlite"}


@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
def test_export_never_writes_beside_a_journal(mvctl, tmp_path, app, suffix):
    (tmp_path / f"copy.sqlite{suffix}").touch()
    assert suffix in mvctl("export", "app.db", "copy.sqlite", "--force", code=4).stderr
    assert not (tmp_path / "copy.sqlite").exists()


def test_export_into_a_folder_that_is_not_there(mvctl, app):
    complaint = mvctl("export", "app.db", "nowhere/copy.sqlite", code=3).stderr
    assert complaint.startswith("mvctl: nowhere/copy.sqlite: ")


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
