"""Where a process's time goes in one workload: Python's profiler around the loop, in this process.

Called by `cli`.  The profiler makes calls dearer than they are: shares mislead a little in favour of C, so
the time of an operation is taken beforehand, without it.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import random
import tempfile
import time
from pathlib import Path

from bench.targets import Target
from bench.workloads import WORKLOADS


def profile(workload_name: str, target: Target, operations: int, directory: Path) -> str:
    """The time of an operation, and the functions that took most of it, as text."""
    workload = WORKLOADS[workload_name]
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="profile-", dir=directory) as scratch:
        path = target.place(Path(scratch))
        connection = target.relaxed.connect(path)
        workload.load(connection, 1)
        connection.close()
        connection = target.connect(path)
        client = workload.client(target, connection, path, 0, random.Random(0))
        client.warm()
        started = time.perf_counter()
        for _ in range(operations):
            client.operate()
        each_us = (time.perf_counter() - started) / operations * 1e6
        with cProfile.Profile() as profiler:
            for _ in range(operations):
                client.operate()
        workload.check(connection, [client.evidence()])
        connection.close()
    text = io.StringIO()
    stats = pstats.Stats(profiler, stream=text).strip_dirs()
    stats.sort_stats("tottime").print_stats(30)
    return f"{workload.title}, {target.kind}: {each_us:.1f} µs an operation\n{text.getvalue()}"
