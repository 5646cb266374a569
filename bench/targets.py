"""The sides of a comparison: how each one opens a database and runs a transaction; all else is the same.

A target travels to worker processes as JSON (`to_json`, `from_json`).  Both sides use APSW, the same
statements and the same Python loop; `demo/` uses them too.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import apsw

from bench.errors import BenchError

Durability = Literal["full", "normal"]
Bindings = Sequence[str | int | float | bytes | None]

ROOT = Path(__file__).resolve().parent.parent
BUSY_TIMEOUT_MS = 5000
LONGEST_BACKOFF_S = 0.02


@dataclass(frozen=True, slots=True)
class Target(ABC):
    """One side.  `transaction` and `autocommit` return the tries it took; 1: no conflict."""

    kind: ClassVar[str]
    durability: Durability = "full"

    @abstractmethod
    def place(self, directory: Path) -> Path:
        """Where this side's database is kept within `directory`."""

    @abstractmethod
    def connect(self, path: Path) -> apsw.Connection:
        """A connection that reads and writes, creating the database if it is not there."""

    @abstractmethod
    def transaction(self, connection: apsw.Connection, body: Callable[[], object]) -> int:
        """Run `body` in one write transaction, again and again until it commits."""

    @abstractmethod
    def remove(self, path: Path) -> None:
        """Delete the database at `path`, if it is there."""

    def autocommit(self, connection: apsw.Connection, statement: str, bindings: Bindings = ()) -> int:
        """Execute one statement as a transaction of its own, again and again until it commits."""
        tries = 1
        while True:
            try:
                connection.execute(statement, bindings)
            except apsw.BusyError:
                back_off(tries)
                tries += 1
            else:
                return tries

    def conflicts(self, connection: apsw.Connection) -> int | None:
        """How many conflicts that connection has lost so far; None: only who retries knows."""
        return None

    def running(self, path: Path, environment: Mapping[str, str]) -> AbstractContextManager[None]:
        """What must run for as long as the database at `path` is used; nothing, mostly."""
        return nullcontext()

    @property
    def relaxed(self) -> Target:
        """The same side without a flush per commit: to build a database before a measurement."""
        return replace(self, durability="normal")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)


@dataclass(frozen=True, slots=True)
class PlainTarget(Target):
    """SQLite as it comes, set up as the usual advice has it: WAL, a busy timeout, BEGIN IMMEDIATE."""

    kind: ClassVar[str] = "plain"

    def place(self, directory: Path) -> Path:
        return directory / "plain.sqlite"

    def connect(self, path: Path) -> apsw.Connection:
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self.durability}")
        return connection

    def transaction(self, connection: apsw.Connection, body: Callable[[], object]) -> int:
        tries = 1
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                break
            except apsw.BusyError:
                tries += 1
        try:
            body()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return tries

    def remove(self, path: Path) -> None:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class MvTarget(Target):
    """mvvfs on an embedded store, or (`store`) on the store at that URL, with the name that `place` gives."""

    kind: ClassVar[str] = "mv"
    store: str | None = None
    cache_bytes: int | None = None
    leases: Literal["on", "off"] | None = None
    begin: Literal["DEFERRED", "IMMEDIATE"] = "DEFERRED"
    """How `transaction` begins."""
    read_ahead: Literal["on", "off"] | None = None
    branches: bool = False
    """Whether a workload that makes databases makes them as branches."""

    def place(self, directory: Path) -> Path:
        if self.read_ahead is not None:  # cases and arms share a store
            return directory / f"database-{secrets.token_hex(4)}.mv"
        return directory / "database.mv"

    def connect(self, path: Path) -> apsw.Connection:
        name = str(path) if self.store is None else path.name
        return self._connect(name, self.store)

    def connect_to(self, path: Path, name: str) -> apsw.Connection:
        """To another database of the same store."""
        return self._connect(name, self.url(path))

    def url(self, path: Path) -> str:
        """Of the store that the database at `path` is in."""
        return self.store or str(path)

    def _connect(self, name: str, store: str | None) -> apsw.Connection:
        import mvvfs

        return mvvfs.connect(name, store=store, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "durability": self.durability,
            "cache_bytes": self.cache_bytes,
            "leases": self.leases,
            "read_ahead": self.read_ahead,
        }

    def transaction(self, connection: apsw.Connection, body: Callable[[], object]) -> int:
        import mvvfs

        tries = 0

        def counted() -> None:
            nonlocal tries
            tries += 1
            body()

        mvvfs.transaction(connection, tries=1_000_000, mode=self.begin).run(counted)
        return tries

    def conflicts(self, connection: apsw.Connection) -> int | None:
        """As PRAGMA mv_stats has it: `mvvfs.connect` runs single statements again by itself."""
        try:
            return int(json.loads(connection.execute("PRAGMA mv_stats").get)["conflicts"])
        except apsw.ConnectionClosedError:
            return None

    def remove(self, path: Path) -> None:
        if path.exists():
            shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class PastTarget(MvTarget):
    """mvvfs at random moments of the database's past, another one each time it is opened."""

    kind: ClassVar[str] = "past"
    by: Literal["time", "version", "tag", "back"] = "time"
    """How the moment is written; `back`: HEAD~n."""

    def connect_at(self, path: Path, at: str) -> apsw.Connection:
        import mvvfs

        return mvvfs.connect(str(path), at=at, cache_bytes=self.cache_bytes)


