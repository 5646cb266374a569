"""The C module of the page store, ready for threads.

Imported by whoever calls C.  cffi works out the types of functions and structs when they are first used.
Two threads that do so at once can end the process by a failed assertion of cffi 2, or worse
(https://github.com/python-cffi/cffi/issues/271), where a garbage collection lets another thread run in
between.  Here it is done once, while everybody else waits for the import.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pagestore._native import ffi, lib

__all__ = ["C_TYPES", "ffi", "lib", "work_out"]

C_TYPES = (
    *("char *", "int *", "int64_t *", "uint32_t[]", "uint64_t[]", "uint8_t[]", "uintptr_t"),
    *(
        "mv_fdb_answer *",
        "mv_fdb_functions *",
        "mv_fdb_keyspace *",
        "mv_fdb_string *",
        "mv_fdb_transaction *",
    ),
)
"""As they are spelled where `ffi` is called (tests/native/test_types.py compares)."""


def work_out(ffi: Any, lib: Any, c_types: Iterable[str]) -> None:
    """Have cffi know all types of a module, and those that are spelled so."""
    for name in dir(lib):
        getattr(lib, name)
    for c_type in map(ffi.typeof, [*ffi.list_types()[0], *c_types]):
        if c_type.kind == "struct":
            with suppress(ffi.error):  # one whose fields nobody knows has no size
                ffi.sizeof(c_type)  # its fields are worked out for that


work_out(ffi, lib, C_TYPES)
