"""`register()` and `connect()`: how a Python program reaches the VFS."""

from __future__ import annotations

import ctypes
import sqlite3
import threading
from typing import Literal

import apsw

from mvvfs import _shim, bridge
from mvvfs.connection import Connection
from mvvfs.errors import RegisterError
from mvvfs.options import from_keywords, to_uri

_ = bridge  # implements the callbacks of _shim
_lock = threading.Lock()
_registered: set[str] = set()


def register(*, apsw: bool = True, sqlite3: bool = True) -> None:
    """Make `vfs=mv` known to APSW's SQLite and to the one of the standard `sqlite3` module.

    Once per process is enough; more does no harm.  Raises RegisterError where the `sqlite3` module can
    neither load extensions nor shares a libsqlite3 through which it could be done."""
    with _lock:
        if apsw and "apsw" not in _registered:
            _register_apsw()
            _registered.add("apsw")
        if sqlite3 and "sqlite3" not in _registered:
            _register_sqlite3()
            _registered.add("sqlite3")


def _register_apsw() -> None:
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(_shim.__file__, "sqlite3_mvapsw_init")
    connection.close()


def _register_sqlite3() -> None:
    connection = sqlite3.connect(":memory:")
    try:
        if hasattr(connection, "enable_load_extension"):
            connection.enable_load_extension(True)
            connection.execute("SELECT load_extension(?, 'sqlite3_mv_init')", (_shim.__file__,))
        else:
            _register_library()
    except sqlite3.Error as exc:
        raise RegisterError(f"Python's sqlite3 module can't load the mv extension: {exc}") from exc
    finally:
        connection.close()


def _register_library() -> None:
    """For a Python built without loadable extensions, whose sqlite3 module links libsqlite3."""
    import _sqlite3

    library = ctypes.CDLL(_sqlite3.__file__)  # its symbols include those of what it links
    try:
        open_, enable, load, close = (
            getattr(library, f"sqlite3_{name}")
            for name in ("open", "enable_load_extension", "load_extension", "close")
        )
    except AttributeError as exc:
        raise RegisterError("Python's sqlite3 module has SQLite built in and can't load extensions") from exc
    db, message = ctypes.c_void_p(), ctypes.c_char_p()
    if open_(b":memory:", ctypes.byref(db)):
        raise RegisterError("libsqlite3 can't open a database")
    try:
        path = str(_shim.__file__).encode()
        if enable(db, 1) or load(db, path, b"sqlite3_mv_init", ctypes.byref(message)):
            raise RegisterError(f"libsqlite3 can't load the mv extension: {message.value!r}")
    finally:
        close(db)


def connect(
    name: str,
    *,
    store: str | None = None,
    at: str | None = None,
    mode: Literal["rwc", "rw", "ro"] | None = None,
    durability: Literal["full", "normal"] | None = None,
    reads: Literal["latest", "durable"] | None = None,
    cache_bytes: int | None = None,
    spill_bytes: int | None = None,
    timeout: float | None = None,
    message: str | None = None,
    page_size: int | None = None,
    slow_ms: float | None = None,
    leases: Literal["on", "off"] | None = None,
    concurrency: Literal["optimistic", "queued"] | None = None,
    freshness: str | None = None,
    token: str | None = None,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    read_ahead: Literal["auto", "on", "off"] | None = None,
    cache_dir: str | None = None,
    cache_dir_size: int | None = None,
) -> apsw.Connection:
    """Open a database; docs/options.md explains every option.

    What is left out comes from the environment (`MV_STORE`, ...) or has its default.  Raises
    `mvvfs.Error` subclasses: OptionError, NoSuchDatabaseError (mode rw or ro), and what the store says.
    """
    register(sqlite3=False)
    keywords = {key: value for key, value in locals().items() if key != "name" and value is not None}
    options = from_keywords(keywords)
    connection = Connection(to_uri(name, **keywords), flags=_flags(options.mode))
    connection.set_busy_timeout(round(options.timeout * 1000))
    return connection


def _flags(mode: str) -> int:
    if mode == "ro":
        return apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READONLY
    create = apsw.SQLITE_OPEN_CREATE if mode == "rwc" else 0
    return apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | create
