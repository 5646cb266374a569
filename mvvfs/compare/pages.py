"""A database's pages as of one version, read in batches; sets of page numbers; payloads across pages.

Called by `schema`, `walk`, `locate` and `merge`; calls `Store.read` and the page codec.

1. A page that has not changed between the two versions of a comparison is read once for both of them.
2. What is cached is bounded in bytes; what is cached and what is not makes no difference to a result.
3. A chain of overflow pages ends where its payload does; a circle, or an end too early, is an error.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mvvfs.compare.btree import Cell
from mvvfs.compare.records import ENCODINGS, Encoding
from pagestore.api import CorruptPageError, NamespaceId, PageNumber, Store, Version, format_version
from pagestore.encoding import decode

_CACHE_BYTES = 8 << 20
_BATCH_BYTES = 1 << 20
_MOST_AHEAD = 64
_RESERVED_BYTES, _SCHEMA_FORMAT, _ENCODING = 20, slice(44, 48), slice(56, 60)
"""In page 1: https://www.sqlite.org/fileformat2.html#the_database_header."""
_SMALLEST_USABLE = 480


class PageBits:
    """A set of page numbers: a few as they are, many in one bit for each page of the database."""

    _MOST_FEW = 4096

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._few: set[int] | None = set()
        self._bits = bytearray()
        self._count = 0
        self.update(numbers)

    def add(self, number: int) -> None:
        if self._few is not None:
            self._few.add(number)
            if len(self._few) <= self._MOST_FEW:
                return
            many, self._few = self._few, None
            for one in many:
                self._set(one)
        else:
            self._set(number)

    def _set(self, number: int) -> None:
        byte, bit = number >> 3, 1 << (number & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + (len(self._bits) >> 2)))
        if not self._bits[byte] & bit:
            self._bits[byte] |= bit
            self._count += 1

    def update(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.add(number)

    def discard(self, number: int) -> None:
        if self._few is not None:
            self._few.discard(number)
        elif number in self:
            self._bits[number >> 3] &= ~(1 << (number & 7))
            self._count -= 1

    def remove(self, numbers: Iterable[int]) -> None:
        """Those of them that are in it."""
        if self:
            for number in numbers:
                self.discard(number)

    def isdisjoint(self, numbers: Iterable[int]) -> bool:
        return not any(number in self for number in numbers)

    def __contains__(self, number: object) -> bool:
        if self._few is not None:
            return number in self._few
        assert isinstance(number, int)
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << (number & 7))

    def __len__(self) -> int:
        return self._count if self._few is None else len(self._few)

    def __iter__(self) -> Iterator[int]:
        """Ascending.  The set must not change meanwhile."""
        if self._few is not None:
            yield from sorted(self._few)
            return
        for at, byte in enumerate(self._bits):
            if byte:
                yield from (at << 3 | bit for bit in range(8) if byte >> bit & 1)


