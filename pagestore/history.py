"""The past of a namespace: its changelog, the version at a time, how much it takes.

Called by `store`, and by `commit` for what came after its base.  Calls the engine, always in short
transactions: each picks up behind the last key that the one before it saw.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from pagestore import allocation, changelog, encoding, kept, keys, snapshot, waypoints
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    BelowHorizonError,
    Change,
    NamespaceId,
    NoSuchVersionError,
    PageNumber,
    PageRun,
    PageRuns,
    Usage,
    Version,
    united,
    without,
)
from pagestore.batches import in_batches
from pagestore.engines.base import Engine, KeyRange, Snapshot
from pagestore.namespaces import Record, find

_CHUNK = 500
"""Rows read in one engine transaction."""


def rows(
    engine: Engine, begin: bytes, end: bytes, timeout: float, *, reverse: bool = False, limit: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """All rows in [begin, end), or `limit` of them, not of one snapshot."""
    left = limit
    while True:
        most = min(left, _CHUNK) if limit else _CHUNK
        chunk = _rows(engine, KeyRange(begin, end, most, reverse), timeout)
        yield from chunk
        left -= len(chunk)
        if len(chunk) < most or (limit and not left):
            return
        if reverse:
            end = chunk[-1][0]
        else:
            begin = chunk[-1][0] + b"\0"


def _rows(engine: Engine, wanted: KeyRange, timeout: float) -> list[tuple[bytes, bytes]]:
    return engine.read(lambda tx: list(tx.scan(wanted)), timeout=timeout)


def changes(
    engine: Engine,
    id_: NamespaceId,
    after: Version,
    until: Version,
    timeout: float,
    *,
    newest_first: bool = False,
    skip: int = 0,
    limit: int = 0,
) -> Iterator[Change]:
    """Commits in (after, until], without the first `skip` of them; `limit` 0: all."""
    if skip and newest_first:
        until, skip = engine.read(lambda tx: waypoints.back(tx, id_, until, skip), timeout=timeout)
        if until <= after:
            return
    most = skip + limit if limit else 0
    wanted = keys.log(id_, after, until)
    found = rows(engine, *wanted, timeout, reverse=newest_first, limit=most)
    for key, record in islice(found, skip, None):
        yield _change(engine, id_, key, record, timeout)


def changes_in(
    engine: Engine, id_: NamespaceId, wanted: tuple[bytes, bytes], timeout: float
) -> Iterator[Change]:
    """The commits of a range of changelog keys, oldest first."""
    for key, record in rows(engine, *wanted, timeout):
        yield _change(engine, id_, key, record, timeout)


def _change(engine: Engine, id_: NamespaceId, key: bytes, record: bytes, timeout: float) -> Change:
    """What a changelog row says, of which the rest may be elsewhere."""
    if changelog.size_of(record) == len(record):
        return changelog.read(keys.version_of(key), record)
    return engine.read(lambda tx: changelog.change_of(tx, id_, key, record), timeout=timeout)


def records(
    engine: Engine, id_: NamespaceId, after: Version, until: Version, timeout: float
) -> Iterator[tuple[Version, bytes]]:
    """Changelog records, whole, of commits in (after, until]."""
    for key, record in rows(engine, *keys.log(id_, after, until), timeout):
        version = keys.version_of(key)
        yield version, _whole(engine, id_, version, record, timeout)


def _whole(engine: Engine, id_: NamespaceId, version: Version, record: bytes, timeout: float) -> bytes:
    if changelog.size_of(record) == len(record):
        return record
    return engine.read(lambda tx: changelog.whole(tx, id_, version, record), timeout=timeout)


def version_at(tx: Snapshot, id_: NamespaceId, time_us: int) -> Version:
    """The newest version whose time is <= `time_us`.

    Right where recorded times never go back, as on engines whose `commit_time` sees to it; on others it
    is off by no more than the clocks of those who commit."""
    record = find(tx, id_)
    newest = next((key for key, _ in tx.scan(KeyRange(*keys.times(id_, time_us), 1, reverse=True))), None)
    if newest is None:
        if time_us >= record.created_us and record.horizon > record.created:
            raise BelowHorizonError(record.created, record.horizon)
        raise NoSuchVersionError("that is before the first commit")
    if time_us > time.time_ns() // 1000 and keys.time_of(newest) < time_us:
        raise NoSuchVersionError("that time has not come yet")
    version = keys.version_of(newest)
    exactly = keys.time_of(newest) == time_us  # below the horizon there are gaps between commits
    if version < record.horizon and not (exactly and kept.is_kept(tx, id_, version)):
        raise BelowHorizonError(version, record.horizon)
    return version


def newest_time(tx: Snapshot, id_: NamespaceId) -> int:
    """When the newest commit was: Unix time, microseconds; 0 if there is none."""
    newest = KeyRange(*keys.log(id_, ZERO_VERSION, MAX_VERSION), 1, reverse=True)
    return next((changelog.time_of(row) for _, row in tx.scan(newest)), 0)


def usage(engine: Engine, id_: NamespaceId, timeout: float) -> Usage:
    record = engine.read(lambda tx: find(tx, id_), timeout=timeout)
    live_pages = live_bytes = history_pages = history_bytes = 0
    own: list[PageRun] = []
    """Pages that a branch has versions of its own of, the highest first."""
    number: PageNumber | None = None
    needed = 0  # how many of the rows to come the live page takes
    begin, end = keys.all_pages(id_)
    for key, blob in rows(engine, begin, end, timeout, reverse=True):  # a page's newest version comes first
        size = len(key) + len(blob)
        is_newest = keys.number_of_page(key) != number
        number = keys.number_of_page(key)
        if is_newest:
            needed = 0
            if record.ancestors:
                _put_below(own, number)
        if is_newest and not encoding.is_freed(blob):
            needed = encoding.chain_of(blob) + 1
            live_pages += 1
        else:
            history_pages += 1
        if needed:
            needed -= 1
            live_bytes += size
        else:
            history_bytes += size
    commits = sum(1 for _ in rows(engine, *keys.log(id_, ZERO_VERSION, MAX_VERSION), timeout))
    shared_pages, shared_bytes = (
        _shared(engine, id_, record, own[::-1], timeout) if record.ancestors else (0, 0)
    )
    return Usage(
        live_pages + shared_pages,
        live_bytes,
        history_pages,
        history_bytes,
        commits,
        shared_pages,
        shared_bytes,
    )


def _put_below(runs: list[PageRun], number: PageNumber) -> None:
    if runs and runs[-1].first == number + 1:
        runs[-1] = PageRun(number, runs[-1].length + 1)
    else:
        runs.append(PageRun(number, 1))


def _shared(
    engine: Engine, id_: NamespaceId, record: Record, own: Sequence[PageRun], timeout: float
) -> tuple[int, int]:
    """How many of a branch's pages are those of its ancestors, and the bytes that they take there.  `own`:
    ascending."""
    now = engine.read(lambda tx: allocation.at(tx, id_, record.page_size, tx.read_version()), timeout=timeout)
    if not now.highest:
        return 0, 0
    parent, *others = record.ancestors
    pages = size = 0
    wanted = without([PageRun(PageNumber(1), now.highest)], united(now.free, own))
    for some in in_batches(PageRuns(wanted), _CHUNK):
        found = engine.read(
            lambda tx: snapshot.read_pages(tx, parent.id, parent.version, some, others),  # noqa: B023
            timeout=timeout,
        )
        pages += sum(1 for page in found if page is not None)
        size += sum(sum(map(len, page.blobs)) for page in found if page is not None)
    return pages, size