@dataclass(frozen=True, slots=True)
class RetainedTarget(MvTarget):
    """mvvfs while retention lets go of the database's history, in a process of its own."""

    kind: ClassVar[str] = "retained"
    seconds: float = 0.0
    """For so long, once the writers write."""
    may_end: bool = False
    """Before that, because there is nothing left: then writers are measured that nothing was beside."""

    @contextmanager
    def running(self, path: Path, environment: Mapping[str, str]) -> Iterator[None]:
        command = [sys.executable, "-m", "bench.retaining", str(path), str(self.seconds)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as retaining:
            assert retaining.stdout is not None
            try:
                if retaining.stdout.readline() != b"ready\n":
                    raise BenchError(f"retention does not start: exit code {retaining.wait()}")
                yield
                told, _ = retaining.communicate(timeout=self.seconds + _ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                raise BenchError(f"retention did not end within {_ENDS_WITHIN_S:.0f} s") from None
            finally:
                if retaining.poll() is None:
                    retaining.kill()
        if retaining.returncode != 0:
            raise BenchError(f"retention ended with status {retaining.returncode}")
        went = json.loads(told)
        if not went["versions"] or (went["complete"] and not self.may_end):
            raise BenchError(f"{went['versions']:,} versions was all there was to let go of: too few")


@dataclass(frozen=True, slots=True)
class CallTarget(MvTarget):
    """A client of a page-store service that makes its calls itself, or those of a peer."""

    kind: ClassVar[str] = "calls"
    service: str = ""
    """HOST:PORT."""
    peer: str = ""
    """Where `bench.echo` is, likewise."""
    echo: bool = False
    """Make the peer's empty calls instead."""


@dataclass(frozen=True, slots=True)
class ClusterTarget(MvTarget):
    """mvvfs on a FoundationDB cluster, straight or through a service; or bare FoundationDB."""

    kind: ClassVar[str] = "cluster"
    bare: bool = False
    reads_page: bool = False
    """Of a bare one: it reads the page, as who has it in no cache, or finds it changed by others, has to."""

    def place(self, directory: Path) -> Path:
        return directory / f"bench-{random.getrandbits(48):012x}"  # a name in a store that others use too

    def conflicts(self, connection: apsw.Connection) -> int | None:
        return None if self.bare else MvTarget.conflicts(self, connection)


_STARTS_WITHIN_S = 30.0
_ENDS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class ServedTarget(MvTarget):
    """mvvfs on an embedded store that a service serves at a Unix socket, in a process of its own."""

    kind: ClassVar[str] = "served"
    freshness: str = "latest"

    def connect(self, path: Path) -> apsw.Connection:
        return self._connect("main", self.url(path))

    def url(self, path: Path) -> str:
        return f"grpc+unix:{_socket(path)}"

    def _options(self) -> dict[str, Any]:
        return {**MvTarget._options(self), "freshness": self.freshness}

    @contextmanager
    def running(self, path: Path, environment: Mapping[str, str]) -> Iterator[None]:
        socket = _socket(path)
        command = [sys.executable, "-m", "pagestore.service", "serve", "--create", "--log-level", "error"]
        service = subprocess.Popen(
            [*command, "--store", str(path), "--listen", f"unix:{socket}"], env=environment
        )
        try:
            _wait_for(socket, service)
            yield
        finally:
            service.terminate()
            service.wait()


def _socket(path: Path) -> Path:
    """Of the service for the store at `path`: short, because a socket's name may have 100 bytes or so."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mvvfs-bench-{digest}"


def _wait_for(socket: Path, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not socket.exists():
        if service.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the service does not start: exit code {service.poll()}")
        time.sleep(0.01)


_ALL = (PlainTarget, MvTarget, PastTarget, RetainedTarget, CallTarget, ClusterTarget, ServedTarget)
KINDS: dict[str, type[Target]] = {target.kind: target for target in _ALL}


def from_json(fields: dict[str, Any]) -> Target:
    """The target that `to_json` described."""
    return KINDS[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})


def back_off(tries: int) -> None:
    """Sleep for a random time that grows with the tries: from 0 up to 20 ms."""
    time.sleep(random.random() * min(LONGEST_BACKOFF_S, 0.0005 * 2 ** min(tries, 10)))
