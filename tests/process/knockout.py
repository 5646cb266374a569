"""Rules knocked out of a worker process, to prove that the checker would notice."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace

from mvvfs import bridge, database, session
from mvvfs.attempt import Attempt
from pagestore.api import CommitPart, CommitRequest, Committed, HeadWord, NamespaceId, PageNumber, PageSet
from pagestore.encoding import Base, Encoded, encode_many
from pagestore.store import PageStore


def _commit_everything() -> None:
    """No conflict check at all: every commit is based on the newest version and has read nothing.

    Pages are stored whole: the store would notice a delta against another version than the newest."""

    def encode_whole(pages: Sequence[tuple[PageNumber, bytes, Base | None]], *, moves: bool) -> list[Encoded]:
        return encode_many([(number, content, None) for number, content, _ in pages], moves=moves)

    bridge.encode_many = encode_whole  # type: ignore[assignment]
    _change_requests(
        lambda store, request: replace(
            _without_reads(request), base=store.begin(request.parts[0].namespace).version
        )
    )


def _forget_reads() -> None:
    """Only what was written is checked, as under snapshot isolation."""
    _change_requests(lambda _store, request: _without_reads(request))


def _without_reads(request: CommitRequest) -> CommitRequest:
    return replace(request, parts=[replace(part, reads=PageSet()) for part in request.parts])


def _forget_other_databases() -> None:
    """A read set for each database that is written, and none for those that were only read."""

    def forget(part: CommitPart) -> CommitPart:
        return part if part.writes else replace(part, reads=PageSet())

    _change_requests(lambda _store, request: replace(request, parts=[forget(p) for p in request.parts]))


def _change_requests(change: Callable[[PageStore, CommitRequest], CommitRequest]) -> None:
    real = PageStore.commit

    def commit(self: PageStore, request: CommitRequest) -> Committed:
        return real(self, change(self, request))

    PageStore.commit = commit  # type: ignore[method-assign]


def _never_look_again() -> None:
    """The head word never moves, so a transaction begins at whatever version the process knows."""

    def head_word(self: PageStore, namespace: NamespaceId) -> HeadWord:
        word = (ctypes.c_uint64 * 1)(2)
        return HeadWord(ctypes.addressof(word), word)

    PageStore.head_word = head_word  # type: ignore[method-assign]


def _believe_all_tries() -> None:
    """What a try that ran ahead comes to is given out, whatever others have committed; and tries often do."""
    database.AHEAD_SECONDS, session._MOST_CAUTION = 1000.0, 0
    Attempt.is_confirmed = lambda _self: True  # type: ignore[method-assign]


KNOCKOUTS: dict[str, Callable[[], None]] = {
    "conflict check": _commit_everything,
    "read set": _forget_reads,
    "one read set": _forget_other_databases,
    "head word": _never_look_again,
    "confirmation": _believe_all_tries,
}


def apply(name: str) -> None:
    """Break this process for good."""
    KNOCKOUTS[name]()
