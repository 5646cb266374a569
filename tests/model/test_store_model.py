"""The store against a dictionary of snapshots: whatever is done in whatever order, both agree."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagestore import format
from pagestore.api import (
    CommitRequest,
    ConflictError,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    PageNumber,
    Version,
    VoidTokenError,
    new_token,
)
from pagestore.encoding import decode
from pagestore.engines.memory import MemoryEngine
from pagestore.opener import open_store
from pagestore.store import PageStore
from tests.pages import Pages

PAGE_SIZE = 512
NAMES = ("a", "b", "c")
page_numbers = st.integers(1, 7)
changes = st.dictionaries(page_numbers, st.one_of(st.none(), st.integers(0, 255)), min_size=1, max_size=4)

Snapshot = dict[int, bytes]


def page(fill: int | None, before: bytes | None) -> bytes | None:
    """A new content: most of it as before, so that deltas are made."""
    if fill is None:
        return None
    start = before or bytes(PAGE_SIZE)
    return bytes([fill]) * 7 + start[7:300] + bytes([255 - fill]) + start[301:]


class Known:
    """What the model knows of one namespace."""

    def __init__(self, id_: NamespaceId, created: Version) -> None:
        self.id = id_
        self.snapshots: dict[Version, Snapshot] = {created: {}}
        self.touched: dict[Version, tuple[int, ...]] = {}
        self.times: dict[Version, int] = {}

    @property
    def newest(self) -> Version:
        return max(self.snapshots)

    def at(self, version: Version) -> Snapshot:
        return self.snapshots[max(known for known in self.snapshots if known <= version)]

    def winners(self, base: Version, touched: set[int]) -> tuple[set[int], Version | None]:
        """Pages of `touched` that changed after `base`, and the newest commit that did."""
        pages: set[int] = set()
        newest = None
        for version, changed in sorted(self.touched.items()):
            if version > base and touched & set(changed):
                pages |= touched & set(changed)
                newest = version
        return pages, newest


class StoreModel(RuleBasedStateMachine):
    tokens = Bundle("tokens")

    store: PageStore

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.done: dict[bytes, tuple[NamespaceId, Version | None]] = {}
        self.dropped: list[NamespaceId] = []

    @initialize()
    def start(self) -> None:
        self.open()

    def open(self) -> None:
        raise NotImplementedError

    # ---- namespaces ----

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        try:
            id_ = self.store.create(name).id
        except NameTakenError:
            assert name in self.known
        else:
            assert name not in self.known
            self.known[name] = Known(id_, self.store.begin(id_).version)

    @rule(name=st.sampled_from(NAMES), to=st.sampled_from(NAMES))
    def rename(self, name: str, to: str) -> None:
        try:
            self.store.rename(name, to)
        except NoSuchNamespaceError:
            assert name not in self.known
        except NameTakenError:
            assert to in self.known
        else:
            self.known[to] = self.known.pop(name)

    @precondition(lambda self: len(self.known) > 1)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        self.store.drop(name)
        self.dropped.append(self.known.pop(name).id)

    # ---- commits ----

    @precondition(lambda self: self.known)
    @rule(target=tokens, data=st.data(), reads=st.frozensets(page_numbers, max_size=3), recent=st.booleans())
    def commit(self, data: st.DataObject, reads: frozenset[int], recent: bool) -> bytes:
        names = data.draw(st.lists(st.sampled_from(sorted(self.known)), min_size=1, max_size=2, unique=True))
        parties = [self.known[name] for name in names]
        oldest = max(min(party.snapshots) for party in parties)
        versions = sorted({v for party in parties for v in party.snapshots if v >= oldest})
        base = versions[-1] if recent else data.draw(st.sampled_from(versions))
        parts, written = [], []
        for party in parties:
            old = party.at(base)
            contents = {n: page(fill, old.get(n)) for n, fill in data.draw(changes).items()}
            parts.append(Pages(self.store, party.id, PAGE_SIZE).part(contents, base, reads))
            written.append(contents)
        token = new_token()
        request = CommitRequest(token, base, parts, "model", "normal")
        lost = [
            party.winners(base, {*contents, *reads}) for party, contents in zip(parties, written, strict=True)
        ]
        try:
            done = self.store.commit(request)
        except ConflictError as conflict:
            self._check_conflict(conflict, parties, lost)
            self.done[token] = (parties[0].id, None)
            return token
        assert all(newest is None for _, newest in lost)
        for party, contents, others in zip(parties, written, done.others, strict=True):
            assert [c.version for c in others] == sorted(v for v in party.touched if v > base)
            state = {**party.at(party.newest), **{n: c for n, c in contents.items() if c is not None}}
            for number in [n for n, c in contents.items() if c is None]:
                state.pop(number, None)
            party.snapshots[done.version] = state
            party.touched[done.version] = tuple(sorted(contents))
            party.times[done.version] = done.time_us
        self.done[token] = (parties[0].id, done.version)
        return token

    @staticmethod
    def _check_conflict(
        conflict: ConflictError, parties: list[Known], lost: list[tuple[set[int], Version | None]]
    ) -> None:
        index = [party.id for party in parties].index(conflict.namespace)
        assert (set(conflict.pages), conflict.version) == lost[index]
        for fresh in conflict.fresh:
            assert decode(fresh, PAGE_SIZE) == parties[index].at(conflict.version)[fresh.number]

    @rule(token=tokens)
    def ask(self, token: bytes) -> None:
        namespace, version = self.done[token]
        if namespace in self.dropped:
            return
        assert self.store.outcome(namespace, token) == version

    @precondition(lambda self: self.known)
    @rule(data=st.data(), token=tokens)
    def repeat(self, data: st.DataObject, token: bytes) -> None:
        """Another commit with a used token does nothing."""
        namespace, version = self.done[token]
        party = next((known for known in self.known.values() if known.id == namespace), None)
        if party is None:
            return
        self.store.outcome(namespace, token)
        part = Pages(self.store, party.id, PAGE_SIZE).part({1: bytes(PAGE_SIZE)}, party.newest)
        try:
            again = self.store.commit(CommitRequest(token, party.newest, [part]))
        except VoidTokenError:
            assert version is None
        else:
            assert again.version == version

    # ---- looking ----

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(self.known)))]
        version = data.draw(st.sampled_from(sorted(party.snapshots)))
        numbers = [PageNumber(n) for n in range(1, 9)]
        found = self.store.read(party.id, version, numbers)
        expected = party.at(version)
        assert [p and decode(p, PAGE_SIZE) for p in found] == [expected.get(n) for n in numbers]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(self.known)))]
        versions = sorted(party.snapshots)
        since = data.draw(st.sampled_from(versions))
        start = self.store.begin(party.id, since)
        assert start.version == party.newest
        assert start.changes is not None
        told = [(change.version, change.pages) for change in start.changes]
        assert told == [(v, party.touched[v]) for v in versions if v > since]

    @precondition(lambda self: any(known.times for known in self.known.values()))
    @rule(data=st.data())
    def look_up_time(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(n for n, k in self.known.items() if k.times)))]
        time_us = data.draw(st.sampled_from(sorted(party.times.values())))
        expected = max(version for version, recorded in party.times.items() if recorded <= time_us)
        assert self.store.version_at(party.id, time_us) == expected

    @invariant()
    def names_agree(self) -> None:
        if self.known:
            assert {n.name: n.id for n in self.store.list()} == {n: k.id for n, k in self.known.items()}

    @invariant()
    def changelogs_agree(self) -> None:
        for party in self.known.values():
            log = [(change.version, change.pages) for change in self.store.changelog(party.id)]
            assert log == sorted(party.touched.items())


class OverMemory(StoreModel):
    def open(self) -> None:
        engine = MemoryEngine(twice=True)
        engine.transact(lambda tx: tx.set(*format.row()))
        self.store = PageStore(engine, "memory", 5)


class OverSqlite(StoreModel):
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.reopen()

    @rule()
    def reopen(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        store = open_store(str(self.folder / "store"), create=True)
        assert isinstance(store, PageStore)
        self.store = store

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


TestOverMemory = OverMemory.TestCase
TestOverMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOverSqlite = OverSqlite.TestCase
TestOverSqlite.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
