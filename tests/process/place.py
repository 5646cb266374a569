"""Where the workers meet, and in how many ways they may write: what a worker is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import apsw

import mvvfs
from mvvfs.options import to_uri


@dataclass(frozen=True)
class Variant:
    """A way to write.  Whatever the variant, nothing may get lost."""

    begin: str = "BEGIN"
    options: Mapping[str, object] = field(default_factory=dict)
    cache_size: int = -2000
    """SQLite's own page cache; a small one spills pages in mid-transaction."""
    runs: bool = False
    """Whether transactions are run by `mvvfs.transaction`, which may let them run ahead."""

    @property
    def takes_turns(self) -> bool:
        """Whether writers wait for each other instead of losing conflicts."""
        return "IMMEDIATE" in self.begin or self.options.get("concurrency") == "queued"


VARIANTS = {
    "deferred": Variant(),
    "immediate": Variant(begin="BEGIN IMMEDIATE"),
    "queued": Variant(options={"concurrency": "queued"}),
    "no leases": Variant(options={"leases": "off"}),
    "small caches": Variant(options={"cache_bytes": 50_000}, cache_size=10),
    "normal durability": Variant(options={"durability": "normal"}),
    "durable reads": Variant(options={"reads": "durable"}),
}


@dataclass(frozen=True)
class Place:
    store: str
    variant: Variant = field(default_factory=Variant)
    name: str = "app"
    attached: tuple[str, ...] = ()
    """Other databases of the store, to be attached under their names."""

    def connect(self, **options: object) -> apsw.Connection:
        chosen = {"store": self.store} | dict(self.variant.options) | options
        connection = mvvfs.connect(self.name, **chosen)
        for name in self.attached:
            connection.execute(f"ATTACH ? AS {name}", (to_uri(name, **chosen),))
            connection.execute(f"PRAGMA {name}.cache_size = {self.variant.cache_size}")
        connection.execute(f"PRAGMA cache_size = {self.variant.cache_size}")
        return connection


def roll_back(connection: apsw.Connection) -> None:
    """After an error: SQLite has rolled back by itself, or has not."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def value(connection: apsw.Connection, sql: str, bindings: tuple[object, ...] = ()) -> object:
    ((only,),) = connection.execute(sql, bindings).fetchall()
    return only
