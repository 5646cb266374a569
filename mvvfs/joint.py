"""What the sessions of one connection do together: stand at one version, commit as one, take turns.

Called by `bridge`; calls `pagestore.api.Store`.  A connection to a single database comes this way as well,
with one session.  All sessions given to a function lie in one store.

1. A commit carries what every one of them has read, also of databases that it does not write.
2. A commit that was interrupted is settled by its token before anything is raised.
3. Places in several queues are taken one after the other, in the order of the namespaces' ids, so that those
   who wait for each other's turns never form a circle; and every turn ends by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mvvfs.session import Loss, Session, Turn
from pagestore.api import (
    Allocation,
    Changes,
    CommitPart,
    CommitRequest,
    Committed,
    ConflictError,
    Durability,
    ListedChanges,
    NoSuchVersionError,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    StoreError,
    Version,
    format_version,
    new_token,
)
from pagestore.large import Pile
from pagestore.waiting import commit_between_turns

MAX_TURN_SECONDS = 60.0
"""The longest turn: after that a transaction has to take another place in the queue."""


_DISTANT_NAPS = 20
"""How much longer one waits before asking a distant store again."""


def nap() -> float:
    """Seconds between two looks at whether a turn has ended."""
    return random.uniform(0.0002, 0.0008)


def _nap(store: Store) -> float:
    return nap() * (_DISTANT_NAPS if store.distant else 1)


# ---- one version ----


def join(session: Session, holders: Sequence[Session], version: Version) -> tuple[Version, Allocation | None]:
    """A version at which `session` may begin, and at which `holders`, who stand at `version`, are what they
    are: its newest (or `version`, if that is later), or the last before one of them changed.

    With the allocation then, if the session's cache has gone further already.  Raises NoSuchVersionError if
    the database is younger."""
    database = session.database
    word = database.word()
    newest = at = max(database.begin(durable=session.is_durable), version)
    for holder in holders:  # asked after it, so that what the answers say holds up to it
        for change in database.store.changelog(holder.database.id, after=version, limit=1):
            at = min(at, _before(change.version))
    if at == newest:
        database.reach(at, word)
        return at, None
    try:
        return at, database.store.begin(database.id, at=at).allocation
    except NoSuchVersionError as exc:
        raise NoSuchVersionError(
            f"the database {database.name!r} did not exist yet at {format_version(at)}, at which this "
            "transaction stands: end the transaction, then use it"
        ) from exc


def _before(version: Version) -> Version:
    return Version((int.from_bytes(version) - 1).to_bytes(len(version)))


# ---- committing ----


class Part(NamedTuple):
    """What a transaction did to one database."""

    session: Session
    reads: PageSet
    writes: Iterable[PageWrite]
    """Gone through once, at the commit: they need not all be there at a time."""
    write_count: int
    allocated: Sequence[PageNumber]
    freed: Sequence[PageNumber]
    page_size: int
    """Bytes."""
    leased: bool
    """Whether some of the allocated numbers come from the session's lease."""

    def for_store(self, token: bytes, parts: int) -> CommitPart:
        """Encoded, and where the commit's `parts` are too large for one, staged."""
        database = self.session.database
        memory = self.session.options.spill_bytes
        pile = Pile(database.store, database.id, token, parts=parts, memory=memory)
        for write in self.writes:
            pile.add(write)
        pile.end()
        lease = self.session.leases.current if self.leased else None
        return CommitPart(
            database.id,
            self.reads,
            pile.writes,
            self.page_size,
            self.allocated,
            self.freed,
            lease,
            staged=pile.staged,
        )


class Outcome(NamedTuple):
    """What a commit came to."""

    version: Version
    others: Sequence[Changes] | None
    """For each part, what others committed since the base; None: that is not known."""
    interrupted: BaseException | None = None
    """What arrived while it was on its way, to be raised now that the outcome is known."""


def commit(base: Version, parts: Sequence[Part], *, tells_others: bool = True) -> Outcome:
    """Commit, and say what others did meanwhile; the page caches learn both from the shim.

    `tells_others`: that has to be known at once; else it may be left to the next begin from `base`.

    The changelog's message is the first one that a part's connection option or pragma gave; the commit is
    flushed if one of those that write asks for it."""
    turn = _only_turn(parts)
    alone = parts[0] if len(parts) == 1 else None
    request, writers = _request(base, parts, turn, tells_others=tells_others)
    for part in parts:
        part.session.starts_commit()
    interrupted: BaseException | None = None
    try:
        done = _commit_between_turns(request, writers)
    except ConflictError as conflict:
        if alone is not None:
            alone.session.leases.granted(conflict.lease)
            alone.session.lost_ahead()
        _keep_for_next_try(conflict, parts)
        raise
    except StoreError:
        raise
    except BaseException as interruption:  # noqa: BLE001 (settled, then raised by the bridge)
        done = _settle(request, writers[0], interruption)
        interrupted = interruption
    for part in parts:
        part.session.committed()
        part.session.database.committed(base, done.version, done.begin)
    if turn is not None:
        turn.end(given_up=[part.session for part in parts])
    if alone is not None and done.lease is not None:
        alone.session.leases.granted(done.lease)
    if done.others is None:
        return Outcome(done.version, None, interrupted)
    others = done.others or [ListedChanges()] * len(parts)
    for part, sent, changes in zip(parts, request.parts, others, strict=True):
        near = part.session.database.near
        if near is not None:
            own = [*(write.number for write in sent.writes), *sent.staged]
            flushed = request.durability == "full"
            near.committed(base, done.version, request.token, changes, own, flushed=flushed)
    return Outcome(done.version, others, interrupted)


