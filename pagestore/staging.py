"""Staging: pages of a commit that is too large for one engine transaction, kept until it comes.

Called by `store`, and by `commit` for the check.  Calls the engine in small transactions.

1. Nobody sees a staged page before the commit with its token has happened (`bulk` says what then).
2. A stage is a head, an index and the pages.  The head is written first and removed last; the index tells
   which pages there are, so that a commit can be held to what was staged without reading it.
3. A stage is open, committed or ended, as its head says.  Whoever stages, commits or collects reads the head
   with conflict: a stage that was collected can't be committed, and one that was committed is not collected.
4. An open stage that nobody added to for `STAGE_SECONDS` is collected by whoever stages next.

Head: state (one byte: 0 open, 1 committed, 2 ended), Unix µs of the last addition (8 bytes, big-endian).
Index block n: two bitmaps of `BLOCK` bits, lowest bit first: which of the pages from n * BLOCK on are staged,
and which of these are freed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pagestore import encoding, keys
from pagestore.api import (
    TOKEN_SIZE,
    InvalidRequestError,
    NamespaceId,
    PageNumber,
    PageWrite,
    VoidTokenError,
    runs_in,
)
from pagestore.engines.base import Engine, KeyRange, Snapshot, Transaction
from pagestore.faults import fault
from pagestore.namespaces import rely_on

STAGE_SECONDS = 3600.0
"""How long what is staged waits for its commit."""

STEP_BYTES = 1_000_000
"""What one engine transaction stages or removes, roughly."""

BLOCK = 8192
"""Pages of an index block."""

_OPEN, _COMMITTED, _ENDED = range(3)
_HALF = BLOCK // 8
_STEP_ROWS = 1000
_TOUCH_US = 60_000_000
"""The head's time is moved on no more often than this."""


def _now_us() -> int:
    return time.time_ns() // 1000


def _head(state: int) -> bytes:
    return bytes((state,)) + _now_us().to_bytes(8, "big")


def _age_us(head: bytes) -> int:
    return _now_us() - int.from_bytes(head[1:], "big")


def _ask_with_conflict(tx: Transaction, key: bytes) -> Callable[[], bytes | None]:
    tx.add_read_conflict(key, key + b"\0")
    return tx.ask(key)


class _Block:
    """Bitmaps while they are changed."""

    def __init__(self, packed: bytes | None) -> None:
        bits = packed or bytes(2 * _HALF)
        self._staged = int.from_bytes(bits[:_HALF], "little")
        self._freed = int.from_bytes(bits[_HALF:], "little")

    def add(self, number: int, freed: bool) -> bool:
        """Whether it was there before."""
        bit = 1 << number % BLOCK
        before = bool(self._staged & bit)
        self._staged |= bit
        self._freed = self._freed | bit if freed else self._freed & ~bit
        return before

    def fits(self, wanted: Wanted) -> bool:
        listed = self._staged == wanted.staged and not wanted.freed & ~self._freed
        return listed and not wanted.allocated & self._freed

    def pack(self) -> bytes:
        return self._staged.to_bytes(_HALF, "little") + self._freed.to_bytes(_HALF, "little")


# ---- adding ----


def stage(
    engine: Engine, id_: NamespaceId, token: bytes, writes: Sequence[PageWrite], timeout: float
) -> bool:
    """See `Store.stage`; whether this was the first time under this token."""
    if len(token) != TOKEN_SIZE:
        raise InvalidRequestError(f"a token has {TOKEN_SIZE} bytes")
    for number, blob in writes:
        if not 1 <= number <= encoding.MAX_PAGE:
            raise InvalidRequestError(f"page numbers are 1 to {encoding.MAX_PAGE}")
        encoding.check(number, blob, encoding.MAX_PAGE_SIZE)
    first = False
    for step in _steps(writes):
        started = engine.transact(
            lambda tx, step=step: _stage_step(tx, id_, token, step),  # type: ignore[misc]
            durability="normal",  # the commit's own flush covers it
            timeout=timeout,
        )
        first = first or started.value
        fault("stage.step")
    return first


def _steps(writes: Iterable[PageWrite]) -> Iterator[dict[PageNumber, bytes]]:
    step: dict[PageNumber, bytes] = {}
    size = 0
    for number, blob in writes:
        step[number] = blob
        size += len(blob)
        if size >= STEP_BYTES or len(step) >= _STEP_ROWS:
            yield step
            step, size = {}, 0
    if step:
        yield step


