"""A service in a process of its own, which can be killed and started again at the same address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvvfs.remote import open_remote
from pagestore.api import StoreUnavailableError

_STARTS_WITHIN = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Served:
    """`pagestore serve` over the store folder `store`."""

    def __init__(self, store: str, *options: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"grpc://{self.address}"
        self._command = [
            *(sys.executable, "-m", "pagestore.service", "serve", "--create", "--store", store),
            *("--listen", self.address, "--log-level", "error", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(root)}
        self._process = subprocess.Popen(self._command, env=environment)
        deadline = time.monotonic() + _STARTS_WITHIN
        store = open_remote(self.url, None, None, None, None, 0.2)
        while True:
            try:
                store.ping()
                break
            except StoreUnavailableError:
                assert self._process.poll() is None, "the service ended"
                assert time.monotonic() < deadline, "the service does not start"
        store.close()

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None


@contextmanager
def serving(store: str, *options: str) -> Iterator[Served]:
    served = Served(store, *options)
    served.start()
    try:
        yield served
    finally:
        served.kill()
