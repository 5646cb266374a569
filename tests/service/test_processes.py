"""`pagestore serve` as it is run: workers, drains, kills, metrics, the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import grpc
import pytest

from pagestore.api import new_token
from pagestore.service.cli import run, serve
from pagestore.service.settings import Settings
from pagestore.v1 import pagestore_pb2 as pb
from tests.service.conftest import Caller, commit_request, page, wait_until

SERVE = [sys.executable, "-m", "pagestore.service", "serve"]
STARTED = 20.0


class Served:
    """A service in processes of its own."""

    def __init__(self, folder: Path, *arguments: str, listen: str | None = None) -> None:
        self.address = listen or f"unix:{folder}/socket"
        command = [*SERVE, "--store", str(folder / "store"), "--create", "--listen", self.address, *arguments]
        self.log = folder / f"log-{time.monotonic_ns()}"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        if self.address.endswith(":0"):
            self.address = self._said(r'"listen": \["([^"]+)"\]')
        self.caller = Caller(self.address, options=(("grpc.use_local_subchannel_pool", 1),))
        grpc.channel_ready_future(self.caller.channel).result(STARTED)

    def _said(self, pattern: str) -> str:
        deadline = time.monotonic() + STARTED
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(30)

    def close(self) -> None:
        self.caller.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    served: list[Served] = []

    def one(*arguments: str, **more: object) -> Served:
        served.append(Served(tmp_path, *arguments, **more))
        return served[-1]

    yield one
    for each in served:
        each.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_drain_lets_calls_end_and_streams_know(start, tmp_path):
    served = start("--drain", "10")
    caller = served.caller
    namespace = caller("Create", name="main").id
    watch = caller("Watch", namespace=namespace, after=caller("Begin", namespace=namespace).version)
    next(watch)
    base = caller("Begin", namespace=namespace).version
    requests = [commit_request(caller, namespace, {n: page(str(n))}, base) for n in range(1, 40)]
    futures = [caller.stub.Commit.future(request) for request in requests]
    futures[0].result(10)
    assert served.stop() == 0
    assert list(watch) is not None  # it ended, without an error
    committed = [
        future.result().committed.version for future in futures if future.code() is grpc.StatusCode.OK
    ]
    again = start()
    logged = [c.version for b in again.caller("Changelog", namespace=namespace) for c in b.changes]
    assert set(committed) <= set(logged)
    refused = {future.code() for future in futures} - {grpc.StatusCode.OK}
    assert refused <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert [line["message"] for line in served.lines()][-1] == "stopped"
    assert not os.path.exists(tmp_path / "socket") or again.process.poll() is None


def test_killed_and_started_again_nothing_is_lost_and_nothing_twice(start):
    served = start()
    namespace = served.caller("Create", name="main").id
    acknowledged: list[bytes] = []
    unknown: list[bytes] = []
    refused: list[bytes] = []
    for attempt in range(3):
        caller = served.caller
        killer = threading.Timer(0.1, served.process.kill)
        killer.start()
        try:
            while True:
                request = commit_request(caller, namespace, {1: page(str(attempt))})
                try:
                    acknowledged.append(caller("Commit", request).committed.version)
                except grpc.RpcError:
                    unknown.append(request.token)
                    raise
        except grpc.RpcError:
            pass
        killer.join()
        served.process.wait(30)
        served = start()
    for token in (*unknown, new_token()):
        version = served.caller("Outcome", namespace=namespace, token=token).version
        (acknowledged if version else refused).append(version or token)
    logged = [c for b in served.caller("Changelog", namespace=namespace) for c in b.changes]
    assert sorted(acknowledged) == [change.version for change in logged]
    assert not {change.token for change in logged} & set(refused)


def test_workers_share_a_port_and_a_store(start):
    served = start("--workers", "2", listen="127.0.0.1:0")
    options = (("grpc.use_local_subchannel_pool", 1),)
    callers = [Caller(served.address, options=options) for _ in range(8)]
    namespace = callers[0]("Create", name="main").id
    version = callers[0]("Begin", namespace=namespace).version
    watches = [caller("Watch", namespace=namespace, after=version, heartbeat=10) for caller in callers]
    for watch in watches:
        next(watch)
    done = callers[0].commit(namespace, {1: page("one")}).committed.version
    assert [next(watch).version for watch in watches] == [done] * 8
    for watch in watches:
        watch.cancel()
    children = set(Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split())
    assert len(children) == 2
    os.kill(int(min(children)), signal.SIGKILL)
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline:
        now = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
        if len(now) == 2 and set(now) != children:
            break
        time.sleep(0.05)
    assert len(now) == 2
    assert Caller(served.address, options=options)("Begin", namespace=namespace).version == done
    assert served.stop() == 0
    for caller in callers:
        caller.close()


def test_workers_end_with_their_parent(start):
    served = start("--workers", "2", listen="127.0.0.1:0")
    pids = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    served.process.kill()
    served.process.wait(30)
    deadline = time.monotonic() + STARTED
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_and_log_lines(start, workers):
    where = f"127.0.0.1:{free_port()}"
    served = start("--workers", str(workers), "--metrics", where, "--slow", "0", listen="127.0.0.1:0")
    caller = served.caller
    namespace = caller("Create", name="main").id
    base = caller("Begin", namespace=namespace).version
    caller.commit(namespace, {1: page("one")}, base)
    caller.commit(namespace, {1: page("two")}, base)
    caller.refused("Open", name="absent")
    caller("Read", namespace=namespace, version=base, numbers=[1])
    shown = urllib.request.urlopen(f"http://{where}/metrics", timeout=5).read().decode()
    for line in (
        'pagestore_calls_total{method="Open",status="NOT_FOUND"} 1.0',
        'pagestore_calls_total{method="Commit",status="OK"} 2.0',
        'pagestore_commits_total{namespace="main"} 1.0',
        'pagestore_conflicts_total{namespace="main"} 1.0',
        'pagestore_begins_total{cache="forgotten"} 1.0',
    ):
        assert line in shown.splitlines()
    for name in ("call_seconds_bucket", "received_bytes_total", "oldest_snapshot_seconds", "streams"):
        assert f"pagestore_{name}" in shown
    lines = {line.get("method"): line for line in served.lines() if "method" in line}
    assert lines["Open"]["status"] == "NOT_FOUND"
    assert lines["Open"]["namespace"] == "absent"
    assert lines["Commit"]["namespace"] == "main"
    assert {"caller", "peer", "seconds", "time", "level"} <= lines["Commit"].keys()


def test_health(start, capfd):
    served = start()
    assert run(["health", served.address]) == 0
    assert "SERVING" in capfd.readouterr().out
    served.stop()
    assert run(["health", served.address, "--timeout", "0.3"]) == 1


# ---- the command line ----


def test_it_does_not_start_without_tokens_for_others(tmp_path, capfd):
    assert run(["serve", "--store", str(tmp_path / "x"), "--create", "--listen", "0.0.0.0:0"]) == 2
    assert "no token" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_it_does_not_make_a_store_unasked(tmp_path, capfd):
    assert run(["serve", "--store", str(tmp_path / "x"), "--listen", f"unix:{tmp_path}/s"]) == 1
    assert "no store" in capfd.readouterr().err


def test_options_from_file_environment_and_flags(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pagestore.service.workers.run", lambda settings: seen.append(settings) or 0)
    file = tmp_path / "config.toml"
    file.write_text('store = "/file"\nrate = 1.5\nmax-message = "100M"\nlisten = ["unix:/a", "unix:/b"]\n')
    monkeypatch.setenv("PAGESTORE_RATE", "2.5")
    monkeypatch.setenv("PAGESTORE_WORKERS", "3")
    assert run(["serve", "--config", str(file), "--workers", "1", "--socket-mode", "600"]) == 0
    (settings,) = seen
    assert (settings.store, settings.rate, settings.workers) == ("/file", 2.5, 1)
    assert (settings.max_message, settings.listen) == (100 << 20, ("unix:/a", "unix:/b"))
    assert (settings.socket_mode, settings.slow) == (0o600, 1.0)


def test_every_setting_is_an_option():
    options = {option.name for option in serve.params}
    assert {field.name for field in fields(Settings)} <= options


@pytest.mark.parametrize("line", ["unknown = 1", 'rate = "much"', 'max-message = "12Q"', "["])
def test_a_config_file_with_a_mistake(tmp_path, capfd, line):
    file = tmp_path / "config.toml"
    file.write_text(f'store = "/file"\n{line}\n')
    assert run(["serve", "--config", str(file)]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_tokens(tmp_path, capfd):
    file = ["--tokens", str(tmp_path / "tokens.toml")]
    assert run(["token", "create", *file, "--scope", "write:app-*", "--days", "1", "one"]) == 0
    assert capfd.readouterr().out.startswith("mvt_")
    assert run(["token", "create", *file, "--scope", "read:*", "one"]) == 1
    assert run(["token", "create", *file, "--scope", "own:*", "two"]) == 2
    capfd.readouterr()
    assert run(["token", "list", *file]) == 0
    assert re.fullmatch(r"one  write:app-\*  until \S+ \S+\n", capfd.readouterr().out)
    assert run(["token", "revoke", *file, "one"]) == 0
    assert run(["token", "revoke", *file, "one"]) == 1


def test_reflection_tells_the_protocol(start):
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    served = start()
    database = ProtoReflectionDescriptorDatabase(served.caller.channel)
    service = DescriptorPool(database).FindServiceByName("pagestore.v1.PageStore")
    assert set(service.methods_by_name) == set(pb.DESCRIPTOR.services_by_name["PageStore"].methods_by_name)


def test_idle_namespaces_cost_nothing(tmp_path, serve, call):
    """2,000 namespaces of which 100 are watched: the same threads as with one, and one task."""
    service = serve(store=f"memory:{tmp_path}")
    store = service.backend.store
    caller = call(service)
    first = caller("Create", name="n-0").id
    threads = threading.active_count()
    ids = [first, *(store.create(f"n-{n}").id for n in range(1, 2000))]
    watches = []
    for id_ in ids[:100]:
        version = caller("Begin", namespace=id_).version
        watches.append(caller("Watch", namespace=id_, after=version, heartbeat=30))
        next(watches[-1])
    ours = [
        t for t in threading.enumerate() if t.name.startswith(("pagestore", "call", "committer", "asyncio"))
    ]
    wait_until(lambda: len(service.backend.watching._followed) == 100)
    assert len(ours) <= 12
    assert threading.active_count() - threads <= 12 + 100  # the client's stub has a thread a stream
    for watch in watches:
        watch.cancel()
