"""Allocation images of any length, over every engine; in memory as well, a value takes at most 100 KB."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from pagestore import allocation, faults, format, images, keys, retention
from pagestore.api import (
    MAX_VERSION,
    Allocation,
    CorruptPageError,
    PageNumber,
    PageRun,
    Retention,
    Version,
    new_token,
)
from pagestore.engines.base import Engine, KeyRange
from pagestore.store import PageStore
from pagestore.verify import verify
from tests.pages import Pages, content

LAST = 60


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)
    monkeypatch.setattr(allocation, "image_is_due", lambda *_: False)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of three runs, two of them in a transaction."""
    monkeypatch.setattr(images, "RUNS", 3)
    monkeypatch.setattr(images, "_STEP", 2)


def rows(engine: Engine, family: bytes) -> list[bytes]:
    return [key for key, _ in engine.read(lambda tx: list(tx.scan(KeyRange(family, family + b"\xff"))))]


def features(engine: Engine) -> list[str]:
    return list(json.loads(engine.read(lambda tx: tx.get(keys.FORMAT)) or b"")["features"])


def whole(store: PageStore) -> None:
    store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))


def image(store: PageStore, pages: Pages, version: Version) -> None:
    allocation.write_image(store.engine, pages.id, version, 5.0)


def scattered(pages: Pages, seed: int = 1, gaps: int = 20) -> tuple[Version, set[int]]:
    """Commits after which there are so many gaps: the last one, and what is allocated then."""
    missing = [n for n in range(1, LAST + 1) if pages.read(n) is None]
    pages.commit({n: content(n) for n in missing})
    free = set(random.Random(seed).sample(range(2, LAST, 2), gaps))
    version = pages.commit(dict.fromkeys(sorted(free))).version
    return version, {*range(1, LAST + 1)} - free


def allocated(found: Allocation) -> set[int]:
    free = {n for run in found.free for n in range(run.first, run.first + run.length)}
    return {*range(1, found.highest + 1)} - free


def newest(store: PageStore, pages: Pages) -> tuple[Version, Allocation]:
    """The image, without what the changelog adds."""
    return store.engine.read(lambda tx: images.newest(tx, pages.id, MAX_VERSION))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("gaps", "pieces"), [(0, 0), (3, 0), (4, 2), (6, 2), (7, 3), (20, 7)])
def test_an_image_says_what_the_changelog_says(
    page_store: PageStore, pages: Pages, gaps: int, pieces: int
) -> None:
    version, expected = scattered(pages, gaps=gaps)
    before = page_store.allocation(pages.id, version)
    assert allocated(before) == expected
    for _ in range(2):  # a second time does no harm
        image(page_store, pages, version)
        assert newest(page_store, pages) == (version, before)
        assert page_store.allocation(pages.id, version) == before
        assert len(rows(page_store.engine, b"b")) == pieces
    assert (format.IMAGES in features(page_store.engine)) == (pieces > 0)
    whole(page_store)
    later = pages.commit({2: content(2), LAST + 5: content(3)}).version
    assert allocated(page_store.allocation(pages.id, later)) == expected | {2, LAST + 5}


def random_runs(count: int, seed: int) -> Iterator[PageRun]:
    """Such as compression does little for."""
    chance, number = random.Random(seed), 1
    for _ in range(count):
        number += chance.randrange(1, 80_000)
        length = chance.randrange(1, 30_000)
        yield PageRun(PageNumber(number), length)
        number += length


