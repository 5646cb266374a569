"""Processes: one worker, or several on one port with somebody who watches over them.

Called by `cli`; runs `server.Service`.

1. Several workers listen on the same port (SO_REUSEPORT): the kernel deals connections out.  They share the
   store's files, as any processes of one machine may, and nothing else: each learns of the others'
   commits from the head words.
2. The parent keeps the ports, starts workers, starts anew those that died, passes SIGTERM on and waits.
3. A worker whose parent is gone drains and ends: it reads the end of a pipe that only the parent holds.
4. Metrics of several workers are added up in the parent, from files that each of them maps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import IO, Any, NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from pagestore import poller
from pagestore.service import logs
from pagestore.service.settings import Settings, SettingsError, parse_address

FAILED = 3
"""Exit code of a worker whose store failed."""
REFUSED = 2
"""Exit code of a worker that can't start: another try would fail as well."""

_SHORT_LIFE = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a worker is started again that did not live long; twice as long each time."""
_NAP = 0.05

log = logging.getLogger("pagestore.service")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    settings.check()
    return asyncio.run(_run_one(settings, None)) if settings.workers == 1 else _Parent(settings).run()


async def _run_one(settings: Settings, parent: IO[str] | None) -> int:
    poller.choose()
    from pagestore.service.server import Service  # a worker's metrics are told where to live before this

    service = Service(settings)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stop)
    if parent is not None:
        loop.add_reader(parent.fileno(), service.stop)
    await service.start()
    await service.wait()
    return FAILED if service.failed else 0


def worker_main() -> int:
    """A worker of several: settings come as one line on stdin, whose end is that of the parent."""
    options: dict[str, Any] = json.loads(sys.stdin.readline())
    options["listen"] = tuple(options["listen"])
    settings = Settings(**options)
    logs.set_up(settings.log_level)
    try:
        return asyncio.run(_run_one(settings, sys.stdin))
    except SettingsError as exc:
        log.critical("%s", exc)
        return REFUSED


class _Worker(NamedTuple):
    number: int
    """The first one runs retention."""
    process: subprocess.Popen[str]
    since: float


class _Due(NamedTuple):
    """A worker that is to be started again."""

    number: int
    at: float


class _Parent:
    """Watches over workers."""

    def __init__(self, settings: Settings) -> None:
        self._stopping = False
        self._refused = False
        self._sockets = list(_reserve(settings))
        listen = tuple(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in (sock.getsockname()[:2] for sock in self._sockets)
        )
        self._settings = replace(settings, listen=listen)
        self._metrics = tempfile.mkdtemp(prefix="pagestore-metrics-")
        self._workers: dict[int, _Worker] = {}
        self._due: list[_Due] = []
        self._pauses = [0.0] * settings.workers

    def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        stop_metrics = self._serve_metrics()
        log.info("starting workers", extra={"count": self._settings.workers, "listen": self._settings.listen})
        try:
            for index in range(self._settings.workers):
                self._start(index)
            while self._workers or (self._due and not self._stopping):
                self._mind()
        finally:
            stop_metrics()
            shutil.rmtree(self._metrics, ignore_errors=True)
            for sock in self._sockets:
                sock.close()
        return REFUSED if self._refused else 0

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for worker in self._workers.values():
            worker.process.terminate()

    def _start(self, index: int) -> None:
        settings = self._settings if index == 0 else replace(self._settings, collect_every=0)
        worker = subprocess.Popen(
            [sys.executable, "-c", "from pagestore.service.workers import worker_main; exit(worker_main())"],
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": self._metrics},
        )
        assert worker.stdin is not None
        self._workers[worker.pid] = _Worker(index, worker, time.monotonic())
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(json.dumps(asdict(settings)) + "\n")
            worker.stdin.flush()
        if self._stopping:
            worker.terminate()

    def _mind(self) -> None:
        """Wait for a worker to end or to be due."""
        if self._due and not self._stopping:
            now = time.monotonic()
            for due in [due for due in self._due if due.at <= now]:
                self._due.remove(due)
                self._start(due.number)
        if not self._workers:
            time.sleep(_NAP)
            return
        pid, status = os.waitpid(-1, os.WNOHANG if self._due else 0)
        if pid:
            self._ended(pid, os.waitstatus_to_exitcode(status))
        else:
            time.sleep(_NAP)

    def _ended(self, pid: int, code: int) -> None:
        worker = self._workers.pop(pid)
        worker.process.returncode = code
        if worker.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                worker.process.stdin.close()
        mark_process_dead(pid, self._metrics)  # type: ignore[no-untyped-call]
        if code == REFUSED:
            self._refused = True
            self._stop()
        if self._stopping:
            self._due.clear()
            return
        log.error("a worker ended", extra={"pid": pid, "code": code})
        lived = time.monotonic() - worker.since
        pause = 0.0
        if lived < _SHORT_LIFE:
            pause = min(max(2 * self._pauses[worker.number], _FIRST_PAUSE), _LONGEST_PAUSE)
        self._pauses[worker.number] = pause
        self._due.append(_Due(worker.number, time.monotonic() + pause))

    def _serve_metrics(self) -> Callable[[], None]:
        if self._settings.metrics is None:
            return lambda: None
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._metrics)  # type: ignore[no-untyped-call]
        where = parse_address(self._settings.metrics)
        exporter, thread = start_http_server(where.port, where.host, registry)

        def stop() -> None:
            exporter.shutdown()
            exporter.server_close()
            thread.join()

        return stop


def _reserve(settings: Settings) -> Iterator[socket.socket]:
    """The ports, bound but not listened on.  Raises SettingsError."""
    for address in settings.addresses:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            family, kind, _, _, where = found[0]
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(where)
        except OSError as exc:
            raise SettingsError(f"can't listen on {address}: {exc}") from exc
        yield sock
