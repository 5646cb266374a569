"""What a history is made of: transactions that appended to lists and read lists.

Every appended value is unique for its key, so a list that was read tells the order of the appends, and
with it which transactions came before which.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Append:
    key: int
    value: int


@dataclass(frozen=True, slots=True)
class Read:
    key: int
    values: tuple[int, ...]
    """The list as the transaction saw it, its own appends included."""


Operation = Append | Read


class Status(StrEnum):
    OK = "ok"
    """The commit was acknowledged."""
    FAILED = "failed"
    """It was rolled back, or refused: it must not have happened."""
    UNKNOWN = "unknown"
    """The process died, or could not learn the outcome: it happened, whole, or it did not."""


@dataclass(frozen=True, slots=True)
class Transaction:
    process: int
    start: int
    """Before its first statement; nanoseconds of a clock that all processes share."""
    end: int
    """After its last one returned; of no meaning if the outcome is unknown."""
    status: Status
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        body = " ".join(
            f"append({op.key},{op.value})" if isinstance(op, Append) else f"read({op.key},{list(op.values)})"
            for op in self.operations
        )
        return f"process {self.process} {self.status} [{self.start}..{self.end}] {body}"


def save(path: Path, transactions: Iterable[Transaction]) -> None:
    """One JSON array a line, to look at what a failed run did."""
    with path.open("w") as file:
        for t in transactions:
            operations = [
                ["a", op.key, op.value] if isinstance(op, Append) else ["r", op.key, list(op.values)]
                for op in t.operations
            ]
            file.write(json.dumps([t.process, t.start, t.end, t.status, operations]) + "\n")


def load(path: Path) -> list[Transaction]:
    transactions = []
    for line in path.read_text().splitlines():
        process, start, end, status, operations = json.loads(line)
        decoded = tuple(
            Append(key, value) if kind == "a" else Read(key, tuple(value)) for kind, key, value in operations
        )
        transactions.append(Transaction(process, start, end, Status(status), decoded))
    return transactions
