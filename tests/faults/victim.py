"""What gets killed: `act`, in a process of its own, or `python -m tests.faults.victim ACTION FOLDER [OTHER]`.

Says on standard output what it was told is done, a line at a time, so that the tests can hold the store
to it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import mvvfs
from mvvfs.options import to_uri
from pagestore import allocation, bulk, embedded, faults, images, retention, staging, sweep
from pagestore.api import (
    CommitRequest,
    ConflictError,
    NameTakenError,
    NoSuchNamespaceError,
    PageRuns,
    Retention,
    Version,
    new_token,
)
from pagestore.engines import sqlite
from pagestore.opener import open_store
from pagestore.store import PageStore
from tests.pages import Pages, content

PAGES = range(1, 4)
COMMITS = 12
GAPS = range(2, 18, 2)


def state(n: int) -> dict[int, bytes]:
    """The pages of commit `n`: all hold its number, and enough else to be long values now and then."""
    return {page: n.to_bytes(4, "big") + (b"ab" if n % 3 else bytes([n % 256, page])) * 254 for page in PAGES}


def commit(folder: str) -> None:
    store = open_store(folder, create=True)
    try:
        id_ = store.create("main").id
    except NameTakenError:
        id_ = store.open("main").id
    pages = Pages(store, id_)
    first = int.from_bytes((pages.read(1) or b"")[:4], "big") + 1
    for n in range(first, first + COMMITS):
        pages.commit(state(n), durability="full", message=str(n))
        print(n, flush=True)


def large(url: str) -> None:
    """As `commit`, each commit staged in several steps; each is tried from an outdated base as well."""
    staging.STEP_BYTES = bulk.FOLD_BYTES = 1
    store = open_store(url, create=True)
    assert isinstance(store, PageStore)
    with suppress(NameTakenError):
        store.create("main")
    pages = Pages(store, store.open("main").id)
    first = int.from_bytes((pages.read(1) or b"")[:4], "big") + 1
    outdated = pages.version()
    for n in range(first, first + COMMITS):
        if n > first:
            with suppress(ConflictError):
                _commit_staged(pages, n, outdated)
                raise AssertionError("a commit that should have been refused")
        _commit_staged(pages, n, pages.version())
        print(n, flush=True)
    store.settle()
    store.close()


def _commit_staged(pages: Pages, n: int, base: Version) -> None:
    token = new_token()
    part = pages.part(state(n), base)
    pages.store.stage(pages.id, token, part.writes)
    part = replace(part, writes=(), staged=PageRuns.of(PAGES))
    pages.store.commit(CommitRequest(token, base, (part,), str(n)))


def drop(folder: str) -> None:
    store = open_store(folder, create=False)
    with suppress(NoSuchNamespaceError):
        store.drop("main", now=True)
    print("dropped", flush=True)


def collect(folder: str) -> None:
    """Let go of everything but the newest version and those that are tagged."""
    retention.GRACE_SECONDS = 0
    sweep.STEP = 4
    store = open_store(folder, create=False)
    id_ = store.open("main").id
    store.set_retention(id_, Retention(0))
    done = store.collect(id_).complete
    sqlite._FREE_AT_MOST, sqlite._SHORTEN_PAGES = 1 << 30, 1
    store.give_back()
    print(done, flush=True)


def branch(folder: str) -> None:
    store = open_store(folder, create=False)
    parent = store.open("main")
    with suppress(NameTakenError):
        store.branch(parent.id, "branch", store.begin(parent.id).version)
    print("branched", flush=True)


def image(url: str) -> None:
    """Commits that leave gaps between pages, and an allocation image in many pieces behind them."""
    images.RUNS = images._STEP = 1
    allocation.image_is_due = lambda _token, _pages: False  # no other than the one below
    store = open_store(url, create=True)
    assert isinstance(store, PageStore)
    with suppress(NameTakenError):
        store.create("main")
    pages = Pages(store, store.open("main").id)
    pages.commit({n: content(n) for n in range(1, 20) if pages.read(n) is None})
    pages.commit(dict.fromkeys(GAPS))
    allocation.write_image(store.engine, pages.id, pages.version(), 5.0)
    print("written", flush=True)


def commit_both(folder: str) -> None:
    """Transactions over two attached databases, through SQLite."""
    connection = mvvfs.connect("one", store=folder)
    connection.execute("ATTACH ? AS two", (to_uri("two", store=folder),))
    connection.execute("CREATE TABLE IF NOT EXISTS main.t(n, pad); CREATE TABLE IF NOT EXISTS two.t(n, pad)")
    ((last,),) = connection.execute("SELECT coalesce(max(n), 0) FROM main.t").fetchall()
    for n in range(last + 1, last + 1 + COMMITS):
        connection.execute(
            f"BEGIN; INSERT INTO main.t VALUES({n}, zeroblob(2500));"
            f"INSERT INTO two.t VALUES({n}, zeroblob(99)); COMMIT"
        )
        print(n, flush=True)


def main(action: str, folder: str, *other: str) -> None:
    sqlite.MAX_LOG_FRAMES = 10  # a checkpoint every few commits
    if action == "commit":
        commit(folder)
    elif action == "commit_both":
        commit_both(folder)
    elif action == "large":
        large(folder)
    elif action == "image":
        image(folder)
    elif action == "drop":
        drop(folder)
    elif action == "collect":
        collect(folder)
    elif action == "branch":
        branch(folder)
    elif action == "backup":
        embedded.backup(folder, *other)
    elif action == "restore":
        embedded.restore(*other, folder)


def act(says: Connection, armed: str, action: str, folder: str, *other: str) -> None:
    """`main`, with MV_FAULTS as in `armed`, and a pipe for standard output."""
    faults.from_environment(armed)
    with open(says.fileno(), "w", closefd=False) as sys.stdout:
        main(action, folder, *other)


if __name__ == "__main__":
    main(*sys.argv[1:])
