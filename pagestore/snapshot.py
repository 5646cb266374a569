"""Begin and read: what a transaction sees.

Called by `store`, inside `Engine.read` and, for the pages that a conflict's answer carries, inside a
commit's engine transaction.  Calls the engine's snapshot.

1. Begin is one reverse scan: the namespace record, the newest commit, those before it.
2. A read checks the horizon in the same engine transaction as it reads in, so that retention can't take
   a page away between the check and the read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from pagestore import allocation, bulk, changelog, kept, keys
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    Begin,
    CorruptPageError,
    NamespaceId,
    PageNumber,
    StoredPage,
    StoreUnavailableError,
    Version,
    format_version,
)
from pagestore.bulk import MAX_BULKS, Bulk, Row
from pagestore.encoding import MAX_CHAIN, chain_of, is_freed
from pagestore.engines.base import KeyRange, Snapshot
from pagestore.namespaces import Ancestor, Record, alive, find

MAX_CHANGES = 1000
MAX_CHANGE_BYTES = 200_000
"""A client that is further behind than this drops its cache: cheaper than to look at each page."""

CHAIN_ROWS = MAX_CHAIN + 1

_BULK_ROWS = 2 * MAX_BULKS
"""Room for bulk commits in a scan of the log: some that commit at once may not know of each other."""


def ask_log(tx: Snapshot, id_: NamespaceId, since: Version, limit: int) -> Iterator[tuple[bytes, bytes]]:
    """What `take_namespace` takes, under way."""
    return tx.scan(KeyRange(*keys.log_and_namespace(id_, since), limit + 1 + _BULK_ROWS, reverse=True))


class Taken(NamedTuple):
    """What one scan of a namespace's log found."""

    record: Record
    bulks: list[Bulk]
    """Bulk commits that are not folded in."""
    rows: Iterator[tuple[bytes, bytes]]
    """Changelog rows, newest first."""
    turn: bytes | None = None
    """The one that was given last, see `turns`."""


def take_namespace(tx: Snapshot, id_: NamespaceId, rows: Iterator[tuple[bytes, bytes]]) -> Taken:
    """What `ask_log` found.  A newest commit that is above the engine's own version fails closed."""
    rows = iter(rows)
    bulks: list[Bulk] = []
    turn = None
    key, value = next(rows, (b"", b""))
    while key > keys.namespace(id_):
        if key == keys.turn_told(id_):
            turn = value
        else:
            bulks.append(bulk.of_row(key, value))
        key, value = next(rows, (b"", b""))
    record = alive(id_, value if key == keys.namespace(id_) else None)
    if len(bulks) > _BULK_ROWS:
        raise StoreUnavailableError(f"{len(bulks)} large transactions are still being folded in")
    newest = next(rows, None)
    if newest is None:
        return Taken(record, bulks, iter(()), turn)
    tx.confirm(keys.version_of(newest[0]))
    return Taken(record, bulks, chain((newest,), rows), turn)


class Standpoint(NamedTuple):
    """What a begin saw of a namespace beside its answer: enough for a commit that stands there, too."""

    version: Version
    """Of the newest commit."""
    read_version: Version
    """The engine's."""
    record: Record
    newest_us: int
    """Time of the newest commit, Unix µs."""
    has_bulks: bool
    turn: bytes | None


class Begun(NamedTuple):
    start: Begin
    standpoint: Standpoint | None
    """None: nobody wants it, in the past, not at a commit of the namespace's own, or for one who knows
    nothing."""


def begin(
    tx: Snapshot, id_: NamespaceId, since: Version | None, at: Version | None, *, stands: bool
) -> Begun:
    """See `Store.begin`.  `stands`: somebody may want to stand where it stood (`Engine.reaches_back`).

    The version is that of the namespace's newest commit, not the store's newest: its state is the same
    at both, and to learn the latter would take another read.  Where the client knows a later version
    (from a commit to another namespace), that one holds."""
    if at is not None:
        return Begun(_begin_at(tx, id_, since, at), None)
    if since is None:
        return Begun(_begin_anew(tx, id_), None)
    if stands:
        tx.ask_read_version()
    taken = take_namespace(tx, id_, ask_log(tx, id_, since, MAX_CHANGES + 2))
    record = taken.record
    head = next(taken.rows, None)
    found = _list_until(tx, id_, since, chain((head,), taken.rows) if head else iter(()))
    if not found.has_met:
        kept.check_not_ahead(tx, since)  # not one of this namespace's own, so not known to be genuine
    newest = found.newest or max(since, record.created)
    listed = found.changes if since >= record.horizon else None  # there are gaps below it
    if listed is None:
        return Begun(_everything(tx, id_, record, newest), None)
    if not stands or head is None or keys.version_of(head[0]) != newest:
        return Begun(Begin(newest, listed, record.page_size), None)
    newest_us, read_version = changelog.time_of(head[1]), tx.read_version()
    standpoint = Standpoint(newest, read_version, record, newest_us, bool(taken.bulks), taken.turn)
    return Begun(Begin(newest, listed, record.page_size, read_version=read_version), standpoint)


