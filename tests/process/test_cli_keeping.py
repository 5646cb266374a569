"""`mvctl retain gc du tag untag tags`: what they say, and what is there afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pagestore import retention, sweep
from tests.process.mvctl import TIME, VERSION, Mvctl, plain, versions

COMMITS = 30


@pytest.fixture
def app(mvctl: Mvctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """app.db, with many commits of pages that do not compress; their versions, newest first.

    Nothing of retention happens beside commits, and there is no time of grace."""
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)
    plain(tmp_path / "plain.sqlite", "CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
    mvctl("import", "plain.sqlite", "app.db")
    update = "INSERT OR REPLACE INTO t VALUES (1, randomblob(20000));"
    mvctl("shell", "app.db", text=update * COMMITS)
    return versions(mvctl, "app.db")


def entries(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def file_size() -> int:
    return Path("app.db/store.sqlite").stat().st_size


# ---- tags ----


def test_tags(mvctl, app):
    assert mvctl("tags", "app.db").stderr == "no tags\n"
    said = mvctl("tag", "app.db", "before it all", "--at", app[-2]).stdout
    assert re.fullmatch(rf"tagged .*app\.db.* at {app[-2]} of {TIME} as before it all\n", said)
    mvctl("tag", "app.db", "now")
    first, second = mvctl("tags", "app.db").stdout.splitlines()
    assert re.fullmatch(rf"{app[-2]}\s+{TIME}\s+before it all", first)
    assert re.fullmatch(rf"{app[0]}\s+{TIME}\s+now", second)
    found = entries(mvctl("tags", "app.db", "--json").stdout)
    assert [set(entry) for entry in found] == [{"tag", "version", "tagged"}] * 2
    assert [(entry["tag"], entry["version"]) for entry in found] == [
        ("before it all", app[-2]),
        ("now", app[0]),
    ]
    assert all(re.fullmatch(TIME, str(entry["tagged"])) for entry in found)


def test_a_tag_is_for_one_version(mvctl, app):
    mvctl("tag", "app.db", "one", "--at", app[3])
    mvctl("tag", "app.db", "one", "--at", app[3])  # as it is
    mvctl("tag", "app.db", "one", code=4)
    mvctl("tag", "app.db", "other", "--at", "HEAD~99", code=3)
    mvctl("tag", "nothing.db", "one", code=3)


def test_untag(mvctl, app):
    mvctl("tag", "app.db", "one", "--at", app[3])
    assert "removed the tag one of" in mvctl("untag", "app.db", "one").stdout
    assert mvctl("tags", "app.db", "--json").stdout == ""
    mvctl("untag", "app.db", "one", code=3)
    mvctl("checkout", "app.db", "--at", "tag:one", "-o", "x.sqlite", code=3)
    mvctl("tag", "app.db", "one", "--at", app[5])  # the name is free again


# ---- retention ----


def test_retain(mvctl, app):
    def policy(*args: object) -> str:
        return mvctl("retain", "app.db", *args).stdout.strip().partition("keeps its history: ")[2]

    assert policy() == "30d"
    assert policy("--for", "12h") == "12h"
    assert policy("--max-size", "20GiB") == "12h, at most 20.0 GiB of it"
    assert policy() == "12h, at most 20.0 GiB of it"
    assert policy("--for", "forever", "--max-size", "unlimited") == "forever"
    for mistake in (["--for", "soon"], ["--for", "-1d"], ["--max-size", "much"]):
        mvctl("retain", "app.db", *mistake, code=2)
    assert policy() == "forever"


def test_gc_lets_go_of_what_nothing_needs(mvctl, app):
    mvctl("tag", "app.db", "kept", "--at", app[10])
    taken = entries(mvctl("du", "app.db", "--json").stdout)[0]
    assert mvctl("gc", "app.db").stdout.startswith(
        "main: let go of 0 versions, 0 old pages, 0 bytes; readable from"
    )
    mvctl("retain", "app.db", "--for", "0s")
    said = mvctl("gc", "app.db").stdout
    gone, pages = (int(n) for n in re.findall(r"([\d,]+) (?:versions|old pages)", said))
    assert gone >= COMMITS - 3
    assert pages > 4 * (COMMITS - 3)
    assert re.search(rf"readable from {app[0]} of {TIME} on$", said.strip())
    assert versions(mvctl, "app.db")[0] == app[0]
    left = entries(mvctl("du", "app.db", "--json").stdout)[0]
    assert left["live_pages"] == taken["live_pages"]
    assert left["history_bytes"] * 5 < taken["history_bytes"]
    mvctl("checkout", "app.db", "--at", "tag:kept", "-o", "kept.sqlite")
    mvctl("checkout", "app.db", "--at", app[5], "-o", "gone.sqlite", code=3)
    mvctl("untag", "app.db", "kept")
    assert "let go of" in mvctl("gc", "app.db").stdout
    assert entries(mvctl("du", "app.db", "--json").stdout)[0]["history_pages"] == 0


def test_gc_says_beforehand_what_would_go(mvctl, app):
    mvctl("retain", "app.db", "--for", "0s")
    said = mvctl("gc", "app.db", "--dry-run").stdout
    (would,) = entries(mvctl("gc", "app.db", "--dry-run", "--json").stdout)
    assert said.startswith(
        f"main: would let go of {would['versions']:,} versions, {would['page_versions']:,} old pages"
    )
    mvctl("checkout", "app.db", "--at", app[-1], "-o", "old.sqlite")  # it is all still there
    (done,) = entries(mvctl("gc", "app.db", "--json").stdout)
    assert set(done) == {
        "name", "versions", "page_versions", "bytes", "horizon", "horizon_time", "dry_run"
    }  # fmt: skip
    assert (would.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert would == done
    assert done["versions"] >= COMMITS - 1
    assert done["bytes"] > COMMITS * 20_000 // 2
    assert re.fullmatch(VERSION, str(done["horizon"]))
    assert re.fullmatch(TIME, str(done["horizon_time"]))
    mvctl("gc", "app.db", "--dry-run", "--compact", code=2)


def test_gc_gives_space_back(mvctl, app):
    mvctl("retain", "app.db", "--for", "0s")
    before = file_size()
    done = mvctl("gc", "app.db", "--compact")
    assert re.search(r"given back to the file system", done.stderr)
    assert file_size() < before / 4
    assert mvctl("shell", "app.db", "-c", "SELECT length(a) FROM t").stdout.strip() == "20000"


def test_gc_of_a_whole_store(mvctl, app):
    mvctl("branch", "app.db", "other")
    found = entries(mvctl("gc", "--store", "app.db", "--json").stdout)
    assert sorted(str(entry["name"]) for entry in found) == ["main", "other"]


def test_gc_in_small_steps_removes_the_same(mvctl, app, monkeypatch):
    monkeypatch.setattr(sweep, "STEP", 7)
    mvctl("retain", "app.db", "--for", "0s")
    (would,) = entries(mvctl("gc", "app.db", "--dry-run", "--json").stdout)
    (done,) = entries(mvctl("gc", "app.db", "--json").stdout)
    assert would | {"dry_run": False} == done


# ---- what it takes ----


def test_du(mvctl, app):
    (facts,) = entries(mvctl("du", "app.db", "--json").stdout)
    assert facts.pop("name") == "main"
    assert set(facts) == {
        f"{what}_{unit}" for what in ("live", "shared", "history") for unit in ("pages", "bytes")
    }
    assert facts["shared_pages"] == facts["shared_bytes"] == 0
    assert facts["live_bytes"] > 20_000
    assert facts["history_bytes"] > 15 * facts["live_bytes"]
    live, shared, history = mvctl("du", "app.db").stdout.splitlines()
    assert re.match(rf"live\s+{facts['live_pages']:,} pages", live)
    assert re.match(r"shared with what it is a branch of\s+0 pages", shared)
    assert re.match(rf"history\s+{facts['history_pages']:,} pages", history)


def test_du_of_a_branch(mvctl, app):
    mvctl("branch", "app.db", "other")
    (parent,) = entries(mvctl("du", "app.db", "--json").stdout)
    (facts,) = entries(mvctl("du", "--store", "app.db", "other", "--json").stdout)
    assert facts["live_pages"] == facts["shared_pages"] == parent["live_pages"]
    assert facts["history_pages"] == 0
    mvctl("shell", "--store", "app.db", "other", "-c", "CREATE TABLE mine(x)")
    (facts,) = entries(mvctl("du", "--store", "app.db", "other", "--json").stdout)
    assert facts["shared_pages"] < facts["live_pages"]
    mvctl("du", "nothing.db", code=3)


# ---- what programs read ----


def test_the_shape_of_log_and_show(mvctl, app):
    mvctl("shell", "app.db", "-c", "UPDATE t SET a = 'x'", MV_MESSAGE='says "ä"\n')
    head = {"version", "time", "pages", "message"}
    row = {"version", "change", "table", "op", "key", "old", "new"}
    commit, change = entries(mvctl("show", "app.db", "HEAD", "--json").stdout)
    assert (set(commit), set(change)) == (head, row)
    assert commit["message"] == 'says "ä"\n'
    assert (change["change"], change["op"], change["key"]) == ("row", "update", [1])
    (plainly,) = entries(mvctl("log", "app.db", "-n", 1, "--json").stdout)
    assert plainly == commit
    tables, changed = entries(mvctl("log", "app.db", "-n", 1, "--json", "--tables", "--rows").stdout)
    assert tables == commit | {"tables": ["t"]}
    assert changed == change
    mvctl("shell", "app.db", "-c", "CREATE TABLE u(y)")
    (_, schema) = entries(mvctl("show", "app.db", "HEAD", "--json").stdout)
    assert set(schema) == {"version", "change", "op", "kind", "name", "table", "old", "new"}
    assert (schema["change"], schema["op"], schema["old"]) == ("schema", "added", None)
    with_version = {key: value for key, value in schema.items() if key != "version"}
    assert entries(mvctl("diff", "app.db", "HEAD~1", "--json").stdout) == [with_version]
