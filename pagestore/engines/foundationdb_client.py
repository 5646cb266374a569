"""FoundationDB's client library in this process: loading, its network thread, fork, errors.

Called by `foundationdb` and `foundationdb_handles`; calls the `foundationdb` package
(https://apple.github.io/foundationdb/api-python.html), which is loaded when first needed.

1. The library and its one network thread start with the first store that is opened and last until the
   process ends: the library can't be started twice.  The package stops the thread at exit.
2. A forked child has no network thread, and locks of the library may be held by threads that it does not
   have.  So it leaves all that it inherited alone, does not even free it, and can open nothing.
3. What a transaction writes is handed over at once, and who waits for an answer is woken in C (native/fdb.c):
   the library's thread is woken seldom, and runs no Python.  Whether the thread that asked is who waits, is
   for `pagestore.waits` to say.
4. One table says what becomes of an error that another try does not help.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from functools import partial
from typing import Any, NoReturn

from pagestore.api import LimitError, StoreError, StoreUnavailableError
from pagestore.native import ffi, lib
from pagestore.waits import here

API_VERSION = 710
"""Clusters and libraries of 7.1 to 7.3 speak it."""

TRANSACTION_TOO_OLD, NOT_COMMITTED, TIMED_OUT = 1007, 1020, 1031
_COMMIT_UNKNOWN_RESULT, _CLUSTER_VERSION_CHANGED = 1021, 1039

MAYBE_COMMITTED = (_COMMIT_UNKNOWN_RESULT, _CLUSTER_VERSION_CHANGED)
"""Of a commit: it may have happened, as the library's `fdb_error_predicate` says.  A library that serves
clusters of several versions answers with the second whatever is under way when another one takes over."""

_LOOK_US = 1_000_000
"""A sleep, in microseconds: the longest that a signal which comes between two of them can wait."""

_NAMES = {
    TRANSACTION_TOO_OLD: "transaction_too_old",
    1009: "future_version",
    NOT_COMMITTED: "not_committed",
    _COMMIT_UNKNOWN_RESULT: "commit_unknown_result",
    1025: "transaction_cancelled",
    TIMED_OUT: "transaction_timed_out",
    1037: "process_behind",
    1038: "database_locked",
    _CLUSTER_VERSION_CHANGED: "cluster_version_changed",
    1042: "commit_proxy_memory_limit_exceeded",
    1051: "batch_transaction_throttled",
    1078: "grv_proxy_memory_limit_exceeded",
    1213: "tag_throttled",
    1515: "no_cluster_file_found",
    2101: "transaction_too_large",
    2102: "key_too_large",
    2103: "value_too_large",
    2104: "connection_string_invalid",
}
"""Those that people meet (https://apple.github.io/foundationdb/api-error-codes.html)."""

_ADVICE = {
    1515: "which cluster? Name its file in the URL or in FDB_CLUSTER_FILE",
    2104: "the cluster file can't be understood",
    TIMED_OUT: "the cluster did not answer in time (one of another version than the library's never does)",
}

_CLASSES: dict[int, type[StoreError]] = {2101: LimitError, 2102: LimitError, 2103: LimitError}

_INHERITED = (
    "FoundationDB can't be used in a process that was forked off one that used it: "
    "start the process anew (multiprocessing's 'spawn'), or open the store only after the fork"
)


def name_of(error: Any) -> str:
    """A FoundationDB error as its documentation calls it, with its number."""
    return f"{_NAMES.get(error.code, error.description.decode(errors='replace'))} ({error.code})"


def as_store_error(error: Any) -> StoreError:
    """Of an error that no other try helps."""
    advice = _ADVICE.get(error.code)
    text = f"FoundationDB: {name_of(error)}" + (f": {advice}" if advice else "")
    return _CLASSES.get(error.code, StoreUnavailableError)(text)


_FUNCTIONS = {
    "create_transaction": "fdb_database_create_transaction",
    "destroy_transaction": "fdb_transaction_destroy",
    "set_option": "fdb_transaction_set_option",
    "get_read_version": "fdb_transaction_get_read_version",
    "set_read_version": "fdb_transaction_set_read_version",
    "get": "fdb_transaction_get",
    "get_range": "fdb_transaction_get_range",
    "set": "fdb_transaction_set",
    "clear": "fdb_transaction_clear",
    "clear_range": "fdb_transaction_clear_range",
    "atomic_op": "fdb_transaction_atomic_op",
    "add_conflict_range": "fdb_transaction_add_conflict_range",
    "get_versionstamp": "fdb_transaction_get_versionstamp",
    "commit": "fdb_transaction_commit",
    "set_callback": "fdb_future_set_callback",
    "is_ready": "fdb_future_is_ready",
    "destroy_future": "fdb_future_destroy",
    "get_error": "fdb_future_get_error",
    "get_int64": "fdb_future_get_int64",
    "get_key": "fdb_future_get_key",
    "get_value": "fdb_future_get_value",
    "get_keyvalue_array": "fdb_future_get_keyvalue_array",
}
"""The library's, by their names in `mv_fdb_functions`."""


class Client:
    """The loaded library."""

    def __init__(self) -> None:
        """Raises StoreUnavailableError."""
        try:
            self.fdb: Any = importlib.import_module("fdb")
            self.fdb.api_version(API_VERSION)
        except ImportError as exc:
            raise StoreUnavailableError(f"{exc}: fdb: stores need the package mvvfs[fdb]") from exc
        except Exception as exc:
            # without a libfdb_c the package raises `Exception` itself; with one too old for it, RuntimeError
            if type(exc) is not Exception and not isinstance(exc, OSError | RuntimeError):
                raise
            raise StoreUnavailableError(
                f"FoundationDB's client library (libfdb_c) can't be used: {exc} "
                "Install the foundationdb-clients package, or set LD_LIBRARY_PATH to where libfdb_c.so is; "
                "the Python package must not be newer (pip install 'foundationdb==7.1.*')"
            ) from exc
        self.error: type[Exception] = self.fdb.FDBError
        self.functions = self._addresses()
        self.is_inherited = False
        """Whether this process was forked off the one that loaded it."""

    def _addresses(self) -> Any:
        """`mv_fdb_functions`, of the library that the package has loaded."""
        library = self.fdb.impl._capi
        addresses = {
            ours: ctypes.cast(getattr(library, name), ctypes.c_void_p).value
            for ours, name in _FUNCTIONS.items()
        }
        return ffi.new("mv_fdb_functions *", addresses)

    def check(self, error: int) -> None:
        """Raise what a call of the library has answered, but for 0."""
        if error:
            if error == lib.MV_FDB_NO_MEMORY:
                raise MemoryError("no memory for what goes to FoundationDB")
            raise self.error(error)

    def wait(self, future: Any) -> Any:
        """What a future of the package comes to.  Raises its error; signals are handled meanwhile."""
        self.await_(future.fpointer)
        return future.wait()

    def await_(self, future: int) -> None:
        """Return once a future has come, with an error or without; signals are handled meanwhile."""
        keeper = here.keeper
        if keeper is not None:
            if not lib.mv_fdb_is_ready(self.functions, future):
                keeper.wait(partial(lib.mv_fdb_post, self.functions, future))
            return
        wait = lib.mv_fdb_wait(self.functions, future, 0, _LOOK_US)
        if wait == lib.MV_FDB_NO_WAIT:
            raise MemoryError("no memory to wait for FoundationDB")
        try:
            while wait:
                wait = lib.mv_fdb_wait(self.functions, future, wait, _LOOK_US)
        finally:
            if wait:
                lib.mv_fdb_wait_end(wait)

    def open(self, cluster_file: str | None) -> Any:
        """The package's database; nothing is sent yet.  Raises StoreUnavailableError.

        The package would keep it, and go on trying to reach its cluster, for as long as the process lasts;
        like this it ends with the engine."""
        try:
            with _lock:
                database = self.fdb.open(cluster_file)
                self.fdb.impl.open_databases.pop(cluster_file, None)
                return database
        except self.error as exc:
            raise as_store_error(exc) from exc


_lock = threading.Lock()
_client: Client | None = None
_inherited = False


def client() -> Client:
    """The library, loaded once.  Raises StoreUnavailableError."""
    global _client
    with _lock:
        if _inherited:
            refuse_inherited()
        if _client is None:
            _client = Client()
        return _client


def refuse_inherited() -> NoReturn:
    raise StoreUnavailableError(_INHERITED)


def _after_fork() -> None:
    global _lock, _inherited
    _lock = threading.Lock()
    if _client is None:
        return
    _inherited = _client.is_inherited = True
    impl = _client.fdb.impl
    impl._network_thread = None  # or the package would try to stop it when the child exits
    # To free what was inherited would call the library.  What the child never frees, it never calls for.
    for used in (impl.TransactionRead, impl.Future, impl.Database):
        used.__del__ = _leave_alone


def _leave_alone(_self: object) -> None:
    """Instead of the destructors of the package's objects."""


os.register_at_fork(after_in_child=_after_fork)
