"""What a begin brings along of the pages that others changed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pagestore import recent_writes
from pagestore.api import Change, ListedChanges, NamespaceId, PageNumber, PageWrite, Version
from pagestore.encoding import FREED, Base, encode
from pagestore.recent_writes import RecentWrites

N = NamespaceId(3)


def version(n: int) -> Version:
    return Version(n.to_bytes(10, "big"))


class History:
    """Commits of one namespace."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.recent = RecentWrites(most_bytes)
        self._changes: list[Change] = []
        self._contents: dict[int, Base] = {}
        self.blobs: list[dict[int, bytes]] = []
        """Of each commit."""

    def commit(
        self, *numbers: int, whole: bool = False, told: bool = True, freed: Sequence[int] = ()
    ) -> None:
        at = len(self._changes) + 1
        blobs = {}
        for number in numbers:
            base = None if whole else self._contents.get(number)
            content = b"%8d" % at + bytes(504)
            blobs[number], chain = encode(PageNumber(number), content, base)
            self._contents[number] = Base(content, chain)
        blobs |= dict.fromkeys(freed, FREED)
        pages = tuple(sorted(map(PageNumber, blobs)))
        self._changes.append(Change(version(at), 0, pages, b"", "", (), ()))
        self.blobs.append(blobs)
        if told:
            writes = [PageWrite(PageNumber(number), blob) for number, blob in blobs.items()]
            self.recent.add(N, version(at), writes)

    def told(self, since: int) -> dict[int, tuple[int, tuple[bytes, ...]]]:
        """Of each page: its newest commit, and blobs."""
        pages = self.recent.changed(N, ListedChanges(self._changes[since:]))
        assert len({page.number for page in pages}) == len(pages)
        return {page.number: (int.from_bytes(page.version, "big"), page.blobs) for page in pages}


def test_blobs_lead_from_the_callers_version() -> None:
    history = History()
    history.commit(1, 2)
    for _ in range(3):
        history.commit(1)
    one, two, three, four = history.blobs
    assert history.told(4) == {}
    assert history.told(3) == {1: (4, (four[1],))}
    assert history.told(1) == {1: (4, (four[1], three[1], two[1]))}
    assert history.told(0) == {1: (4, (four[1], three[1], two[1], one[1])), 2: (1, (one[2],))}


def test_a_whole_page_needs_nothing_before_it() -> None:
    history = History()
    history.commit(1, told=False)
    history.commit(1)
    assert history.told(0) == {}
    history.commit(1, whole=True)
    history.commit(1)
    assert history.told(0) == {1: (4, (history.blobs[3][1], history.blobs[2][1]))}


def test_a_page_that_was_changed_elsewhere_is_left_out() -> None:
    history = History()
    history.commit(1, 2)
    history.commit(1, 2)
    history.commit(1, told=False)
    history.commit(1)
    assert set(history.told(1)) == {2}
    assert set(history.told(3)) == {1}


def test_a_page_that_was_freed_is_left_out() -> None:
    history = History()
    history.commit(1, 2)
    history.commit(1, freed=[2])
    assert set(history.told(0)) == {1}
    history.commit(2, whole=True)  # allocated anew
    assert history.told(0)[2] == (3, (history.blobs[2][2],))


def test_another_namespace_knows_nothing_of_it() -> None:
    history = History()
    history.commit(1)
    changes = ListedChanges([Change(version(1), 0, (PageNumber(1),), b"", "", (), ())])
    assert history.recent.changed(N, changes)
    assert not history.recent.changed(NamespaceId(4), changes)


def test_what_is_kept_and_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(most_bytes=5000)
    for number in range(1, 100):
        history.commit(number)
    assert 0 < len(history.told(90)) < 10
    assert set(history.told(90)) == set(range(100 - len(history.told(90)), 100))
    assert history.told(0) == {}  # too far behind
    history = History()
    history.commit(*range(1, 60))
    monkeypatch.setattr(recent_writes, "MOST_TOLD_BYTES", 200)
    assert 0 < len(history.told(0)) < 59
    assert sum(len(blob) for _, blobs in history.told(0).values() for blob in blobs) <= 200
    history.recent.add(N, version(9), [PageWrite(PageNumber(1), bytes(70_000))])  # takes nobody's place
    assert history.told(0)
