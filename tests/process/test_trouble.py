"""Where the store lives there is trouble: a full disk, a read-only folder, files cut short or not ours."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import mvvfs
from mvvfs import errors
from pagestore.embedded import ENGINE_FILE
from tests.conftest import NAME
from tests.process import crew
from tests.process.place import Place, roll_back, value

ROOT = Path(__file__).resolve().parents[2]


def fill(place: Place, count: int = 200) -> None:
    connection = place.connect()
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, data BLOB); CREATE INDEX t_x ON t(x)")
    with connection:
        connection.executemany(
            "INSERT INTO t VALUES(?, ?, randomblob(500))", ((i, f"row {i}") for i in range(count))
        )
    for i in range(20):
        connection.execute("UPDATE t SET x = x || '!' WHERE id = ?", (i,))
    connection.close()


def digest(connection: apsw.Connection) -> Any:
    return connection.execute("SELECT count(*), sum(length(x)), group_concat(hex(data)) FROM t").fetchall()


# ---- a full disk ----


def meet_a_full_disk(store: str, flag: str) -> dict[str, object]:
    """Runs with full_disk.c preloaded: commits, fails while the disk is full, and goes on afterwards."""
    full = Path(flag)
    place = Place(store)
    connection = place.connect()
    connection.execute("CREATE TABLE t(x); INSERT INTO t VALUES('before')")
    full.touch()
    raised = []
    for sql in (
        "INSERT INTO t VALUES('lost')",
        "INSERT INTO t VALUES(zeroblob(20000000))",
        "CREATE TABLE u(x)",
    ):
        try:
            connection.execute(sql)
        except apsw.Error as error:
            raised.append((type(error).__name__, isinstance(error, apsw.FullError), str(error)))
        roll_back(connection)
    while_full = value(connection, "SELECT group_concat(x) FROM t")
    last_error = value(connection, "PRAGMA mv_last_error")
    full.unlink()
    connection.execute("INSERT INTO t VALUES('after')")
    other = place.connect()
    return {
        "raised": raised,
        "while full": while_full,
        "last error": last_error,
        "afterwards": value(other, "SELECT group_concat(x) FROM t"),
        "integrity": value(other, "PRAGMA integrity_check"),
    }


def test_a_full_disk(folder: str, tmp_path: Path) -> None:
    library = build_preload(tmp_path)
    flag = tmp_path / "full"
    program = (
        "import json, sys; from tests.process.test_trouble import meet_a_full_disk;"
        " print(json.dumps(meet_a_full_disk(*sys.argv[1:])))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, folder, str(flag)],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(library), "MV_TEST_DISK_FULL": str(flag)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found["raised"]) == 3
    for name, is_full, message in found["raised"]:
        assert is_full, f"{name}: {message}"
    assert found["while full"] == "before"
    assert "full" in found["last error"].lower() or "space" in found["last error"].lower()
    assert found["afterwards"] == "before,after"
    assert found["integrity"] == "ok"


def build_preload(tmp_path: Path) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and LD_PRELOAD")
    library = tmp_path / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    return library


# ---- a read-only folder ----


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that a process without privileges can reach."""
    path = Path(tempfile.mkdtemp(prefix="mvvfs-test-"))
    path.chmod(0o755)
    yield path
    for each in [path, *path.rglob("*")]:
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(path)


def without_privileges(work: Callable[[str], Any], store: str) -> Any:
    """Root may write anywhere, so the worker becomes nobody first."""
    Place(tempfile.mkdtemp() + "/warm").connect().close()  # whatever is imported late
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    return work(store)


