"""Which store and database a name means: the rules in their order."""

import os

import pytest

from mvvfs import names
from mvvfs.errors import InvalidNameError, NoSuchDatabaseError, OptionError
from mvvfs.names import Location, chosen_store, resolve, store_url
from pagestore.opener import open_store


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def where(name: str, store: str | None = None, **environ: str) -> tuple[str, str]:
    location = resolve(name, store, environ)
    assert location.why
    return location.store_url, location.namespace


def test_a_given_store_wins(here):
    open_store(str(here / "app.db"), create=True).close()
    assert where("app.db", "s", MV_STORE="/other") == (str(here / "s"), "app.db")
    assert where("a/b", "s") == (str(here / "s"), "a/b")


@pytest.mark.parametrize("name", ["./app.db", "sub/app.db", "/srv/app.db", "../app.db"])
def test_a_path_is_a_store_of_its_own(here, name):
    assert where(name, MV_STORE="/other") == (os.path.normpath(here / name), "main")


def test_an_existing_store_folder_is_opened_by_its_name(here):
    open_store(str(here / "app.db"), create=True).close()
    assert where("app.db", MV_STORE="/other") == (str(here / "app.db"), "main")


def test_a_folder_that_is_no_store_is_not(here):
    (here / "app.db").mkdir()
    assert where("app.db", MV_STORE="/other") == ("/other", "app.db")


def test_the_environment_names_the_store_of_a_plain_name():
    assert where("app.db", MV_STORE="/other") == ("/other", "app.db")


def test_else_a_new_folder(here):
    assert where("app.db") == (str(here / "app.db"), "main")
    assert where("app.db", MV_STORE="") == (str(here / "app.db"), "main")


def test_a_later_chdir_changes_nothing(here, monkeypatch):
    url, _ = where("app.db")
    (here / "sub").mkdir()
    monkeypatch.chdir(here / "sub")
    assert store_url(url) == url == str(here / "app.db")


@pytest.mark.parametrize(
    "name", ["ein Fäßchen.db", "100%.db", "a?b#c&d", "-v", "main", "memory:x", "名前", "a'b\"c"]
)
def test_odd_names(here, name):
    assert where(name) == (str(here / name), "main")
    assert where(name, "s") == (str(here / "s"), name)


@pytest.mark.parametrize(
    ("store", "url"),
    [
        ("/a/../b", "/b"),
        ("file:///a%20b/c", "/a b/c"),
        ("file://localhost/a", "/a"),
        ("memory:x", "memory:x"),
        ("grpc://host:1/x", "grpc://host:1/x"),
        ("fdb:", "fdb:"),
    ],
)
def test_store_urls(store, url):
    assert store_url(store) == url


def test_relative_stores(here):
    assert store_url("s") == store_url("./s/") == store_url("file:s") == str(here / "s")


@pytest.mark.parametrize("url", ["file://elsewhere/a", "file:"])
def test_malformed_store_urls(url):
    with pytest.raises(OptionError, match="expected file:///"):
        store_url(url)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_no_database_can_have(name):
    with pytest.raises(InvalidNameError):
        where(name)


def test_a_url_is_not_a_name():
    with pytest.raises(OptionError, match="give it as store="):
        where("grpc://host/db")
    assert where("grpc://host/db", "s")[1] == "grpc://host/db"


def test_chosen_store(here):
    assert chosen_store("s", {"MV_STORE": "/other"})[0] == str(here / "s")
    assert chosen_store(None, {"MV_STORE": "/other"})[0] == "/other"
    with pytest.raises(NoSuchDatabaseError, match="--store"):
        chosen_store(None, {})


def test_the_process_environment_is_the_default(here, monkeypatch):
    monkeypatch.setenv("MV_STORE", str(here / "s"))
    assert resolve("app.db") == Location(str(here / "s"), "app.db", "MV_STORE names the store")
    assert names.MAIN == "main"
