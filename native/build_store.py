"""Builds `pagestore._native`: the C of the page store (deltas, changelog records, conflict ranges,
head words, waiting, inboxes, FoundationDB's client library)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent.name  # sources are named relative to setup.py
DECLARATIONS = (Path(__file__).parent / "store.h").read_text()

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source(
    "pagestore._native",
    '#include "store.h"',
    sources=[
        f"{HERE}/{name}.c" for name in ("cover", "delta", "fdb", "gate", "inbox", "log", "recent", "words")
    ],
    depends=[f"{HERE}/{name}.h" for name in ("ascending", "inbox", "recent", "store")],
    include_dirs=[HERE],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"],
)
