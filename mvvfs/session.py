"""One connection's way to its database: begin, fetch and leases, in terms of the `Store` interface.

Called by `bridge` (which turns C structs into calls and exceptions into SQLite codes) and `joint` (what the
sessions of one connection do together); calls `database` and `pagestore.api.Store`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from mvvfs import holding
from mvvfs.database import Database
from mvvfs.options import Options
from mvvfs.shim import ffi, lib
from pagestore.api import (
    MAX_MESSAGE_BYTES,
    Lease,
    LeaseWish,
    PageNumber,
    PageSet,
    Version,
    new_token,
)
from pagestore.encoding import decode

LEASE_SECONDS = 60.0
"""How long page numbers are ours; a transaction that takes longer renews them, a later one takes others."""

_MOST_CAUTION = 63
"""Transactions that ask where they begin, after some were lost that did not."""

SMALLEST_LEASE, LARGEST_LEASE = 16, 1024
"""Page numbers, as in native/mainfile.h."""


class Leases:
    """The page numbers of one connection.

    A lease from a distant store comes with the answer to a commit, before the shim asks for it: `wish` is
    what `wish_for_lease` (native/commit.c) is going to find.  Where the two differ, it takes one call."""

    def __init__(self, ahead: bool) -> None:
        self._ahead = ahead
        self.current: bytes | None = None
        """The lease that the shim takes numbers from."""
        self._left: set[int] = set()
        self._size = SMALLEST_LEASE
        self._spare: Lease | None = None
        self._spare_until = 0.0
        self._given_up: bytes | None = None
        """Behind the current one: ends with the next that is granted."""

    def wish(self, allocated: Sequence[int]) -> LeaseWish | None:
        if not self._ahead or not allocated:
            return None
        self._left.difference_update(allocated)
        while self._size < 4 * len(allocated) and self._size < LARGEST_LEASE:
            self._size *= 2
        if len(self._left) * 4 >= self._size or self._has_spare():
            return None
        return LeaseWish(self._size, LEASE_SECONDS, self._given_up)

    def granted(self, lease: Lease | None) -> None:
        """What a commit brought along."""
        if lease is not None:
            self._spare, self._spare_until = lease, time.monotonic() + lease.seconds
            self._given_up = None

    def _has_spare(self) -> bool:
        return self._spare is not None and self._spare_until - time.monotonic() > LEASE_SECONDS / 2

    def spare(self, want: int) -> Lease | None:
        """At most `want` numbers that are ours already."""
        lease = self._spare
        self._size = want  # the shim wants more while it takes them quickly
        if lease is None or not self._has_spare():
            return None
        self._spare, self._given_up = None, self.current
        usable = Lease(lease.id, lease.numbers[:want], self._spare_until - time.monotonic())
        self.use(usable)
        return usable

    def use(self, lease: Lease) -> None:
        self.current = lease.id
        self._left = set(lease.numbers)

    def held(self) -> Iterator[bytes]:
        spare = None if self._spare is None else self._spare.id
        return (lease for lease in (self.current, self._given_up, spare) if lease is not None)


class Session:
    """One open connection (strictly: one file of one), alive from xOpen to xClose."""

    def __init__(
        self, database: Database, options: Options, pinned: Version | None, file: Any = None
    ) -> None:
        self.database = database
        self.options = options
        self.pinned = pinned
        self.file = file
        """The shim's end of it."""
        self.read_only = False
        self.message = options.message
        self.last_error: str | None = None
        self.leases = Leases(database.store.distant and options.leases == "on")
        self.turn: Turn | None = None
        self.wants_begin = False
        """Whether the transaction's commit is to bring the next begin along."""
        self._is_ahead = False
        self._caution = 0
        """How many transactions are to ask after the next loss of one that was ahead."""
        self._asking = 0
        """How many of them are left."""
        self.is_waiting = False
        """Whether the last look at the queue, from SQLite's lock, found that it is not our turn."""
        self.tries = 0
        """How often the last transaction that reached its commit had been tried in a row."""
        self._has_lost = False
        self.loss: Loss | None = None
        self.lost_reads = PageSet()
        """What the last refused transaction had read."""
        self.kept: object = None
        """What the shim still looks at after the last call."""

    @property
    def is_durable(self) -> bool:
        """Whether it may see only what no power cut can take."""
        return self.options.reads == "durable"

    def begin(self, since: Version | None, *, fresh: bool, how: int) -> tuple[Version, bool]:
        """Where a snapshot begins, and whether that is ahead of what the store was asked.

        `fresh`: the newest version there is; else one as old as the options allow will do.  `how`:
        MV_RUNS_AHEAD: also one at which a commit of this process left off a moment ago."""
        ahead = how == lib.MV_RUNS_AHEAD
        if ahead and self._asking:
            self._asking -= 1
            ahead = False
        database = self.database
        in_a_row = how != lib.MV_ASKS and database.has_just_committed
        self.wants_begin = in_a_row and not database.store.reaches_commits
        version = database.begin_ahead() if ahead else None
        self._is_ahead = version is not None
        if version is not None:
            return version, True
        within = 0.0 if fresh else self.options.within
        return database.begin(since, durable=self.is_durable, within=within), False

    def fetch(self, version: Version, numbers: Sequence[PageNumber], page_size: int) -> bytes | None:
        """The content of the first page, or None where it does not exist; all go into the cache."""
        database = self.database
        if not database.is_watched:
            holding.watch(database)
        first, *more = database.read(version, numbers)
        if more:
            database.keep(more, version, page_size)
        if first is None:
            return None
        content = decode(first, page_size)
        database.insert(first, content, version)
        return content

    def flush(self, version: Version) -> None:
        """A transaction that left all as it was at `version` is over."""
        if self.options.durability == "full":
            self.database.flush(version)

    def starts_commit(self) -> None:
        self.tries = self.tries + 1 if self._has_lost else 1
        self._has_lost = True  # until it goes through

    def committed(self) -> None:
        self._has_lost = False
        self.loss = None
        if self._is_ahead:
            self._caution //= 2

    def lost_ahead(self) -> None:
        """What was read has changed: if the transaction was ahead, and others lately, the next ones ask."""
        if self._is_ahead:
            self._is_ahead = False
            self._asking = self._caution
            self._caution = min(2 * self._caution + 1, _MOST_CAUTION)

    def confirm(self) -> bool:
        """Whether what the last transaction, which was ahead, has read is what the store has now.

        Raises StoreError."""
        version = ffi.new("uint8_t[10]")
        lib.mv_file_version(self.file, version)
        changes = self.database.changes_since(Version(ffi.buffer(version)[:]))
        reads = self.reads().as_set()
        confirmed = changes is not None and not any(
            change.allocated or change.freed or not reads.isdisjoint(change.pages) for change in changes
        )
        if not confirmed:
            self.lost_ahead()
        return confirmed

    def leave_turn(self) -> None:
        if self.turn is not None:
            self.turn.end()

    def lease(self, want: int) -> Lease:
        """Page numbers for this connection alone; what is left of the last lease goes back."""
        database = self.database
        lease = self.leases.spare(want)
        if lease is None:
            lease = database.store.lease(database.id, want, LEASE_SECONDS, replaces=self.leases.current)
            self.leases.use(lease)
        return lease

    def renew_lease(self) -> float:
        """Of a transaction that takes long: seconds that its lease lasts from now.

        Raises LeaseEndedError, StoreError."""
        assert self.leases.current is not None
        asked = time.monotonic()
        self.database.store.renew_lease(self.database.id, self.leases.current, LEASE_SECONDS)
        return LEASE_SECONDS - (time.monotonic() - asked)

    def close(self) -> None:
        self.leave_turn()
        for lease in self.leases.held():
            self.database.store.release(self.database.id, lease)

    def peers(self, which: int) -> list[Session]:
        """This session and others of its connection: see mv_file_peers() in native/attached.c."""
        room = lib.mv_file_peers(self.file, ffi.NULL, 0, which)
        handles = ffi.new("void *[]", room)
        lib.mv_file_peers(self.file, handles, room, which)
        return [ffi.from_handle(handle) for handle in handles]

    def schema(self) -> str | None:
        """The name under which the connection has this database, if its SQLite tells."""
        name = lib.mv_file_schema(self.file)
        return None if name == ffi.NULL else ffi.string(name).decode()

    def reads(self) -> PageSet:
        """What the open transaction has read, and what SQLite's cache holds."""
        size = lib.mv_file_reads(self.file, ffi.NULL)
        packed = ffi.new("uint32_t[]", size)
        lib.mv_file_reads(self.file, packed)
        return PageSet(ffi.buffer(packed)[:])

    def set_message(self, message: str) -> None:
        """For the changelog, from the next commit on."""
        if len(message.encode()) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a changelog message holds at most {MAX_MESSAGE_BYTES} bytes")
        self.message = message


