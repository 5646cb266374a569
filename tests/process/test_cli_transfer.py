"""`mvctl import` and `export`: ordinary SQLite files become databases, and the other way round."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.process.mvctl import SCRIPT, TIME, VERSION, dump, plain, versions


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
