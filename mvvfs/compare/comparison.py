"""Two versions of a database, and what differs between them.

Called by `api`, `script`, `changeset` and the command line; calls everything else here.

Why the changed pages are enough: the changelog tells which pages were written, allocated or freed between
the two versions.  A page that is not among these has the same content in both, and belongs to the same tree:
one that goes from tree to tree is written.  So a table's rows differ by those on its changed pages in the
older version against those on its changed pages in the newer one.  (A tree is known by its root page.  A
table of the same name with another root is another tree: all its rows are compared.)

1. No other leaf is read (but see `overflow`), and of the changed pages only those that may hold rows (see
   `changed`).  Up to `_GUIDED_BYTES` of changed pages are looked up one by one (`locate`); with more of them
   each table's interior pages are read, about one page in a hundred.
2. Memory is bounded by the caches, one bit for each page of the database, and single rows; what `merge` takes
   beyond that it says itself.
3. Versions may be given in either order.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mvvfs.compare import overflow, schema
from mvvfs.compare.btree import FIRST_AMBIGUOUS_PAGE, KINDS
from mvvfs.compare.changed import Changed, everything, with_rows
from mvvfs.compare.changes import Difference, RowChange, SchemaChange
from mvvfs.compare.locate import Candidate, Locator, Place, candidates
from mvvfs.compare.merge import Merge, Side
from mvvfs.compare.pages import Cache, PageBits, Snapshot
from mvvfs.compare.schema import Schema, fold
from mvvfs.compare.shapes import Table
from mvvfs.compare.walk import Guide, Held, Tree
from pagestore.api import Namespace, Store, Version

_GUIDED_BYTES = 4 << 20
_MOST_HINTS = 50_000
"""Pages whose trees are remembered from one comparison to the next."""


class Pair(NamedTuple):
    """A table in the older and in the newer version."""

    old: Table | None
    new: Table | None

    @property
    def name(self) -> str:
        table = self.new or self.old
        assert table is not None
        return table.name

    @property
    def is_same(self) -> bool:
        """Whether row is compared with row; if not, all old rows go and all new ones come."""
        return self.old is not None and self.new is not None and self.old.matches(self.new)


class _Version:
    """One side: the pages, the schema, and what was found out about the changed pages."""

    def __init__(self, snapshot: Snapshot, schema_: Schema) -> None:
        self.snapshot = snapshot
        self.schema = schema_
        self.places: dict[bool, dict[int, Place]] = {}
        """Those of table trees, and those of index trees, once they were looked for."""


@dataclass
class _Legacy:
    """What one comparison leaves to the next."""

    shared: Cache = field(default_factory=Cache)
    old: Cache = field(default_factory=Cache)
    """Changed pages, as they were."""
    new: Cache = field(default_factory=Cache)
    """Changed pages, as they became."""
    schema_of_old: Schema | None = None
    schema_of_new: Schema | None = None


class Comparison:
    """The differences between two versions of one database.

    Every method that reads raises CorruptPageError and what `Store.read` raises."""

    def __init__(
        self,
        store: Store,
        namespace: Namespace,
        old: Version,
        new: Version,
        changed: Changed,
        highest: int,
        previous: Comparison | None = None,
    ) -> None:
        """`changed`: by the changelog between the two.  `highest`: no page number is higher.

        `previous`: a comparison that has one of its versions in common with this one.  What it has cached
        goes over to this one; it may still be used, but reads anew what it needs."""
        self.store = store
        self.namespace = namespace
        self.changed = changed.pages
        self.highest = highest
        self._known = changed
        self._hints: dict[int, int] = {} if previous is None else previous._hints
        if len(self._hints) > _MOST_HINTS:
            self._hints.clear()
        legacy = _Legacy() if previous is None else previous._hand_over(old, self.changed)
        absent = (changed.fresh, changed.gone) if old <= new else (changed.gone, changed.fresh)
        before, after = (
            Snapshot(
                store, namespace.id, version, namespace.page_size, self.changed, none, legacy.shared, own
            )
            for version, none, own in zip((old, new), absent, (legacy.old, legacy.new), strict=True)
        )
        if legacy.schema_of_new is None:
            first = legacy.schema_of_old or schema.read(before)
            second = first if self.changed.isdisjoint(first.pages) else schema.read(after)
        else:
            second = legacy.schema_of_new
            first = second if self.changed.isdisjoint(second.pages) else schema.read(before)
        self.old, self.new = _Version(before, first), _Version(after, second)
        self._written_over: PageBits | None = None
        self._unexplained = PageBits()
        self._nearby: dict[int, list[Held]] = defaultdict(list)
        self._owners: dict[int, list[Held]] = {}

    # ---- from one comparison to the next ----

    def _hand_over(self, old: Version, changed: PageBits) -> _Legacy:
        """What the next comparison starts with: one of later versions, from `old` on, or of earlier ones."""
        goes_on = self.new.snapshot.version == old
        side = self.new if goes_on else self.old
        shared, own = side.snapshot.shared, Cache()
        for number in changed:
            if number in shared:
                own.put(number, shared.pop(number))
        for number, content in side.snapshot.own.items():
            (own if number in changed else shared).put(number, content)
        self.old.snapshot.shared = self.new.snapshot.shared = Cache()  # from now on it holds other versions
        if goes_on:
            return _Legacy(shared, old=own, schema_of_old=side.schema)
        return _Legacy(shared, new=own, schema_of_new=side.schema)

    # ---- what there is ----

    def schema_changes(self) -> list[SchemaChange]:
        if self.old.schema is self.new.schema:
            return []
        renamed = {
            pair.new.name: pair.old.name
            for pair in self.tables()
            if pair.new is not None and pair.old is not None and fold(pair.new.name) != fold(pair.old.name)
        }
        return list(schema.differences(self.old.schema, self.new.schema, renamed))

    def tables(self, name: str | None = None) -> list[Pair]:
        """All tables with a tree, of either version, or the one of that name; first the newer version's."""
        before = {fold(t.name): t for t in self.old.schema.shapes.tables.values()}
        after = {fold(t.name): t for t in self.new.schema.shapes.tables.values()}
        gone = {table.root: table for key, table in before.items() if key not in after}
        pairs = []
        for key, table in after.items():
            was = before.get(key)
            renamed = gone.get(table.root)
            if (
                was is None
                and renamed is not None
                and renamed.names == table.names
                and renamed.matches(table)
            ):
                was = gone.pop(table.root)
            pairs.append(Pair(was, table))
        pairs.extend(Pair(table, None) for table in gone.values())
        if name is None:
            return pairs
        return [p for p in pairs if any(t is not None and self.is_part(t.name, name) for t in p)]

    def is_part(self, table: str, of: str) -> bool:
        """Whether it is that table, or a shadow table of that virtual one: these are named after it."""
        if fold(table) == fold(of):
            return True
        return fold(table).startswith(f"{fold(of)}_") and any(
            entry.kind == "table" and not entry.root and fold(entry.name) == fold(of)
            for side in (self.old, self.new)
            for entry in side.schema.entries
        )

    def has_table(self, name: str) -> bool:
        """Whether either version has a table, virtual ones included, of that name."""
        return any(
            entry.kind == "table" and fold(entry.name) == fold(name)
            for side in (self.old, self.new)
            for entry in side.schema.entries
        )

    def differences(self, table: str | None = None) -> Iterator[Difference]:
        """Changes of the schema, then of the rows, table by table, by key; of one table if it is named."""
        for change in self.schema_changes():
            if table is None or (change.kind != "pragma" and self.is_part(change.table, table)):
                yield change
        for pair in self.tables(table):
            yield from self.rows(pair)

    def rows(self, pair: Pair) -> Iterator[RowChange]:
        """The changes of one table's rows, by key."""
        if pair.old is not None and pair.new is not None and pair.is_same:
            if self.changed:
                yield from self._changed_rows(pair.name, pair.old, pair.new)
            return
        merge = Merge(pair.name, trust_chains=True)
        for shape, side in ((pair.old, self.old), (pair.new, self.new)):
            if shape is not None:
                whole = self._side(side, shape, None, None)
                yield from merge.changes(*((whole, None) if side is self.old else (None, whole)))

    def all_rows(self, table: Table) -> Iterator[RowChange]:
        """Every row of a table of the newer version, as an insertion."""
        yield from Merge(table.name, trust_chains=True).changes(None, self._side(self.new, table, None, None))

    def touched(self) -> set[str]:
        """The tables of which a page was written, or one of their indexes; `sqlite_schema` is one of them."""
        found = set()
        if not (
            self.changed.isdisjoint(self.old.schema.pages) and self.changed.isdisjoint(self.new.schema.pages)
        ):
            found.add(schema.NAME)
        for side in (self.old, self.new):
            for candidate in candidates(side.schema):
                if candidate.owner not in found and self._has_changed(side, candidate):
                    found.add(candidate.owner)
        for pair in self.tables():
            if pair.new is not None and pair.name not in found and self._extra(pair.new):
                found.add(pair.name)
        return found

    # ---- changed pages ----

    @property
    def _is_guided(self) -> bool:
        few = len(self.changed) * self.namespace.page_size <= _GUIDED_BYTES
        return few and self.highest < FIRST_AMBIGUOUS_PAGE

    def _has_changed(self, side: _Version, candidate: Candidate) -> bool:
        if self._is_guided:
            return candidate.root in self._places(side, candidate.is_index)
        leaves = Tree(side.snapshot, candidate.root, candidate.is_index).leaves(self.changed)
        return next(leaves, None) is not None

    def _changed_rows(self, name: str, old: Table, new: Table) -> Iterator[RowChange]:
        merge = Merge(name, trust_chains=not self._suspicious())
        if old.root != new.root:  # what has not changed may have been another table's: see ALTER TABLE RENAME
            yield from merge.changes(
                self._side(self.old, old, None, None), self._side(self.new, new, None, None)
            )
            return
        extra = self._extra(new)
        yield from merge.changes(
            self._changed_side(self.old, old, extra), self._changed_side(self.new, new, extra)
        )

    def _changed_side(self, side: _Version, shape: Table, extra: list[Held]) -> Side:
        """The rows on changed pages, and those on the pages of `extra`."""
        also = {held.number for held in extra}
        if not self._is_guided:
            pages = _Either(self.changed, PageBits(also)) if also else self.changed
            return self._side(side, shape, pages, None)
        found = self._places(side, shape.is_index).get(shape.root, Place())
        place = Place(found.pages | also, [*found.cells, *(held.cell for held in extra)], found.blind)
        if not place.pages:
            return Side(side.snapshot, shape, iter(()))
        return self._side(side, shape, place.pages, place.guide(Candidate(shape.root, shape.name, shape)))

    def _side(self, side: _Version, shape: Table, pages: Container[int] | None, guide: Guide | None) -> Side:
        tree = Tree(side.snapshot, shape.root, shape.is_index)
        return Side(side.snapshot, shape, tree.cells(tree.leaves(pages, guide)))

    def _places(self, side: _Version, is_index: bool) -> dict[int, Place]:
        if is_index not in side.places:
            among = [candidate for candidate in candidates(side.schema) if candidate.is_index == is_index]
            side.places[is_index] = self._locate(side, among, self.changed if is_index else self._with_rows)
        return side.places[is_index]

    @functools.cached_property
    def _with_rows(self) -> PageBits:
        """The changed pages, without those that are only an index's where that is known."""
        earlier = min((self.old.snapshot, self.new.snapshot), key=lambda snapshot: snapshot.version)
        return with_rows(self._known, earlier, self.highest) if self._is_guided else self.changed

    def _locate(self, side: _Version, among: list[Candidate], pages: PageBits) -> dict[int, Place]:
        numbers = [number for number in pages if number not in side.schema.pages]
        contents = {
            number: content
            for number, content in zip(numbers, side.snapshot.find(numbers), strict=True)
            if content is not None and number not in self._suspicious() and content[0] in KINDS
        }
        return Locator(side.snapshot, among, contents, self._hints).locate()

    # ---- overflow pages ----

    def _suspicious(self) -> PageBits:
        if self._written_over is None:
            old, new = self.old.snapshot, self.new.snapshot
            self._written_over = overflow.suspicious(old, new, self._with_rows, self.highest)
            left = self._written_over
            for snapshot in (new, old):
                if left and self.highest < FIRST_AMBIGUOUS_PAGE:
                    left = overflow.without_explained(left, snapshot, self.changed)
            self._unexplained = left
            if left and self.highest < FIRST_AMBIGUOUS_PAGE:
                self._look_nearby()
        return self._written_over

    def _look_nearby(self) -> None:
        """Find rows whose overflow pages changed, and their trees, without a search through all of them."""
        side = self.new
        found = list(overflow.nearby_owners(self._unexplained, side.snapshot))
        numbers = list({held.number for held, _ in found})
        contents = dict(zip(numbers, side.snapshot.read(numbers, "it was there before"), strict=True))
        places = Locator(side.snapshot, candidates(side.schema), contents, self._hints).locate()
        for held, chain in found:
            for root, place in places.items():
                if held.number in place.pages:
                    self._nearby[root].append(held)
                    for number in chain:
                        self._unexplained.discard(number)

    def _extra(self, table: Table) -> list[Held]:
        """Rows of pages that did not change, whose overflow pages did."""
        if table.root not in self._owners:
            self._suspicious()
            tree = Tree(self.new.snapshot, table.root, table.is_index)
            found = list(overflow.owners(self._unexplained, tree)) if self._unexplained else []
            self._owners[table.root] = found + self._nearby[table.root]
        return self._owners[table.root]


class _Either:
    """Two sets of pages as one."""

    def __init__(self, one: PageBits, other: PageBits) -> None:
        self._sets = one, other

    def __contains__(self, number: object) -> bool:
        return any(number in pages for pages in self._sets)


def compare(store: Store, namespace: Namespace, old: Version, new: Version) -> Comparison:
    """Two versions of a database.  Raises BelowHorizonError, NoSuchVersionError and as `Comparison` does."""
    earlier, later = min(old, new), max(old, new)
    changed = Changed()
    for change in store.changelog(namespace.id, after=earlier, until=later):
        changed.add(change)
    highest = highest_page(store, namespace, later, changed.pages)
    if earlier < store.open(namespace.name).horizon:  # a tagged version: the changelog after it has gaps
        highest = max(highest, highest_page(store, namespace, earlier, ()))
        changed = everything(highest)
    return Comparison(store, namespace, old, new, changed, highest)


def highest_page(store: Store, namespace: Namespace, version: Version, changed: Iterable[int]) -> int:
    """No page of that version, nor one of these, has a higher number."""
    return max(store.allocation(namespace.id, version).highest, max(changed, default=0))
