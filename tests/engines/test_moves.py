"""Pages as deltas that move bytes, over every engine: a store says that it has some before it has."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from pagestore import format, keys
from pagestore.api import CommitRequest, InvalidRequestError, PageNumber, PageRuns, PageWrite, new_token
from pagestore.encoding import is_moving
from pagestore.engines.base import Engine
from pagestore.store import PageStore
from tests.pages import Pages

OLD = random.Random(1).randbytes(512)
GROWN = OLD[:50] + b"more" + OLD[50:-4]
P1 = PageNumber(1)


def has_feature(engine: Engine) -> bool:
    return format.MOVES in json.loads(engine.read(lambda tx: tx.get(keys.FORMAT)) or b"")["features"]


def test_the_first_one_gives_the_store_the_feature(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: OLD, 2: OLD})
    pages.commit({1: OLD[:-1] + b"!"})
    assert not has_feature(page_store.engine)
    done = pages.commit({2: GROWN})
    assert has_feature(page_store.engine)
    (page,) = page_store.read(pages.id, done.version, [PageNumber(2)])
    assert page is not None
    assert [is_moving(blob) for blob in page.blobs] == [True, False]
    assert pages.read(2) == GROWN
    page_store.engine.read(format.check)  # this release knows it


def test_so_does_one_that_is_staged(page_store: PageStore, pages: Pages) -> None:
    base = pages.commit({1: OLD}).version
    part = pages.part({1: GROWN}, base)
    request = CommitRequest(new_token(), base, (replace(part, writes=(), staged=PageRuns.of([P1])),))
    page_store.stage(pages.id, request.token, part.writes)
    assert has_feature(page_store.engine)
    page_store.commit(request)
    assert pages.read(1) == GROWN


def test_another_process_finds_it_there(page_store: PageStore, pages: Pages) -> None:
    pages.commit({1: OLD})
    pages.commit({1: GROWN})
    other = Pages(PageStore(page_store.engine, page_store.url, 5.0), pages.id)
    record = page_store.engine.read(lambda tx: tx.get(keys.FORMAT))
    other.commit({1: OLD})
    assert page_store.engine.read(lambda tx: tx.get(keys.FORMAT)) == record
    assert [pages.read(1), other.read(1)] == [OLD, OLD]


@pytest.mark.parametrize("blob", [b"", b"\5", b"\5\0\0" + bytes(4)])
def test_nonsense_is_refused_as_ever(page_store: PageStore, pages: Pages, blob: bytes) -> None:
    base = pages.commit({1: OLD}).version
    part = pages.part({1: GROWN}, base)
    part = replace(part, writes=[PageWrite(P1, blob)])
    with pytest.raises(InvalidRequestError):
        page_store.commit(CommitRequest(new_token(), base, (part,)))
    assert pages.read(1) == OLD
