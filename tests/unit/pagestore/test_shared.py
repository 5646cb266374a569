"""One store object for each place: who gets it, and who closes it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pagestore.shared import SharedStores


class FakeStore:
    def __init__(self) -> None:
        self.timeout = 1.0
        self.on_close: Callable[[], bool] | None = None
        self.closed = self.broken = False

    def usable(self) -> bool:
        return not self.broken

    def close(self) -> None:
        if self.on_close is None or self.on_close():
            self.closed = True


def test_the_last_close_closes():
    stores: SharedStores[str, FakeStore] = SharedStores()
    first, second, other = (stores.open(key, FakeStore, 1.0) for key in ("a", "a", "b"))
    assert first is second is not other
    first.close()
    assert not first.closed
    second.close()
    assert first.closed
    assert list(stores) == ["b"]
    assert stores.open("a", FakeStore, 1.0) is not first


def test_the_longest_timeout_counts():
    stores: SharedStores[str, FakeStore] = SharedStores()
    assert [stores.open("a", FakeStore, seconds).timeout for seconds in (3.0, 5.0, 2.0)] == [3.0, 5.0, 5.0]


def test_one_that_broke_is_replaced_and_its_users_close_it_beside_the_new_one():
    stores: SharedStores[str, FakeStore] = SharedStores()
    broken = stores.open("a", FakeStore, 1.0)
    broken.broken = True
    whole = stores.open("a", FakeStore, 1.0)
    assert whole is not broken
    broken.close()
    assert broken.closed
    assert stores.open("a", FakeStore, 1.0) is whole
    assert not whole.closed


def fail() -> FakeStore:
    raise OSError("no")


def test_one_that_cannot_be_made_leaves_nothing():
    stores: SharedStores[str, FakeStore] = SharedStores()
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            stores.open("a", fail, 1.0)
        assert not list(stores)


def test_a_child_has_none():
    stores: SharedStores[str, FakeStore] = SharedStores()
    stores.open("a", FakeStore, 1.0)
    if not (child := os.fork()):
        os._exit(len(list(stores)))
    assert os.waitpid(child, 0)[1] == 0
    assert list(stores) == ["a"]
