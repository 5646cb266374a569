"""Shared fixtures: a fresh store of each kind, connections closed at the end, a seed that is printed."""

from __future__ import annotations

import random
import signal
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw
import hypothesis
import pytest
from _pytest.mark.structures import ParameterSet

import mvvfs
from pagestore.engines.memory import MemoryEngine
from pagestore.opener import open_store
from tests import cluster

Connect = Callable[..., apsw.Connection]
NAME = "app"
"""The database that the fixtures open."""


def on_cluster(*values: object, long: bool = False, id: str | None = None) -> ParameterSet:
    """A parameter, its kind of store "cluster" and whatever follows; marked accordingly."""
    marks = [pytest.mark.foundationdb, *([pytest.mark.long, pytest.mark.timeout(900)] if long else [])]
    return pytest.param("cluster", *values, marks=marks, id=id)


LONG_ON_CLUSTER = pytest.mark.parametrize("shared", ["folder", on_cluster(long=True)], indirect=True)
"""For tests that would take too long there."""

FOLDER_ONLY = pytest.mark.parametrize("shared", ["folder"], indirect=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="repeat a run whose random choices failed")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell started us in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("patient", deadline=None)  # machines are busy at times
    hypothesis.settings.load_profile("patient")
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 32)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long_on_cluster") and item.get_closest_marker("foundationdb"):
            item.add_marker(pytest.mark.long)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number of this test and run; `--seed` brings it back."""
    run = request.config.option.seed
    print(f"--seed {run}")
    return zlib.crc32(f"{run} {request.node.nodeid}".encode())


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where an embedded store may be made."""
    return str(tmp_path / "store")


@pytest.fixture(params=["folder", "memory", on_cluster()])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh store, kept open until the test is over; of each kind in turn."""
    with fresh(request.param, tmp_path) as url:
        yield from _kept_open(url)


@pytest.fixture(params=["folder", on_cluster()])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store may be made that other processes can open; of each kind in turn."""
    with fresh(request.param, tmp_path) as url:
        yield url


@contextmanager
def fresh(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a store of that kind which nobody has made yet.

    One in memory says that it is distant: it stands for a cluster where there is none."""
    if kind == "cluster":
        with cluster.prefix() as prefix:
            yield cluster.url(prefix)
    elif kind == "memory":
        with patch.object(MemoryEngine, "distant", True):
            yield f"memory:{folder}"
    else:
        yield str(folder / "store")


def refused_at(connection: apsw.Connection | sqlite3.Connection, store: str, write: str) -> str:
    """At which statement a transaction that can only lose is told so: at its first write, or, where it takes
    a round trip to ask for the newest version, at COMMIT; then `write` is done."""
    if not store.startswith(("fdb:", "memory:")):
        return write
    connection.execute(write)
    return "COMMIT"


def _kept_open(url: str) -> Iterator[str]:
    opened = open_store(url, create=True)
    yield url
    opened.close()


@pytest.fixture
def connect(store: str) -> Iterator[Connect]:
    """`connect(**options)` opens the database NAME of the fresh store."""
    yield from _connect(store)


@pytest.fixture
def connect_folder(folder: str) -> Iterator[Connect]:
    """The same for a test that needs an embedded store only."""
    yield from _connect(folder)


@pytest.fixture
def connect_shared(shared: str) -> Iterator[Connect]:
    """The same for a test that needs a store that other processes can open."""
    yield from _connect(shared)


def _connect(url: str) -> Iterator[Connect]:
    connections: list[apsw.Connection] = []

    def connect(name: str = NAME, **options: object) -> apsw.Connection:
        connection = mvvfs.connect(name, **({"store": url} | options))
        connections.append(connection)
        return connection

    yield connect
    for connection in connections:
        connection.close(True)
