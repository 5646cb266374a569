"""What is done to a store in whatever order, and what it has to say then."""

from __future__ import annotations

from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pagestore import large, retention, sweep
from pagestore.api import (
    Allocation,
    BelowHorizonError,
    CommitRequest,
    ConflictError,
    LimitError,
    NamespaceId,
    NameTakenError,
    NoSuchNamespaceError,
    PageNumber,
    Retention,
    Version,
    VoidTokenError,
    new_token,
)
from pagestore.encoding import decode
from pagestore.store import PageStore
from pagestore.verify import verify
from tests.model.known import PAGE_SIZE, Known, page
from tests.pages import Pages

NAMES = ("a", "b", "c")
page_numbers = st.integers(1, 7)
changes = st.dictionaries(page_numbers, st.one_of(st.none(), st.integers(0, 255)), min_size=1, max_size=4)


class StoreModel(RuleBasedStateMachine):
    tokens = Bundle("tokens")

    lies_staged = False
    """Whether commits may wait to be folded in."""

    store: PageStore

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.done: dict[bytes, tuple[NamespaceId, Version | None]] = {}
        self.dropped: list[NamespaceId] = []
        self.old: dict[NamespaceId, tuple[str, Known]] = {}
        """Those that may come back."""
        self.grace, retention.GRACE_SECONDS = retention.GRACE_SECONDS, 0
        self.step, sweep.STEP = sweep.STEP, 5
        self.is_due, retention.is_due = retention.is_due, lambda _token: False

    def teardown(self) -> None:
        retention.GRACE_SECONDS = self.grace
        sweep.STEP = self.step
        retention.is_due = self.is_due

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
        for_good = data.draw(st.booleans())
        self.store.drop(name, now=for_good)
        known = self.known.pop(name)
        self.dropped.append(known.id)
        if for_good:
            known.goes()
        else:
            self.old[known.id] = name, known

    @precondition(lambda self: self.old)
    @rule(data=st.data(), name=st.sampled_from(NAMES), for_good=st.booleans())
    def undrop(self, data: st.DataObject, name: str, for_good: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.old)))
        if for_good:
            self.store.purge(id_)
            self.old.pop(id_)[1].goes()
            return
        try:
            assert self.store.undrop(id_, name).id == id_
        except NameTakenError:
            assert name in self.known
        else:
            self.known[name] = self.old.pop(id_)[1]
            self.dropped.remove(id_)

    def old_ones_go(self) -> None:
        """What may not come back any more is removed by the next opener and the next collection."""
        for id_, (_, known) in list(self.old.items()):
            if known.lets_go:
                del self.old[id_]
                known.goes()

    # ---- keeping and letting go ----

    def some(self, data: st.DataObject) -> tuple[str, Known]:
        name = data.draw(st.sampled_from(sorted(self.known)))
        return name, self.known[name]

    @precondition(lambda self: self.known)
    @rule(data=st.data(), lets_go=st.booleans())
    def retain(self, data: st.DataObject, lets_go: bool) -> None:
        _, party = self.some(data)
        wanted = Retention(0) if lets_go else Retention()
        self.store.set_retention(party.id, wanted)
        assert self.store.retention(party.id) == wanted
        party.lets_go = lets_go

    @precondition(lambda self: any(known.lets_go and known.times for known in self.known.values()))
    @rule(data=st.data(), dry_run=st.booleans(), beside=st.booleans())
    def collect(self, data: st.DataObject, dry_run: bool, beside: bool) -> None:
        names = sorted(name for name, known in self.known.items() if known.lets_go and known.times)
        party = self.known[data.draw(st.sampled_from(names))]
        now = party.times[data.draw(st.sampled_from(sorted(party.times)))]
        wanted = max(version for version, time_us in party.times.items() if time_us <= now)
        wanted = min([wanted, *(v for v in party.holds.values() if v >= party.horizon)])
        reached = max([v for v in party.times if v <= wanted], default=party.horizon)
        clock, retention._now_us = retention._now_us, lambda: now
        try:
            would_go = self.store.collect(party.id, dry_run=True)
            if dry_run:
                return
            if beside:
                for _ in range(50):
                    retention.beside_commit(self.store.engine, party.id, 1, 5)
                horizon = self.horizon_of(party)
                steps = [v for v in party.times if self.lies_staged and party.horizon < v < reached]
                # not more often than it pauses; and not beyond what is not folded in yet
                assert horizon in (party.horizon, *steps, max(party.horizon, reached))
                party.horizon = horizon
                return
            party.horizon = max(party.horizon, reached)
            went = self.store.collect(party.id)
        finally:
            retention._now_us = clock
        self.old_ones_go()
        assert went.complete
        assert went.horizon == party.horizon
        assert would_go.horizon == party.horizon or self.lies_staged  # a dry run folds nothing in
        assert went.versions >= would_go.versions
        assert went.page_versions >= would_go.page_versions  # a sweep of all pages may find more

    def horizon_of(self, party: Known) -> Version:
        return next(one.horizon for one in self.store.list() if one.id == party.id)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), name=st.sampled_from(["one", "two"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        _, party = self.some(data)
        version = data.draw(st.sampled_from(sorted(party.snapshots)))
        try:
            assert self.store.tag(party.id, name, version).version == version
        except NameTakenError:
            assert party.tags[name] != version
        except BelowHorizonError:
            assert not party.readable(version)
        else:
            assert party.readable(version)
            party.tags[name] = version

    @precondition(lambda self: any(known.tags for known in self.known.values()))
    @rule(data=st.data())
    def untag(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(n for n, k in self.known.items() if k.tags)))]
        name = data.draw(st.sampled_from(sorted(party.tags)))
        self.store.untag(party.id, name)
        del party.tags[name]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        _, party = self.some(data)
        version = data.draw(st.sampled_from(sorted(party.snapshots)))
        try:
            party.holds[self.store.hold(party.id, version, 3600)] = version
        except BelowHorizonError:
            assert not party.readable(version)

    @precondition(lambda self: any(known.holds for known in self.known.values()))
    @rule(data=st.data())
    def unhold(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(n for n, k in self.known.items() if k.holds)))]
        hold = data.draw(st.sampled_from(sorted(party.holds)))
        self.store.unhold(party.id, hold)
        del party.holds[hold]

    # ---- branches and reverts ----

    @precondition(lambda self: self.known)
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def branch(self, data: st.DataObject, name: str) -> None:
        _, party = self.some(data)
        version = data.draw(st.sampled_from(sorted(party.snapshots)))
        try:
            made = self.store.branch(party.id, name, version)
        except NameTakenError:
            assert name in self.known
        except BelowHorizonError:
            assert not party.readable(version)
        except LimitError:
            assert len(party.parents) == 8
        else:
            child = Known(made.id, self.store.begin(made.id).version)
            child.snapshots[child.newest] = party.at(version)
            child.parents = (party, *party.parents)
            child.lets_go = party.lets_go
            child.began_at = version
            party.branch_points.append(version)
            self.known[name] = child
            assert made.parent == (party.id, version)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), at_once=st.sampled_from([600, 4_000_000]))
    def revert(self, data: st.DataObject, at_once: int) -> None:
        """`at_once`: bytes beyond which pages are staged."""
        _, party = self.some(data)
        version = data.draw(st.sampled_from(sorted(party.snapshots)))
        try:
            with mock.patch.object(large, "_STAGED_AT_ONCE", at_once):
                done = self.store.revert(party.id, version, message="revert")
        except BelowHorizonError:
            assert not party.readable(version)
            return
        then, now = party.at(version), party.at(party.newest)
        changed = tuple(sorted(n for n in {*then, *now} if then.get(n) != now.get(n)))
        if not changed:
            assert done.version == party.newest
            return
        party.snapshots[done.version] = then
        party.touched[done.version] = changed
        party.times[done.version] = done.time_us

    # ---- commits ----

    @precondition(lambda self: self.known)
    @rule(target=tokens, data=st.data(), reads=st.frozensets(page_numbers, max_size=3), recent=st.booleans())
    def commit(self, data: st.DataObject, reads: frozenset[int], recent: bool) -> bytes:
        names = data.draw(st.lists(st.sampled_from(sorted(self.known)), min_size=1, max_size=2, unique=True))
        parties = [self.known[name] for name in names]
        oldest = max(min(party.snapshots) for party in parties)
        versions = sorted({v for party in parties for v in party.snapshots if v >= oldest})
        base = versions[-1] if recent else data.draw(st.sampled_from(versions))
        if not all(party.readable(base) for party in parties):
            base = versions[-1]
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
        except BelowHorizonError:
            assert any(base < party.horizon for party in parties)
            self.done[token] = (parties[0].id, None)
            return token
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
        try:
            found = self.store.read(party.id, version, numbers)
        except BelowHorizonError:
            assert not party.readable(version)
            return
        assert party.readable(version)
        expected = party.at(version)
        assert [p and decode(p, PAGE_SIZE) for p in found] == [expected.get(n) for n in numbers]
        assert allocated(self.store.allocation(party.id, version)) == set(expected)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(self.known)))]
        versions = sorted(party.snapshots)
        since = data.draw(st.sampled_from(versions))
        start = self.store.begin(party.id, since)
        assert start.version == party.newest
        assert (start.changes is None) == (since < party.horizon)
        if start.changes is None:
            assert start.allocation is not None
            assert allocated(start.allocation) == set(party.at(party.newest))
            return
        told = [(change.version, change.pages) for change in start.changes]
        assert told == [(v, party.touched[v]) for v in versions if v > since]

    @precondition(lambda self: any(known.times for known in self.known.values()))
    @rule(data=st.data())
    def look_up_time(self, data: st.DataObject) -> None:
        party = self.known[data.draw(st.sampled_from(sorted(n for n, k in self.known.items() if k.times)))]
        time_us = party.times[data.draw(st.sampled_from(sorted(party.times)))]
        expected = max(version for version, recorded in party.times.items() if recorded <= time_us)
        try:
            assert self.store.version_at(party.id, time_us) == expected
        except BelowHorizonError:
            assert not party.readable(expected)
        else:
            assert party.readable(expected)

    @invariant()
    def names_agree(self) -> None:
        if self.known:
            assert {n.name: n.id for n in self.store.list()} == {n: k.id for n, k in self.known.items()}

    @invariant()
    def changelogs_agree(self) -> None:
        for party in self.known.values():
            log = [(change.version, change.pages) for change in self.store.changelog(party.id)]
            kept = [entry for entry in log if entry[0] < party.horizon]
            assert log[len(kept) :] == sorted(e for e in party.touched.items() if e[0] >= party.horizon)
            assert set(kept) <= set(party.touched.items())

    @invariant()
    def records_agree(self) -> None:
        for name, party in self.known.items():
            namespace = self.store.open(name)
            assert namespace.horizon == party.horizon
            assert namespace.horizon_us == party.times.get(party.horizon, namespace.created_us)
            tags = {tag.name: tag.version for tag in self.store.tags(party.id)}
            assert tags == party.tags

    @rule()
    def examine(self) -> None:
        """What a backup does."""
        self.store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))
        assert {one.id for one in self.store.dropped()} == set(self.old)


def allocated(allocation: Allocation) -> set[int]:
    free = {n for run in allocation.free for n in range(run.first, run.first + run.length)}
    return set(range(1, allocation.highest + 1)) - free