def _request(
    base: Version, parts: Sequence[Part], turn: Turn | None, *, tells_others: bool
) -> tuple[CommitRequest, list[Session]]:
    """And those who write."""
    token = new_token()
    message = ""
    durability: Durability = "normal"
    encoded: list[CommitPart] = []
    writers: list[Session] = []
    for part in parts:
        session = part.session
        tells_others = tells_others or session.database.near is not None
        message = message or session.message
        if part.write_count:
            writers.append(session)
            durability = "full" if session.options.durability == "full" else durability
        encoded.append(part.for_store(token, len(parts)))
    alone = parts[0] if len(parts) == 1 else None  # a wish is for the only part
    request = CommitRequest(
        token=token,
        base=base,
        parts=encoded,
        message=message,
        durability=durability,
        ticket=turn.ticket if turn is not None else None,
        wish=alone.session.leases.wish(alone.allocated) if alone is not None and alone.allocated else None,
        read_version=alone.session.database.read_version_of(base) if alone is not None else None,
        tells_others=tells_others,
        wants_begin=alone is not None and alone.session.wants_begin and not tells_others,
    )
    return request, writers


def _only_turn(parts: Sequence[Part]) -> Turn | None:
    """The turn that the commit gives up.  A request has one ticket; places of earlier tries go."""
    turns: dict[int, Turn] = {}
    for part in parts:
        turn = part.session.turn
        if turn is not None:
            turns[id(turn)] = turn
    only = next(iter(turns.values()), None)
    for turn in turns.values():
        if turn is not only:
            turn.end()
    return only


def _commit_between_turns(request: CommitRequest, writers: Sequence[Session]) -> Committed:
    """Wait while somebody has a turn that this commit would spoil, as long as an operation may wait."""
    store, patience = writers[0].database.store, MAX_TURN_SECONDS
    for writer in writers:
        patience = max(patience, writer.options.timeout)
    return commit_between_turns(store, request, patience, lambda: _nap(store))


def _keep_for_next_try(conflict: ConflictError, parts: Sequence[Part]) -> None:
    for part in parts:
        if part.session.database.id == conflict.namespace:
            part.session.database.keep(conflict.fresh, conflict.version, part.page_size)
    lost(tuple(part.session for part in parts), [part.reads for part in parts])


def _settle(request: CommitRequest, writer: Session, interruption: BaseException) -> Committed:
    """Whether an interrupted commit happened; raises the interruption if it never will."""
    store = writer.database.store
    version = store.outcome(writer.database.id, request.token)
    if version is None:
        raise interruption
    between = [
        list(store.changelog(part.namespace, after=request.base, until=version)) for part in request.parts
    ]
    own = [change for changes in between for change in changes if change.version == version]
    others = tuple(ListedChanges(c for c in changes if c.version != version) for changes in between)
    return Committed(version, own[0].time_us, others)


# ---- turns ----


def lost(sessions: tuple[Session, ...], reads: Sequence[PageSet]) -> None:
    """Remember a refused transaction: which databases it was about, and what it had read of each.

    There is no turn in those that were opened read-only: who may not write can't make others wait."""
    loss = Loss(tuple(session for session in sessions if not session.read_only))
    for session, pages in zip(sessions, reads, strict=True):
        session.loss = loss
        session.lost_reads = pages


def last_lost(session: Session, peers: Sequence[Session]) -> tuple[Session, ...]:
    """The sessions of the connection's last refused transaction; `session` alone if there is none."""
    losses = [peer.loss for peer in (session, *peers) if peer.loss is not None]
    last = max(losses, key=lambda loss: loss.number, default=None)
    return (last.sessions if last is not None else ()) or (session,)


def take_turn(
    sessions: Sequence[Session], *, seconds: float, everything: bool = False, wait: float, again: bool = False
) -> bool:
    """Take places in the queues, or keep them, and wait at most `wait` seconds for the turns.

    `again`: this goes on with a wait that was not long enough."""
    turn = sessions[0].turn
    if turn is None or set(turn.sessions) != set(sessions):
        for other in {id(t): t for s in sessions if (t := s.turn) is not None}.values():
            other.end()
        turn = Turn(sessions)
    elif not again:
        turn.start_over()
    deadline = time.monotonic() + wait
    while not turn.has_come(seconds, everything=everything):
        if time.monotonic() > deadline:
            return False
        time.sleep(_nap(sessions[0].database.store))
    return True
