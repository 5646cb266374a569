"""What every store promises of its history (pagestore/api.py), over every engine."""

from __future__ import annotations

import time

import pytest

from pagestore.api import (
    MAX_VERSION,
    NoSuchVersionError,
    Version,
)
from pagestore.store import PageStore
from tests.pages import Pages, content


def test_changelog(page_store: PageStore, pages: Pages) -> None:
    done = [pages.commit({n: content(n)}, message=f"m{n}") for n in range(1, 8)]
    log = list(page_store.changelog(pages.id))
    assert [(c.version, c.time_us, c.pages, c.message) for c in log] == [
        (commit.version, commit.time_us, (n,), f"m{n}") for n, commit in enumerate(done, start=1)
    ]
    newest_first = list(page_store.changelog(pages.id, newest_first=True))
    assert newest_first == log[::-1]
    between = page_store.changelog(pages.id, after=done[1].version, until=done[4].version)
    assert list(between) == log[2:5]
    assert list(page_store.changelog(pages.id, newest_first=True, limit=2)) == log[:-3:-1]
    assert list(page_store.changelog(pages.id, after=done[-1].version)) == []
    assert list(page_store.changelog(pages.id, until=MAX_VERSION, limit=1)) == log[:1]


def test_a_long_changelog_comes_in_pieces(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [pages.commit({1: content(n)}).version for n in range(12)]
    for chunk in (1, 3, 4, 12, 13):
        monkeypatch.setattr("pagestore.history._CHUNK", chunk)
        assert [c.version for c in page_store.changelog(pages.id)] == versions
        assert [c.version for c in page_store.changelog(pages.id, newest_first=True)] == versions[::-1]


def test_version_at(page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.time_ns() + 10**12

    def clock_shows(second: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: start + second * 10**9)

    versions = []
    for second in (10, 20, 20, 15, 30):  # a clock that steps back once
        clock_shows(second)
        versions.append(pages.commit({1: content(second)}).version)
    clock_shows(100)

    def at(second: float) -> Version:
        return page_store.version_at(pages.id, (start + int(second * 10**9)) // 1000)

    assert [at(10), at(19.9), at(20), at(29), at(30), at(99)] == [versions[n] for n in (0, 0, 3, 3, 4, 4)]
    for never in (9.9, -(10**6), -(10**12), 101, 10**12):
        with pytest.raises(NoSuchVersionError):
            at(never)


def test_usage(page_store: PageStore, pages: Pages) -> None:
    pages.commit({n: content(n) for n in range(1, 11)})
    used = page_store.usage(pages.id)
    assert (used.live_pages, used.history_pages, used.history_bytes, used.commits) == (10, 0, 0, 1)
    assert used.live_bytes >= 10 * 128
    pages.commit({1: content("new", page_size=2048)[:512], 2: None, 3: b"delta" + content(3)[5:]})
    now = page_store.usage(pages.id)
    assert (now.live_pages, now.history_pages, now.commits) == (9, 4, 2)
    assert now.history_bytes >= 2 * 128
    assert now.live_bytes > used.live_bytes - 2 * 128
