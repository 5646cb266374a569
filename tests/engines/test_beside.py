"""What a commit does for others once it is done."""

from __future__ import annotations

import logging

import pytest

from pagestore import allocation, beside, retention
from pagestore.api import LimitError, NamespaceId, NoSuchNamespaceError, StoreFullError, StoreUnavailableError
from pagestore.engines.base import Engine
from pagestore.store import PageStore
from tests.pages import Pages, content


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[NamespaceId]:
    """Where retention looked, one for each look; every commit may."""
    seen: list[NamespaceId] = []
    look = retention.beside_commit

    def noting(engine: Engine, id_: NamespaceId, pages: int, timeout: float) -> bool:
        seen.append(id_)
        return look(engine, id_, pages, timeout)

    monkeypatch.setattr(retention, "is_due", lambda _token: True)
    monkeypatch.setattr(retention, "beside_commit", noting)
    return seen


def test_who_found_nothing_to_let_go_of_does_not_look_again_at_once(
    page_store: PageStore, pages: Pages, looks: list[NamespaceId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "QUIET_SECONDS", 3600.0)
    other = Pages(page_store, page_store.create("other").id)
    for step in range(3):
        pages.commit({1: content(step)})
        other.commit({1: content(step)})
    assert looks == [pages.id, other.id]


def test_who_found_something_goes_on(
    page_store: PageStore, pages: Pages, looks: list[NamespaceId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "QUIET_SECONDS", 3600.0)
    monkeypatch.setattr(
        retention, "beside_commit", lambda _engine, id_, *_: looks.append(id_) or len(looks) < 3
    )
    for step in range(6):
        pages.commit({1: content(step)})
    assert len(looks) == 3


def test_after_a_while_it_looks_again(
    pages: Pages, looks: list[NamespaceId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "QUIET_SECONDS", 0.0)
    for step in range(3):
        pages.commit({1: content(step)})
    assert len(looks) == 3


@pytest.mark.parametrize("error", [StoreUnavailableError, NoSuchNamespaceError, StoreFullError, LimitError])
def test_what_goes_wrong_afterwards_is_no_error_of_the_commit(
    pages: Pages, error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_arguments: object) -> bool:
        raise error("just now")

    for file, name in ((retention, "is_due"), (allocation, "image_is_due")):
        monkeypatch.setattr(file, name, lambda *_: True)
    monkeypatch.setattr(retention, "beside_commit", fails)
    monkeypatch.setattr(allocation, "write_image", fails)
    with caplog.at_level(logging.INFO, "pagestore"):
        version = pages.commit({1: content("there")}).version
    assert pages.version() == version
    assert caplog.text.count("just now") == 2
