"""Bulk commits: those whose pages were staged, between their commit and their folding in.

Called by `commit` (makes one), `snapshot` (reads through them) and `store` (folds them in).  Calls the
engine.

1. A bulk commit is one small record that says: the pages staged under this token are those of this version.
   With it they are visible, all at once.
2. Folding in sets the page keys at that version, and removes the staged pages with the same engine
   transaction, step by step.  It changes nothing that anybody reads: at any time a page version of the
   commit is either under its page key or staged.  When none is staged the record goes.
3. Two may fold at once: a step reads with conflict what it moves, so each page is moved once.
4. What was begun is finished by whoever comes across a record that is older than `LEFT_SECONDS`.

Record: the token (16 bytes), the commit's Unix µs (8 bytes, big-endian).  The version is in its key.

Worked example: a commit of 100,000 pages is at version 50.  A reader at 49 does not look at the record.  One
at 60 asks for page 7: its page key at 45, and under the token; the staged one is newer.  Page 7 is folded in:
now there are page keys 45 and 50, and nothing is staged for it.  A commit writes page 7 at 55, as a delta of
the version at 50, which is found wherever it is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from typing import NamedTuple

from pagestore import keys, staging
from pagestore.api import (
    TOKEN_SIZE,
    NamespaceId,
    NoSuchNamespaceError,
    PageNumber,
    StoreError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.faults import fault
from pagestore.namespaces import rely_on

MAX_BULKS = 32
"""Bulk commits of one namespace that may wait to be folded in."""

LEFT_SECONDS = 10.0
"""A record this old is looked after by nobody, or by somebody slow: others fold too."""

FOLD_ROWS = 1000
FOLD_BYTES = staging.STEP_BYTES

_log = logging.getLogger("pagestore")

Row = tuple[Version, bytes]
"""A page version and its blob."""


class Bulk(NamedTuple):
    version: Version
    token: bytes
    time_us: int

    def is_left(self) -> bool:
        return time.time_ns() // 1000 - self.time_us > LEFT_SECONDS * 1e6


def of_row(key: bytes, value: bytes) -> Bulk:
    return Bulk(keys.version_of(key), value[:TOKEN_SIZE], int.from_bytes(value[TOKEN_SIZE:], "big"))


def of_head(id_: NamespaceId, rows: Iterable[tuple[bytes, bytes]]) -> list[Bulk]:
    """Those among the rows of `keys.namespace_and_bulks`, behind the record."""
    return [of_row(key, value) for key, value in rows if key != keys.turn_told(id_)]


def write(tx: Transaction, id_: NamespaceId, token: bytes, time_us: int) -> None:
    """Make the pages staged under the token visible with this commit."""
    staging.mark_committed(tx, id_, token)
    tx.set_versioned_key(keys.bulk_prefix(id_), keys.VERSION_SUFFIX, token + time_us.to_bytes(8, "big"))


def check_room(bulks: Sequence[Bulk]) -> None:
    """Raises StoreUnavailableError while there are too many for another one."""
    if len(bulks) >= MAX_BULKS:
        raise StoreUnavailableError(
            f"{len(bulks)} large transactions are still being folded in: try again later"
        )


# ---- reading ----


def unfolded(tx: Snapshot, id_: NamespaceId) -> list[Bulk]:
    _, end = keys.namespace_and_bulks(id_)
    return [of_row(*row) for row in tx.scan(KeyRange(keys.bulk_prefix(id_), end))]


def through(
    tx: Snapshot,
    id_: NamespaceId,
    bulks: Iterable[Bulk],
    until: Version,
    pages: Sequence[tuple[PageNumber, Iterator[Row]]],
) -> list[Iterator[Row]]:
    """The rows of each page, newest first, with those that are still staged in their places."""
    seen = sorted((bulk for bulk in bulks if bulk.version <= until), reverse=True)
    if not seen:
        return [rows for _, rows in pages]
    asked = [
        [(bulk.version, tx.ask(keys.staged(id_, bulk.token, number))) for bulk in seen] for number, _ in pages
    ]
    return [_merged(rows, staged) for (_, rows), staged in zip(pages, asked, strict=True)]


def _merged(
    rows: Iterator[Row], asked: Sequence[tuple[Version, Callable[[], bytes | None]]]
) -> Iterator[Row]:
    staged = [(version, blob) for version, wait in asked if (blob := wait()) is not None]
    return merge(rows, staged, key=lambda row: row[0], reverse=True)


def staged_rows(tx: Snapshot, id_: NamespaceId, one: Bulk) -> Iterator[tuple[PageNumber, Version, bytes]]:
    """What is not folded in yet, by page number."""
    for key, blob in tx.scan(KeyRange(*keys.staged_pages(id_, one.token))):
        yield keys.number_of_staged(key, one.token), one.version, blob


# ---- folding in ----


def fold(
    engine: Engine, id_: NamespaceId, timeout: float, stopped: Callable[[], bool] = lambda: False
) -> bool:
    """Fold in all bulk commits of a namespace, oldest first.  False: stopped before the end."""
    for bulk in engine.read(lambda tx: unfolded(tx, id_), timeout=timeout):
        while _fold_step(engine, id_, bulk, timeout):
            fault("fold.step")
            if stopped():
                return False
    return True


def _fold_step(engine: Engine, id_: NamespaceId, bulk: Bulk, timeout: float) -> bool:
    """Whether there is more to do."""
    begin, end = keys.staged_pages(id_, bulk.token)

    def work(tx: Transaction) -> bool:
        rely_on(tx, id_)
        moved, size = b"", 0
        for key, blob in tx.scan(KeyRange(begin, end, FOLD_ROWS)):
            number = keys.number_of_staged(key, bulk.token)
            tx.move(key, keys.page_prefix(id_, number) + bulk.version + keys.VERSION_SUFFIX, blob)
            moved, size = key, size + len(blob)
            if size >= FOLD_BYTES:
                break
        if moved:
            tx.add_read_conflict(begin, moved + b"\0")
            tx.clear_range(begin, moved + b"\0")
            return True
        tx.add_read_conflict(begin, end)
        staging.clear(tx, id_, bulk.token)
        tx.clear(keys.bulk(id_, bulk.version))
        return False

    return engine.transact(work, durability="normal", timeout=timeout).value


class Folder:
    """Folds in behind commits: one thread, which exists only while there is something to do."""

    def __init__(self, engine: Engine, timeout: Callable[[], float]) -> None:
        self._engine = engine
        self._timeout = timeout
        self._lock = threading.Lock()
        self._waiting: set[NamespaceId] = set()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._pid = os.getpid()

    def fold(self, id_: NamespaceId) -> None:
        """Fold in a namespace's bulk commits, soon."""
        with self._lock:
            if self._stop.is_set() or self._pid != os.getpid():
                return
            self._waiting.add(id_)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pagestore-fold", daemon=True)
                self._thread.start()

    def notice(self, id_: NamespaceId, bulks: Iterable[Bulk]) -> None:
        """For who came across bulk commits: those that seem left alone are folded in here."""
        if any(bulk.is_left() for bulk in bulks):
            self.fold(id_)

    def settle(self) -> None:
        """Wait until all is folded in that this process has to."""
        thread = self._thread
        if thread is not None and self._pid == os.getpid():
            thread.join()

    def stop(self) -> None:
        """Leave the rest to others, after the step that is under way."""
        self._stop.set()
        self.settle()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._stop.is_set():
                    self._thread = None
                    return
                id_ = self._waiting.pop()
            try:
                fold(self._engine, id_, self._timeout(), self._stop.is_set)
            except NoSuchNamespaceError:
                continue  # dropped meanwhile
            except StoreError as exc:
                _log.warning("bulk commits of namespace %d are not folded in yet: %s", id_, exc)