def _begin_anew(tx: Snapshot, id_: NamespaceId) -> Begin:
    head = tx.scan(KeyRange(*keys.namespace_and_bulks(id_)))
    log = tx.scan(KeyRange(*keys.log(id_, ZERO_VERSION, MAX_VERSION), 1, reverse=True))
    record = _record_of(id_, head)
    newest = next(log, None)
    if newest is None:
        return _everything(tx, id_, record, record.created)
    tx.confirm(keys.version_of(newest[0]))
    return _everything(tx, id_, record, keys.version_of(newest[0]), newest)


def _record_of(id_: NamespaceId, head: Iterator[tuple[bytes, bytes]]) -> Record:
    """The record that `keys.namespace_and_bulks` begins with.  Raises NoSuchNamespaceError."""
    key, value = next(head, (b"", b""))
    return alive(id_, value if key == keys.namespace(id_) else None)


def _everything(
    tx: Snapshot,
    id_: NamespaceId,
    record: Record,
    version: Version,
    newest: tuple[bytes, bytes] | None = None,
) -> Begin:
    """For a client that knows nothing, or too little.  `newest`: the changelog row of that version."""
    found = allocation.at(tx, id_, record.page_size, version, newest)
    return Begin(version, None, record.page_size, found)


class _Listed(NamedTuple):
    """Changelog records down to a version, which is not one of them."""

    changes: changelog.Rows | None
    """Oldest first; None: too many."""
    newest: Version | None
    """None: there are none."""
    has_met: bool
    """Whether that version is one of the namespace's own; True where there are too many."""


def _list_until(
    tx: Snapshot, id_: NamespaceId, since: Version | None, rows: Iterator[tuple[bytes, bytes]]
) -> _Listed:
    """`rows`: newest first, given up when there are too many."""
    versions: list[Version] = []
    records: list[bytes] = []
    size, has_met = 0, False
    for key, record in rows:
        version = Version(key[keys.VERSION_PART])
        if version == since:
            has_met = True
            break
        versions.append(version)
        long = changelog.is_in_pieces(record)
        size += changelog.size_of(record) if long else len(record)
        if size > MAX_CHANGE_BYTES or len(versions) > MAX_CHANGES:
            return _Listed(None, versions[0], True)
        records.append(changelog.whole(tx, id_, version, record) if long else record)
    newest = versions[0] if versions else None
    return _Listed(changelog.Rows(versions[::-1], records[::-1]), newest, has_met)


def _begin_at(tx: Snapshot, id_: NamespaceId, since: Version | None, at: Version) -> Begin:
    record = find(tx, id_)
    kept.check_readable(tx, id_, at, record)
    kept.check_not_ahead(tx, at)
    if since is None or since > at or since < record.horizon:
        return _everything(tx, id_, record, at)
    rows = tx.scan(KeyRange(*keys.log(id_, since, at), MAX_CHANGES + 1, reverse=True))
    listed = _list_until(tx, id_, None, rows).changes
    return _everything(tx, id_, record, at) if listed is None else Begin(at, listed, record.page_size)


class Read(NamedTuple):
    """Pages, and what was come across."""

    pages: list[StoredPage | None]
    bulks: list[Bulk]


def read(tx: Snapshot, id_: NamespaceId, version: Version, numbers: Sequence[PageNumber]) -> Read:
    """See `Store.read`."""
    head = tx.scan(KeyRange(*keys.namespace_and_bulks(id_)))
    asked = ask_pages(tx, id_, version, numbers)
    record = _record_of(id_, head)
    kept.check_readable(tx, id_, version, record)
    bulks = bulk.of_head(id_, head)
    pages = bulk.through(tx, id_, bulks, version, asked)
    return Read(_put_together(tx, numbers, pages, record.ancestors), bulks)


