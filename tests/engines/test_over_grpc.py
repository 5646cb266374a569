"""The store's contract once more, over a service: the same tests, with the service's client as the store."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mvvfs.remote import RemoteStore, open_remote
from pagestore.opener import open_store
from pagestore.service.server import serving
from pagestore.service.settings import Settings
from pagestore.store import PageStore
from tests.engines import test_allocation, test_store_contract, test_store_history, test_turns, test_watch


class Served(RemoteStore):
    """With the engine behind the service, for tests that look there."""

    backing: PageStore

    @property
    def engine(self):  # type: ignore[no-untyped-def]
        return self.backing.engine


@pytest.fixture
def page_store(tmp_path: Path) -> Iterator[RemoteStore]:
    folder, socket = str(tmp_path / "store"), tmp_path / "socket"
    backing = open_store(folder, create=True)
    assert isinstance(backing, PageStore)
    with serving(Settings(store=folder, listen=(f"unix:{socket}",))):
        store = open_remote(f"grpc+unix:{socket}", None, None, None, None, 5.0)
        store.__class__ = Served
        store.backing = backing  # type: ignore[attr-defined]
        yield store
        store.close()
    backing.close()


HERE = {
    "test_idle_watches_take_no_threads",  # the service's own are in this process, too; tests/service tells
    "test_incarnations",  # a service's client can't renew a store
}
"""What is not so over a service."""

tickets = test_turns.tickets


def _adopt(module: ModuleType) -> None:
    for name, function in vars(module).items():
        if not name.startswith("test_") or name in HERE:
            continue
        if "open_engine" not in inspect.signature(function).parameters:
            globals()[f"{module.__name__.rpartition('.')[2]}_{name}"] = function


for _module in (test_store_contract, test_store_history, test_allocation, test_turns, test_watch):
    _adopt(_module)
