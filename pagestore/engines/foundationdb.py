"""The distributed engine: a FoundationDB cluster.

Called by `pagestore.store` through the engine interface; opened by `pagestore.opener`.  Calls the
`foundationdb` package through `foundationdb_client` (library, errors), `foundationdb_handles` (what it has
under way) and `foundationdb_transaction`.

1. A version is a versionstamp.  A snapshot's is its read version with the highest batch number: no commit
   that it sees has a greater one, and every later commit has.
2. No cached read versions, no `causal_read_risky`: a snapshot sees all that was acknowledged before it.  (One
   that need not see more than a commit that was just made stands at that commit's own version.)
3. Reads do not see a transaction's own writes (`read_your_writes_disable`), as the interface says.
4. What FoundationDB says can be tried again is, after the pause that its client makes, within the time that
   the caller gave: the transaction's timeout covers all tries.
5. A transaction that stands at an earlier read version (`as_of`) costs no question; where it fails because
   others committed meanwhile, or because five seconds went by, the next run asks as ever, at once.
6. A commit whose fate is unknown (`MAYBE_COMMITTED`) runs again if it can find out by itself
   (`idempotent`).  One that ran out of time while it was on its way leaves it unknown.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from pagestore.api import (
    Durability,
    HeadWord,
    NamespaceId,
    OutcomeUnknownError,
    Signal,
    StoreError,
    StoreReadOnlyError,
    StoreUnavailableError,
    Version,
)
from pagestore.engines import foundationdb_client
from pagestore.engines.base import Engine, Limits, Operations, Result, Snapshot, Transaction
from pagestore.engines.foundationdb_client import (
    MAYBE_COMMITTED,
    NOT_COMMITTED,
    TIMED_OUT,
    TRANSACTION_TOO_OLD,
)
from pagestore.engines.foundationdb_handles import Handle, Keyspace
from pagestore.engines.foundationdb_transaction import (
    HIGHEST_BATCH,
    FoundationSnapshot,
    FoundationTransaction,
    head_key,
)
from pagestore.faults import fault

T = TypeVar("T")

DEFAULT_TIMEOUT = 5.0

_KEPT_SECONDS, _MOST_KEPT = 0.1, 256
"""How long, and how many, transactions are kept for others to go on with."""

_MOVED_ON = (NOT_COMMITTED, TRANSACTION_TOO_OLD)


class FoundationEngine(Engine):
    """See the head of this file."""

    limits = Limits(max_seconds=5, max_bytes=10_000_000, max_value_bytes=100_000)
    distant = True
    waits_anywhere = True
    reaches_back = True
    clears_ranges_at_once = True

    def __init__(self, cluster_file: str | None, prefix: bytes, *, read_only: bool = False) -> None:
        """`cluster_file` None: FDB_CLUSTER_FILE, or the default place.  Nothing is sent yet.

        Raises StoreUnavailableError."""
        self._client = foundationdb_client.client()
        self._keyspace: Keyspace | None = Keyspace(self._client, self._client.open(cluster_file), prefix)
        """None: closed."""
        self._operations = Operations()
        """Once closed."""
        self.prefix = prefix
        self._read_only = read_only
        self.kept = _Kept()

    def read(
        self,
        work: Callable[[Snapshot], T],
        *,
        timeout: float | None = None,
        reaching: Version | None = None,
        as_of: Version | None = None,
    ) -> T:
        tries = _Tries(self, timeout, stands_at=as_of or reaching)
        while True:
            tx = FoundationSnapshot(tries.tr, tries.stands_at)
            tx.as_of = as_of
            try:
                value = work(tx)
                if as_of is not None or tx.is_wanted_again:
                    self.kept.put(as_of or tx.read_version(), tries)
                return value
            except self._client.error as exc:
                tries.after_read(exc, as_of is not None)
                as_of = None

    def transact(
        self,
        work: Callable[[Transaction], T],
        *,
        durability: Durability = "full",
        timeout: float | None = None,
        idempotent: bool = True,
        as_of: Version | None = None,
    ) -> Result[T]:
        if self._read_only:
            raise StoreReadOnlyError("the store was opened read-only")
        tries = _Tries(self, timeout, stands_at=as_of)
        while True:
            tx = FoundationTransaction(tries.tr, tries.stands_at)
            tx.as_of = as_of
            committing = False
            try:
                value = work(tx)
                if not tx.wrote:
                    return Result(value, None)
                committing = True
                stamp, done = tx.commit()
                fault("commit.sent")
                done.wait()
                fault("commit.after_commit")
                return Result(value, stamp.stamp())
            except self._client.error as exc:
                tries.after_commit(exc, as_of is not None, committing, idempotent)
                as_of = None

    def reached_by(self, version: Version) -> Version:
        return Version(version[:8] + HIGHEST_BATCH)

    def check_usable(self) -> None:
        """Raises StoreUnavailableError."""
        if self._client.is_inherited:
            foundationdb_client.refuse_inherited()
        if self._keyspace is None:
            raise StoreUnavailableError("the store can't be used any more: it was closed")

    def new_transaction(
        self, timeout: float, *, stands_at: Version | None = None, sees_writes: bool = False
    ) -> Handle:
        """`timeout` in seconds."""
        keyspace = self._keyspace
        if keyspace is None:
            raise StoreUnavailableError("the store was closed meanwhile")
        read_version = 0 if stands_at is None else int.from_bytes(stands_at[:8], "big")
        return Handle(keyspace, timeout, stands_at=read_version, sees_writes=sees_writes)

    def wait(self, future: Any) -> Any:
        return self._client.wait(future)

    @property
    def error_type(self) -> type[Exception]:
        return self._client.error

    def count_retry(self) -> None:
        keyspace = self._keyspace
        if keyspace is not None:
            keyspace.count_retry()

    def operations(self) -> Operations:
        keyspace = self._keyspace
        return self._operations if keyspace is None else keyspace.operations()

    def signal(self, namespace: NamespaceId) -> Signal:
        return _WatchedKey(self, self.prefix + head_key(namespace))

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return None

    def sync(self) -> None:
        """Every commit is durable when it is visible."""

    def usable(self) -> bool:
        return self._keyspace is not None and not self._client.is_inherited

    def close(self) -> None:
        self.kept.clear()
        self._operations = self.operations()
        self._keyspace = None


class _WatchedKey(Signal):
    """A watch of the cluster (https://apple.github.io/foundationdb/developer-guide.html#watches)."""

    def __init__(self, engine: FoundationEngine, key: bytes) -> None:
        self._engine = engine
        self._key = key
        self._watch: Any = None

    def arm(self, timeout: float) -> None:
        if not self.has_fired():
            return
        tries = _Tries(self._engine, timeout, sees_writes=True)  # without that there are no watches
        while True:
            try:
                tr = tries.tr.package()
                watch = tr.watch(self._key)
                self._engine.wait(tr.commit())
                self._watch = watch
                return
            except self._engine.error_type as exc:
                tries.again(exc)

    def has_fired(self) -> bool:
        return self._watch is None or self._watch.is_ready()  # an error counts: then it is armed anew


class _Kept:
    """Transactions of reads whose read version was asked for: whoever stands there next goes on with them,
    which spares the library the making of another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tries: OrderedDict[Version, _Tries] = OrderedDict()
        """One for each read version, the oldest first."""

    def put(self, read_version: Version, tries: _Tries) -> None:
        with self._lock:
            self._tries[read_version] = tries
            if len(self._tries) > _MOST_KEPT or next(iter(self._tries.values())).young_until < tries.started:
                self._tries.popitem(last=False)

    def take(self, read_version: Version, timeout: float) -> Handle | None:
        """A transaction that stands there, with that timeout; or None."""
        with self._lock:
            tries = self._tries.pop(read_version, None)
        if tries is None or tries.timeout != timeout or time.monotonic() > tries.young_until:
            return None
        return tries.tr

    def clear(self) -> None:
        with self._lock:
            self._tries.clear()


class _Tries:
    """The runs of one `read` or `transact`, within one deadline."""

    def __init__(
        self,
        engine: FoundationEngine,
        timeout: float | None,
        *,
        stands_at: Version | None = None,
        sees_writes: bool = False,
    ) -> None:
        self._engine = engine
        self.timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        self.stands_at = None if stands_at is None else engine.reached_by(stands_at)
        """The read version of this try, where it is known."""
        self.started = time.monotonic()
        self.young_until = self.started + min(_KEPT_SECONDS, self.timeout / 20)
        """Until then somebody else may go on with its transaction."""
        self._unknown = False
        """Whether a try before may have been committed."""
        self._last: str | None = None
        engine.check_usable()
        kept = None if self.stands_at is None else engine.kept.take(self.stands_at, self.timeout)
        self.tr = kept or engine.new_transaction(self.timeout, stands_at=stands_at, sees_writes=sees_writes)

    def _at_once(self) -> None:
        """Another try, at the newest version, without a pause."""
        self._engine.count_retry()
        self.stands_at = None
        self.tr = self._engine.new_transaction(self.timeout - (time.monotonic() - self.started))

    def again(self, error: Exception) -> None:
        """Wait as the client library says.  Raises StoreError if another try is of no use."""
        self._engine.count_retry()
        self.stands_at = None
        error_type = type(error)
        try:
            self.tr.again(error)
        except error_type as exc:
            raise self._given_up(exc) from exc
        self._last = foundationdb_client.name_of(error)

    def after_read(self, error: Any, as_of: bool) -> None:
        """As `again`; at once if this try stood at an earlier version, which can't be had any more."""
        if as_of and error.code in _MOVED_ON:
            self._at_once()
        else:
            self.again(error)

    def after_commit(self, error: Any, as_of: bool, committing: bool, idempotent: bool) -> None:
        """As `after_read`.  Raises OutcomeUnknownError if it can't be told whether a commit happened."""
        if as_of and error.code in _MOVED_ON:
            self._at_once()
            return
        if committing and error.code in MAYBE_COMMITTED:
            self._unknown = True
        if (committing and error.code == TIMED_OUT) or (self._unknown and not idempotent):
            raise OutcomeUnknownError(b"", foundationdb_client.name_of(error)) from error
        try:
            self.again(error)
        except StoreError as exc:
            if self._unknown:
                raise OutcomeUnknownError(b"", str(exc)) from exc
            raise

    def _given_up(self, error: Any) -> StoreError:
        found = foundationdb_client.as_store_error(error)
        return type(found)(f"{found} (before that: {self._last})") if self._last else found