class Cache:
    """The contents of pages, the ones used last."""

    def __init__(self, limit: int = _CACHE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._pages: OrderedDict[int, bytes | None] = OrderedDict()

    def __contains__(self, number: object) -> bool:
        return number in self._pages

    def get(self, number: int) -> bytes | None:
        self._pages.move_to_end(number)
        return self._pages[number]

    def put(self, number: int, content: bytes | None) -> None:
        self.pop(number)
        self._pages[number] = content
        self._size += len(content or b"")
        while self._size > self._limit:
            self._size -= len(self._pages.popitem(last=False)[1] or b"")

    def pop(self, number: int) -> bytes | None:
        content = self._pages.pop(number, None)
        self._size -= len(content or b"")
        return content

    def items(self) -> list[tuple[int, bytes | None]]:
        return list(self._pages.items())


class Snapshot:
    """The pages as of one version: one side of a comparison."""

    def __init__(
        self,
        store: Store,
        namespace: NamespaceId,
        version: Version,
        page_size: int,
        changed: PageBits,
        absent: PageBits,
        shared: Cache,
        own: Cache | None = None,
    ) -> None:
        """`page_size` in bytes; 0: there has not been a commit.  `absent`: changed pages that are known
        not to be there.  `own`: contents of changed pages."""
        self.store = store
        self.namespace = namespace
        self.version = version
        self.page_size = page_size
        self.changed = changed
        self._absent = absent
        self.shared = shared
        """Pages that are the same on both sides."""
        self.own = own or Cache()
        self.batch = max(_BATCH_BYTES // max(page_size, 1), 1)
        """How many pages to read at once."""
        first = self.find([1])[0]
        self.is_empty = first is None
        self.usable = page_size
        self.encoding: Encoding = "utf-8"
        self.schema_format = 4
        if first is not None:
            self._read_header(first)

    def _read_header(self, first: bytes) -> None:
        self.usable = self.page_size - first[_RESERVED_BYTES]
        self.schema_format = int.from_bytes(first[_SCHEMA_FORMAT], "big")
        number = int.from_bytes(first[_ENCODING], "big")
        if self.usable < _SMALLEST_USABLE or number not in ENCODINGS:
            raise self.corrupt(1, "a database header that SQLite would not have written")
        self.encoding = ENCODINGS[number]

    def corrupt(self, number: int, why: object) -> CorruptPageError:
        return CorruptPageError(f"page {number} as of {format_version(self.version)}: {why}")

    def find(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The contents of pages; None where there is no such page.  Raises what `Store.read` raises."""
        found: dict[int, bytes | None] = {}
        missing = []
        for number in numbers:
            cache = self._cache(number)
            if number in cache:
                found[number] = cache.get(number)
            elif number not in found:
                found[number] = None
                if number not in self._absent:
                    missing.append(PageNumber(number))
        for at in range(0, len(missing), self.batch):
            part = missing[at : at + self.batch]
            for number, page in zip(part, self.store.read(self.namespace, self.version, part), strict=True):
                content = None if page is None else decode(page, self.page_size)
                found[number] = content
                self._cache(number).put(number, content)
        return [found[number] for number in numbers]

    def _cache(self, number: int) -> Cache:
        return self.own if number in self.changed else self.shared

    def read(self, numbers: Sequence[int], why: str) -> list[bytes]:
        """The same, where the pages must exist, because of `why`.  Raises CorruptPageError as well."""
        contents = []
        for number, content in zip(numbers, self.find(numbers), strict=True):
            if content is None:
                raise self.corrupt(number, f"it is missing, though {why}")
            contents.append(content)
        return contents


class Payload(NamedTuple):
    data: bytes
    pages: list[int]
    """The overflow pages, in order."""


class _Chain:
    """A payload being put together."""

    def __init__(self, holder: int, cell: Cell) -> None:
        self.holder = holder
        self.pieces = [cell.local]
        self.missing = cell.size - len(cell.local)
        self.next = cell.overflow
        self.pages: list[int] = []
        self._seen: set[int] = set()
        self._ahead = 1

    def wishes(self, room: int) -> range:
        """Pages to read: the next one, and those behind it if it has been going on like that."""
        left = -(-self.missing // room)
        return range(self.next, self.next + min(self._ahead, left))

    def take(self, content: bytes, snapshot: Snapshot) -> None:
        number, room = self.next, snapshot.usable - 4
        if number in self._seen:
            raise snapshot.corrupt(number, f"its chain, of page {self.holder}, goes in a circle")
        self._seen.add(number)
        self.pages.append(number)
        size = min(room, self.missing)
        self.pieces.append(content[4 : 4 + size])
        self.missing -= size
        self.next = int.from_bytes(content[:4], "big")
        if (self.next == 0) != (self.missing == 0) or self.next == 1:
            raise snapshot.corrupt(number, f"its chain, of page {self.holder}, ends in the wrong place")
        self._ahead = min(self._ahead * 2, _MOST_AHEAD) if self.next == number + 1 else 1


def payloads(snapshot: Snapshot, held: Sequence[tuple[int, Cell]]) -> list[Payload]:
    """The whole payloads of cells, given with the pages that hold them; all their chains at once.

    Takes memory for all of them.  Raises CorruptPageError and what `Store.read` raises."""
    chains = [_Chain(number, cell) for number, cell in held]
    going = [chain for chain in chains if chain.missing]
    room = snapshot.usable - 4
    while going:
        wanted = [number for chain in going for number in chain.wishes(room)]
        contents = dict(zip(wanted, snapshot.find(wanted), strict=True))
        for chain in going:
            while chain.missing and chain.next in contents:
                content = contents[chain.next]
                if content is None:
                    raise snapshot.corrupt(
                        chain.next, f"it is missing, though page {chain.holder} goes on there"
                    )
                chain.take(content, snapshot)
        going = [chain for chain in going if chain.missing]
    return [Payload(b"".join(chain.pieces), chain.pages) for chain in chains]
