"""Transactions and futures of FoundationDB's client library, by way of C (native/fdb.c).

Called by `foundationdb` and `foundationdb_transaction`; calls the library that `foundationdb_client` has
loaded.

1. The library makes a transaction when it is first asked for something: all that begins it goes to the
   library's thread at once, which wakes once for it.
2. What is done seldom (`on_error`, watches) is done by the package: `Handle.package`.
3. A forked child frees nothing that it inherited (rule 2 of `foundationdb_client`).
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from pagestore.api import VERSION_SIZE, Version
from pagestore.engines.base import Operations
from pagestore.engines.foundationdb_client import Client
from pagestore.native import ffi, lib

Row = tuple[bytes, bytes]

_ROOM = 16_384
"""Bytes, for the rows of most range reads."""


class _Room(threading.local):
    """Of each thread, as nobody waits while it is in use."""

    def __init__(self) -> None:
        self.answer = ffi.new("mv_fdb_answer *")
        self.out = ffi.new("uint8_t[]", _ROOM)


_room = _Room()


class Keyspace:
    """The keys of a database that begin with a prefix: those that pass here are without it."""

    __slots__ = ("_prefix", "c", "client", "database")

    def __init__(self, client: Client, database: Any, prefix: bytes) -> None:
        """`database`: the package's."""
        self.client = client
        self.database = database
        self._prefix = ffi.new("uint8_t[]", prefix)
        self.c = ffi.new(
            "mv_fdb_keyspace *", (client.functions, database.dpointer.value, self._prefix, len(prefix))
        )

    def operations(self) -> Operations:
        counted = self.c.counted
        return Operations(*(getattr(counted, one.name) for one in fields(Operations)))

    def count_retry(self) -> None:
        lib.mv_fdb_count_retry(self.c)


class Future:
    """What the library was asked for.  Every method but the first waits, and raises the library's error."""

    __slots__ = ("_client", "_keyspace", "pointer")

    def __init__(self, keyspace: Keyspace, pointer: int) -> None:
        self._keyspace = keyspace
        self._client = keyspace.client
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

    def stamp(self) -> Version:
        """A commit's versionstamp, which is there once the commit is; counts that."""
        self._client.await_(self.pointer)
        out = _room.out
        self._client.check(lib.mv_fdb_stamp_of(self._keyspace.c, self.pointer, out))
        return Version(ffi.buffer(out, VERSION_SIZE)[:])

    def value(self) -> bytes | None:
        self._client.await_(self.pointer)
        out = ffi.new("mv_fdb_string *")
        self._client.check(lib.mv_fdb_value_of(self._client.functions, self.pointer, out))
        if not out.present:
            return None
        found: bytes = ffi.buffer(ffi.cast("char *", out.at), out.length)[:] if out.length else b""
        return found

    def rows(self) -> PackedRows:
        """Of a range read."""
        self._client.await_(self.pointer)
        answer, out = _room.answer, _room.out
        c, rows_of = self._keyspace.c, lib.mv_fdb_rows
        self._client.check(rows_of(c, self.pointer, answer, out, _ROOM))
        size = answer.size
        if size > _ROOM:
            out = ffi.new("uint8_t[]", size)
            self._client.check(rows_of(c, self.pointer, answer, out, size))
        return PackedRows(answer.count, ffi.buffer(out, size)[:], bool(answer.more))


class PackedRows:
    """What a range read has answered.  A row is taken out when it is wanted: who reads a page seldom needs
    all of them."""

    __slots__ = ("_lengths", "_packed", "more")

    def __init__(self, count: int, packed: bytes, more: bool) -> None:
        """`packed`: see native/store.h."""
        self._packed = packed
        self._lengths = array("I", packed[: 8 * count])
        self.more = more
        """Whether there may be more."""

    def __len__(self) -> int:
        return len(self._lengths) >> 1

    def __iter__(self) -> Iterator[Row]:
        packed, lengths = self._packed, iter(self._lengths)
        start = 4 * len(self._lengths)
        for key_length, value_length in zip(lengths, lengths, strict=True):
            middle = start + key_length
            end = middle + value_length
            yield packed[start:middle], packed[middle:end]
            start = end

    def last_key(self) -> bytes:
        key_length, value_length = self._lengths[-2:]
        end = len(self._packed) - value_length
        return self._packed[end - key_length : end]


class Handle:
    """A transaction, its time running from the first thing that it is asked for."""

    __slots__ = ("_c", "_client", "_keyspace", "_package")

    def __init__(
        self, keyspace: Keyspace, timeout: float, *, stands_at: int = 0, sees_writes: bool = False
    ) -> None:
        """`timeout` in seconds.  `stands_at`: a read version; 0: the newest."""
        self._client = keyspace.client
        self._keyspace = keyspace
        self._package: Any = None
        milliseconds = max(1, round(1000 * timeout))
        self._c = ffi.new("mv_fdb_transaction *", (keyspace.c, 0, milliseconds, stands_at, sees_writes))

    def __del__(self) -> None:
        if self._client.is_inherited:
            return
        self._end_version()
        if self._package is None:  # else it is the package's
            lib.mv_fdb_end(self._c)

    def ask_version(self) -> None:
        """The read version: sent with what is asked for first, where it is not known."""
        if self._c.read_version:
            return
        if self._c.transaction:
            self._client.check(lib.mv_fdb_ask_version(self._c))
        else:
            self._c.asks_version = 1

    def version(self) -> int:
        """The read version.  Waits where it is not known."""
        if self._c.read_version:
            return int(self._c.read_version)
        self._client.check(lib.mv_fdb_ask_version(self._c))
        future, self._c.version = Future(self._keyspace, self._c.version), 0
        return future.integer()

    def get(self, key: bytes) -> Future:
        error = lib.mv_fdb_get(self._c, key, len(key))
        if error:
            self._client.check(error)
        return Future(self._keyspace, self._c.future)

    def range(self, begin: bytes, end: bytes, limit: int, iteration: int, *, reverse: bool) -> Future:
        error = lib.mv_fdb_get_range(self._c, begin, len(begin), end, len(end), limit, iteration, reverse)
        if error:
            self._client.check(error)
        return Future(self._keyspace, self._c.future)

    def commit(self, operations: bytes) -> tuple[Future, Future]:
        """Send what is written, and commit: the versionstamp and the commit."""
        self._client.check(lib.mv_fdb_commit(self._c, operations, len(operations)))
        return Future(self._keyspace, self._c.stamp), Future(self._keyspace, self._c.future)

    def package(self) -> Any:
        """The package's transaction."""
        if self._package is None:
            self._client.check(lib.mv_fdb_begin(self._c))
            self._package = self._client.fdb.impl.Transaction(self._c.transaction, self._keyspace.database)
        return self._package

    def again(self, error: Exception) -> None:
        """Wait as the library says before another try, at the newest version.  Raises its error if there
        is to be none."""
        self._end_version()
        self._c.read_version = 0
        tr = self.package()
        self._client.wait(tr.on_error(error))
        if not self._c.sees_writes:  # of all options only the timeout outlasts a try
            tr.options.set_read_your_writes_disable()

    def _end_version(self) -> None:
        if self._c.version:
            lib.mv_fdb_end_future(self._client.functions, self._c.version)
            self._c.version = 0
