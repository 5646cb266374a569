"""Types of the C module that native/build_store.py builds."""

from typing import Any

ffi: Any
lib: Any
