"""Processes that share a cache on disk, and are killed while they write to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mvvfs
from tests.conftest import LONG_ON_CLUSTER
from tests.distant import Distance

ALL = "SELECT id, body FROM t"
READER = """
import random, sys
import pytest, mvvfs
from tests.distant import Distance
url, cache, seed = sys.argv[1:]
Distance(pytest.MonkeyPatch())
chance = random.Random(seed)
print("started", flush=True)
while True:
    connection = mvvfs.connect("app", store=url, cache_dir=cache, cache_dir_size="1MiB", timeout=30)
    for _ in range(chance.randrange(1, 6)):
        with connection:
            rows = dict(connection.execute("SELECT id, body FROM t WHERE id % 3 = ?", (chance.randrange(3),)))
            # whatever the snapshot: every row was written with its number, by one commit with its neighbours
            assert all(body.startswith(f"{row} ") for row, body in rows.items()), "a row of another"
        low = chance.randrange(1, 980)
        connection.execute("SELECT body FROM t WHERE id BETWEEN ? AND ?", (low, low + 9)).fetchall()
        first = 10 * chance.randrange(100)
        bodies = connection.execute("SELECT body FROM t WHERE id / 10 = ? / 10", (first,)).fetchall()
        assert len({body.split()[1] for (body,) in bodies}) == 1, f"torn: {bodies}"
    connection.close()
"""


def start(url: str, cache: Path, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, url, str(cache), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@LONG_ON_CLUSTER
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_killed_readers_leave_a_sound_cache(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, seconds: float
) -> None:
    chance = random.Random(seed)
    writer = mvvfs.connect("app", store=shared, page_size=1024, durability="normal")
    with writer:
        writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT)")
        for row in range(1000):
            writer.execute("INSERT INTO t VALUES(?, ? || ' 0 ' || hex(zeroblob(150)))", (row, row))
    cache = tmp_path / "cache"
    readers = [start(shared, cache, chance.getrandbits(32)) for _ in range(2)]
    ends = time.monotonic() + seconds
    kills = commits = 0
    while time.monotonic() < ends or not kills:
        with writer:
            first = 10 * chance.randrange(100)
            commits += 1
            writer.execute(
                "UPDATE t SET body = id || ' ' || ? || ' ' || hex(zeroblob(150)) WHERE id BETWEEN ? AND ?",
                (commits, first, first + 9),
            )
        time.sleep(0.005)
        for i, reader in enumerate(readers):
            assert reader.poll() is None, reader.stderr.read() if reader.stderr else ""
            if chance.random() < 0.01:
                reader.send_signal(signal.SIGKILL)
                reader.communicate()
                readers[i] = start(shared, cache, chance.getrandbits(32))
                kills += 1
    for reader in readers:
        reader.kill()
        reader.communicate()
    truth = writer.execute(ALL).fetchall()
    distance = Distance(monkeypatch)
    writer.close()
    for _ in range(2):
        connection = mvvfs.connect("app", store=shared, cache_dir=str(cache), cache_dir_size=64 << 20)
        distance.start()
        assert connection.execute(ALL).fetchall() == truth
        connection.close()
    assert distance.pages == []


def test_after_a_fork(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child opens the cache anew, and the parent's goes on."""
    Distance(monkeypatch)

    def look() -> int:
        connection = mvvfs.connect("app", store=folder, cache_dir=str(tmp_path / "cache"))
        ((count,),) = connection.execute("SELECT count(*) FROM t").fetchall()
        connection.close()
        return int(count)

    connection = mvvfs.connect("app", store=folder)
    connection.execute("CREATE TABLE t(x)")
    connection.execute("INSERT INTO t SELECT value FROM json_each(?)", (str(list(range(1000))),))
    connection.close()
    assert look() == 1000
    child = os.fork()
    if child == 0:
        os._exit(0 if look() == 1000 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert look() == 1000
