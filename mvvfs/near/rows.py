"""What a cache file holds: its tables, and all SQL that reads and writes them.

Called by `near.file`, inside its transactions, and by `near.folder`, for a new file.

1. A database's row names a version of it; each of its pages here is the newest one at that version.
2. Rows carry a digest of all that they say.  Damaged ones may hold anything: one that does not fit is told as
   damaged, never returned; and what is no number where a number belongs gives the whole file up.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import apsw

from pagestore.api import NamespaceId, PageNumber, StoredPage, Version

PAGE_SIZE = 16384
ROW_BYTES = 64
"""What a page takes beside its blobs, about."""
_EVICTED_PAGES = 512

SCHEMA = """
    CREATE TABLE databases(
        id INTEGER PRIMARY KEY, store BLOB NOT NULL, namespace INTEGER NOT NULL, name TEXT NOT NULL,
        version BLOB NOT NULL, token BLOB NOT NULL, digest BLOB NOT NULL,
        UNIQUE(store, namespace)
    );
    CREATE TABLE pages(
        key INTEGER PRIMARY KEY, version BLOB NOT NULL, digest BLOB NOT NULL, blobs BLOB NOT NULL
    );
"""


def _bytes(*columns: str) -> str:
    """Columns as bytes, whatever damage has made of them."""
    return ", ".join(f"coalesce(CAST({column} AS BLOB), x'')" for column in columns)


_PAGE = _bytes("version", "digest", "blobs")
_POSITION = _bytes("version", "token", "digest")


class DamagedRowError(Exception):
    """A row holds what nobody has put there."""


class Position(NamedTuple):
    """A commit of a database: no two stores, nor two pasts of one store, have the same token."""

    version: Version
    token: bytes


class Origin(NamedTuple):
    """Where pages come from."""

    store: bytes
    namespace: NamespaceId
    name: str

    def digest(self, *parts: bytes) -> bytes:
        mac = blake2b(self.store, digest_size=16)
        mac.update(struct.pack(">Q", self.namespace))
        for part in parts:
            mac.update(struct.pack(">I", len(part)))
            mac.update(part)
        return mac.digest()

    def page_digest(self, number: int, version: bytes, blobs: bytes) -> bytes:
        return self.digest(b"page", number.to_bytes(4), version, blobs)


def _pack(blobs: Sequence[bytes]) -> bytes:
    return b"".join([struct.pack(">B", len(blobs)), *(struct.pack(">I", len(b)) for b in blobs), *blobs])


def _unpack(packed: bytes) -> tuple[bytes, ...]:
    """Of what a digest has vouched for."""
    at = 1 + 4 * packed[0]
    blobs = []
    for (length,) in struct.iter_unpack(">I", packed[1:at]):
        blobs.append(packed[at : at + length])
        at += length
    return tuple(blobs)


def _key(id_: int, number: int) -> int:
    return id_ << 32 | number


def _range(id_: int) -> tuple[int, int]:
    return _key(id_, 0), _key(id_, 0xFFFFFFFF)


def _select(db: apsw.Connection, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    return list(db.execute(sql, bindings))


def _number(found: object) -> int:
    """A database's number; SQLite may have read it from an index, where damage can make it anything."""
    if not isinstance(found, int):
        raise DamagedRowError(f"a database's number is {found!r}")
    return found


# ---- databases ----


def find(db: apsw.Connection, origin: Origin) -> tuple[int, Position | None]:
    """The number of a database, and where it stands; None: nothing is kept of it, or its row is damaged."""
    for id_, version, token, digest in db.execute(
        f"SELECT id, {_POSITION} FROM databases WHERE store = ? AND namespace = ?",
        (origin.store, origin.namespace),
    ):
        fits = digest == origin.digest(b"position", version, token)
        return _number(id_), Position(Version(version), token) if fits else None
    return 0, None


def begin_anew(db: apsw.Connection, origin: Origin, position: Position) -> int:
    """The number of a database of which nothing is kept yet; what an earlier one of that name left goes."""
    for (id_,) in _select(
        db,
        "SELECT id FROM databases WHERE store = ? AND (namespace = ? OR name = ?)",
        origin.store,
        origin.namespace,
        origin.name,
    ):
        forget(db, _number(id_))
    # a new number: no page that is there, of whomever, belongs to it
    id_ = random.SystemRandom().randrange(1, 1 << 30)
    db.execute("DELETE FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    db.execute(
        "INSERT INTO databases VALUES(?, ?, ?, ?, x'', x'', x'')",
        (id_, origin.store, origin.namespace, origin.name),
    )
    stand_at(db, id_, origin, position)
    return id_


def stand_at(db: apsw.Connection, id_: int, origin: Origin, position: Position) -> None:
    digest = origin.digest(b"position", position.version, position.token)
    db.execute(
        "UPDATE databases SET version = ?, token = ?, digest = ?, name = ? WHERE id = ?",
        (position.version, position.token, digest, origin.name, id_),
    )


