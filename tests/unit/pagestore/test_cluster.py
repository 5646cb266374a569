"""Where in which cluster a store is."""

from __future__ import annotations

import sys

import pytest

from pagestore import keys
from pagestore.api import FormatError, StoreUnavailableError
from pagestore.cluster import Place, parse
from pagestore.engines import foundationdb_client


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("fdb:", Place(None, "mvvfs")),
        ("fdb:/etc/fdb.cluster", Place("/etc/fdb.cluster", "mvvfs")),
        ("fdb:///etc/fdb.cluster", Place("/etc/fdb.cluster", "mvvfs")),
        ("fdb:/a%20b?prefix=x%2Fy", Place("/a b", "x/y")),
        ("fdb:?prefix=ä", Place(None, "ä")),
    ],
)
def test_places(url: str, place: Place) -> None:
    assert parse(url) == place
    assert parse(place.url) == place


@pytest.mark.parametrize(
    "url",
    ["fdb://host/x", "fdb:?prefix=", "fdb:?prefix=%00", "fdb:?other=1", "fdb:#x", "fdb:?prefix=" + 101 * "x"],
)
def test_what_is_no_place(url: str) -> None:
    with pytest.raises(FormatError):
        parse(url)


def test_no_store_lies_within_another() -> None:
    prefixes = [keys.store_prefix(name) for name in ("a", "aa", "a\x01", "ab", "b")]
    assert not any(x != y and x.startswith(y) for x in prefixes for y in prefixes)


def test_a_relative_cluster_file_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert parse("fdb:here.cluster").cluster_file == f"{tmp_path}/here.cluster"


def test_without_the_client_library_the_error_says_what_to_install(monkeypatch):
    """The package itself raises a plain `Exception` then."""

    class Package:
        @staticmethod
        def api_version(_version: int) -> None:
            raise Exception("Unable to locate the FoundationDB API shared library!")

    monkeypatch.setitem(sys.modules, "fdb", Package)
    with pytest.raises(StoreUnavailableError, match="foundationdb-clients"):
        foundationdb_client.Client()
