"""The store against a dictionary of snapshots: whatever is done in whatever order, both agree."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import (
    rule,
    run_state_machine_as_test,
)

from pagestore import bulk, format
from pagestore.engines.memory import MemoryEngine
from pagestore.opener import open_store
from pagestore.store import PageStore
from tests import cluster
from tests.model.store_model import StoreModel


class OverMemory(StoreModel):
    def open(self) -> None:
        engine = MemoryEngine(twice=True)
        engine.transact(lambda tx: tx.set(*format.row()))
        self.store = PageStore(engine, "memory", 5)


class OverSqlite(StoreModel):
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.reopen()

    @rule()
    def reopen(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        store = open_store(str(self.folder / "store"), create=True)
        assert isinstance(store, PageStore)
        self.store = store
        self.old_ones_go()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


class Staged(StoreModel):
    """Every commit is staged, and folded in at some time later."""

    lies_staged = True

    def open(self) -> None:
        super().open()
        self.store.max_commit_bytes = 1
        self.store._folder.fold = lambda _id: None  # type: ignore[method-assign]

    @rule()
    def fold(self) -> None:
        for namespace in self.store.list():
            bulk.fold(self.store.engine, namespace.id, 5)


class OverMemoryStaged(Staged, OverMemory):
    pass


class OverCluster(StoreModel):
    def open(self) -> None:
        self.cleared = ExitStack()
        prefix = self.cleared.enter_context(cluster.prefix())
        cluster.make_store(prefix)
        self.store = PageStore(cluster.engine(prefix), "cluster", 10)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "cleared"):
            self.cleared.close()


class OverClusterStaged(Staged, OverCluster):
    pass


TestOverMemory = OverMemory.TestCase
TestOverMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOverSqlite = OverSqlite.TestCase
TestOverSqlite.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestOverMemoryStaged = OverMemoryStaged.TestCase
TestOverMemoryStaged.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)
TestOverCluster = OverCluster.TestCase
TestOverCluster.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)
TestOverCluster.pytestmark = [  # type: ignore[attr-defined]
    pytest.mark.foundationdb,
    pytest.mark.skipif(cluster.missing() is not None, reason=cluster.missing() or ""),
]


@pytest.mark.long
@pytest.mark.foundationdb
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", [OverCluster, OverClusterStaged])
def test_on_a_cluster_for_longer(model: type[OverCluster]) -> None:
    cluster.need()
    few = settings(max_examples=100, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(model, settings=few)
