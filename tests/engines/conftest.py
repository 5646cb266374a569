"""Every engine, and the store over every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore import embedded, format
from pagestore.engines.base import Engine
from pagestore.engines.memory import MemoryEngine
from pagestore.engines.sqlite import SqliteEngine
from pagestore.store import PageStore
from tests import cluster
from tests.pages import Pages

OpenEngine = Callable[[], Engine]


def _memory(_folder: Path, twice: bool) -> OpenEngine:
    engine = MemoryEngine(twice=twice)
    engine.transact(lambda tx: tx.set(*format.row()))
    return lambda: engine


def _sqlite(folder: Path) -> OpenEngine:
    path = folder / "store"
    embedded.open_folder(str(path), create=True, read_only=False, timeout=5).close()
    return lambda: SqliteEngine(str(path / embedded.ENGINE_FILE))


FOUNDATIONDB = pytest.param("foundationdb", marks=pytest.mark.foundationdb)


@pytest.fixture(params=["memory", "memory-twice", "sqlite", FOUNDATIONDB])
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenEngine]:
    """Opens the same data each time: as another process would, where the engine can."""
    if request.param == "foundationdb":
        with cluster.prefix() as prefix:
            cluster.make_store(prefix)
            yield lambda: cluster.engine(prefix)
    elif request.param == "sqlite":
        yield _sqlite(tmp_path)
    else:
        yield _memory(tmp_path, twice=request.param == "memory-twice")


@pytest.fixture
def engine(open_engine: OpenEngine) -> Iterator[Engine]:
    opened = open_engine()
    yield opened
    opened.close()


@pytest.fixture
def page_store(engine: Engine) -> PageStore:
    return PageStore(engine, "test:", 5.0)


@pytest.fixture
def pages(page_store: PageStore) -> Pages:
    return Pages(page_store, page_store.create("main").id)


class Clock:
    """What `time.time_ns` says: stands still until somebody waits."""

    def __init__(self) -> None:
        self._now = time.time_ns()

    def time_ns(self) -> int:
        return self._now

    def wait(self, seconds: int) -> None:
        self._now += seconds * 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time_ns", clock.time_ns)
    return clock
