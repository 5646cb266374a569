"""The small codecs: changelog records, namespace records, the clock, the format key."""

from __future__ import annotations

import json
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pagestore import changelog, format, keys, namespaces
from pagestore.api import (
    Change,
    CorruptPageError,
    FormatError,
    ListedChanges,
    NamespaceId,
    PageNumber,
    PageRuns,
    PageSet,
    Version,
    format_version,
    parse_version,
)
from pagestore.engines import clock
from pagestore.engines.base import Transaction
from pagestore.engines.clock import START, Clock, Place
from pagestore.engines.memory import MemoryEngine

V = Version(bytes(9) + b"\5")
TOKEN = bytes(range(16))
NAMESPACE = NamespaceId(3)


@given(
    st.sets(st.integers(0, 2**32 - 2), min_size=1, max_size=50),
    st.text(max_size=200),
    st.integers(0, 2**60),
)
def test_changelog_records_come_back(pages: set[int], message: str, time_us: int) -> None:
    record = changelog.Record(sorted(pages), TOKEN, message).at(time_us)
    assert changelog.read(V, record) == Change(V, time_us, tuple(sorted(pages)), TOKEN, message)


def test_changelog_example_of_the_module() -> None:
    record = changelog.Record([0, 3], TOKEN, "").at(0x00064412F3A9B400)
    assert record.hex() == "01" + "00064412f3a9b400" + TOKEN.hex() + "0003"
    record = changelog.Record([3, 9], TOKEN, "", [9], index_pages=[9]).at(0x00064412F3A9B400)
    assert record.hex() == "51" + "00064412f3a9b400" + TOKEN.hex() + "0000000100000000" + "09" + "0309" + "02"
    assert changelog.read(V, record).index_pages == (9,)


