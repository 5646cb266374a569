"""What a load is to the demo: jobs that several processes apply at once, a transaction each, that add up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import apsw

Job = tuple[Any, ...]
Totals = dict[str, int]


class DemoError(Exception):
    """The demo cannot go on; the message says why and, where it can, what to do."""


class Load(ABC):
    """Travels to worker processes, so an instance holds plain values only."""

    noun: str
    """What one job is, in the plural."""

    @abstractmethod
    def prepare(self, connection: apsw.Connection) -> None:
        """Add the tables that the load writes, where the database does not have them."""

    @abstractmethod
    def jobs(self, connection: apsw.Connection) -> Sequence[Job]:
        """All jobs, in the order in which they should be begun."""

    @abstractmethod
    def apply(self, connection: apsw.Connection, job: Job, writer: int) -> None:
        """One job, within a transaction that the caller began and commits."""

    @abstractmethod
    def totals(self, connection: apsw.Connection) -> Totals:
        """Sums that every job moves: within one snapshot they must not."""

    @abstractmethod
    def applied(self, connection: apsw.Connection) -> int:
        """How many jobs the database holds."""

    @abstractmethod
    def disagreements(self, connection: apsw.Connection) -> list[str]:
        """Where running totals and single entries differ, a line each; empty if they agree."""


def number(connection: apsw.Connection, statement: str) -> int:
    """The first column of the only row."""
    ((value,),) = connection.execute(statement).fetchall()
    if not isinstance(value, int):
        raise DemoError(f"not a whole number: {statement} gave {value!r}")
    return value