def _stage_step(tx: Transaction, id_: NamespaceId, token: bytes, step: dict[PageNumber, bytes]) -> bool:
    head_key = keys.stage_head(id_, token)
    head = _ask_with_conflict(tx, head_key)
    happened = _ask_with_conflict(tx, keys.token(id_, token))
    wanted = sorted({number // BLOCK for number in step})
    packed = [(n, _ask_with_conflict(tx, keys.stage_index(id_, token, n))) for n in wanted]
    record = rely_on(tx, id_)
    if happened() == keys.VOID_TOKEN:
        raise VoidTokenError("this commit was given up: its outcome was asked for before it happened")
    found = head()
    if happened() is not None or (found is not None and found[0] != _OPEN):
        raise InvalidRequestError("the commit of this token has happened, or its stage was collected")
    if found is None or _age_us(found) > _TOUCH_US:
        tx.set(head_key, _head(_OPEN))
    blocks = {n: _Block(bits()) for n, bits in packed}
    for number, blob in step.items():
        if record.page_size:
            encoding.check(number, blob, record.page_size)
        key = keys.staged(id_, token, number)
        if blocks[number // BLOCK].add(number, encoding.is_freed(blob)):
            tx.clear(key)
        tx.set_new(key, blob)
    for n, block in blocks.items():
        tx.set(keys.stage_index(id_, token, n), block.pack())
    return found is None


# ---- committing ----


class Stage(NamedTuple):
    """What a commit looks at, under way."""

    head: Callable[[], bytes | None]
    blocks: Iterator[tuple[bytes, bytes]]


def ask(tx: Transaction, id_: NamespaceId, token: bytes) -> Stage:
    """The index needs no conflict of its own: whoever changes it reads the head, which a commit sets."""
    head = _ask_with_conflict(tx, keys.stage_head(id_, token))
    return Stage(head, tx.scan(KeyRange(*keys.stage_indexes(id_, token))))


class Wanted(NamedTuple):
    """Bitmaps of a block, by what a commit lists."""

    staged: int
    freed: int
    allocated: int


def wanted_index(
    staged: Sequence[PageNumber], freed: Sequence[PageNumber], allocated: Sequence[PageNumber]
) -> dict[int, Wanted]:
    """What the index of a stage has to be, by block; of the other lists only what is staged counts."""
    bits: dict[int, list[int]] = {n: [mask, 0, 0] for n, mask in _masks(staged)}
    for which, numbers in enumerate((freed, allocated), start=1):
        for n, mask in _masks(numbers):
            if n in bits:
                bits[n][which] = bits[n][0] & mask
    return {n: Wanted(*block) for n, block in bits.items()}


def _masks(ascending: Sequence[PageNumber]) -> Iterator[tuple[int, int]]:
    """The blocks that the numbers are in, and their bits there."""
    block = bits = 0
    for first, length in runs_in(ascending):
        at, end = int(first), first + length
        while at < end:
            if at // BLOCK != block:
                if bits:
                    yield block, bits
                block, bits = at // BLOCK, 0
            size = min(end, (block + 1) * BLOCK) - at
            bits |= ((1 << size) - 1) << at % BLOCK
            at += size
    if bits:
        yield block, bits


def check(stage: Stage, token: bytes, wanted: dict[int, Wanted]) -> None:
    """For a commit: whether exactly the pages that it lists are staged, and freed or not as it lists them."""
    head = stage.head()
    if head is None or head[0] != _OPEN:
        raise InvalidRequestError(
            "the staged pages of this commit are not there: "
            f"they were never staged, or collected after {STAGE_SECONDS:.0f} s"
        )
    found = {keys.block_of_index(key, token): _Block(bits) for key, bits in stage.blocks}
    if found.keys() != wanted.keys() or not all(found[n].fits(block) for n, block in wanted.items()):
        raise InvalidRequestError("what was staged for this commit is not what it lists")


def mark_committed(tx: Transaction, id_: NamespaceId, token: bytes) -> None:
    tx.set(keys.stage_head(id_, token), _head(_COMMITTED))


# ---- removing ----


def clear(tx: Transaction, id_: NamespaceId, token: bytes) -> None:
    """Remove head and index of a stage whose pages are gone."""
    tx.clear_range(*keys.stage_indexes(id_, token))
    tx.clear(keys.stage_head(id_, token))


def discard(engine: Engine, id_: NamespaceId, token: bytes, timeout: float, older_us: int = 0) -> None:
    """Remove a stage that is not committed, and to which nothing was added for `older_us`."""

    def end(tx: Transaction) -> bool:
        key = keys.stage_head(id_, token)
        head = _ask_with_conflict(tx, key)()
        if head is None or head[0] == _COMMITTED or (head[0] == _OPEN and _age_us(head) < older_us):
            return False
        tx.set(key, _head(_ENDED))
        return True

    def step(tx: Transaction) -> bool:
        begin, last = keys.staged_pages(id_, token)
        if not engine.clears_ranges_at_once:
            found = [key for key, _ in tx.scan(KeyRange(begin, last, _STEP_ROWS))]
            if found:
                tx.clear_range(begin, found[-1] + b"\0")
                return True
        tx.clear_range(begin, last)
        clear(tx, id_, token)
        return False

    if engine.transact(end, durability="normal", timeout=timeout).value:
        fault("stage.ended")
        while engine.transact(step, durability="normal", timeout=timeout).value:
            fault("stage.step_removed")


def tokens(tx: Snapshot, id_: NamespaceId) -> list[bytes]:
    """Under which something is staged."""
    found: list[bytes] = []
    begin, end = keys.stages(id_)
    while row := next(iter(tx.scan(KeyRange(begin, end, 1))), None):
        found.append(keys.token_of_staged(row[0]))
        begin = keys.staged_pages(id_, found[-1])[1]
    return found


def collect(engine: Engine, id_: NamespaceId, timeout: float) -> None:
    """Remove what was staged and never committed, once it is old enough."""
    for token in engine.read(lambda tx: tokens(tx, id_), timeout=timeout):
        discard(engine, id_, token, timeout, round(STAGE_SECONDS * 1e6))
