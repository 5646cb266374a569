"""Worker processes: each runs one function of a module and sends back what it returned.

Called by the tests of this folder and of `tests.faults`.  Every wait is bounded; a worker that raises, dies
or takes too long fails the test, with its traceback.

A worker is forked from a server that has opened nothing and loaded what most of them need: a new process
in milliseconds, of which many can die, and as good as one that was started from the beginning.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["mvvfs", "pagestore.opener", "pagestore.verify", "tests.process.place", "tests.pages"]
)


class WorkerError(AssertionError):
    """A worker failed; the message is its traceback."""


def _main(
    pipe: Connection, barrier: Barrier | None, work: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    try:
        if barrier is not None:
            barrier.wait(60)
        pipe.send((True, work(*arguments)))
    except BaseException:  # noqa: BLE001 (told to the parent)
        pipe.send((False, traceback.format_exc()))


class Worker(Generic[T]):
    """A process of its own that runs `work(*arguments)`."""

    def __init__(
        self,
        work: Callable[..., T],
        *arguments: Any,
        barrier: Barrier | None = None,
    ) -> None:
        self.pipe, theirs = processes.Pipe(duplex=False)
        self.process = processes.Process(target=_main, args=(theirs, barrier, work, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def result(self, seconds: float) -> T:
        """What `work` returned, within so many seconds."""
        try:
            if not self.pipe.poll(max(0.0, seconds)):
                raise WorkerError(f"a worker took longer than it may ({seconds:.0f} s more)")
            good, found = self.pipe.recv()
        except EOFError:
            self.process.join(5)
            raise WorkerError(f"a worker died: exit code {self.process.exitcode}") from None
        finally:
            self.kill()
        if not good:
            raise WorkerError(found)
        return found

    def kill(self) -> None:
        """SIGKILL, if it is still there."""
        self.process.kill()
        self.process.join()


def run(work: Callable[..., T], arguments: Sequence[Sequence[Any]], *, seconds: float) -> list[T]:
    """`work(*each)` for each of `arguments`, in a process each, all starting together; what they returned."""
    barrier = processes.Barrier(len(arguments))
    return results([Worker(work, *each, barrier=barrier) for each in arguments], seconds=seconds)


def results(workers: Sequence[Worker[T]], *, seconds: float) -> list[T]:
    """What each returned, within so many seconds; the first one that fails ends them all."""
    deadline = time.monotonic() + seconds
    found: dict[int, T] = {}
    waiting = {worker.pipe: i for i, worker in enumerate(workers)}
    try:
        while waiting:
            ready = connection.wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerError(
                    f"{len(waiting)} of {len(workers)} workers took longer than {seconds:.0f} s"
                )
            for pipe in ready:
                i = waiting.pop(pipe)
                found[i] = workers[i].result(0)
        return [found[i] for i in range(len(workers))]
    finally:
        for worker in workers:
            worker.kill()
