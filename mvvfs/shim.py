"""The C module that is the VFS, ready for threads (see `pagestore.native`)."""

from __future__ import annotations

from mvvfs._shim import ffi, lib
from pagestore.native import work_out

__all__ = ["C_TYPES", "ffi", "lib"]

C_TYPES = (
    *("int *", "uint32_t[]", "uint64_t[3]", "uint8_t[]", "uint8_t[10]", "uintptr_t", "void *[]"),
    *("mv_change[]", "mv_run *", "mv_stats", "mv_stats *", "mv_told *"),
)
"""As they are spelled where `ffi` is called (tests/native/test_types.py compares)."""

work_out(ffi, lib, C_TYPES)