@pytest.mark.parametrize("count", [images.RUNS, images.RUNS + 1, 70_000])
def test_as_long_as_it_gets(page_store: PageStore, pages: Pages, seed: int, count: int) -> None:
    """Some 470 KB at the longest, in several transactions."""
    version, _ = scattered(pages)
    runs = tuple(random_runs(count, seed))
    long = Allocation(PageNumber(runs[-1].first + runs[-1].length), runs)
    images.write(page_store.engine, pages.id, version, long, 5.0, lambda _tx, _record: None)
    assert newest(page_store, pages) == (version, long)
    pieces = -(-count // images.RUNS) if count > images.RUNS else 0
    assert len(rows(page_store.engine, b"b")) == pieces


@pytest.mark.usefixtures("short")
def test_what_is_no_longer_needed_goes(page_store: PageStore, pages: Pages) -> None:
    first, expected = scattered(pages, 1)
    page_store.tag(pages.id, "first", first)
    second, _ = scattered(pages, 2)
    image(page_store, pages, second)
    third, newer = scattered(pages, 3)
    page_store.set_retention(pages.id, Retention(0))
    assert page_store.collect(pages.id).complete
    assert {keys.version_of(key) for key in rows(page_store.engine, b"a")} == {first, third}
    assert {keys.version_of_piece(key) for key in rows(page_store.engine, b"b")} == {first, third}
    assert allocated(page_store.allocation(pages.id, first)) == expected
    assert allocated(page_store.allocation(pages.id, third)) == newer
    page_store.untag(pages.id, "first")
    last, newest_ = scattered(pages, 4)
    assert page_store.collect(pages.id).complete
    assert {keys.version_of_piece(key) for key in rows(page_store.engine, b"b")} == {last}
    assert allocated(page_store.allocation(pages.id, last)) == newest_
    whole(page_store)
    page_store.drop("main", now=True)
    assert rows(page_store.engine, b"b") == rows(page_store.engine, b"a") == []


@pytest.mark.usefixtures("short")
def test_retention_passes_while_pieces_are_written(page_store: PageStore, pages: Pages) -> None:
    """They are removed with the version that they are of: a head that came later would have none."""
    version, _ = scattered(pages, 1)
    expected: set[int] = set()

    def pass_by() -> None:
        expected.update(scattered(pages, 2)[1])
        page_store.set_retention(pages.id, Retention(0))
        assert page_store.collect(pages.id).complete
        assert version not in {keys.version_of_piece(key) for key in rows(page_store.engine, b"b")}

    with faults.armed("image.step", pass_by, 2):
        image(page_store, pages, version)
    assert version not in {keys.version_of(key) for key in rows(page_store.engine, b"a")}
    assert allocated(page_store.allocation(pages.id, pages.version())) == expected
    whole(page_store)
    scattered(pages, 3)
    assert page_store.collect(pages.id).complete  # and what was written after that
    assert version not in {keys.version_of_piece(key) for key in rows(page_store.engine, b"b")}
    whole(page_store)


@pytest.mark.usefixtures("short")
def test_a_branch_begins_with_one(page_store: PageStore, pages: Pages) -> None:
    version, expected = scattered(pages, 1)
    scattered(pages, 2)
    branch = Pages(page_store, page_store.branch(pages.id, "branch", version).id)
    assert len(rows(page_store.engine, b"b")) == 7
    begun = page_store.begin(branch.id)
    assert begun.allocation is not None
    assert allocated(begun.allocation) == expected
    later = branch.commit({2: content(5)}).version
    assert allocated(page_store.allocation(branch.id, later)) == expected | {2}
    whole(page_store)


@pytest.mark.usefixtures("short")
def test_damage_is_noticed(page_store: PageStore, pages: Pages) -> None:
    version, _ = scattered(pages, 1)
    image(page_store, pages, version)
    first, *_, last = rows(page_store.engine, b"b")

    kept = page_store.engine.read(lambda tx: tx.get(last))
    assert kept is not None
    for value in (None, kept[:-1], kept[:-1] + bytes([kept[-1] ^ 1]), b""):
        page_store.engine.transact(
            lambda tx, value=value: tx.clear(last) if value is None else tx.set(last, value)  # type: ignore[misc]
        )
        with pytest.raises(CorruptPageError, match="allocation image"):
            page_store.allocation(pages.id, version)
        with pytest.raises(CorruptPageError, match="allocation image"):
            whole(page_store)
    page_store.engine.transact(lambda tx: tx.set(last, kept))
    whole(page_store)
    other = page_store.engine.read(lambda tx: tx.get(first))
    assert other is not None
    page_store.engine.transact(lambda tx: (tx.set(first, kept), tx.set(last, other)))
    with pytest.raises(CorruptPageError, match="allocation image"):
        whole(page_store)


def test_a_commit_that_retention_is_due_behind(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of many gaps lets go of its history like any other."""
    version, _ = scattered(pages)
    runs = tuple(random_runs(40_000, 1))
    long = Allocation(PageNumber(runs[-1].first + runs[-1].length), runs)
    monkeypatch.setattr(allocation, "at", lambda *_arguments: long)
    page_store.set_retention(pages.id, Retention(0))
    monkeypatch.setattr(retention, "is_due", lambda _token: True)
    for n in range(5):
        pages.commit({1: content(n)}, token=new_token())
    assert page_store.open("main").horizon > version
    assert newest(page_store, pages)[1] == long
