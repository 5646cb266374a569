"""What the store's model knows: of each namespace every snapshot, and who needs which."""

from __future__ import annotations

from pagestore.api import NamespaceId, Version

PAGE_SIZE = 512

Snapshot = dict[int, bytes]


def page(fill: int | None, before: bytes | None) -> bytes | None:
    """A new content: most of it as before, so that deltas are made."""
    if fill is None:
        return None
    start = before or bytes(PAGE_SIZE)
    return bytes([fill]) * 7 + start[7:300] + bytes([255 - fill]) + start[301:]


class Known:
    """What the model knows of one namespace."""

    def __init__(self, id_: NamespaceId, created: Version) -> None:
        self.id = id_
        self.snapshots: dict[Version, Snapshot] = {created: {}}
        self.touched: dict[Version, tuple[int, ...]] = {}
        self.times: dict[Version, int] = {}
        self.horizon = created
        self.tags: dict[str, Version] = {}
        self.holds: dict[bytes, Version] = {}
        self.branch_points: list[Version] = []
        self.parents: tuple[Known, ...] = ()
        """It is a branch of the first, which is one of the second."""
        self.began_at = created
        """The version of its parent."""
        self.gone = False
        """For good, but for what its branches need."""
        self.lets_go = False
        """Whether its retention keeps nothing but the newest version."""

    @property
    def kept(self) -> set[Version]:
        return {*self.tags.values(), *self.holds.values(), *self.branch_points}

    def readable(self, version: Version) -> bool:
        return version >= self.horizon or version in self.kept

    @property
    def newest(self) -> Version:
        return max(self.snapshots)

    def at(self, version: Version) -> Snapshot:
        return self.snapshots[max(known for known in self.snapshots if known <= version)]

    def goes(self) -> None:
        """For good: what it is a branch of need not keep the version any more, unless it has branches."""
        self.gone = True
        if not self.branch_points and self.parents:
            parent = self.parents[0]
            parent.branch_points.remove(self.began_at)
            if parent.gone:
                parent.goes()

    def winners(self, base: Version, touched: set[int]) -> tuple[set[int], Version | None]:
        """Pages of `touched` that changed after `base`, and the newest commit that did."""
        pages: set[int] = set()
        newest = None
        for version, changed in sorted(self.touched.items()):
            if version > base and touched & set(changed):
                pages |= touched & set(changed)
                newest = version
        return pages, newest
