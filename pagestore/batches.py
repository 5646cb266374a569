"""Much in parts: whoever reads or writes many pages does so some at a time.

Called by the store and by its clients; calls nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter; each is taken from `items` when it is asked for.

    (`itertools.batched` came with Python 3.12.)"""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