_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Loss:
    """A transaction that was refused, and with it these sessions."""

    sessions: tuple[Session, ...]
    number: int = field(default_factory=lambda: next(_numbers))


class Turn:
    """A transaction's places in the queues of its databases, under one ticket."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.ticket = new_token()
        self.sessions = sorted(sessions, key=lambda session: session.database.id)
        self._ours_until: dict[int, float] = {}
        for session in self.sessions:
            session.turn = self

    def start_over(self) -> None:
        """Ask in every queue again: the pages, or how long, may be others than before."""
        self._ours_until.clear()

    def has_come(self, seconds: float, *, everything: bool) -> bool:
        """Take, or keep, the places, as far as turns have come; whether all have."""
        for session in self.sessions:
            id_ = session.database.id
            if time.monotonic() < self._ours_until.get(id_, 0.0):
                continue
            pages = None if everything else session.lost_reads
            if not session.database.store.take_turn(id_, self.ticket, pages, seconds):
                return False
            self._ours_until[id_] = time.monotonic() + seconds / 2
        return True

    def end(self, given_up: Sequence[Session] = ()) -> None:
        """Leave the queues; in those of `given_up` the commit has done so."""
        for session in self.sessions:
            session.turn = None
        for session in self.sessions:
            if session not in given_up:
                session.database.store.leave_turn(session.database.id, self.ticket)
