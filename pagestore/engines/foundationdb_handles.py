"""Transactions and futures of FoundationDB's client library, by way of C (native/fdb.c).

Called by `foundationdb` and `foundationdb_transaction`; calls the library that `foundationdb_client` has
loaded.

1. The library makes a transaction when it is first asked for something: all that begins it goes to the
   library's thread at once, which wakes once for it.
2. What is done seldom (`on_error`, watches) is done by the package: `Handle.package`.
3. A forked child frees nothing that it inherited (rule 2 of `foundationdb_client`).
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Any

from pagestore._native import ffi, lib
from pagestore.engines.foundationdb_client import Client

Row = tuple[bytes, bytes]


class Future:
    """What the library was asked for.  Every method but the first waits, and raises the library's error."""

    __slots__ = ("_client", "pointer")

    def __init__(self, client: Client, pointer: int) -> None:
        self._client = client
        self.pointer = pointer

    def __del__(self) -> None:
        if not self._client.is_inherited:
            lib.mv_fdb_end_future(self._client.functions, self.pointer)

    def wait(self) -> None:
        self._client.await_(self.pointer)
        self._client.check(lib.mv_fdb_error_of(self._client.functions, self.pointer))

    def integer(self) -> int:
        self._client.await_(self.pointer)
        out = ffi.new("int64_t *")
        self._client.check(lib.mv_fdb_integer_of(self._client.functions, self.pointer, out))
        return int(out[0])

    def key(self) -> bytes:
        return self._string(lib.mv_fdb_key_of) or b""

    def value(self) -> bytes | None:
        return self._string(lib.mv_fdb_value_of)

    def _string(self, read: Any) -> bytes | None:
        self._client.await_(self.pointer)
        out = ffi.new("mv_fdb_string *")
        self._client.check(read(self._client.functions, self.pointer, out))
        if not out.present:
            return None
        found: bytes = ffi.buffer(ffi.cast("char *", out.at), out.length)[:] if out.length else b""
        return found

    def rows(self, cut: int) -> tuple[list[Row], bool]:
        """Of a range read: keys, without so many bytes at the start, and values; and whether there may be
        more."""
        self._client.await_(self.pointer)
        answer = ffi.new("mv_fdb_answer *")
        self._client.check(lib.mv_fdb_answer_of(self._client.functions, self.pointer, answer))
        count = answer.count
        if not count:
            return [], bool(answer.more)
        out = ffi.new("uint8_t[]", 8 * count + answer.size)
        lib.mv_fdb_rows(answer, cut, out)
        packed, start = ffi.buffer(out), 8 * count
        ends = list(accumulate(array("I", packed[:start]), initial=start))
        firsts = zip(ends[::2], ends[1::2], ends[2::2], strict=False)
        rows = [(packed[key:value], packed[value:end]) for key, value, end in firsts]
        return rows, bool(answer.more)


class Handle:
    """A transaction, its time running from the first thing that it is asked for."""

    __slots__ = ("_c", "_client", "_database", "_package")

    def __init__(
        self, client: Client, database: Any, timeout: float, *, stands_at: int = 0, sees_writes: bool = False
    ) -> None:
        """`database`: the package's.  `timeout` in seconds.  `stands_at`: a read version; 0: the newest."""
        self._client = client
        self._database = database
        self._package: Any = None
        milliseconds = max(1, round(1000 * timeout))
        self._c = ffi.new(
            "mv_fdb_transaction *", (database.dpointer.value, 0, milliseconds, stands_at, sees_writes)
        )

    def __del__(self) -> None:
        if self._client.is_inherited:
            return
        self._end_version()
        if self._package is None:  # else it is the package's
            lib.mv_fdb_end(self._client.functions, self._c)

    def ask_version(self) -> None:
        """The read version: sent with what is asked for first."""
        if self._c.transaction:
            self._client.check(lib.mv_fdb_ask_version(self._client.functions, self._c))
        else:
            self._c.asks_version = 1

    def version(self) -> int:
        """The read version.  Waits."""
        self._client.check(lib.mv_fdb_ask_version(self._client.functions, self._c))
        future, self._c.version = Future(self._client, self._c.version), 0
        return future.integer()

    def get(self, key: bytes) -> Future:
        self._client.check(lib.mv_fdb_get(self._client.functions, self._c, key, len(key)))
        return Future(self._client, self._c.future)

    def range(self, begin: bytes, end: bytes, limit: int, iteration: int, *, reverse: bool) -> Future:
        error = lib.mv_fdb_get_range(
            self._client.functions, self._c, begin, len(begin), end, len(end), limit, iteration, reverse
        )
        self._client.check(error)
        return Future(self._client, self._c.future)

    def commit(self, operations: bytes) -> tuple[Future, Future]:
        """Send what is written, and commit: the versionstamp and the commit."""
        self._client.check(lib.mv_fdb_commit(self._client.functions, self._c, operations, len(operations)))
        return Future(self._client, self._c.stamp), Future(self._client, self._c.future)

    def package(self) -> Any:
        """The package's transaction."""
        if self._package is None:
            self._client.check(lib.mv_fdb_begin(self._client.functions, self._c))
            self._package = self._client.fdb.impl.Transaction(self._c.transaction, self._database)
        return self._package

    def again(self, error: Exception) -> None:
        """Wait as the library says before another try, at the newest version.  Raises its error if there
        is to be none."""
        self._end_version()
        tr = self.package()
        self._client.wait(tr.on_error(error))
        if not self._c.sees_writes:  # of all options only the timeout outlasts a try
            tr.options.set_read_your_writes_disable()

    def _end_version(self) -> None:
        if self._c.version:
            lib.mv_fdb_end_future(self._client.functions, self._c.version)
            self._c.version = 0
