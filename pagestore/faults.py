"""Named points in the code at which a test can raise, kill the process, or do anything else.

Called all over the package; calls nothing.  Costs one look at a global when nothing is armed.

A test in the same process uses `armed("commit.before_sync", action)`; a subprocess is told by the
environment, `MV_FAULTS="commit.before_sync=kill@3,drop.step=raise"`: at the third passage through the
first point the process kills itself with SIGKILL, at the first through the second, `InjectedFault` is
raised.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

POINTS = frozenset(
    {
        "commit.validated",  # nothing is written yet
        "commit.written",  # in the engine transaction, not committed
        "commit.before_commit",  # the head word is odd
        "commit.sent",  # to a cluster, which has not answered
        "commit.after_commit",  # visible, the head word still odd
        "commit.before_sync",  # visible, not flushed
        "commit.after_sync",  # flushed, not acknowledged
        "checkpoint.before",
        "checkpoint.copied",  # pages are in the main file, the log is not restarted
        "checkpoint.after",
        "create.folder_made",
        "create.engine_built",  # under its temporary name
        "create.renamed",  # the folder is not flushed
        "drop.name_removed",
        "drop.step",
        "drop.before_end",  # all pages are gone, the tombstone is not
        "collect.image",  # an image is written, the horizon has not moved
        "collect.moving",  # in the engine transaction that moves the horizon
        "collect.moved",  # nothing is removed yet
        "collect.step",  # in an engine transaction that removes
        "collect.stepped",  # some of it is removed
        "collect.shortened",  # some of the engine's file was given back
        "image.step",  # some pieces of an image are written, its head is not
        "branch.written",  # in the engine transaction
        "branch.made",
        "stage.step",  # some pages are staged
        "stage.ended",  # given up, nothing removed yet
        "stage.step_removed",
        "fold.step",  # visible, some page keys are set
        "backup.copied",
        "backup.verified",
        "restore.copied",
        "restore.verified",
    }
)


class InjectedFault(Exception):
    """Raised at a fault point by the action `raise`."""


class _Arm:
    """Acts at the `nth` passage, and lets every other one pass."""

    def __init__(self, action: Callable[[], None], nth: int) -> None:
        self.action = action
        self.left = nth

    def pass_through(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.action()


_armed: dict[str, _Arm] = {}


def fault(point: str) -> None:
    if _armed:
        _passing(point)


def _passing(point: str) -> None:
    if point not in POINTS:
        raise LookupError(f"no fault point is called {point!r}")
    arm = _armed.get(point)
    if arm is not None:
        arm.pass_through()


@contextmanager
def armed(point: str, action: Callable[[], None], nth: int = 1) -> Iterator[None]:
    """Run `action` at the `nth` passage through the point."""
    _arm(point, action, nth)
    try:
        yield
    finally:
        del _armed[point]


def _arm(point: str, action: Callable[[], None], nth: int) -> None:
    if point not in POINTS:
        raise LookupError(f"no fault point is called {point!r}")
    _armed[point] = _Arm(action, nth)


def kill() -> None:
    """As a power cut would to the process, but the kernel keeps what was written."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> NoReturn:
    raise InjectedFault


_ACTIONS: dict[str, Callable[[], None]] = {"kill": kill, "raise": fail}


def from_environment(text: str) -> None:
    """Arm what the variable says, as at the head of this file."""
    for entry in filter(None, text.split(",")):
        point, _, what = entry.partition("=")
        action, _, nth = what.partition("@")
        _arm(point, _ACTIONS[action], int(nth or 1))


from_environment(os.environ.get("MV_FAULTS", ""))
