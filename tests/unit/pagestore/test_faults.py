"""Fault points: armed by name, free and silent otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pagestore
from pagestore import faults
from pagestore.faults import InjectedFault, armed, fail, fault


def test_acts_at_the_nth_passage_only() -> None:
    with armed("drop.step", fail, nth=3):
        fault("drop.step")
        fault("commit.written")
        fault("drop.step")
        with pytest.raises(InjectedFault):
            fault("drop.step")
        fault("drop.step")
    fault("drop.step")


def test_unknown_names_are_mistakes() -> None:
    with pytest.raises(LookupError, match=r"drop\.stop"), armed("drop.stop", fail):
        pass
    with armed("drop.step", fail), pytest.raises(LookupError, match="nowhere"):
        fault("nowhere")


def test_points_are_those_in_the_code() -> None:
    assert pagestore.__file__ is not None
    sources = [path.read_text() for path in Path(pagestore.__file__).parent.rglob("*.py")]
    used = {name for source in sources for name in re.findall(r'\bfault\("([^"]+)"\)', source)}
    assert used == faults.POINTS
