"""kill -9 at every fault point: what was acknowledged is there, nothing is there by halves, work goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from pagestore import bulk, embedded, faults, keys, staging
from pagestore.api import MAX_VERSION, NoSuchStoreError, Store, Version
from pagestore.embedded import is_store
from pagestore.engines.base import KeyRange
from pagestore.opener import open_store
from pagestore.store import PageStore
from pagestore.verify import verify as examine
from tests.conftest import on_cluster
from tests.faults.victim import COMMITS, GAPS, PAGES, act, state
from tests.pages import Pages
from tests.process import crew

COMMIT_POINTS = sorted(p for p in faults.POINTS - {"commit.sent"} if p.startswith(("commit.", "checkpoint.")))
CREATE_POINTS = sorted(p for p in faults.POINTS if p.startswith("create."))
LARGE_POINTS = sorted(p for p in faults.POINTS if p.startswith(("stage.", "fold.")))
DROP_POINTS = sorted(p for p in faults.POINTS if p.startswith("drop."))
BACKUP_POINTS = sorted(p for p in faults.POINTS if p.startswith("backup."))
RESTORE_POINTS = sorted(p for p in faults.POINTS if p.startswith("restore."))
COLLECT_POINTS = sorted(p for p in faults.POINTS if p.startswith("collect."))
BRANCH_POINTS = sorted(p for p in faults.POINTS if p.startswith("branch."))
CLUSTER_COMMIT_POINTS = ["commit.validated", "commit.written", "commit.sent", "commit.after_commit"]
"""Those that a commit to a cluster passes."""


def at_each(folder: Sequence[str], cluster: Sequence[str]) -> pytest.MarkDecorator:
    """Points of an embedded store and of a cluster, where all but one takes too long."""
    on_clusters = (on_cluster(point, long=point != "commit.sent") for point in cluster)
    points = [*(("folder", point) for point in folder), *on_clusters]
    return pytest.mark.parametrize(("shared", "point"), points, indirect=["shared"])


def victim(fault: str | None, action: str, folder: Path | str, *other: Path) -> list[str]:
    """Run it until it dies of the fault, or without one ends; what it was told is done."""
    said, says = crew.processes.Pipe(duplex=False)
    arguments = (says, fault or "", action, str(folder), *map(str, other))
    process = crew.processes.Process(target=act, args=arguments, daemon=True)
    process.start()
    says.close()
    process.join(60)
    process.kill()
    assert process.exitcode == (0 if fault is None else -signal.SIGKILL), "the fault point was not passed"
    with open(said.fileno(), closefd=False) as told:
        found = told.read().split()
    said.close()
    return found


def verify(store: Store, acknowledged: int) -> int:
    """Check the database against what its writers said; the number of its last commit."""
    pages = Pages(store, store.open("main").id)
    log = list(store.changelog(pages.id))
    assert [change.message for change in log] == [str(n) for n in range(1, len(log) + 1)]
    assert acknowledged <= len(log) <= acknowledged + 1
    for n, change in enumerate(log, start=1):
        assert {page: pages.read(page, change.version) for page in PAGES} == state(n)
        assert store.outcome(pages.id, change.token) == change.version
    return len(log)


def test_every_point_is_crashed_at_below() -> None:
    other = {"image.step", *LARGE_POINTS, *BACKUP_POINTS, *RESTORE_POINTS, *COLLECT_POINTS, *BRANCH_POINTS}
    commit = {*COMMIT_POINTS, *CLUSTER_COMMIT_POINTS}
    assert {*commit, *CREATE_POINTS, *DROP_POINTS, *other} == faults.POINTS


@at_each(COMMIT_POINTS, CLUSTER_COMMIT_POINTS)
def test_commit(shared: str, point: str) -> None:
    acknowledged = int((["0", *victim(None, "commit", shared)])[-1])
    bystander = open_store(shared, create=False)  # its pages and head words outlive the victim
    for nth in (1, 2):
        before = acknowledged
        told = victim(f"{point}=kill@{nth}", "commit", shared)
        last = int(told[-1]) if told else before
        acknowledged = verify(bystander, last)
    bystander.close()
    told = victim(None, "commit", shared)
    assert int(told[-1]) == acknowledged + COMMITS
    reopened = open_store(shared, create=False)
    assert verify(reopened, int(told[-1])) == acknowledged + COMMITS
    reopened.close()


@at_each(LARGE_POINTS, ["stage.step", "stage.ended", "fold.step", "commit.written"])
def test_large_commit(shared: str, point: str) -> None:
    acknowledged = 0
    for nth in (1, 2, 5):
        told = victim(f"{point}=kill@{nth}", "large", shared)
        store = open_store(shared, create=False)
        acknowledged = verify(store, int(told[-1]) if told else acknowledged)
        store.close()
    told = victim(None, "large", shared)
    assert int(told[-1]) == acknowledged + COMMITS
    store = open_store(shared, create=False)
    assert isinstance(store, PageStore)
    id_ = store.open("main").id
    bulk.fold(store.engine, id_, 5.0)
    for token in store.engine.read(lambda tx: staging.tokens(tx, id_)):
        staging.discard(store.engine, id_, token, 5.0)
    verify(store, int(told[-1]))
    assert store.engine.read(lambda tx: bulk.unfolded(tx, id_) or staging.tokens(tx, id_)) == []
    store.engine.read(lambda tx: examine(tx, lambda _done, _all: None))
    store.close()


def test_commit_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "store"
    victim(None, "commit", folder)
    chance = random.Random(seed)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim", "commit", str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        told = [process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        told += process.stdout.readlines()
        process.wait()
        store = open_store(str(folder), create=False)
        verify(store, int(told[-1]))
        store.close()


@pytest.mark.parametrize("point", CREATE_POINTS)
def test_create(tmp_path: Path, point: str) -> None:
    folder = tmp_path / "store"
    victim(f"{point}=kill@1", "commit", folder)
    assert is_store(str(folder)) == (point == "create.renamed")
    if not is_store(str(folder)):
        with pytest.raises(NoSuchStoreError):
            open_store(str(folder), create=False)
    assert victim(None, "commit", folder)[-1] == str(COMMITS)


@at_each(DROP_POINTS, ["drop.name_removed", "drop.before_end"])
def test_drop(shared: str, point: str) -> None:
    victim(None, "commit", shared)
    assert victim(f"{point}=kill@1", "drop", shared) == []
    victim(None, "drop", shared)
    store = open_store(shared, create=False)
    assert store.list() == []
    store.close()
    assert victim(None, "commit", shared)[-1] == str(COMMITS)


@pytest.mark.parametrize("point", BACKUP_POINTS)
def test_backup(tmp_path: Path, point: str) -> None:
    folder, file = tmp_path / "store", tmp_path / "backup"
    victim(None, "commit", folder)
    victim(f"{point}=kill@1", "backup", folder, file)
    assert not file.exists()
    victim(None, "backup", folder, file)
    embedded.restore(str(file), str(tmp_path / "again"))
    store = open_store(str(tmp_path / "again"), create=False)
    verify(store, COMMITS)
    store.close()


@pytest.mark.parametrize("point", RESTORE_POINTS)
def test_restore(tmp_path: Path, point: str) -> None:
    folder, file, again = tmp_path / "store", tmp_path / "backup", tmp_path / "again"
    victim(None, "commit", folder)
    victim(None, "backup", folder, file)
    victim(f"{point}=kill@1", "restore", again, file)
    assert not is_store(str(again))
    victim(None, "restore", again, file)
    store = open_store(str(again), create=False)
    verify(store, COMMITS)
    store.close()


@at_each(COLLECT_POINTS, sorted({*COLLECT_POINTS} - {"collect.shortened"}))
def test_collect(shared: str, point: str) -> None:
    victim(None, "commit", shared)
    bystander = open_store(shared, create=False)
    pages = Pages(bystander, bystander.open("main").id)
    versions = [change.version for change in bystander.changelog(pages.id)]
    for n in (3, 7):
        bystander.tag(pages.id, f"tag {n}", versions[n - 1])
    stay = {3: versions[2], 7: versions[6], COMMITS: versions[-1]}
    for nth in (1, 2):
        with suppress(AssertionError):  # there may be no second passage
            assert victim(f"{point}=kill@{nth}", "collect", shared) == []
        for n, version in stay.items():
            assert {page: pages.read(page, version) for page in PAGES} == state(n)
        whole(bystander)
    assert victim(None, "collect", shared) == ["True"]
    for n, version in stay.items():
        assert {page: pages.read(page, version) for page in PAGES} == state(n)
    assert [change.version for change in bystander.changelog(pages.id)] == sorted(stay.values())
    whole(bystander)
    bystander.close()
    assert victim(None, "commit", shared)[-1] == str(2 * COMMITS)


@at_each(["image.step"], ["image.step"])
def test_image(shared: str, point: str) -> None:
    """Pieces without their head are as good as nothing, and go with the version that they are of."""
    for nth in (1, 3, len(GAPS)):
        assert victim(f"{point}=kill@{nth}", "image", shared) == []
        store = open_store(shared, create=False)
        whole(store)
        assert images_of(store) == set()
        store.close()
    assert victim(None, "image", shared) == ["written"]
    store = open_store(shared, create=False)
    pages = Pages(store, store.open("main").id)
    assert images_of(store) == {pages.version()}
    pages.commit({1: b"\1" * 512})
    assert victim(None, "collect", shared) == ["True"]
    assert len(images_of(store)) == 1
    assert rows(store, keys.image_pieces_until(pages.id, MAX_VERSION)) == []  # the newest one is whole
    found = store.allocation(pages.id, pages.version())
    assert [run.first for run in found.free] == list(GAPS)
    whole(store)
    store.close()


def rows(store: Store, within: tuple[bytes, bytes]) -> list[bytes]:
    assert isinstance(store, PageStore)
    return [key for key, _ in store.engine.read(lambda tx: list(tx.scan(KeyRange(*within))))]


def images_of(store: Store) -> set[Version]:
    return set(map(keys.version_of, rows(store, keys.images(store.open("main").id, MAX_VERSION))))


def whole(store: Store) -> None:
    assert isinstance(store, PageStore)
    store.engine.read(lambda tx: examine(tx, lambda _done, _total: None))


@at_each(BRANCH_POINTS, BRANCH_POINTS)
def test_branch(shared: str, point: str) -> None:
    victim(None, "commit", shared)
    assert victim(f"{point}=kill@1", "branch", shared) == []
    store = open_store(shared, create=False)
    assert len(store.list()) == (2 if point == "branch.made" else 1)
    whole(store)
    victim(None, "branch", shared)
    pages = Pages(store, store.open("branch").id)
    assert {page: pages.read(page) for page in PAGES} == state(COMMITS)
    whole(store)
    store.close()