@given(st.sets(st.integers(0, 2**32 - 2), min_size=1, max_size=50), st.randoms(), st.text(max_size=9))
def test_index_pages_come_back(pages: set[int], chance: random.Random, message: str) -> None:
    chosen = [page for page in pages if chance.random() < 0.5]
    record = changelog.Record(sorted(pages), TOKEN, message, index_pages=chosen).at(5)
    change = changelog.read(V, record)
    assert (change.pages, change.index_pages) == (tuple(sorted(pages)), tuple(sorted(chosen)))
    without = changelog.Record(sorted(pages), TOKEN, message).at(5)
    assert changelog.Rows([V], [record]).packed == changelog.Rows([V], [without]).packed
    assert len(record) - len(without) == ((len(pages) + 7) // 8 if chosen else 0)


@pytest.mark.parametrize(("rest", "why"), [(b"\3", "cut short"), (b"\3\2", "bits of pages")])
def test_index_pages_that_do_not_fit(rest: bytes, why: str) -> None:
    with pytest.raises(CorruptPageError, match=why):
        changelog.read(V, b"\x11" + bytes(24) + rest)


@pytest.mark.parametrize("record", [b"", b"\1" * 10, b"\3" + bytes(24) + b"\1", b"\2" + bytes(24) + b"\1"])
def test_a_damaged_changelog_record_is_corrupt(record: bytes) -> None:
    with pytest.raises(CorruptPageError, match=r"changelog record of v0{19}5"):
        changelog.read(V, record)


_numbers = st.sets(st.integers(0, 2**32 - 2), max_size=5) | st.sets(st.integers(0, 255), max_size=5)


@given(st.lists(st.tuples(_numbers.filter(bool), _numbers, _numbers, st.text(max_size=9))), st.binary())
def test_rows_are_the_changes_that_they_hold(
    commits: list[tuple[set[int], set[int], set[int], str]], touched: bytes
) -> None:
    records = []
    for pages, allocated, freed, message in commits:
        everything = pages | allocated | freed
        lists = [sorted(numbers) for numbers in (everything, allocated, freed)]
        records.append(changelog.Record(lists[0], TOKEN, message, *lists[1:]).at(5))
    versions = [Version(n.to_bytes(10, "big")) for n in range(1, len(records) + 1)]
    rows = changelog.Rows(versions, records)
    listed = ListedChanges(map(changelog.read, versions, records))
    assert rows == listed
    assert rows.packed == listed.packed
    assert rows[:2] + rows[2:] == rows
    assert (rows[:2] + rows[2:]).packed == rows.packed
    numbers = PageSet.of([*touched, *(next(iter(pages)) + 1 for pages, *_ in commits)])
    assert rows.meet(numbers.packed) is any(number in numbers for each in listed for number in each.pages)


def test_rows_equal_what_is_equal() -> None:
    rows = changelog.Rows([V], [changelog.Record([3], TOKEN, "").at(5)])
    assert rows == (Change(V, 5, (PageNumber(3),), TOKEN, ""),)
    assert changelog.Rows() == ()
    assert rows != ()
    assert rows != 5
    assert rows[-1].pages == (3,)


@pytest.mark.parametrize(
    "record",
    [b"", b"\1" * 10, b"\3" + bytes(24) + b"\1", b"\2" + bytes(24) + b"\1", b"\x41" + bytes(27) + b"\2"],
)
def test_a_damaged_record_among_rows_is_named(record: bytes) -> None:
    good = changelog.Record([3], TOKEN, "").at(5)
    rows = changelog.Rows([Version(bytes(10)), V], [good, record])
    with pytest.raises(CorruptPageError, match=r"changelog record of v0{19}5"):
        _ = rows.packed


# ---- records in pieces ----


def numbers(first: int, end: int, step: int = 1) -> PageRuns:
    return PageRuns.of(range(first, end, step))


def kept(record: changelog.Record | None, pieces: list[bytes] | None = None) -> MemoryEngine:
    """An engine that holds the pieces of a record."""
    engine = MemoryEngine()

    def write(tx: Transaction) -> None:
        for n, piece in enumerate(record.pieces if record is not None else pieces or ()):
            tx.set(keys.more_prefix(NAMESPACE) + V + keys.more_suffix(n), piece)

    engine.transact(write)
    return engine


def change_in(engine: MemoryEngine, record: bytes) -> Change:
    key = keys.log_prefix(NAMESPACE) + V + keys.VERSION_SUFFIX
    return engine.read(lambda tx: changelog.change_of(tx, NAMESPACE, key, record))


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("message", ["", "a large one"])
def test_a_long_record_comes_back_as_runs(step: int, message: str) -> None:
    pages = numbers(1, 200_000, step)
    record = changelog.Record(pages, TOKEN, message, pages[:-1], pages[-1:])
    engine = kept(record)
    assert all(len(piece) <= changelog.MAX_RECORD for piece in record.pieces)
    assert record.size == len(record.at(7)) + sum(map(len, record.pieces))
    change = change_in(engine, record.at(7))
    assert isinstance(change.pages, PageRuns)
    assert change == Change(V, 7, tuple(pages), TOKEN, message, tuple(pages[:-1]), tuple(pages[-1:]))
    whole = engine.read(lambda tx: changelog.whole(tx, NAMESPACE, V, record.at(7)))
    assert changelog.read(V, whole) == change
    assert len(whole) == changelog.size_of(record.at(7))
    assert changelog.Rows([V], [whole]).packed == ListedChanges([change]).packed


def test_a_long_record_of_few_runs_is_small() -> None:
    pages = PageRuns([(1, 5_000_000)])
    record = changelog.Record(pages, TOKEN, "", pages)
    assert record.size < 200
    assert changelog.size_of(record.at(7)) == 25 + 8 + 2 * 4 * 5_000_000
    assert change_in(kept(record), record.at(7)) == Change(V, 7, pages, TOKEN, "", pages)


@pytest.mark.parametrize("message", ["", "made by an earlier release"])
def test_a_long_record_that_lists_its_numbers(message: str) -> None:
    """As it was written before there were runs in them."""
    pages = numbers(1, 60_000, 3)
    text = message.encode()
    flags = 2 | 0x40 | 0x20 | (0x80 if message else 0)
    body = len(text).to_bytes(2, "big") + text if message else b""
    body += (1000).to_bytes(4, "big") + (1).to_bytes(4, "big")
    for listed in (pages[:1000], pages[-1:], pages):
        body += b"".join(number.to_bytes(2, "big") for number in listed)
    rest = zstandard.ZstdCompressor(write_checksum=True).compress(body)
    start = (7).to_bytes(8, "big") + TOKEN
    head = bytes([flags]) + start + (25 + len(body)).to_bytes(4, "big")
    engine = kept(None, [rest[:5000], rest[5000:]])
    assert change_in(engine, head) == Change(V, 7, pages, TOKEN, message, pages[:1000], pages[-1:])
    whole = engine.read(lambda tx: changelog.whole(tx, NAMESPACE, V, head))
    assert whole == bytes([flags & ~0x20]) + start + body


def test_a_short_record_has_no_pieces() -> None:
    record = changelog.Record([3], TOKEN, "")
    assert record.pieces == []
    assert change_in(kept(record), record.at(7)).pages == (3,)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "longer", "shorter"])