def numbers_of(db: apsw.Connection, origin: Origin) -> list[int]:
    """Of all rows of a database, whatever they say."""
    found = _select(
        db, "SELECT id FROM databases WHERE store = ? AND namespace = ?", origin.store, origin.namespace
    )
    return [_number(id_) for (id_,) in found]


def named(db: apsw.Connection, name: str | None) -> list[int]:
    """The numbers of the databases of that name; None: of all."""
    return [
        _number(id_) for (id_,) in _select(db, "SELECT id FROM databases WHERE ?1 IS NULL OR name = ?1", name)
    ]


def listed(db: apsw.Connection) -> list[tuple[int, bytes, int, str, Version]]:
    """Number, store, namespace, name and version of each database, by name."""
    return [
        (_number(id_), store, _number(namespace), name.decode(errors="replace"), Version(version))
        for id_, store, namespace, name, version in _select(
            db,
            f"SELECT id, {_bytes('store')}, namespace, {_bytes('name', 'version')} "
            "FROM databases ORDER BY name",
        )
    ]


def forget(db: apsw.Connection, id_: int) -> None:
    """Nothing that is kept of a database is worth keeping."""
    db.execute("DELETE FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    db.execute("DELETE FROM databases WHERE id = ?", (id_,))


def extent(db: apsw.Connection, id_: int) -> tuple[int, int]:
    """How many pages are kept of a database, and their bytes."""
    ((pages, size),) = db.execute(
        "SELECT count(*), coalesce(sum(length(blobs)), 0) FROM pages WHERE key BETWEEN ? AND ?", _range(id_)
    )
    return pages, size


# ---- pages ----


def pages_of(
    db: apsw.Connection, id_: int, origin: Origin, numbers: Sequence[int]
) -> tuple[dict[int, StoredPage], list[int]]:
    """Those that are kept, by number; and the numbers of the damaged ones."""
    pages: dict[int, StoredPage] = {}
    damaged = []
    for number in numbers:
        for version, digest, blobs in db.execute(
            f"SELECT {_PAGE} FROM pages WHERE key = ?", (_key(id_, number),)
        ):
            if digest == origin.page_digest(number, version, blobs):
                pages[number] = StoredPage(PageNumber(number), Version(version), _unpack(blobs))
            else:
                damaged.append(number)
    return pages, damaged


def page_numbers(db: apsw.Connection, id_: int) -> set[int]:
    keys = db.execute("SELECT key FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    return {key & 0xFFFFFFFF for (key,) in keys}


def put(db: apsw.Connection, id_: int, origin: Origin, pages: Sequence[StoredPage]) -> None:
    db.executemany("INSERT OR REPLACE INTO pages VALUES(?, ?, ?, ?)", _rows(id_, origin, pages))


def _rows(id_: int, origin: Origin, pages: Sequence[StoredPage]) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    for page in sorted(pages, key=lambda page: page.number):
        blobs = _pack(page.blobs)
        yield (
            _key(id_, page.number),
            page.version,
            origin.page_digest(page.number, page.version, blobs),
            blobs,
        )


def remove(db: apsw.Connection, id_: int, numbers: Sequence[int]) -> None:
    db.executemany("DELETE FROM pages WHERE key = ?", ((_key(id_, number),) for number in numbers))


def remove_older(db: apsw.Connection, id_: int, changed: Mapping[int, Version], after: Version) -> None:
    """Pages of before their newest change, as far as that came after `after`."""
    db.executemany(
        "DELETE FROM pages WHERE key = ? AND version < ?",
        ((_key(id_, number), version) for number, version in changed.items() if version > after),
    )


# ---- the file's size ----


def used(db: apsw.Connection) -> int:
    """Bytes, without the log."""
    return int(db.pragma("page_count") - db.pragma("freelist_count")) * PAGE_SIZE


def evict(db: apsw.Connection, goal: int) -> None:
    """Remove ranges of pages, here and there, until no more than `goal` bytes are used.

    Neighbours go together, because only whole pages of the file become free."""
    while used(db) > goal:
        ((low, high),) = db.execute("SELECT (SELECT min(key) FROM pages), (SELECT max(key) FROM pages)")
        if low is None:
            return
        ((start,),) = db.execute(
            "SELECT coalesce((SELECT key FROM pages WHERE key >= ? LIMIT 1), ?)",
            (_somewhere(db, low, high), low),
        )
        db.execute(
            "DELETE FROM pages WHERE key IN (SELECT key FROM pages WHERE key >= ? ORDER BY key LIMIT ?)",
            (start, _EVICTED_PAGES),
        )


def _somewhere(db: apsw.Connection, low: int, high: int) -> int:
    """In the range of one of the databases, whichever."""
    ids = [_number(id_) for (id_,) in db.execute("SELECT id FROM databases")]
    id_ = random.choice(ids) if ids else low >> 32
    ((last,),) = db.execute("SELECT max(key) FROM pages WHERE key BETWEEN ? AND ?", _range(id_))
    return random.randint(low, high) if last is None else random.randint(_key(id_, 0), last)
