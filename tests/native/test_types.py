"""What cffi works out when it is first used is worked out before threads can meet there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mvvfs.shim
import pagestore.native

ROOT = Path(pagestore.native.__file__).parents[1]


@pytest.mark.parametrize("module", [pagestore.native, mvvfs.shim], ids=lambda module: module.__name__)
def test_all_that_is_spelled_is_known(module) -> None:
    package = ROOT / module.__name__.partition(".")[0]
    sources = [path.read_text() for path in package.rglob("*.py")]
    spelled = {
        c_type
        for source in sources
        for c_type in re.findall(r'ffi\.(?:new|cast|typeof|from_buffer)\(\s*"([^"]+)"', source)
    }
    assert spelled == set(module.C_TYPES)
    raw = re.compile(rf"^from {package.name}\._\w+ import .*\b(?:ffi|lib)\b", re.MULTILINE)
    assert sum(raw.search(source) is not None for source in sources) == 1, "import them from this module"


MEET = """
import gc, sys, threading, time
from importlib import import_module

module = import_module(sys.argv[1])
ffi, lib, names = module.ffi, module.lib, dir(module.lib)
start = threading.Barrier(8)
gc.callbacks.append(lambda *_: time.sleep(1e-6))  # another thread's turn
gc.set_threshold(1)


def use():
    start.wait()
    for name in names:
        getattr(lib, name)
    for c_type in ffi.list_types()[0]:
        ffi.typeof(c_type)


threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_use_it_first_at_once() -> None:
    """With `mvvfs._shim` the process is aborted (cffi 2.1.1, Python 3.11)."""
    subprocess.run([sys.executable, "-c", MEET, "mvvfs.shim"], check=True, timeout=60, cwd=ROOT)
