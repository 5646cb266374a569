"""Diffs of databases whose pages are not what SQLite wrote: an error that names the page, or an answer; never
anything else, and never an endless walk."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator

import pytest

import mvvfs
from mvvfs import errors
from mvvfs.compare import comparison
from pagestore.api import CorruptPageError, Store, Version, format_version, parse_version
from pagestore.encoding import decode
from pagestore.opener import open_store
from pagestore.store import PageStore

from ..conftest import NAME
from ..pages import Pages

SCRIPT = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b);
    CREATE TABLE w(k TEXT PRIMARY KEY, a) WITHOUT ROWID;
    CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, a) WITHOUT ROWID;
    CREATE INDEX t_a ON t(a);
    WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 300)
        INSERT INTO t SELECT i, 'text ' || i, zeroblob(CASE WHEN i % 50 THEN 20 ELSE 3000 END) FROM s;
    INSERT INTO w SELECT a, b FROM t;
    INSERT INTO n SELECT a, b FROM t;
"""
PAGE_SIZE = 512
ROUNDS = 40
MOST_READS = 20_000 * ROUNDS
"""In one test: far more than to walk through everything, and far less than what has no end."""


class Database:
    """A database, and versions of it with pages that no SQLite wrote."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.namespace = store.open(NAME)
        self.pages = Pages(store, self.namespace.id, PAGE_SIZE)
        self.good: Version = self.pages.version()
        highest = store.allocation(self.namespace.id, self.good).highest
        self.numbers = range(1, highest + 1)
        stored = store.read(self.namespace.id, self.good, list(self.numbers))
        self.contents = {page.number: decode(page, PAGE_SIZE) for page in stored if page is not None}

    def damaged(self, pages: dict[int, bytes]) -> Version:
        """A version that differs from the good one by these pages; others were merely written."""
        others = random.Random(len(pages)).sample(list(self.contents), 5)
        return self.pages.commit({number: self.contents[number] for number in others} | pages).version

    def repair(self, pages: dict[int, bytes]) -> None:
        self.pages.commit({number: self.contents[number] for number in pages})


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    url = f"memory:{tmp_path}"
    store = open_store(url, create=True)
    with contextlib.closing(mvvfs.connect(NAME, store=url, page_size=PAGE_SIZE)) as connection:
        connection.execute(f"BEGIN; {SCRIPT} COMMIT")
    yield Database(store)
    store.close()


@pytest.fixture(autouse=True)
def bounded(monkeypatch) -> None:
    """Fails a walk that does not end."""
    original = PageStore.read
    count = 0

    def counting(self, namespace, version, numbers):
        nonlocal count
        count += len(numbers)
        assert count < MOST_READS
        return original(self, namespace, version, numbers)

    monkeypatch.setattr(PageStore, "read", counting)


def flipped(random_: random.Random, content: bytes) -> bytes:
    page = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 10))):
        at = random_.choice((random_.randrange(12), random_.randrange(40), random_.randrange(len(page))))
        page[at] = random_.choice((0, 1, 2, 5, 10, 13, 0x7F, 0x80, 0xFF, random_.randrange(256)))
    return bytes(page)


def redirected(random_: random.Random, content: bytes, highest: int) -> bytes:
    """With a number of another page where there was one, perhaps."""
    page = bytearray(content)
    spots = [m.start() for m in re.finditer(rb"\0\0[\0-\3].", content[:-4], re.DOTALL)]
    for at in random_.sample(spots, min(len(spots), 5)):
        page[at : at + 4] = random_.randrange(highest + 2).to_bytes(4, "big")
    return bytes(page)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("kind", ["flipped", "redirected", "swapped"])
def test_damage_is_told_or_does_no_harm(database: Database, seed, monkeypatch, guided, kind):
    if not guided:
        monkeypatch.setattr(comparison, "_GUIDED_BYTES", 0)
    random_ = random.Random(f"{seed}")
    told = 0
    for _ in range(ROUNDS):
        among = [n for n, c in database.contents.items() if kind != "redirected" or n == 1 or c[0] in (2, 5)]
        victims = random_.sample(among, random_.choice((1, 1, 2)))
        pages = {}
        for number in victims:
            content = database.contents[number]
            if kind == "flipped":
                content = flipped(random_, content)
            elif kind == "redirected":
                content = redirected(random_, content, len(database.numbers))
            else:
                content = database.contents[random_.choice([n for n in database.contents if n > 1])]
            pages[number] = content if number > 1 else flipped(random_, database.contents[1])
        bad = database.damaged(pages)
        for a, b in ((database.good, bad), (bad, database.good)):
            told += tells(database, a, b)
        database.repair(pages)
    assert told, "no damage was ever noticed"


def tells(database: Database, a: Version, b: Version) -> bool:
    """Whether an error came; it names a page and a version."""
    try:
        compared = comparison.compare(database.store, database.namespace, a, b)
        for _ in compared.differences():
            pass
        compared.touched()
    except CorruptPageError as exc:
        if not re.search(r"page \d+ (as )?of (version )?v[0-9a-f]{20}", str(exc)):
            raise
        return True
    return False


def interior(database: Database, kind: int) -> int:
    return next(n for n, content in database.contents.items() if n > 1 and content[0] == kind)


@pytest.mark.parametrize("kind", [2, 5])
def test_a_tree_that_contains_itself(database: Database, kind, monkeypatch):
    """All children of a root are the root."""
    monkeypatch.setattr(comparison, "_GUIDED_BYTES", 0)
    number = interior(database, kind)
    page = bytearray(database.contents[number])
    count = int.from_bytes(page[3:5], "big")
    page[8:12] = number.to_bytes(4, "big")
    for at in range(12, 12 + 2 * count, 2):
        cell = int.from_bytes(page[at : at + 2], "big")
        page[cell : cell + 4] = number.to_bytes(4, "big")
    bad = database.damaged({number: bytes(page)})
    assert tells(database, database.good, bad)


def test_an_overflow_chain_that_goes_in_a_circle(database: Database):
    number = next(
        n for n, c in database.contents.items() if n > 1 and c[0] == 0 and int.from_bytes(c[:4], "big")
    )
    page = number.to_bytes(4, "big") + database.contents[number][4:]
    bad = database.damaged({number: page})
    with pytest.raises(CorruptPageError, match="its chain, of page") as caught:
        list(comparison.compare(database.store, database.namespace, database.good, bad).differences())
    assert f"page {number} " in str(caught.value)


def test_a_page_of_a_table_that_is_gone(database: Database, monkeypatch):
    monkeypatch.setattr(comparison, "_GUIDED_BYTES", 0)
    leaf = next(n for n, content in database.contents.items() if n > 1 and content[0] == 13)
    bad = database.pages.commit({leaf: None}).version
    compared = comparison.compare(database.store, database.namespace, database.good, bad)
    with pytest.raises(CorruptPageError, match=rf"page {leaf} as of .* missing"):
        list(compared.differences())


def test_a_stored_page_that_fails_its_checksum(database: Database, tmp_path, monkeypatch):
    with contextlib.closing(mvvfs.connect(NAME, store=database.store.url)) as connection:
        connection.execute("UPDATE t SET b = 1 WHERE id = 7")
        after = parse_version(connection.pragma("mv_version"))
    original = PageStore.read

    def spoiled(self, namespace, at, numbers):
        pages = original(self, namespace, at, numbers)
        return [
            page._replace(blobs=(page.blobs[0][:-1] + bytes((page.blobs[0][-1] ^ 1,)), *page.blobs[1:]))
            if page is not None and page.version == after
            else page
            for page in pages
        ]

    monkeypatch.setattr(PageStore, "read", spoiled)
    with pytest.raises(errors.CorruptPageError, match=rf"page \d+ of version {format_version(after)}"):
        list(mvvfs.diff(NAME, format_version(database.good), store=database.store.url))
