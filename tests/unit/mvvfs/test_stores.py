"""Where a service is, from its URL; and that no secret is told."""

from __future__ import annotations

import logging

import pytest

import mvvfs
from mvvfs import stores
from mvvfs.errors import OptionError
from mvvfs.options import Options, from_keywords
from mvvfs.remote.address import parse
from mvvfs.stores import Access, open_store
from pagestore.api import StoreError, StoreUnavailableError

SECRET = "hunter2secret"


@pytest.mark.parametrize(
    ("url", "targets"),
    [
        ("grpc://host", ("host:7420",)),
        ("grpc://host:1", ("host:1",)),
        ("grpc://a:1,b,c:3", ("a:1", "b:7420", "c:3")),
        ("grpc://[::1]:5", ("[::1]:5",)),
        ("grpc://[::1]", ("[::1]:7420",)),
        ("grpc://10.0.0.1:65535/", ("10.0.0.1:65535",)),
        ("grpc+unix:/run/a b", ("unix:/run/a b",)),
        ("grpc+unix:///run/a%20b", ("unix:/run/a b",)),
    ],
)
def test_addresses(url: str, targets: tuple[str, ...]) -> None:
    address = parse(url, None, None, None, None)
    assert (address.targets, address.credentials) == (targets, None)


@pytest.mark.parametrize(
    "url",
    [
        *("grpc://", "grpc://:1", "grpc://a:0", "grpc://a:65536", "grpc://a:x", "grpc://a:1,", "grpc://a/b"),
        "grpc://a,grpc://b",
        *("grpc://a?b", "grpc://[::1", "grpc+unix:relative", "grpc+unix:", f"grpc://me:{SECRET}@host:1"),
    ],
)
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(OptionError, match="is written grpc") as caught:
        parse(url, None, None, None, None)
    assert SECRET not in str(caught.value)


def test_what_belongs_to_tls(tmp_path) -> None:
    (tmp_path / "ca").write_bytes(b"")
    with pytest.raises(OptionError, match="are for grpcs:"):
        parse("grpc://a", None, str(tmp_path / "ca"), None, None)
    with pytest.raises(OptionError, match="come together"):
        parse("grpcs://a", None, None, "cert", None)
    with pytest.raises(OptionError, match="ca='/nowhere': No such file"):
        parse("grpcs://a", None, "/nowhere", None, None)
    assert parse("grpcs://a", None, None, None, None).credentials is not None


def test_secrets_are_not_told(tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"grpc+unix:{tmp_path}/nobody"
    assert SECRET not in repr(Options(token=SECRET)) + repr(Access(SECRET)) + repr(
        parse(url, SECRET, *[None] * 3)
    )
    for token in (SECRET + " ", SECRET + "\n", SECRET + "é"):
        with pytest.raises(OptionError, match=r"token=\.\.\.: expected printable") as caught:
            from_keywords({"token": token}, {})
        assert SECRET not in str(caught.value)
    with pytest.raises(mvvfs.Error) as refused:
        mvvfs.connect("app", store=url, token=SECRET, timeout=0.1)
    with pytest.raises(StoreUnavailableError) as unreachable:
        open_store(url, create=False, timeout=0.1, access=Access(SECRET))
    with pytest.raises(OptionError) as nonsense:
        from_keywords({"token": [SECRET]}, {})
    assert SECRET not in f"{refused.value} {unreachable.value} {nonsense.value} {caplog.text}"


def test_a_failed_opening_leaves_nothing(tmp_path) -> None:
    url = f"grpc+unix:{tmp_path}/nobody"
    with pytest.raises(StoreError):
        open_store(url, create=True, timeout=0.1)
    assert not list(stores._shared)


def test_without_grpc(monkeypatch) -> None:
    import builtins
    import sys

    monkeypatch.delitem(sys.modules, "mvvfs.remote")
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "mvvfs.remote":
            raise ModuleNotFoundError("No module named 'grpc'", name="grpc")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(OptionError, match=r"pip install 'mvvfs\[client\]'"):
        open_store("grpc://a", create=False)


def test_freshness() -> None:
    assert Options().within == 0
    assert from_keywords({"freshness": "bounded:1500"}, {}).within == 1.5
    for wrong in ("bounded", "bounded:", "bounded:0", "bounded:-1", "bounded:x", "bounded:3600001", "old"):
        with pytest.raises(OptionError, match="latest, or bounded:MS"):
            from_keywords({"freshness": wrong}, {})
