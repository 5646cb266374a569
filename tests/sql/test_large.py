"""Databases beyond 1 GiB, where SQLite's lock-byte page lies (rule 19)."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from mvvfs import transfer
from tests.conftest import NAME, Connect
from tests.sql.twins import rows, value

CHUNK = 60_000_000


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_beyond_the_lock_byte_page(
    connect_folder: Connect, folder: str, tmp_path: Path, page_size: int
) -> None:
    connection = connect_folder(page_size=page_size, durability="normal", cache_bytes=32 << 20, slow_ms=0)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for _ in range(20):
        connection.execute("INSERT INTO t(v) VALUES (zeroblob(?))", (CHUNK,))
    assert value(connection, "PRAGMA page_count") * page_size > 1 << 30
    connection.execute("DELETE FROM t WHERE id % 3 = 0")
    connection.execute("INSERT INTO t(v) VALUES (zeroblob(?))", (CHUNK // 2,))
    expected = [(15, 14 * CHUNK + CHUNK // 2)]
    for each in (connection, connect_folder()):
        assert value(each, "PRAGMA integrity_check") == "ok"
        assert rows(each, "SELECT count(*), sum(length(v)) FROM t") == expected
    target = str(tmp_path / "exported.sqlite")
    transfer.export_file(NAME, target, store=folder)
    with apsw.Connection(target) as exported:
        assert value(exported, "PRAGMA integrity_check") == "ok"
        assert rows(exported, "SELECT count(*), sum(length(v)) FROM t") == expected