def test_a_damaged_piece_is_told(damage: str) -> None:
    record = changelog.Record(numbers(1, 90_000, 7), TOKEN, "")
    head, (piece,) = record.at(7), record.pieces
    size = changelog.size_of(head) + {"longer": 4, "shorter": -4}.get(damage, 0)
    damaged = {"missing": [], "cut": [piece[:-9]], "changed": [piece[:90] + b"?" + piece[91:]]}
    engine = kept(None, damaged.get(damage, [piece]))
    for look in (
        lambda: change_in(engine, head[:-4] + size.to_bytes(4, "big")),
        lambda: engine.read(
            lambda tx: changelog.whole(tx, NAMESPACE, V, head[:-4] + size.to_bytes(4, "big"))
        ),
    ):
        with pytest.raises(CorruptPageError, match="changelog record of v"):
            look()


@given(st.integers(0, 65536), st.integers(0, 2**60), st.booleans())
def test_namespace_records_come_back(page_size: int, created_us: int, dropped: bool) -> None:
    record = namespaces.Record(page_size, created_us, V, V, dropped)
    assert namespaces.unpack(record.pack()) == record


def test_versions_count_up_in_one_place() -> None:
    here = Place(b"boot" * 4, 1, 2)
    first = clock.next_version(START, here)
    assert first.hex() == "00000001000000000001"
    second = clock.next_version(Clock(first, 0, here), here)
    assert second.hex() == "00000001000000000002"


@pytest.mark.parametrize(
    "there", [Place(b"toob" * 4, 1, 2), Place(b"boot" * 4, 9, 2), Place(b"boot" * 4, 1, 9)]
)
def test_another_boot_or_place_raises_the_epoch(there: Place) -> None:
    here = Place(b"boot" * 4, 1, 2)
    before = Clock(Version(bytes.fromhex("000000070000000000ff")), 0, here)
    assert clock.next_version(before, there).hex() == "00000008000000000001"


def test_clock_records_come_back() -> None:
    state = Clock(V, 123456789, Place(b"boot" * 4, 2**64 - 1, 7))
    assert clock.unpack(clock.pack(state)) == state
    assert clock.unpack(None) == START
    with pytest.raises(FormatError):
        clock.unpack(b"short")
    assert len(clock.boot_id()) == 16


def test_versions_as_text() -> None:
    assert format_version(V) == "v00000000000000000005"
    assert parse_version("v5") == parse_version("v00000000000000000005") == V
    for wrong in ("5", "v", "vx", "v" + "0" * 21, "v 5"):
        with pytest.raises(ValueError, match=r"not a version|non-hexadecimal"):
            parse_version(wrong)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "no page store"),
        (b"junk", "can't be read"),
        (b"[]", "can't be read"),
        (json.dumps({"format": 2, "features": []}).encode(), "format 2"),
        (json.dumps({"format": 1, "features": ["teleport", "zfs"]}).encode(), "teleport, zfs"),
    ],
)
def test_unknown_formats_are_refused(value: bytes | None, what: str) -> None:
    engine = MemoryEngine()
    if value is not None:
        engine.transact(lambda tx: tx.set(keys.FORMAT, value))
    with pytest.raises(FormatError, match=what):
        engine.read(format.check)


def test_a_new_stores_format_is_known() -> None:
    engine = MemoryEngine()
    engine.transact(lambda tx: tx.set(*format.row()))
    engine.read(format.check)
