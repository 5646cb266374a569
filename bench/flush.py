"""Builds and loads the flush wrapper (flush_delay.c), and times the disk as it is.

`runner` asks for the environment that a measured process needs; `worker` reads the counter.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError

SOURCE = Path(__file__).with_name("flush_delay.c")
C_FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden")


def build(directory: Path) -> Path:
    """Compile the wrapper into `directory`; its path.

    Raises BenchError if there is no C compiler (the CC variable, else cc), if it refuses, or if the path
    holds a space, which LD_PRELOAD cannot carry."""
    library = directory / "flush_delay.so"
    if " " in str(library):
        raise BenchError(f"LD_PRELOAD cannot name a path with a space: {library}; set TMPDIR")
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BenchError(f"no C compiler {compiler!r}: set CC, or install one")
    command = [compiler, *C_FLAGS, "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{compiler} could not build {SOURCE.name}:\n{done.stderr}")
    return library


def environment(library: Path, delay_us: int) -> dict[str, str]:
    """This process's environment plus what loads the wrapper, with flushes `delay_us` µs longer."""
    preload = " ".join(filter(None, [str(library), os.environ.get("LD_PRELOAD", "")]))
    return os.environ | {"LD_PRELOAD": preload, "FLUSH_DELAY_US": str(delay_us)}


def counter() -> Callable[[], int]:
    """Tells how many flushes this process has done; BenchError if the wrapper is not loaded."""
    try:
        count = ctypes.CDLL(None).flush_delay_count
    except AttributeError:
        raise BenchError("the flush wrapper is not loaded into this process") from None
    count.argtypes, count.restype = [], ctypes.c_uint64
    return lambda: int(count())


def probe(directory: Path, tries: int = 20) -> float:
    """The median time of one 4 KiB append and fdatasync in `directory`, in milliseconds."""
    path = directory / "flush.probe"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(tries):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(times) * 1000
