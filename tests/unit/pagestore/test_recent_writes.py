"""What a begin brings along of the pages that others changed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pagestore import recent_writes
from pagestore.api import Change, ListedChanges, NamespaceId, PageNumber, PageWrite, Version
from pagestore.encoding import FREED, Base, encode
from pagestore.recent_writes import RecentWrites
from tests.told import unpack

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
        self, *numbers: int, whole: bool = False, elsewhere: bool = False, freed: Sequence[int] = ()
    ) -> None:
        at = len(self._changes) + 1
        blobs = {}
        for number in numbers:
            base = None if whole else self._contents.get(number)
            content = b"%8d" % at + bytes(504)
            blobs[number], chain = encode(PageNumber(number), content, base, moves=True)
            self._contents[number] = Base(content, chain)
        blobs |= dict.fromkeys(freed, FREED)
        pages = tuple(sorted(map(PageNumber, blobs)))
        self._changes.append(Change(version(at), 0, pages, b"", "", (), ()))
        self.blobs.append(blobs)
        if not elsewhere:
            writes = [PageWrite(PageNumber(number), blob) for number, blob in blobs.items()]
            self.recent.add(N, version(at), writes)

    def changes(self, since: int) -> ListedChanges:
        return ListedChanges(self._changes[since:])

    def told(self, since: int, own: int = 0) -> dict[int, dict[int, bytes]]:
        """What is told of commits after `since`: their blobs."""
        found = self.recent.told(N, self.changes(since), version(own))
        commits = {int.from_bytes(at, "big"): dict(writes) for at, writes in unpack(found.packed)}
        assert list(commits) == sorted(commits)
        assert found.pages == sum(map(len, commits.values()))
        return commits


def test_commits_are_told_as_they_were_made() -> None:
    history = History()
    history.commit(1, 2)
    for _ in range(3):
        history.commit(1)
    history.commit(2, freed=[1])
    for since in range(6):
        assert history.told(since) == {n: history.blobs[n - 1] for n in range(since + 1, 6)}


def test_neither_the_callers_own_nor_what_was_made_elsewhere() -> None:
    history = History()
    history.commit(1)
    history.commit(1, 2, elsewhere=True)
    history.commit(1)
    history.commit(2)
    assert list(history.told(0)) == [1, 3, 4]
    assert list(history.told(0, own=3)) == [1, 4]


def test_another_namespace_knows_nothing_of_it() -> None:
    history = History()
    history.commit(1)
    changes = ListedChanges([Change(version(1), 0, (PageNumber(1),), b"", "", (), ())])
    assert history.recent.told(N, changes).packed
    assert not history.recent.told(NamespaceId(4), changes).packed


def test_what_is_kept_and_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(most_bytes=5000)
    for number in range(1, 100):
        history.commit(number)
    kept = list(history.told(90))
    assert 0 < len(kept) < 10
    assert kept == list(range(100 - len(kept), 100))
    assert history.told(0) == {}  # too far behind
    monkeypatch.setattr(recent_writes, "MOST_TOLD_BYTES", 200)
    newest = list(history.told(90))
    assert 0 < len(newest) < len(kept)
    assert newest[-1] == 99
    assert len(history.recent.told(N, history.changes(90)).packed) <= 200
    history.recent.add(N, version(100), [PageWrite(PageNumber(1), bytes(201))])  # takes nobody's place
    assert list(history.told(90)) == newest
