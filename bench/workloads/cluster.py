"""Small transactions on a FoundationDB cluster beside a bare FoundationDB transaction.

The peer does, through the same binding and in one transaction, what one of ours has to know and to write:
a read version and the changelog since its last commit, the page where several processes write (each then
finds its cached pages changed, as ours do: `python -m bench cluster` counts them), the same keys set, to
values as long, the same conflict ranges; no SQL and no cache.  Ours may run ahead (docs/adr/0032): then it
needs no read version.
"""

from __future__ import annotations

import importlib
import os
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from bench.targets import ClusterTarget, Target
from bench.workloads.base import Client, Evidence
from bench.workloads.updates import CounterWorkload, ReadModifyWriteClient, check_counters
from pagestore.snapshot import CHAIN_ROWS, MAX_CHANGES

_API_VERSION = 710
_DELTA, _WHOLE, _RECORD = bytes(19), bytes(2400), bytes(26)
_WHOLE_SHARE = 0.04
"""What 6,000 transactions of ours wrote, on average: how long a delta, a whole page and a changelog record
were, and how often a page was written whole."""

_ROW_BYTES_A_PAGE = 3_690
"""Of the table's rows as they are counted here, on a leaf: 271 leaves of 10,000 rows."""

_ROOT = b"root"
"""The page that the way to every row begins in; nobody writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUpdates(CounterWorkload):
    """Read-modify-write of random rows, as `rmw-uniform`."""

    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        assert isinstance(target, ClusterTarget)
        if target.bare:
            return _Bare(
                path.name, self.rows * self.row_bytes // _ROW_BYTES_A_PAGE, rng, reads_page=target.reads_page
            )
        return ReadModifyWriteClient(target, connection, lambda: rng.randrange(self.rows) + 1)

    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        if all(evidence):
            check_counters(connection, evidence)


class _Bare(Client):
    def __init__(self, name: str, pages: int, rng: random.Random, *, reads_page: bool) -> None:
        fdb = importlib.import_module("fdb")

        self._fdb: Any = fdb
        fdb.api_version(_API_VERSION)
        self._db = fdb.open()
        self._prefix = b"\x02bench\0" + name.encode()
        self._pages, self._rng = max(pages, 1), rng
        self._reads_page = reads_page
        self._last = b""
        """The version of the last commit."""

    def operate(self) -> int:
        page = b"%08d" % self._rng.randrange(self._pages)
        tr = self._db.create_transaction()
        tries = 0
        while True:
            tries += 1
            try:
                self._transact(tr, page)
            except self._fdb.FDBError as exc:
                tr.on_error(exc).wait()
            else:
                return tries

    def _transact(self, tr: Any, page: bytes) -> None:
        prefix, token = self._prefix, os.urandom(16)
        tr.options.set_read_your_writes_disable()
        log = prefix + b"l"
        list(tr.snapshot.get_range(log + self._last, log + b"\xff", MAX_CHANGES if self._last else 1, True))
        if self._reads_page:
            first = prefix + b"p" + page
            list(tr.snapshot.get_range(first, first + b"\xff", CHAIN_ROWS, True))
        for key in (prefix + b"u" + token, prefix + b"n", prefix + b"x" + _ROOT, prefix + b"x" + page):
            tr.add_read_conflict_range(key, key + b"\0")
        tr.add_write_conflict_range(prefix + b"x" + page, prefix + b"x" + page + b"\0")
        blob = _WHOLE if self._rng.random() < _WHOLE_SHARE else _DELTA
        for key, value in ((b"p" + page, blob), (b"l", _RECORD), (b"t" + bytes(9), b"")):
            tr.options.set_next_write_no_write_conflict_range()
            tr.set_versionstamped_key(_with_gap(prefix + key), value)
        tr.set_versionstamped_value(prefix + b"u" + token, bytes(10) + struct.pack("<I", 0))
        tr.options.set_next_write_no_write_conflict_range()
        tr.set_versionstamped_value(prefix + b"h", bytes(10) + struct.pack("<I", 0))
        stamp = tr.get_versionstamp()
        tr.commit().wait()
        self._last = stamp.wait()


def _with_gap(prefix: bytes) -> bytes:
    return prefix + bytes(10) + b"\0\0" + struct.pack("<I", len(prefix))