def use_read_only(store: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode in ("rwc", "ro"):
        connection = mvvfs.connect(NAME, store=store, mode=mode)
        found[mode] = digest(connection)
        try:
            connection.execute("INSERT INTO t VALUES(-1, '', '')")
        except apsw.ReadOnlyError:
            found[f"{mode} write"] = "read-only"
        found[f"{mode} past"] = value(mvvfs.connect(NAME, store=store, at="HEAD~1"), "SELECT count(*) FROM t")
    return found


def create_read_only(store: str) -> str:
    try:
        mvvfs.connect(NAME, store=store)
    except errors.Error as error:
        return f"{type(error).__name__}: {error}"
    return "created"


def make_read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_a_read_only_folder_can_be_read(open_to_all: Path) -> None:
    store = open_to_all / "store"
    place = Place(str(store))
    fill(place)
    connection = place.connect()
    expected = digest(connection)
    connection.close()
    make_read_only(store)
    (found,) = crew.run(without_privileges, [(use_read_only, str(store))], seconds=60)
    assert found["rwc"] == found["ro"] == expected
    assert found["rwc write"] == found["ro write"] == "read-only"
    assert found["rwc past"] == found["ro past"] == 200


def test_nothing_can_be_created_in_a_read_only_folder(open_to_all: Path) -> None:
    (open_to_all / "place").mkdir()
    make_read_only(open_to_all / "place")
    (said,) = crew.run(
        without_privileges, [(create_read_only, str(open_to_all / "place" / "store"))], seconds=60
    )
    assert said != "created"
    assert "store" in said
    assert list((open_to_all / "place").iterdir()) == []


# ---- files that are not ours ----


def test_an_ordinary_database_file_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with apsw.Connection(str(path)) as plain:
        plain.execute("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
    before = path.read_bytes()
    for mode in ("rwc", "rw", "ro"):
        with pytest.raises(errors.Error, match="mvctl import"):
            mvvfs.connect(str(path), mode=mode)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database", bytes(5000)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(content)
    with pytest.raises(errors.Error, match=r"app\.db"):
        mvvfs.connect(str(path))
    assert path.read_bytes() == content


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"miaow")
    with pytest.raises(errors.Error, match="photos"):
        mvvfs.connect(str(tmp_path / "photos"))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    connection = mvvfs.connect(str(tmp_path / "empty"))
    connection.execute("CREATE TABLE t(x)")
    assert value(mvvfs.connect(str(tmp_path / "empty"), mode="rw"), "SELECT count(*) FROM t") == 0


# ---- files that are damaged ----


def engine_file(store: Path) -> Path:
    return store / ENGINE_FILE


def read_damaged(store: str) -> Any:
    """In a process of its own: what can still be read, or which error it is."""
    try:
        connection = mvvfs.connect(NAME, store=store, mode="rw")
        return digest(connection)
    except errors.Error as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def filled(folder: str) -> tuple[Path, Any]:
    """A store that nobody has open, all of it in the engine's main file, and what it holds."""
    fill(Place(folder))
    connection = Place(folder).connect()
    expected = digest(connection)
    connection.close()
    return Path(folder), expected


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.95])
def test_a_store_that_was_cut_short_is_an_error(filled: tuple[Path, Any], part: float) -> None:
    store, _ = filled
    path = engine_file(store)
    os.truncate(path, int(path.stat().st_size * part))
    (found,) = crew.run(read_damaged, [(str(store),)], seconds=60)
    assert isinstance(found, str), "what is gone was read"
    assert "Error: " in found


def test_a_store_whose_file_is_gone_is_an_error(filled: tuple[Path, Any]) -> None:
    store, _ = filled
    engine_file(store).unlink()
    (found,) = crew.run(read_damaged, [(str(store),)], seconds=60)
    assert isinstance(found, str)


def test_a_store_with_a_foreign_file_in_it_is_an_error(filled: tuple[Path, Any], tmp_path: Path) -> None:
    store, _ = filled
    path = engine_file(store)
    path.unlink()
    with apsw.Connection(str(path)) as foreign:
        foreign.execute("CREATE TABLE t(x, data); INSERT INTO t VALUES(1, 2)")
    (found,) = crew.run(read_damaged, [(str(store),)], seconds=60)
    assert isinstance(found, str)


def test_flipped_bytes_are_never_read(filled: tuple[Path, Any], seed: int) -> None:
    """Wherever a byte of stored content changes: the right answer, or an error; never another answer."""
    store, expected = filled
    rng = random.Random(seed)
    path = engine_file(store)
    good = path.read_bytes()
    outcomes = []
    for _ in range(12):
        bad = bytearray(good)
        for _ in range(3):
            bad[rng.randrange(100, len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        (found,) = crew.run(read_damaged, [(str(store),)], seconds=60)
        outcomes.append("error" if isinstance(found, str) else "right" if found == expected else found)
        assert outcomes[-1] in ("error", "right")
    print(outcomes)
    assert "error" in outcomes