def read_as_of(tx: Snapshot, id_: NamespaceId, seen: Standpoint, numbers: Sequence[PageNumber]) -> Read:
    """As `read`, of the version that a begin came to, in a snapshot that stands where it stood."""
    if seen.record.ancestors:
        asked = ask_pages(tx, id_, seen.version, numbers)
        return Read(_put_together(tx, numbers, [rows for _, rows in asked], seen.record.ancestors), [])
    pages = []
    for number, rows in zip(numbers, _ask(tx, id_, seen.version, numbers), strict=True):
        pages.append(_page_of(number, rows))
    return Read(pages, [])


def read_pages(
    tx: Snapshot,
    id_: NamespaceId,
    version: Version,
    numbers: Sequence[PageNumber],
    ancestors: Sequence[Ancestor] = (),
) -> list[StoredPage | None]:
    """As `read`, where the horizon has been checked already."""
    asked = ask_pages(tx, id_, version, numbers)
    pages = bulk.through(tx, id_, bulk.unfolded(tx, id_), version, asked)
    return _put_together(tx, numbers, pages, ancestors)


def ask_pages(
    tx: Snapshot, id_: NamespaceId, version: Version, numbers: Sequence[PageNumber]
) -> list[tuple[PageNumber, Iterator[Row]]]:
    """The rows that each page may need, newest first, under way; without what is staged."""
    found = _ask(tx, id_, version, numbers)
    return [(number, _versions(rows)) for number, rows in zip(numbers, found, strict=True)]


def _ask(
    tx: Snapshot, id_: NamespaceId, version: Version, numbers: Sequence[PageNumber]
) -> list[Iterator[tuple[bytes, bytes]]]:
    ranges = []
    for number in numbers:
        ranges.append(KeyRange(*keys.page(id_, number, version), CHAIN_ROWS, reverse=True))
    return tx.scan_many(ranges)


def _versions(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[Row]:
    for key, blob in rows:
        yield keys.version_of(key), blob


def _put_together(
    tx: Snapshot,
    numbers: Sequence[PageNumber],
    pages: Sequence[Iterator[Row]],
    ancestors: Sequence[Ancestor],
) -> list[StoredPage | None]:
    """The pages of which these rows came.

    Of a page that a branch has no version of, its parent's is found, as of the version at which the branch
    began.  It is also what the branch's first own version of it is a delta of: so the rows of the branch and
    those of its ancestors are read as if they were one page's.  No bulk commit up to that version waits to
    be folded in: `branches` saw to it."""
    if not ancestors:
        return [_page(number, rows) for number, rows in zip(numbers, pages, strict=True)]
    found = [list(_needed(rows)) for rows in pages]
    short = [i for i, rows in enumerate(found) if not rows or chain_of(rows[-1][1])]
    ranges = [
        KeyRange(*keys.page(id_, numbers[i], version), CHAIN_ROWS, reverse=True)
        for i in short
        for id_, version in ancestors
    ]
    inherited = map(_versions, tx.scan_many(ranges))
    for i in short:
        own_and_inherited = chain.from_iterable((found[i], *islice(inherited, len(ancestors))))
        found[i] = list(_needed(own_and_inherited))
    return [_page(number, iter(rows)) for number, rows in zip(numbers, found, strict=True)]


def _needed(rows: Iterator[Row]) -> Iterator[Row]:
    """Down to the first that is no delta."""
    for row in rows:
        yield row
        if not chain_of(row[1]):
            return


def _page(number: PageNumber, rows: Iterator[Row]) -> StoredPage | None:
    """The newest version in `rows` with all that its content needs; None if absent or freed."""
    version, blob = next(rows, (ZERO_VERSION, b""))
    if not blob or is_freed(blob):
        return None
    return StoredPage(number, version, _down_to_whole(number, version, blob, rows))


def _page_of(number: PageNumber, rows: Iterator[tuple[bytes, bytes]]) -> StoredPage | None:
    """The same, of rows as they are stored."""
    key, blob = next(rows, (b"", b""))
    if not blob or is_freed(blob):
        return None
    version = keys.version_of(key)
    return StoredPage(number, version, _down_to_whole(number, version, blob, rows))


def _down_to_whole(
    number: PageNumber, version: Version, blob: bytes, older: Iterator[tuple[bytes, bytes]]
) -> tuple[bytes, ...]:
    """This blob, and those that it is a delta of."""
    blobs = [blob]
    for _ in range(chain_of(blob)):
        _, blob = next(older, (b"", b""))
        blobs.append(blob)
        if not blob:
            raise CorruptPageError(
                f"page {number} of version {format_version(version)}: "
                "the whole version that its deltas start from is missing"
            )
    return tuple(blobs)
