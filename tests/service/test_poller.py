"""Which of gRPC's pollers is used, and who may say so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pagestore import poller

CODE = """
import os, sys
import pagestore.service.cli
from pagestore import poller
assert "grpc" not in sys.modules
poller.choose()
import pagestore.service.server
assert "grpc" in sys.modules
assert os.environ.get("GRPC_EXPERIMENTS") == {left!r}, os.environ
"""


@pytest.mark.parametrize("chosen", [None, "-pick_first_new"])
def test_the_environment_stays_as_it_was(chosen: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != poller.VARIABLE}
    if chosen is not None:
        environment[poller.VARIABLE] = chosen
    code = CODE.format(left=chosen)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_grpc_is_loaded_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.delitem(sys.modules, "grpc", raising=False)
    monkeypatch.delenv(poller.VARIABLE, raising=False)
    monkeypatch.setattr(
        poller.importlib, "import_module", lambda _name: seen.append(os.environ.get(poller.VARIABLE))
    )
    poller.choose()
    assert seen == [poller.OLDER]
    monkeypatch.setenv(poller.VARIABLE, "none")
    poller.choose()
    monkeypatch.delenv(poller.VARIABLE)
    monkeypatch.setitem(sys.modules, "grpc", object())
    poller.choose()
    assert len(seen) == 1
