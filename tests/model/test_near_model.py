"""Pages that are kept on disk against the store itself: whoever reads through the cache reads the same."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from mvvfs.near import NearCache, PageFile
from pagestore import format
from pagestore.api import CommitPart, CommitRequest, PageNumber, Version, new_token
from pagestore.engines.base import Engine
from pagestore.engines.memory import MemoryEngine
from pagestore.store import PageStore
from tests import cluster
from tests.pages import Pages, content

page_numbers = st.integers(1, 12)
clients = st.integers(0, 2)
contents = st.dictionaries(
    page_numbers, st.one_of(st.none(), st.integers(0, 1 << 30)), min_size=1, max_size=4
)


class Client:
    """A process with the cache; 0 and 1 share a file."""

    def __init__(self, folder: Path, number: int, pages: Pages) -> None:
        self.pages = pages
        self.file = PageFile(str(folder / f"cache{number // 2}"), 1 << 20)
        self.cache = NearCache(self.file, pages.store, pages.id, "main")
        self.known: Version | None = None
        self.snapshots: list[Version] = []

    def begin(self) -> None:
        start = self.pages.store.begin(self.pages.id, self.known)
        self.cache.begun(self.known, start.version, start.changes)
        self.known = max(start.version, self.known or start.version)
        self.snapshots = [*self.snapshots[-3:], start.version]

    def stop(self, *, kill: bool) -> None:
        if not kill:
            self.cache.flush()
        self.file.close()


class NearModel(RuleBasedStateMachine):
    @initialize(first=contents)
    def start(self, first: dict[int, int | None]) -> None:
        self.quiet = mock.patch.object(NearCache, "_wake", return_value=None)  # `flush` is a step of its own
        self.quiet.start()
        self.folder = Path(tempfile.mkdtemp())
        self.ends = ExitStack()
        store = PageStore(self.engine(), "test:", 5.0)
        self.pages = Pages(store, store.create("main").id)
        self.clients = [Client(self.folder, number, self.pages) for number in range(3)]
        self.commit(first)
        for client in self.clients:
            client.begin()

    def engine(self) -> Engine:
        engine = MemoryEngine()
        engine.transact(lambda tx: tx.set(*format.row()))
        return engine

    def filled(self, changes: dict[int, int | None]) -> dict[int, bytes | None]:
        at = self.pages.version()
        wanted = {n: None if seed is None else content(seed, n) for n, seed in changes.items()}
        return {n: c for n, c in wanted.items() if c is not None or self.pages.read(n, at) is not None}

    @rule(changes=contents)
    def commit(self, changes: dict[int, int | None]) -> None:
        if filled := self.filled(changes):
            self.pages.commit(filled)

    @rule(number=clients, changes=contents, flushed=st.booleans())
    def commit_of_a_client(self, number: int, changes: dict[int, int | None], flushed: bool) -> None:
        """Based on its newest snapshot, so that others may have come in between."""
        client = self.clients[number]
        base = client.snapshots[-1]
        others = {n for c in self.pages.store.changelog(self.pages.id, after=base) for n in c.pages}
        part = self.pages.part(
            {n: c for n, c in self.filled(changes).items() if n not in others}, self.pages.version()
        )
        own = CommitPart(part.namespace, part.reads, part.writes, part.page_size, part.allocated, part.freed)
        if not part.writes:
            return
        request = CommitRequest(new_token(), base, (own,), "", "full" if flushed else "normal")
        done = self.pages.store.commit(request)
        written = [write.number for write in part.writes]
        client.cache.committed(base, done.version, request.token, done.others[0], written, flushed=flushed)
        client.known = done.version
        client.snapshots = [*client.snapshots[-3:], done.version]

    @rule(number=clients)
    def begin(self, number: int) -> None:
        self.clients[number].begin()

    @rule(number=clients, which=st.integers(0, 3), numbers=st.lists(page_numbers, min_size=1, unique=True))
    def read(self, number: int, which: int, numbers: list[int]) -> None:
        client = self.clients[number]
        at = client.snapshots[-1 - which % len(client.snapshots)]
        wanted = [PageNumber(n) for n in numbers]
        truth = self.pages.store.read(self.pages.id, at, wanted)
        came = client.cache.read(at, wanted)
        assert came[0] == truth[0]
        assert all(page is None or page == true for page, true in zip(came, truth, strict=True))

    @rule(number=clients)
    def flush(self, number: int) -> None:
        self.clients[number].cache.flush()

    @rule(number=clients, kill=st.booleans())
    def restart(self, number: int, kill: bool) -> None:
        self.clients[number].stop(kill=kill)
        self.clients[number] = Client(self.folder, number, self.pages)
        self.clients[number].begin()

    @rule(number=clients)
    def clear(self, number: int) -> None:
        self.clients[number].file.clear()

    @rule(number=clients, at=st.integers(0, 99))
    def damage(self, number: int, at: int) -> None:
        """A byte of every page."""
        (path,) = (self.folder / f"cache{number // 2}").glob("pages-*.sqlite")
        db = apsw.Connection(str(path))
        for key, blobs in db.execute("SELECT key, blobs FROM pages").fetchall():
            flipped = bytearray(blobs)
            flipped[-1 - at % len(flipped)] ^= 1
            db.execute("UPDATE pages SET blobs = ? WHERE key = ?", (bytes(flipped), key))
        db.close()

    @rule(number=clients)
    def bring_all(self, number: int) -> None:
        """As of where it stands, which may be behind."""
        client = self.clients[number]
        client.cache.bring(client.snapshots[-1], [PageNumber(n) for n in range(1, 13)])
        client.cache.flush()

    @rule(number=st.integers(0, 1))
    def begun_anew_by_one_who_lags(self, number: int) -> None:
        self.clear(number)
        self.bring_all(1 - number)
        for n in range(1, 13):
            self.read(number, 0, [n])

    @rule(number=clients)
    def everything(self, number: int) -> None:
        self.begin(number)
        for n in range(1, 13):
            self.read(number, 0, [n])

    def teardown(self) -> None:
        if hasattr(self, "clients"):
            for client in self.clients:
                client.stop(kill=True)
            self.quiet.stop()
            shutil.rmtree(self.folder)
            self.ends.close()


class NearModelOnCluster(NearModel):
    def engine(self) -> Engine:
        prefix = self.ends.enter_context(cluster.prefix())
        cluster.make_store(prefix)
        return cluster.engine(prefix)


def options(*, examples: int) -> settings:
    return settings(max_examples=examples, stateful_step_count=40, deadline=None)


def test_near_model() -> None:
    run_state_machine_as_test(NearModel, settings=options(examples=50))


@pytest.mark.foundationdb
@pytest.mark.parametrize(
    "examples",
    [5, pytest.param(150, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["few", "many"],
)
def test_on_a_cluster(examples: int) -> None:
    cluster.need()
    run_state_machine_as_test(NearModelOnCluster, settings=options(examples=examples))
