"""What a workload is: how its database is built, what one operation does, how its outcome is checked.

`runner` calls `load` and `check` in its own process, `worker` calls `client` in each measured one.

1. An operation is one transaction, retried until it commits; whoever operates counts what it committed.
2. That count is the evidence: `check` holds the database against the sum of all clients' evidence.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import apsw

from bench.errors import CheckFailedError
from bench.targets import Target

Evidence = Any
"""What a client committed, in a form that survives JSON; only its own workload looks inside."""

PAYLOADS = 64


class Client(ABC):
    """One process's part in a workload."""

    @abstractmethod
    def operate(self) -> int:
        """One operation; the tries it took, 1 if nothing stood in its way."""

    def warm(self) -> None:
        """What may be done before the clock starts."""
        return

    def evidence(self) -> Evidence:
        """What `Workload.check` needs to know about what was done."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(ABC):
    """A load with its sizes.  A second load of the same kind and other sizes is a second instance."""

    name: str
    title: str
    unit: ClassVar[str] = "commits"
    """What the rate counts."""
    kind: ClassVar[Literal["write", "read"]] = "write"
    """Reads do not change the database: it is built once for all rounds, and flushes do not matter."""

    lasting: ClassVar[bool] = False
    """Whether every round of writes goes on with the database of the one before: it takes long to build."""

    @property
    def units(self) -> int:
        """How many units one operation is."""
        return 1

    def small(self) -> Self:
        """The same load, small enough for a smoke test."""
        return self

    @abstractmethod
    def load(self, connection: apsw.Connection, processes: int) -> None:
        """Fill an empty database for that many clients."""

    @abstractmethod
    def client(
        self, target: Target, connection: apsw.Connection, path: Path, index: int, rng: random.Random
    ) -> Client:
        """Client number `index`, from 0, of the database at `path`, already open as `connection`."""

    @abstractmethod
    def check(self, connection: apsw.Connection, evidence: Sequence[Evidence]) -> None:
        """Raises CheckFailedError if the database is not what the clients' evidence adds up to."""


def payloads(rng: random.Random, size: int) -> list[str]:
    """Some texts of `size` characters to write: hexadecimal, so that they compress to about a half."""
    return [rng.randbytes((size + 1) // 2).hex()[:size] for _ in range(PAYLOADS)]


def expect(what: str, found: object, wanted: object) -> None:
    """Raises CheckFailedError unless they are equal."""
    if found != wanted:
        raise CheckFailedError(f"{what}: found {found!r}, expected {wanted!r}")


def scalar(connection: apsw.Connection, statement: str) -> Any:
    """The first column of the only row."""
    (row,) = connection.execute(statement).fetchall()
    return row[0]


def integers(connection: apsw.Connection, statement: str) -> dict[int, int]:
    """The second column by the first, both integers."""
    return dict(cast(list[tuple[int, int]], connection.execute(statement).fetchall()))
