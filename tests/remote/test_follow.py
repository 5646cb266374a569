"""What a follower may answer without a call, and what it may not."""

from __future__ import annotations

import time

import pytest

from mvvfs._shim import ffi
from mvvfs.remote import address
from mvvfs.remote.calls import Calls
from mvvfs.remote.follow import _KEPT, Follower
from pagestore.api import (
    ZERO_VERSION,
    Change,
    ListedChanges,
    NamespaceId,
    PageNumber,
    StoreUnavailableError,
    Version,
)
from pagestore.v1 import pagestore_pb2 as pb


class Silent(Follower):
    """Without a watch."""

    def _keep_watching(self, within: float) -> None:
        pass


def version(n: int) -> Version:
    return Version(n.to_bytes(10, "big"))


def change(n: int) -> Change:
    return Change(version(n), 0, (PageNumber(n),), b"", "")


def changes(*numbers: int) -> ListedChanges:
    return ListedChanges(map(change, numbers))


def word(follower: Follower) -> int:
    return int(ffi.cast("uint64_t *", follower.head().address)[0])


@pytest.fixture
def follower() -> Follower:
    follower = Silent(None, NamespaceId(1))  # type: ignore[arg-type]
    follower.heard(None, version(10), None, time.monotonic_ns(), 4096)
    assert follower.recent(version(10), 60) is not None
    return follower


def test_nothing_is_known_at_first() -> None:
    assert Silent(None, NamespaceId(1)).recent(ZERO_VERSION, 1e6) is None  # type: ignore[arg-type]


def test_what_was_heard_is_told(follower: Follower) -> None:
    now = time.monotonic_ns()
    follower.heard(version(10), version(12), changes(11, 12), now)
    follower.heard(version(12), version(14), changes(14), now)
    begin = follower.recent(version(11), 60)
    assert begin is not None
    assert (begin.version, begin.changes, begin.page_size) == (version(14), changes(12, 14), 4096)
    assert follower.recent(version(14), 60).changes == ()
    assert follower.recent(None, 60) is None  # the allocation is not known here
    assert follower.recent(version(9), 60) is None  # nor what came before
    assert follower.recent(version(15), 60) is None


def test_nothing_is_listed_before_somebody_wants_it() -> None:
    follower = Silent(None, NamespaceId(1))  # type: ignore[arg-type]
    follower.heard(None, version(10), None, time.monotonic_ns(), 4096)
    before = word(follower)
    follower.heard(version(10), version(12), changes(11, 12), time.monotonic_ns())
    assert word(follower) == before + 4
    assert follower.recent(version(10), 60) is None
    assert follower.recent(version(12), 60).changes == ()
    follower.heard(version(12), version(13), changes(13), time.monotonic_ns())
    assert follower.recent(version(12), 60).changes == changes(13)


def test_the_word_moves_by_two_for_each_commit(follower: Follower) -> None:
    before = word(follower)
    follower.heard(version(10), version(11), changes(11), 0)
    assert word(follower) == before + 2
    follower.heard(version(10), version(11), changes(11), 0)  # heard twice
    assert word(follower) == before + 2
    follower.heard(version(10), version(13), changes(11, 12, 13), 0)
    assert word(follower) == before + 6
    follower.heard(version(13), version(13), changes(), 0)
    assert word(follower) == before + 6
    follower.heard(version(13), version(20), None, 0)
    assert word(follower) > before + 1000
    assert word(follower) % 2 == 0


def test_a_gap_is_forgotten(follower: Follower) -> None:
    follower.heard(version(15), version(16), changes(16), time.monotonic_ns())
    assert follower.recent(version(10), 60) is None
    assert follower.recent(version(16), 60).changes == ()


