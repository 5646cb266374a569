"""Many processes on one FoundationDB cluster, straight and through services: nothing lost, nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.opener import open_store
from tests import cluster
from tests.checker import check
from tests.process import crew, ledger, lists
from tests.process.place import Place, Variant
from tests.process.test_kill import check_history
from tests.process.test_serializable import assert_busy, assert_serializable, record

pytestmark = pytest.mark.foundationdb


@pytest.fixture
def url() -> Iterator[str]:
    with cluster.prefix() as prefix:
        yield cluster.url(prefix)


class Services:
    """Processes that serve the cluster, each on a socket of its own; killed ones are started again."""

    def __init__(self, url: str, folder: Path, count: int) -> None:
        open_store(url, create=True).close()
        self._url = url
        self._sockets = [folder / f"{n}.sock" for n in range(count)]
        self._log = (folder / "services.log").open("w")
        self._processes = [self._start(socket) for socket in self._sockets]

    def _start(self, socket: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pagestore.service", "serve"]
        options = ["--store", self._url, "--listen", f"unix:{socket}"]
        return subprocess.Popen([*command, *options], stderr=self._log)

    def url(self, n: int) -> str:
        return f"grpc+unix:{self._sockets[n]}"

    def kill(self, n: int) -> None:
        self._processes[n].kill()
        self._processes[n].wait()
        self._processes[n] = self._start(self._sockets[n])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()


@pytest.mark.parametrize("kind", lists.SINGLE)
def test_histories_are_serializable(url: str, tmp_path: Path, seed: int, kind: str) -> None:
    history = record(Place(url), kind, seed, processes=3, transactions=80)
    assert_busy(history)
    assert_serializable(history, tmp_path)


def test_direct_and_served_clients_together_are_serializable(url: str, tmp_path: Path, seed: int) -> None:
    services = Services(url, tmp_path, 1)
    try:
        lists.create(Place(url), "rows")
        places = [Place(url), Place(services.url(0)), Place(services.url(0))]
        jobs = [(lists.Job(place, "rows", i, seed, 80),) for i, place in enumerate(places)]
        history = [t for part in crew.run(lists.work, jobs, seconds=90) for t in part]
        keys = {operation.key for t in history for operation in t.operations}
        history.append(lists.read_all(Place(url), "rows", keys))
        assert_busy(history)
        assert not check(history)
    finally:
        services.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seconds", "served", "direct"),
    [(8, 3, 1), pytest.param(300, 8, 2, marks=pytest.mark.long)],
    ids=["short", "five minutes"],
)
def test_writers_and_services_die(
    url: str, tmp_path: Path, seed: int, seconds: float, served: int, direct: int
) -> None:
    rng = random.Random(seed)
    services = Services(url, tmp_path, 2)
    patient = Variant(options={"timeout": 30})
    places = [Place(services.url(i % 2), patient) for i in range(served)]
    places += [Place(url, patient) for _ in range(direct)]
    ledger.create(Place(url), len(places))
    acks = [tmp_path / f"acknowledged-{i}" for i in range(len(places))]

    def start(i: int) -> crew.Worker[None]:
        return crew.Worker(ledger.write_until_killed, places[i], i, rng.randrange(1 << 30), str(acks[i]))

    writers = [start(i) for i in range(len(places))]
    found = dict.fromkeys(range(len(places)), 0)
    observer = Place(url, patient).connect()
    deadline = time.monotonic() + seconds
    kills = 0
    try:
        while time.monotonic() < deadline:
            time.sleep(rng.uniform(0, 1))
            if rng.random() < 0.3:
                services.kill(rng.randrange(2))
                continue
            victim = rng.randrange(len(writers))
            writers[victim].kill()
            kills += 1
            time.sleep(0.2)  # what a killed client has sent may still be on its way through a service
            sure = max(found[victim], ledger.last_acknowledged(acks[victim]))
            found[victim] = ledger.check(observer)[victim]
            assert found[victim] in (sure, sure + 1)
            writers[victim] = start(victim)
    finally:
        for writer in writers:
            alive = writer.process.is_alive()
            if not alive:
                print(writer.result(1))
            writer.kill()
        services.close()
    totals = ledger.check(observer)
    for i in range(len(writers)):
        sure = max(found[i], ledger.last_acknowledged(acks[i]))
        assert totals[i] in (sure, sure + 1)
    print(f"{sum(totals.values())} transactions, {kills} writers killed")
    assert sum(totals.values()) > seconds
    check_history(Place(url), rng)
