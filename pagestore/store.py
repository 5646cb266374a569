"""The page store: the `Store` interface over any engine.

Called through `pagestore.api.Store` by whoever `pagestore.opener` gave it to.  Each operation is one
call of the engine (`Engine.read` or `Engine.transact`) around one function of the file that knows how:
`namespaces`, `snapshot`, `commit`, `history`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

from pagestore import (
    allocation,
    branches,
    bulk,
    drops,
    format,
    history,
    kept,
    keys,
    leftovers,
    retention,
    snapshot,
    staging,
    sweep,
    turns,
)
from pagestore import revert as reverting
from pagestore.api import (
    MAX_VERSION,
    TOKEN_SIZE,
    ZERO_VERSION,
    Allocation,
    Begin,
    Change,
    Collected,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    Dropped,
    HeadWord,
    InvalidRequestError,
    Lease,
    LeaseEndedError,
    ListedChanges,
    Namespace,
    NamespaceId,
    OutcomeUnknownError,
    PageNumber,
    PageRuns,
    PageSet,
    PageWrite,
    Retention,
    Signal,
    Store,
    StoredPage,
    StoreError,
    Tag,
    Usage,
    Version,
    Watch,
    format_version,
    new_token,
    united,
)
from pagestore.beside import Beside
from pagestore.commit import MAX_FRESH, Commit, FarBehind
from pagestore.encoding import is_moving
from pagestore.engines.base import Engine, Result, Snapshot, Transaction
from pagestore.namespaces import Namespaces, find, rely_on
from pagestore.solitude import Solitude
from pagestore.standpoints import Standpoints
from pagestore.watch import PollingWatch

log = logging.getLogger("pagestore")


class PageStore(Store):
    """A store whose engine lives in this process."""

    def __init__(self, engine: Engine, url: str, timeout: float) -> None:
        """`timeout`: seconds an operation may wait for the engine."""
        self.engine = engine
        self.url = url
        self.timeout = timeout
        self.on_close: Callable[[], bool] | None = None
        """Set by whoever shares this store: whether a `close` is that of its last user."""
        self.distant = engine.distant
        self.waits_anywhere = engine.waits_anywhere
        self.reaches_commits = engine.reaches_back
        self.max_commit_bytes = engine.limits.max_bytes // 4  # keys and conflicts take room, too
        self._namespaces = Namespaces(engine, lambda: self.timeout)
        self._folder = bulk.Folder(engine, lambda: self.timeout)
        self._standpoints = Standpoints()
        self._solitude = Solitude()
        self._beside = Beside(engine, lambda: self.timeout)
        self._allows_moves = False

    # ---- namespaces ----

    def create(self, name: str, *, page_size: int = 0) -> Namespace:
        return self._namespaces.create(name, page_size)

    def open(self, name: str) -> Namespace:
        return self._namespaces.open(name)

    def rename(self, name: str, new_name: str) -> Namespace:
        return self._namespaces.rename(name, new_name)

    def drop(self, name: str, *, now: bool = False) -> None:
        drops.drop(self.engine, name, self.timeout, now=now)

    def dropped(self) -> list[Dropped]:
        return self.engine.read(drops.dropped, timeout=self.timeout)

    def undrop(self, namespace: NamespaceId, name: str) -> Namespace:
        return drops.undrop(self.engine, namespace, name, self.timeout)

    def purge(self, namespace: NamespaceId) -> None:
        drops.purge(self.engine, namespace, self.timeout)

    def finish_drops(self) -> None:
        """Remove what interrupted drops left behind, and what can't be brought back any more."""
        drops.finish(self.engine, self.timeout)

    def branch(self, namespace: NamespaceId, new_name: str, version: Version) -> Namespace:
        branches.branch(self.engine, namespace, new_name, version, self.timeout)
        return self.open(new_name)

    # ---- transactions ----

    def begin(
        self,
        namespace: NamespaceId,
        since: Version | None = None,
        at: Version | None = None,
        *,
        reaching: Version | None = None,
    ) -> Begin:
        asked = time.monotonic()
        stands = self.engine.reaches_back
        begun = self.engine.read(
            lambda tx: snapshot.begin(tx, namespace, since, at, stands=stands),
            timeout=self.timeout,
            reaching=reaching,
        )
        if begun.standpoint is not None:
            self._standpoints.note(namespace, begun.standpoint, asked)
        return begun.start

    def read(
        self, namespace: NamespaceId, version: Version, numbers: Sequence[PageNumber]
    ) -> list[StoredPage | None]:
        seen = self._standpoints.at(namespace, version)

        def work(tx: Snapshot) -> snapshot.Read:
            if tx.as_of is None or seen is None:
                return snapshot.read(tx, namespace, version, numbers)
            return snapshot.read_as_of(tx, namespace, seen, numbers)

        as_of = None if seen is None else seen.read_version
        found = self.engine.read(work, timeout=self.timeout, as_of=as_of)
        if found.bulks:
            self._folder.notice(namespace, found.bulks)
        return found.pages

    def stage(self, namespace: NamespaceId, token: bytes, writes: Sequence[PageWrite]) -> None:
        if not self._allows_moves:
            self._allow_moves(writes)
        if staging.stage(self.engine, namespace, token, writes, self.timeout):
            staging.collect(self.engine, namespace, self.timeout)

    def _allow_moves(self, writes: Sequence[PageWrite]) -> None:
        """Before pages are stored as only some releases read them: have the others refuse the store.
        For who has not been through it yet."""
        if any(is_moving(write.blob) for write in writes):
            self.engine.transact(lambda tx: format.require(tx, format.MOVES), timeout=self.timeout)
            self._allows_moves = True

    def settle(self) -> None:
        """Wait until the large commits made here are folded in: to leave nothing of them to others."""
        self._folder.settle()

    def commit(self, request: CommitRequest) -> Committed:
        if not self._allows_moves:
            for requested in request.parts:
                self._allow_moves(requested.writes)
        asked, commit = request, Commit(request, tells_numbers=self.engine.tells_numbers)
        if self.max_commit_bytes and commit.size > self.max_commit_bytes:
            request = self._staged(request)
            commit = Commit(request, tells_numbers=self.engine.tells_numbers)
            commit.check_size(self.engine.limits)
        as_of = self._standpoint(commit)
        first = request.parts[0].namespace
        commit.tries_alone = as_of is not None and request.wants_begin and self._solitude.is_likely(first)
        try:
            result = self._run(commit, as_of)
        except ConflictError as conflict:
            self._discard(commit, asked)
            raise self._with_content(conflict) from None
        except LeaseEndedError:
            self._discard(commit, asked)
            raise
        except OutcomeUnknownError as exc:
            raise OutcomeUnknownError(request.token, str(exc.__cause__ or exc)) from exc
        finally:
            if commit.tries_alone:
                self._solitude.note(first, alone=commit.was_alone)
        happened = result.value
        if happened is not None:
            return self._repeated(request, happened)
        assert result.version is not None  # the token is always written
        commit.add_between(self.engine, result.version, self.timeout)
        for part in commit.parts:
            if part.is_staged:
                self._folder.fold(part.id)
            elif part.bulks:
                self._folder.notice(part.id, part.bulks)
        self._beside.after(request, result.version)
        begin = self._begin_of(request, result.version) if commit.was_alone else None
        return Committed(result.version, commit.time_us, commit.others, begin=begin)

    def _begin_of(self, request: CommitRequest, version: Version) -> Begin:
        """What a begin that reaches a commit would answer, which nobody else's came before."""
        (part,) = request.parts
        pages = tuple(sorted(write.number for write in part.writes))
        own = Change(version, 0, pages, request.token, "", tuple(part.allocated), tuple(part.freed))
        read_version = self.engine.reached_by(version)
        return Begin(version, ListedChanges((own,)), part.page_size, read_version=read_version)

    def _staged(self, request: CommitRequest) -> CommitRequest:
        """The same with its pages staged, which are too many for one engine transaction."""
        first = keys.token(request.parts[0].namespace, request.token)
        if self.engine.read(lambda tx: tx.get(first), timeout=self.timeout) is None:
            for part in request.parts:
                if part.writes:
                    self.stage(part.namespace, request.token, part.writes)
        parts = [_all_staged(part) if part.writes else part for part in request.parts]
        return replace(request, parts=parts)

    def _standpoint(self, commit: Commit) -> Version | None:
        """The read version at which the commit may run first."""
        request = commit.request
        if request.read_version is None:
            return None
        seen = self._standpoints.of(request.parts[0].namespace, request.read_version)
        return None if seen is None else commit.stand_at(seen)

    def _run(self, commit: Commit, as_of: Version | None) -> Result[Version | None]:
        while True:
            try:
                return self.engine.transact(
                    commit.run, durability=commit.request.durability, timeout=self.timeout, as_of=as_of
                )
            except FarBehind:
                as_of = None
                commit.check_ahead(self.engine, self.timeout)

    def _discard(self, commit: Commit, asked: CommitRequest) -> None:
        """What was staged for a commit that is refused for good; not what stays (`CommitPart.reads_all`)."""
        for part, wanted in zip(commit.parts, asked.parts, strict=True):
            if part.is_staged and not (wanted.reads_all and wanted.staged):
                try:
                    staging.discard(self.engine, part.id, part.token, self.timeout)
                except StoreError as exc:  # it ends by itself
                    log.info("what was staged for %s is left: %s", part.token.hex(), exc)

    def _with_content(self, conflict: ConflictError) -> ConflictError:
        """The same, with the pages' new content if it can be had, read while nobody waits for it."""
        try:
            pages = self.read(conflict.namespace, conflict.version, conflict.pages[:MAX_FRESH])
        except StoreError:  # a conflict it is all the same
            return conflict
        fresh = tuple(page for page in pages if page is not None)
        return ConflictError(conflict.namespace, conflict.pages, conflict.version, fresh)

    def _repeated(self, request: CommitRequest, version: Version) -> Committed:
        """The answer to a commit that had happened already, at `version`."""
        for part in request.parts:
            record = self.engine.read(lambda tx: find(tx, part.namespace), timeout=self.timeout)  # noqa: B023
            if request.base < record.horizon:
                raise OutcomeUnknownError(
                    request.token,
                    f"it happened, as {format_version(version)}, so long ago that nobody can tell any more "
                    "what came between its base and it",
                )
        lists = [
            list(self.changelog(part.namespace, after=request.base, until=version)) for part in request.parts
        ]
        own = [change for changes in lists for change in changes if change.version == version]
        others = tuple(
            ListedChanges(change for change in changes if change.version != version) for changes in lists
        )
        return Committed(version, own[0].time_us if own else 0, others, repeated=True)

    def outcome(self, namespace: NamespaceId, token: bytes) -> Version | None:
        if len(token) != TOKEN_SIZE:
            raise InvalidRequestError(f"a token has {TOKEN_SIZE} bytes")
        key = keys.token(namespace, token)

        def work(tx: Transaction) -> bytes:
            record = rely_on(tx, namespace)
            tx.add_read_conflict(key, key + b"\0")
            happened = tx.get(key)
            if happened is None:
                leftovers.check_token(token, record)
                tx.set(key, keys.VOID_TOKEN)
            return happened or keys.VOID_TOKEN

        happened = self.engine.transact(work, timeout=self.timeout).value
        return None if happened == keys.VOID_TOKEN else Version(happened)

    def watch(self, namespace: NamespaceId, after: Version, *, heartbeat: float = 5.0) -> Watch:
        return PollingWatch(self, namespace, after, heartbeat)

    # ---- page numbers ----

    def allocation(self, namespace: NamespaceId, version: Version) -> Allocation:
        def work(tx: Snapshot) -> Allocation:
            record = find(tx, namespace)
            kept.check_readable(tx, namespace, version, record)
            return allocation.at(tx, namespace, record.page_size, version)

        return self.engine.read(work, timeout=self.timeout)

    def lease(
        self, namespace: NamespaceId, want: int, seconds: float, replaces: bytes | None = None
    ) -> Lease:
        return allocation.grant(self.engine, namespace, want, seconds, replaces, self.timeout)

    def renew_lease(self, namespace: NamespaceId, lease: bytes, seconds: float) -> None:
        allocation.renew(self.engine, namespace, lease, seconds, self.timeout)

    def release(self, namespace: NamespaceId, lease: bytes) -> None:
        allocation.release(self.engine, namespace, lease, self.timeout)

    # ---- turns ----

    def take_turn(self, namespace: NamespaceId, ticket: bytes, pages: PageSet | None, seconds: float) -> bool:
        self._standpoints.look_again()
        return turns.take(self.engine, namespace, ticket, pages, seconds, self.timeout)

    def leave_turn(self, namespace: NamespaceId, ticket: bytes) -> None:
        turns.leave(self.engine, namespace, ticket, self.timeout)

    # ---- history ----

    def changelog(
        self,
        namespace: NamespaceId,
        *,
        after: Version = ZERO_VERSION,
        until: Version = MAX_VERSION,
        newest_first: bool = False,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Change]:
        self.engine.read(lambda tx: find(tx, namespace), timeout=self.timeout)
        return history.changes(
            self.engine,
            namespace,
            after,
            until,
            self.timeout,
            newest_first=newest_first,
            skip=skip,
            limit=limit,
        )

    def version_at(self, namespace: NamespaceId, time_us: int) -> Version:
        return self.engine.read(lambda tx: history.version_at(tx, namespace, time_us), timeout=self.timeout)

    # ---- retention ----

    def retention(self, namespace: NamespaceId) -> Retention:
        return self.engine.read(lambda tx: find(tx, namespace), timeout=self.timeout).retention

    def set_retention(self, namespace: NamespaceId, retention_: Retention) -> None:
        retention.check_policy(retention_)
        self.engine.transact(lambda tx: retention.set_policy(tx, namespace, retention_), timeout=self.timeout)

    def tag(self, namespace: NamespaceId, name: str, version: Version) -> Tag:
        return kept.tag(self.engine, namespace, name, version, self.timeout)

    def untag(self, namespace: NamespaceId, name: str) -> None:
        def work(tx: Transaction) -> None:
            sweep.sweep_all(tx, namespace, kept.untag(tx, namespace, name))

        self.engine.transact(work, timeout=self.timeout, idempotent=False)

    def tags(self, namespace: NamespaceId, name: str | None = None) -> list[Tag]:
        return self.engine.read(lambda tx: list(kept.tags(tx, namespace, name)), timeout=self.timeout)

    def hold(
        self, namespace: NamespaceId, version: Version, seconds: float, hold: bytes | None = None
    ) -> bytes:
        return kept.hold(self.engine, namespace, version, seconds, hold, self.timeout)

    def unhold(self, namespace: NamespaceId, hold: bytes) -> None:
        kept.unhold(self.engine, namespace, hold, self.timeout)

    def collect(self, namespace: NamespaceId, *, dry_run: bool = False, seconds: float = 0) -> Collected:
        found = retention.collect(self.engine, namespace, seconds, self.timeout, dry_run=dry_run)
        if not dry_run:
            self.finish_drops()
        return found

    def give_back(self, *, whole: bool = False) -> int:
        return self.engine.give_back(whole=whole)

    def revert(
        self, namespace: NamespaceId, to: Version, *, message: str = "", token: bytes | None = None
    ) -> Committed:
        hold = self.hold(namespace, to, kept.MAX_HOLD_SECONDS)  # what is read must not go meanwhile
        try:
            record = self.engine.read(lambda tx: find(tx, namespace), timeout=self.timeout)
            return reverting.revert(
                self,
                namespace,
                to,
                message=message,
                token=token or new_token(),
                below_horizon=to < record.horizon,
            )
        finally:
            self.unhold(namespace, hold)

    # ---- the rest ----

    def usage(self, namespace: NamespaceId) -> Usage:
        self.engine.read(lambda tx: find(tx, namespace), timeout=self.timeout)
        return history.usage(self.engine, namespace, self.timeout)

    def operations(self) -> dict[str, int] | None:
        counted = self.engine.operations()
        return None if counted is None else asdict(counted)

    def signal(self, namespace: NamespaceId) -> Signal | None:
        return self.engine.signal(namespace)

    def head_word(self, namespace: NamespaceId) -> HeadWord | None:
        return self.engine.head_word(namespace)

    def store_id(self) -> bytes:
        return self.engine.read(format.store_id, timeout=self.timeout)

    def incarnation(self) -> int:
        return self.engine.read(format.incarnation, timeout=self.timeout)

    def renew(self, *, only_if_copied: bool = False) -> bool:
        def work(tx: Transaction) -> bool:
            if only_if_copied and not self.engine.is_copied(tx):
                return False
            format.renew(tx)
            return True

        if only_if_copied and not self.engine.read(self.engine.is_copied, timeout=self.timeout):
            return False
        return self.engine.transact(work, timeout=self.timeout).value

    def sync(self) -> None:
        self.engine.sync()

    def usable(self) -> bool:
        """False once the engine refuses every call: closed, or after a failed flush, or a fork."""
        return self.engine.usable()

    def close(self) -> None:
        if self.on_close is None or self.on_close():
            self._folder.stop()
            self.engine.close()

    def list(self) -> list[Namespace]:  # last: from here on, `list` means this in the class body
        return self._namespaces.list()


def _all_staged(part: CommitPart) -> CommitPart:
    """The same, once what it writes is staged as well."""
    written = PageRuns.of(write.number for write in part.writes)
    return replace(part, writes=(), staged=PageRuns(united(part.staged.runs(), written.runs())))
