"""Several databases of a store as files, as of one version."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import apsw
import pytest

import mvvfs
from mvvfs import cut
from mvvfs.errors import OptionError
from mvvfs.options import to_uri
from mvvfs.when import format_time
from pagestore.api import Change, NoSuchNamespaceError, NoSuchVersionError, format_version
from pagestore.opener import open_store

STEPS = 6


@pytest.fixture
def history(folder: str) -> list[Change]:
    """`a` and `b` hold their transfers 1 .. n, made together; in between each changes alone, too."""
    connection = mvvfs.connect("a", store=folder)
    connection.execute("ATTACH ? AS b", (to_uri("b", store=folder),))
    connection.execute("BEGIN; CREATE TABLE main.t(n); CREATE TABLE b.t(n); CREATE TABLE main.x(n); COMMIT")
    for n in range(1, STEPS + 1):
        time.sleep(0.002)
        connection.execute(f"BEGIN; INSERT INTO main.t VALUES({n}); INSERT INTO b.t VALUES({n}); COMMIT")
        time.sleep(0.002)
        connection.execute(f"INSERT INTO {'main.x' if n % 2 else 'b.t'} SELECT {n} WHERE {n % 2}")
    connection.close()
    store = open_store(folder, create=False)
    changes = {change.version: change for name in "ab" for change in store.changelog(store.open(name).id)}
    store.close()
    return [changes[version] for version in sorted(changes)]


def numbers(path: Path) -> list[int]:
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [n for (n,) in file.execute("SELECT n FROM t ORDER BY n")]


def test_every_moment_is_one_cut(folder: str, tmp_path: Path, history: list[Change]) -> None:
    assert len(history) > STEPS
    for i, change in enumerate(history):
        for j, at in enumerate((format_version(change.version), format_time(change.time_us))):
            target = tmp_path / f"{i}-{j}"
            version, files = cut.checkout_files(["b", "a"], str(target), at, store=folder)
            assert version == change.version
            assert sorted(os.listdir(target)) == ["a.sqlite", "b.sqlite"]
            assert numbers(target / "a.sqlite") == numbers(target / "b.sqlite")
            assert [copied.location.namespace for copied in files] == ["b", "a"]
            assert all(copied.moment and copied.moment.version <= version for copied in files)


def test_now(folder: str, tmp_path: Path, history: list[Change]) -> None:
    version, _ = cut.checkout_files(["a", "b"], str(tmp_path / "now"), "HEAD", store=folder)
    assert version == history[-1].version
    assert numbers(tmp_path / "now" / "b.sqlite") == list(range(1, STEPS + 1))


def test_nothing_is_overwritten_without_force(folder: str, tmp_path: Path, history: list[Change]) -> None:
    (tmp_path / "b.sqlite").write_text("mine")
    with pytest.raises(FileExistsError):
        cut.checkout_files(["a", "b"], str(tmp_path), "HEAD", store=folder)
    assert not (tmp_path / "a.sqlite").exists()
    assert (tmp_path / "b.sqlite").read_text() == "mine"
    cut.checkout_files(["a", "b"], str(tmp_path), "HEAD", store=folder, force=True)
    assert numbers(tmp_path / "b.sqlite") == numbers(tmp_path / "a.sqlite")


def test_a_failure_leaves_no_file(
    folder: str, tmp_path: Path, history: list[Change], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copied = cut.write_file, []

    def second_fails(origin: apsw.Connection, path: str, progress: object) -> tuple[int, int]:
        copied.append(path)
        if len(copied) == 2:
            raise OSError("the disk is gone")
        return real(origin, path, None)

    monkeypatch.setattr(cut, "write_file", second_fails)
    target = tmp_path / "out"
    with pytest.raises(OSError, match="disk"):
        cut.checkout_files(["a", "b"], str(target), "HEAD", store=folder)
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    ("databases", "at", "error"),
    [
        (["a", "b"], "HEAD~1", OptionError),
        (["a", "a"], "HEAD", OptionError),
        (["a", "b"], "nonsense", OptionError),
        (["a", "b"], "2099-01-01", NoSuchVersionError),
        (["a", "nothing"], "HEAD", NoSuchNamespaceError),
        (["a", "empty"], "HEAD", NoSuchVersionError),
    ],
)
def test_what_makes_no_sense(
    folder: str, tmp_path: Path, history: list[Change], databases: list[str], at: str, error: type[Exception]
) -> None:
    mvvfs.connect("empty", store=folder).close()
    with pytest.raises(error):
        cut.checkout_files(databases, str(tmp_path / "out"), at, store=folder)
    assert not (tmp_path / "out").exists()


def test_of_two_stores(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one store"):
        cut.checkout_files([f"{tmp_path}/a.db", f"{tmp_path}/b.db"], str(tmp_path / "out"), "HEAD")