def test_age(follower: Follower) -> None:
    now = time.monotonic_ns()
    follower.heard(version(10), version(11), changes(11), now - 2 * 10**9)
    assert follower.recent(version(11), 1.0) is not None  # nothing gets older by news from before
    old = Silent(None, NamespaceId(1))  # type: ignore[arg-type]
    old.heard(None, version(10), None, now - 2 * 10**9, 4096)
    assert old.recent(version(10), 1.0) is None
    assert old.recent(version(10), 60) is not None


def test_never_below_what_was_seen(follower: Follower) -> None:
    """A lost conflict tells of a version whose changes are not known."""
    before = word(follower)
    follower.must_reach(version(10))
    assert word(follower) == before
    follower.must_reach(version(12))
    assert word(follower) != before
    assert follower.recent(version(10), 60) is None
    follower.heard(version(10), version(11), changes(11), time.monotonic_ns())
    assert follower.recent(version(10), 60) is None
    follower.heard(version(11), version(12), changes(12), time.monotonic_ns())
    assert follower.recent(version(10), 60).changes == changes(11, 12)


def test_older_news_changes_nothing(follower: Follower) -> None:
    follower.heard(version(10), version(14), changes(12, 14), time.monotonic_ns())
    before = word(follower)
    follower.heard(version(10), version(12), changes(12), time.monotonic_ns())
    assert word(follower) == before
    assert follower.recent(version(12), 60).version == version(14)


def test_memory_is_bounded(follower: Follower) -> None:
    now = time.monotonic_ns()
    for n in range(11, 11 + 5 * _KEPT):
        follower.heard(version(n - 1), version(n), changes(n), now)
    assert len(follower._changes) <= 2 * _KEPT
    assert follower.recent(version(11), 60) is None
    last = 10 + 5 * _KEPT
    assert len(follower.recent(version(last - _KEPT + 1), 60).changes) == _KEPT - 1


def test_an_undecided_page_size_is_asked_for() -> None:
    empty = Silent(None, NamespaceId(1))  # type: ignore[arg-type]
    empty.heard(None, version(10), None, time.monotonic_ns(), 0)
    assert empty.recent(version(10), 60) is None


def test_pauses_grow_to_a_bound() -> None:
    from mvvfs.remote.calls import _LONGEST_PAUSE, pauses

    found = [next(each) for each in [pauses()] * 12]
    assert all(0 < pause <= _LONGEST_PAUSE for pause in found)
    assert max(found[:2]) < _LONGEST_PAUSE / 4 < min(found[8:])


def test_a_message_that_was_long_on_its_way_looks_no_fresher() -> None:
    from mvvfs.remote.follow import _Watch
    from pagestore.v1 import pagestore_pb2 as pb

    class Late:
        """A watch whose second message was sent 0.1 s after the first, and comes 0.4 s after it."""

        def watch(self, _request: pb.WatchRequest) -> Late:
            return self

        def __iter__(self):
            yield pb.WatchResponse(version=version(10), clock_us=5_000_000)
            time.sleep(0.4)
            yield pb.WatchResponse(version=version(10), clock_us=5_100_000)
            watch._ended.set()
            yield pb.WatchResponse(version=version(10))  # of a service that does not tell the time

        def end(self) -> None:
            pass

    follower = Silent(None, NamespaceId(1))  # type: ignore[arg-type]
    follower.heard(None, version(10), None, 0, 4096)
    opened = time.monotonic_ns()
    watch = _Watch(follower, Late(), NamespaceId(1), 60.0)  # type: ignore[arg-type]
    watch.run()
    assert opened + 1e8 <= follower._as_of < opened + 2e8
    assert follower.recent(version(10), 0.25) is None
    assert follower.recent(version(10), 60) is not None


def test_a_store_that_is_closed_while_a_watch_begins_says_so() -> None:
    calls = Calls(address.parse("grpc://127.0.0.1:1", None, None, None, None), 1.0)
    calls._current().channel.close()  # `close` has come so far, or an instant later
    with pytest.raises(StoreUnavailableError, match="the store was closed"):
        calls.watch(pb.WatchRequest(namespace=1))
    calls.close()
