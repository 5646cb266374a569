"""What can go wrong in a benchmark; each of them ends the run, none is counted over."""

from __future__ import annotations


class BenchError(Exception):
    """A benchmark could not run: a process died, a deadline passed, a tool is missing."""


class CheckFailedError(BenchError):
    """A workload ended with a database that does not hold what its writers committed."""
