"""A sketch of the FoundationDB engine: it shows that the engine interface fits, and is not selectable yet.

Called by nothing: `pagestore.opener` refuses fdb: URLs until this has passed the engine contract suite on
a cluster.  Calls the `foundationdb` package (https://apple.github.io/foundationdb/api-python.html).

1. Every read is a snapshot read; what must not change is named by the caller as a read conflict.
2. A version is a versionstamp.  A snapshot's is its read version with the highest batch number: no commit
   that it sees has a greater one, and every later commit has.
3. A commit whose fate is unknown (`commit_unknown_result`) runs again if it can find out by itself
   (`idempotent`); a timeout while it was on its way leaves it unknown in any case.
4. No cached read versions, no `causal_read_risky`: a snapshot sees all that was acknowledged before it.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from pagestore.api import (
    VERSION_SIZE,
    Durability,
    HeadWord,
    NamespaceId,
    OutcomeUnknownError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines.base import Engine, KeyRange, Limits, Result, Snapshot, Transaction

T = TypeVar("T")

API_VERSION = 710
_COMMIT_UNKNOWN_RESULT, _TIMED_OUT = 1021, 1031  # https://apple.github.io/foundationdb/api-error-codes.html
_DEFAULT_TIMEOUT = 5.0


class _Reads(Protocol):
    """The part of the binding's snapshot that is used here."""

    def get(self, key: bytes) -> Any: ...
    def get_range(self, begin: bytes, end: bytes, limit: int, reverse: bool) -> Any: ...


class _Writes(Protocol):
    """The part of the binding's transaction that is used here."""

    snapshot: _Reads
    options: Any

    def get_read_version(self) -> Any: ...
    def set(self, key: bytes, value: bytes) -> None: ...
    def set_versionstamped_key(self, key: bytes, value: bytes) -> None: ...
    def set_versionstamped_value(self, key: bytes, value: bytes) -> None: ...
    def clear(self, key: bytes) -> None: ...
    def clear_range(self, begin: bytes, end: bytes) -> None: ...
    def add_read_conflict_range(self, begin: bytes, end: bytes) -> None: ...
    def add_write_conflict_range(self, begin: bytes, end: bytes) -> None: ...
    def get_versionstamp(self) -> Any: ...
    def commit(self) -> Any: ...
    def on_error(self, error: Exception) -> Any: ...


class FoundationSnapshot(Snapshot):
    def __init__(self, tr: _Writes, prefix: bytes) -> None:
        self._tr = tr
        self._prefix = prefix

    def read_version(self) -> Version:
        return Version(self._tr.get_read_version().wait().to_bytes(8, "big") + b"\xff\xff")

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._tr.snapshot.get(self._prefix + key).wait()
        return value

    def scan(self, wanted: KeyRange) -> Iterator[tuple[bytes, bytes]]:
        return self._rows(self._ask(wanted))

    def scan_many(self, wanted: Sequence[KeyRange]) -> list[Iterator[tuple[bytes, bytes]]]:
        return [self._rows(rows) for rows in [self._ask(one) for one in wanted]]  # all on their way first

    def _ask(self, wanted: KeyRange) -> Any:
        begin, end, limit, reverse = wanted
        return iter(self._tr.snapshot.get_range(self._prefix + begin, self._prefix + end, limit, reverse))

    def _rows(self, rows: Any) -> Iterator[tuple[bytes, bytes]]:
        cut = len(self._prefix)
        for row in rows:
            yield bytes(row.key)[cut:], bytes(row.value)


class FoundationTransaction(FoundationSnapshot, Transaction):
    def __init__(self, tr: _Writes, prefix: bytes) -> None:
        super().__init__(tr, prefix)
        self.wrote = False

    def set(self, key: bytes, value: bytes) -> None:
        self.wrote = True
        self._tr.set(self._prefix + key, value)

    def set_versioned_key(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        self.wrote = True
        self._tr.set_versionstamped_key(_with_gap(self._prefix + prefix, suffix), value)

    def set_versioned_value(self, key: bytes, prefix: bytes, suffix: bytes) -> None:
        self.wrote = True
        self._tr.set_versionstamped_value(self._prefix + key, _with_gap(prefix, suffix))

    def clear(self, key: bytes) -> None:
        self.wrote = True
        self._tr.clear(self._prefix + key)

    def clear_range(self, begin: bytes, end: bytes) -> None:
        self.wrote = True
        self._tr.clear_range(self._prefix + begin, self._prefix + end)

    def add_read_conflict(self, begin: bytes, end: bytes) -> None:
        self._tr.add_read_conflict_range(self._prefix + begin, self._prefix + end)

    def add_write_conflict(self, begin: bytes, end: bytes) -> None:
        self._tr.add_write_conflict_range(self._prefix + begin, self._prefix + end)

    def announce(self, namespace: NamespaceId) -> None:
        """No head words: `begin` asks the cluster."""

    def commit_time(self, now_us: int) -> int:
        return now_us  # to read the last commit's time would make all commits conflict


def _with_gap(prefix: bytes, suffix: bytes) -> bytes:
    """Bytes with room for a versionstamp, and where that is (API version 520 and later)."""
    return prefix + bytes(VERSION_SIZE) + suffix + struct.pack("<I", len(prefix))


class FoundationEngine(Engine):
    """See the head of this file."""

    limits = Limits(max_seconds=5, max_bytes=10_000_000, max_value_bytes=100_000)

    def __init__(self, cluster_file: str | None, prefix: bytes) -> None:
        self._fdb = importlib.import_module("fdb")
        self._fdb.api_version(API_VERSION)
        self._db = self._fdb.open(cluster_file)
        self._prefix = prefix
        self._open = True

    def read(self, work: Callable[[Snapshot], T], *, timeout: float | None = None) -> T:
        tr = self._transaction(timeout)
        while True:
            try:
                return work(FoundationSnapshot(tr, self._prefix))
            except self._fdb.FDBError as exc:
                self._again(tr, exc)

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        durability: Durability = "full",
        timeout: float | None = None,
        idempotent: bool = True,
    ) -> Result[T]:
        tr = self._transaction(timeout)
        while True:
            committing = False
            try:
                tx = FoundationTransaction(tr, self._prefix)
                value = work(tx)
                if not tx.wrote:
                    return Result(value, None)
                stamp = tr.get_versionstamp()
                committing = True
                tr.commit().wait()
                return Result(value, Version(bytes(stamp.wait())))
            except self._fdb.FDBError as exc:
                unknown = exc.code == _COMMIT_UNKNOWN_RESULT or (committing and exc.code == _TIMED_OUT)
                if unknown and (not idempotent or exc.code == _TIMED_OUT):
                    raise OutcomeUnknownError(b"", str(exc)) from exc
                self._again(tr, exc)

    def _transaction(self, timeout: float | None) -> _Writes:
        tr: _Writes = self._db.create_transaction()
        tr.options.set_timeout(round(1000 * (_DEFAULT_TIMEOUT if timeout is None else timeout)))
        return tr

    def _again(self, tr: _Writes, error: Exception) -> None:
        """Wait as the binding says, or raise if another try is of no use."""
        try:
            tr.on_error(error).wait()
        except self._fdb.FDBError as exc:
            raise StoreUnavailableError(f"FoundationDB: {exc}") from exc

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return None

    def sync(self) -> None:
        """Every commit is durable when it is visible."""

    def usable(self) -> bool:
        return self._open

    def close(self) -> None:
        self._open = False
