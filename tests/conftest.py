"""Shared fixtures: a fresh store of each kind, connections closed at the end, a seed that is printed."""

from __future__ import annotations

import random
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import mvvfs
from pagestore.opener import open_store
from tests import cluster

Connect = Callable[..., apsw.Connection]
NAME = "app"
"""The database that the fixtures open."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="repeat a run whose random choices failed")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell started us in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 32)


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


@pytest.fixture(params=["folder", "memory", pytest.param("cluster", marks=pytest.mark.foundationdb)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh store, kept open until the test is over; of each kind in turn."""
    if request.param == "cluster":
        with cluster.prefix() as prefix:
            yield from _kept_open(cluster.url(prefix))
    else:
        yield from _kept_open(str(tmp_path / "store") if request.param == "folder" else f"memory:{tmp_path}")


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


def _connect(url: str) -> Iterator[Connect]:
    connections: list[apsw.Connection] = []

    def connect(name: str = NAME, **options: object) -> apsw.Connection:
        connection = mvvfs.connect(name, **({"store": url} | options))
        connections.append(connection)
        return connection

    yield connect
    for connection in connections:
        connection.close(True)
