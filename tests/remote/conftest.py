"""A service over a fresh embedded store, in this process, and an unreliable proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mvvfs.remote import RemoteStore, open_remote
from pagestore.opener import open_store
from pagestore.service.server import serving
from pagestore.service.settings import Settings
from pagestore.store import PageStore
from tests.pages import Pages
from tests.proxy import Proxy, between


@pytest.fixture
def where(folder: str) -> str:
    """The URL of the store behind the service."""
    return folder


@pytest.fixture
def backing(where: str) -> Iterator[PageStore]:
    """The store behind the service."""
    store = open_store(where, create=True)
    yield store  # type: ignore[misc]
    store.close()


@pytest.fixture
def service(backing: PageStore, tmp_path: Path) -> Iterator[str]:
    """Where the service is, for gRPC."""
    with serving(Settings(store=backing.url, listen=(f"unix:{tmp_path}/service",), min_heartbeat=0.005)):
        yield f"unix:{tmp_path}/service"


@pytest.fixture
def proxy(service: str, tmp_path: Path) -> Iterator[Proxy]:
    with between(service, f"{tmp_path}/proxy") as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy, tmp_path: Path) -> str:
    """The store's URL, by way of the proxy."""
    return f"grpc+unix:{tmp_path}/proxy"


@pytest.fixture
def remote(url: str) -> Iterator[RemoteStore]:
    """The service's client, by way of the proxy; a call may take two seconds."""
    store = open_remote(url, None, None, None, None, 2.0)
    yield store
    store.close()


@pytest.fixture
def pages(remote: RemoteStore) -> Pages:
    return Pages(remote, remote.create("main").id)
