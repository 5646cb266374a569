"""A page-store service and its peer (`echo`), in processes of their own, for as long as cases are measured.

Called by `cli`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 30.0
_LISTENING = re.compile(r'"listen": (\[[^\]]*\])')


@dataclass(frozen=True, slots=True)
class Peers:
    """Addresses, HOST:PORT, on the loopback."""

    service: str
    echo: str


@contextmanager
def running(directory: Path) -> Iterator[Peers]:
    """Both, with a fresh store in `directory`."""
    log = directory / "service.log"
    serve = ["serve", "--store", str(directory / "store"), "--create", "--listen", "127.0.0.1:0"]
    with log.open("w") as output:
        service = subprocess.Popen(
            [sys.executable, "-m", "pagestore.service", *serve], stderr=output, cwd=ROOT
        )
    echo = subprocess.Popen(
        [sys.executable, "-m", "bench.echo", "127.0.0.1:0"], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert echo.stdout is not None
        port = int(echo.stdout.readline() or 0)
        if not port:
            raise BenchError("the peer of the service did not start")
        yield Peers(_address(service, log), f"127.0.0.1:{port}")
    finally:
        for process in (service, echo):
            process.terminate()
            process.wait(_PATIENCE_S)
        if echo.stdout is not None:
            echo.stdout.close()


def _address(service: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and service.poll() is None:
        found = _LISTENING.search(log.read_text())
        if found:
            return str(json.loads(found[1])[0])
        time.sleep(0.02)
    raise BenchError(f"the service did not start:\n{log.read_text()}")
