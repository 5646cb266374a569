"""Every engine, and the store over every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore import embedded, format
from pagestore.api import Version
from pagestore.commit import Commit
from pagestore.engines.base import Engine, Transaction
from pagestore.engines.memory import MemoryEngine
from pagestore.engines.sqlite import SqliteEngine
from pagestore.store import PageStore
from tests import cluster
from tests.pages import Pages, content

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


# ---- engines that reach back ----

PAGES = range(1, 40)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each run of a commit's work stood: as of its begin, or anew."""
    runs: list[str] = []
    run = Commit.run

    def note(self: Commit, tx: Transaction) -> Version | None:
        runs.append("anew" if tx.as_of is None else "as of its begin")
        return run(self, tx)

    monkeypatch.setattr(Commit, "run", note)
    return runs


@pytest.fixture
def database(engine: Engine, pages: Pages, ran: list[str]) -> Pages:
    """Some pages, on an engine that reaches back."""
    if not engine.reaches_back:
        pytest.skip("the engine does not reach back")
    pages.commit({number: content(number) for number in PAGES})
    ran.clear()
    return pages


def only(runs: list[str], *expected: str) -> bool:
    """Some engines run everything twice."""
    return [run for n, run in enumerate(runs) if n == 0 or run != runs[n - 1]] == list(expected)
