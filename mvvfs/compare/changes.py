"""What a comparison yields: changes of rows and of the schema.  Used by every caller; calls nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mvvfs.compare.records import Value

Row: TypeAlias = dict[str, Value]
"""Column names and values, in the table's order; without generated columns."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was inserted, updated or deleted."""

    table: str
    """Its name in the newer version; in the older one if it was dropped."""
    op: Literal["insert", "update", "delete"]
    key: tuple[Value, ...]
    """The row's identity: its rowid, or the primary key of a WITHOUT ROWID table."""
    old: Row | None
    """None: there was no such row."""
    new: Row | None
    """None: there is no such row any more."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """Something that was made, dropped or altered."""

    kind: str
    """table, index, view or trigger; pragma: `user_version` or `application_id`."""
    name: str
    table: str
    """The table that it belongs to: its own name for a table or a view, its former one if it was renamed."""
    op: Literal["added", "dropped", "altered", "renamed"]
    """`renamed`: a table that keeps its rows."""
    old: str | None
    """The SQL that makes it, or the value of the pragma, before; None: there was none."""
    new: str | None
    """And after."""


Difference: TypeAlias = RowChange | SchemaChange
