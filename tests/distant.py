"""A store that is far away: the embedded or memory one, which counts its calls and may take its time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pagestore.api import NamespaceId, PageNumber, StoredPage, Version
from pagestore.store import PageStore

COUNTED = ("begin", "read", "commit", "changelog", "allocation", "lease", "sync", "open", "store_id")


class Distance:
    """What goes over the network, as it were, from `start()` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.reads: list[list[int]] = []
        """The page numbers of each read."""
        self.bytes = 0
        """Of the blobs read."""
        self.delay = 0.0
        """Seconds that a read takes."""
        self.before_answer: Callable[[Sequence[PageNumber]], None] = lambda _numbers: None
        """Called with a read's pages in hand, before anybody gets them."""
        self._lock = threading.Lock()
        distant = property(lambda _store: True, lambda _store, _engine_says: None)
        monkeypatch.setattr(PageStore, "distant", distant)  # also of stores that are open
        monkeypatch.setattr(PageStore, "head_word", lambda _self, _namespace: None)
        for name in COUNTED:
            monkeypatch.setattr(PageStore, name, self._counted(name, getattr(PageStore, name)))
        monkeypatch.setattr(PageStore, "read", self._reading(PageStore.read))

    def start(self) -> None:
        """Count from here."""
        self.calls.clear()
        self.reads.clear()
        self.bytes = 0

    @property
    def pages(self) -> list[int]:
        return [number for numbers in self.reads for number in numbers]

    def _counted(self, name: str, original: Any) -> Any:
        def method(*args: Any, **keywords: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
            return original(*args, **keywords)

        return method

    def _reading(self, original: Any) -> Any:
        def read(
            store: PageStore, namespace: NamespaceId, version: Version, numbers: Sequence[PageNumber]
        ) -> list[StoredPage | None]:
            pages: list[StoredPage | None] = original(store, namespace, version, numbers)
            time.sleep(self.delay)
            self.before_answer(numbers)
            with self._lock:
                self.reads.append(list(numbers))
                self.bytes += sum(len(blob) for page in pages if page is not None for blob in page.blobs)
            return pages

        return read
