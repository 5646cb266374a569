"""Cached pages go forward by what a begin brings along, to what they are then or not at all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mvvfs._shim import ffi, lib
from mvvfs.database import c_changes
from mvvfs.told import ToldPages
from pagestore import told
from pagestore.api import (
    Begin,
    Change,
    CorruptPageError,
    ListedChanges,
    PageNumber,
    PageWrite,
    Version,
)
from pagestore.encoding import FREED, MAX_CHAIN, Base, chain_of, encode
from tests.told import unpack

SIZE = 512
P7, P8 = PageNumber(7), PageNumber(8)


def version(n: int) -> Version:
    return Version(n.to_bytes(10, "big"))


class History:
    """Of pages that every commit changes: contents and blobs, by version."""

    def __init__(self, commits: int, *numbers: PageNumber) -> None:
        rng = random.Random(commits)
        self.contents: list[dict[PageNumber, bytes]] = []
        self.blobs: list[dict[PageNumber, bytes]] = []
        chains = dict.fromkeys(numbers, 0)
        for n in range(commits):
            self.contents.append({})
            self.blobs.append({})
            for number in numbers:
                changed = bytearray(self.contents[n - 1][number] if n else b"some text that repeats, " * 22)[
                    :SIZE
                ]
                at = rng.randrange(SIZE - 10)
                changed[at : at + 10] = rng.randbytes(10)
                content = bytes(changed)
                base = Base(self.contents[n - 1][number], chains[number]) if n else None
                self.blobs[n][number], chains[number] = encode(number, content, base, moves=True)
                self.contents[n][number] = content

    def told(self, commits: Sequence[int]) -> bytes:
        return b"".join(
            told.pack(version(n), [PageWrite(*item) for item in self.blobs[n].items()]) for n in commits
        )


class Cache:
    """A page cache that has come to some version, with the pages as they were then."""

    def __init__(self, history: History, at: int, *numbers: PageNumber) -> None:
        self.db = ffi.gc(lib.mv_db_new(1 << 20), lib.mv_db_release)
        lib.mv_db_set_page_size(self.db, SIZE)
        assert lib.mv_db_apply(self.db, ffi.NULL, 0, version(at), 0) == 0
        for number in numbers:
            content = history.contents[at][number]
            chain = chain_of(history.blobs[at][number])
            assert lib.mv_db_insert(self.db, number, version(at), version(at), chain, content, SIZE) == 0

    def forward(
        self, known: int, to: int, packed: bytes, pages: Sequence[PageNumber] = (P7,)
    ) -> dict[int, bytes]:
        """What the pages become by commits after `known`, all of which changed them."""
        changes = ListedChanges(
            Change(version(n), 0, tuple(pages), b"", "") for n in range(known + 1, to + 1)
        )
        begin = Begin(version(to), changes, SIZE, told=packed)
        listed = c_changes(changes)
        along = ToldPages(self.db, begin, version(known), listed.array)
        return dict(contents(along))


def contents(along: ToldPages) -> Iterator[tuple[int, bytes]]:
    pages: Any = along._told
    for page in ffi.unpack(pages.pages, pages.count):
        if page.state == lib.MV_TOLD_FORWARD:
            yield page.number, bytes(ffi.buffer(page.content, page.size))
    for stored, content in along.whole:
        yield stored.number, content


def test_a_page_goes_forward_from_any_version() -> None:
    history = History(2 * MAX_CHAIN, P7)
    assert [chain_of(blobs[P7]) for blobs in history.blobs].count(0) == 2
    for old, new in itertools.combinations(range(len(history.blobs)), 2):
        cache = Cache(history, old, P7)
        packed = history.told(range(old + 1, new + 1))
        after_a_whole = any(chain_of(history.blobs[n][P7]) == 0 for n in range(old + 1, new))
        assert cache.forward(old, new, packed) == ({} if after_a_whole else {P7: history.contents[new][P7]})


def test_only_pages_that_are_cached_go_forward() -> None:
    history = History(5, P7, P8)
    packed = history.told([3, 4])
    both = {P7: history.contents[4][P7], P8: history.contents[4][P8]}
    assert Cache(history, 2, P7, P8).forward(2, 4, packed, (P7, P8)) == both
    assert Cache(history, 2, P8).forward(2, 4, packed, (P7, P8)) == {P8: both[P8]}
    assert Cache(history, 1, P7).forward(2, 4, packed, (P7, P8)) == {}  # as of an earlier version


def test_a_commit_that_is_not_told_leaves_its_pages_behind() -> None:
    history = History(6, P7, P8)
    cache = Cache(history, 2, P7, P8)
    assert cache.forward(2, 5, history.told([3, 5]), (P7, P8)) == {}
    assert cache.forward(2, 5, history.told([4, 5]), (P7, P8)) == {}
    assert cache.forward(2, 5, history.told([3, 4]), (P7, P8)) == {}


def test_a_page_that_was_freed_stays_behind() -> None:
    history = History(5, P7)
    freed = told.pack(version(3), [PageWrite(P7, FREED)])
    cache = Cache(history, 2, P7)
    assert cache.forward(2, 3, freed) == {}
    whole = told.pack(version(4), [PageWrite(P7, history.blobs[0][P7])])
    assert cache.forward(2, 4, freed + whole) == {}


@pytest.mark.parametrize("wrong", ["older", "missing", "turned", "number", "key", "codec"])
def test_what_does_not_fit_is_corrupt(wrong: str) -> None:
    history = History(7, P7)
    blobs = [blobs[P7] for blobs in history.blobs]
    chain = {
        "older": [blobs[5], blobs[6]],
        "missing": [blobs[3], blobs[5]],
        "turned": [blobs[4], blobs[3]],
        "number": [blobs[3][:3] + bytes(4) + blobs[3][7:]],
        "key": [blobs[3][:1] + b"\1" + blobs[3][2:]],
        "codec": [b"\4" + blobs[3][1:]],
    }[wrong]
    packed = b"".join(told.pack(version(n), [PageWrite(P7, blob)]) for n, blob in enumerate(chain, start=3))
    with pytest.raises(CorruptPageError, match="page 7"):
        Cache(history, 2, P7).forward(2, 2 + len(chain), packed)


def test_what_is_not_whole_is_refused() -> None:
    history = History(5, P7, P8)
    packed = history.told([3, 4])
    first = len(history.told([3]))
    for length in range(1, len(packed)):
        if length != first:
            with pytest.raises(CorruptPageError, match="not whole"):
                Cache(history, 2, P7).forward(2, 4, packed[:length])
    with pytest.raises(CorruptPageError, match="not whole"):  # commits that the begin does not tell of
        Cache(history, 2, P7).forward(3, 4, packed)
    nothing = told.pack(version(3), [PageWrite(PageNumber(0), history.blobs[3][P7])])
    with pytest.raises(CorruptPageError, match="not whole"):
        Cache(history, 2, P7).forward(2, 3, nothing)


def test_packed_commits_come_apart_again() -> None:
    history = History(3, P7, P8)
    found = {seen: dict(writes) for seen, writes in unpack(history.told([1, 2]))}
    assert found == {version(1): history.blobs[1], version(2): history.blobs[2]}
