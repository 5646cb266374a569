"""Makes the flushes of processes started meanwhile longer, on both sides alike: what a cloud disk costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import flush

SLOWER_US = 2_000


@contextmanager
def slow_disk() -> Iterator[None]:
    """Preload bench/flush_delay.c into whatever this process starts in the block."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mvvfs-demo-") as tools:
        os.environ.update(flush.environment(flush.build(Path(tools)), SLOWER_US))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
