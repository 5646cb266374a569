"""The C unit tests, built and run under the sanitizers that this machine's compiler has."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
COMPILER = os.environ.get("CC", "cc")
FLAGS = ["-std=c11", "-g", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
SOURCES = {
    "ahead": ["ahead.c", "sets.c"],
    "alloc": ["alloc.c"],
    "cache": ["ahead.c", "alloc.c", "cache.c", "position.c", "recent.c", "sets.c"],
    "cover": ["cover.c"],
    "delta": ["delta.c"],
    "fdb": ["fdb.c", "gate.c", "inbox.c"],
    "gate": ["gate.c"],
    "inbox": ["inbox.c"],
    "journal": ["journal.c"],
    "log": ["log.c"],
    "recent": ["recent.c"],
    "sets": ["sets.c"],
    "spill": ["spill.c"],
    "told": ["ahead.c", "alloc.c", "cache.c", "delta.c", "position.c", "recent.c", "sets.c", "told.c"],
    "words": ["words.c"],
}


def has_threads(name: str) -> bool:
    return "pthread_create" in (NATIVE / "tests" / f"test_{name}.c").read_text()


def has_sanitizer(name: str, folder: Path) -> bool:
    source = folder / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    probe = folder / "probe"
    build = subprocess.run(
        [COMPILER, f"-fsanitize={name}", str(source), "-o", str(probe)], capture_output=True, check=False
    )
    if build.returncode:
        return False
    return subprocess.run([str(probe)], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "sanitizer"),
    [(name, "address,undefined") for name in SOURCES]
    + [(name, "thread") for name in SOURCES if has_threads(name)],
)
def test_unit(name: str, sanitizer: str, tmp_path: Path) -> None:
    if not shutil.which(COMPILER):
        pytest.skip(f"no C compiler ({COMPILER})")
    if not has_sanitizer(sanitizer, tmp_path):
        pytest.skip(f"{COMPILER} has no runtime for -fsanitize={sanitizer}")
    program = tmp_path / name
    sources = [str(NATIVE / "tests" / f"test_{name}.c"), *(str(NATIVE / s) for s in SOURCES[name])]
    subprocess.run(
        [COMPILER, *FLAGS, f"-fsanitize={sanitizer}", *sources, "-o", str(program), "-lpthread"], check=True
    )
    subprocess.run([str(program)], check=True, timeout=60)
