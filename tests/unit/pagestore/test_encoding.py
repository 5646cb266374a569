"""The page codec: everything comes back, nothing damaged does, and sizes stay in their bounds."""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore import encoding
from pagestore.api import CorruptPageError, InvalidRequestError, PageNumber, StoredPage, Version
from pagestore.encoding import (
    FREED,
    MAX_CHAIN,
    Base,
    chain_of,
    check,
    decode,
    is_freed,
    is_index,
    is_moving,
)

V = Version(bytes(10))
P7 = PageNumber(7)
SIZES = [512, 1024, 4096, 65536]

encode = partial(encoding.encode, moves=True)
encode_many = partial(encoding.encode_many, moves=True)


def stored(*blobs: bytes, number: PageNumber = P7) -> StoredPage:
    return StoredPage(number, V, blobs)


def text_page(size: int) -> bytes:
    return (b"some text that repeats, " * (size // 20))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_whole_pages(size: int) -> None:
    noise = random.Random(1).randbytes(size)
    for content in (bytes(size), noise, text_page(size)):
        blob, chain = encode(P7, content, None)
        assert chain == chain_of(blob) == 0
        assert len(blob) <= size + 7
        assert decode(stored(blob), size) == content
        check(P7, blob, size)
    assert len(encode(P7, text_page(size), None).blob) < size // 4


def test_worked_example_of_the_module() -> None:
    blob = encode(PageNumber(2), bytes(512), None).blob
    assert blob.hex() == "010000924fc32800004d00001000000100fb2ac002"
    assert decode(stored(blob, number=PageNumber(2)), 512) == bytes(512)


@pytest.mark.parametrize("count", [0, 3, 300])
@pytest.mark.parametrize("threads", [1, 2])
def test_many_pages_come_out_as_one_by_one(count: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_THREADS", threads)
    rng = random.Random(count)
    pages = []
    for number in map(PageNumber, range(1, count + 1)):
        content = rng.choice([text_page(4096), rng.randbytes(2048).hex().encode(), rng.randbytes(4096)])
        base = Base(b"\1" + content[1:], 0) if number % 5 == 0 else None
        pages.append((number, content, base))
    one_by_one = [encode(*page) for page in pages]
    assert encode_many(pages) == one_by_one
    buffers = [(number, content if base else memoryview(content), base) for number, content, base in pages]
    assert encode_many(buffers) == one_by_one
    for (number, content, base), encoded in zip(pages, one_by_one, strict=True):
        below = [encode(number, base.content, None).blob] if base else []
        assert decode(stored(encoded.blob, *below, number=number), 4096) == content


@pytest.mark.parametrize("size", SIZES)
def test_a_chain_of_deltas(size: int) -> None:
    rng = random.Random(size)
    content = rng.randbytes(size)
    blob, chain = encode(P7, content, None)
    blobs = [blob]
    for step in range(1, MAX_CHAIN + 2):
        changed = bytearray(content)
        at = rng.randrange(size - 20)
        changed[at : at + 20] = rng.randbytes(20)
        blob, chain = encode(P7, bytes(changed), Base(content, chain))
        content = bytes(changed)
        blobs = [blob, *blobs] if chain else [blob]
        assert chain == step % (MAX_CHAIN + 1)
        assert decode(stored(*blobs), size) == content
        assert len(blob) < 40 or chain == 0
        check(P7, blob, size)


@given(st.data(), st.booleans())
def test_any_change_comes_back(data: st.DataObject, moves: bool) -> None:
    size = data.draw(st.sampled_from([512, 1024]))
    old = data.draw(st.binary(min_size=size, max_size=size))
    new = bytearray(old)
    for at, piece in data.draw(
        st.lists(st.tuples(st.integers(0, size - 1), st.binary(max_size=300)), max_size=5)
    ):
        new[at : at + len(piece)] = piece[: size - at]
    for length, source, to in data.draw(
        st.lists(
            st.tuples(st.integers(1, 300), st.integers(0, size - 1), st.integers(0, size - 1)), max_size=3
        )
    ):
        piece = bytes(new[source : source + length])
        new[to : to + length] = piece[: size - to]
        new = (new + bytes(size))[:size]
    whole = encode(P7, old, None)
    blob, chain = encoding.encode(P7, bytes(new), Base(old, 0), moves=moves)
    check(P7, blob, size)
    assert moves or not is_moving(blob)
    blobs = (blob, whole.blob) if chain else (blob,)
    assert decode(stored(*blobs), size) == bytes(new)


@pytest.mark.parametrize("size", SIZES)
def test_what_moved_is_not_stored_again(size: int) -> None:
    old = random.Random(size).randbytes(size)
    grown = old[: size // 8] + b"a few more bytes" + old[size // 8 : -16]
    shrunk = old[: size // 8] + old[size // 8 + 9 :] + b"the rest "
    swapped = old[size // 2 :] + old[: size // 2]
    for content in (grown, shrunk, swapped):
        moving, plain = (
            encoding.encode(P7, content, Base(old, 3), moves=moves).blob for moves in (True, False)
        )
        assert (is_moving(moving), chain_of(moving), is_moving(plain)) == (True, 4, False)
        assert len(moving) < 7 + 16 + 20 < len(plain)
        assert (
            decode(stored(encode(P7, content, Base(old, 0)).blob, encode(P7, old, None).blob), size)
            == content
        )


def test_a_short_plain_delta_is_left_as_it_is() -> None:
    old = random.Random(1).randbytes(4096)
    new = old[:1000] + old[2000:2100] + old[1100:]  # by a move it would be a few bytes
    assert is_moving(encode(P7, new, Base(old, 0)).blob) is False


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_sqlites_pages_move_their_cells(tmp_path: Path, page_size: int) -> None:
    """Rows that grow and shrink at random; every version of every page comes back from its chain."""
    file, rng = tmp_path / "db", random.Random(page_size)
    db = sqlite3.connect(file, isolation_level=None)
    db.executescript(f"PRAGMA page_size={page_size}; CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    db.executemany(
        "INSERT INTO t(v) VALUES (?)", ((rng.randbytes(rng.randrange(9, 60)),) for _ in range(300))
    )
    chains: dict[int, list[bytes]] = {}
    contents: dict[int, bytes] = {}
    kinds = {True: 0, False: 0}
    for _ in range(200):
        db.execute(
            "UPDATE t SET v=? WHERE id=?", (rng.randbytes(rng.randrange(9, 60)), rng.randrange(300) + 1)
        )
        whole_file = file.read_bytes()
        for at in range(0, len(whole_file), page_size):
            number, content = PageNumber(at // page_size + 1), whole_file[at : at + page_size]
            old = contents.get(number)
            if content == old:
                continue
            base = None if old is None else Base(old, chain_of(chains[number][0]))
            blob, chain = encode(number, content, base)
            check(number, blob, page_size)
            kinds[is_moving(blob)] += 1
            chains[number] = [blob, *chains[number]] if chain else [blob]
            contents[number] = content
            assert decode(stored(*chains[number], number=number), page_size) == content
    db.close()
    assert all(kinds.values())


def test_a_delta_is_refused_where_a_whole_blob_is_better() -> None:
    old, new = (random.Random(n).randbytes(4096) for n in (1, 2))
    assert encode(P7, new, Base(old, 0)).chain == 0


def test_an_unchanged_page_is_a_delta_of_nothing() -> None:
    content = text_page(4096)
    blob, chain = encode(P7, content, Base(content, 0))
    assert (len(blob), chain) == (7, 1)


def test_a_base_of_another_size_is_no_base() -> None:
    assert encode(P7, bytes(1024), Base(bytes(512), 0)).chain == 0


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_damaged_byte_is_noticed_or_does_not_matter(at: int, flip: int) -> None:
    old = random.Random(3).randbytes(512)
    new = b"changed" + old[7:300] + b"here too" + old[308:]
    blobs = [encode(P7, new, Base(old, 0)).blob, encode(P7, old, None).blob]
    for index, blob in enumerate(blobs):
        damaged = bytearray(blob)
        damaged[at % len(blob)] ^= flip
        with suppress(CorruptPageError):
            content = decode(stored(*blobs[:index], bytes(damaged), *blobs[index + 1 :]), 512)
            assert index == 1  # a byte of the older version that the newer one replaces, or its checksum
            assert content == new


@given(st.lists(st.binary(max_size=60), max_size=3), st.sampled_from([0, 7]))
def test_garbage_is_corrupt_and_nothing_else(blobs: list[bytes], number: int) -> None:
    with pytest.raises(CorruptPageError):
        decode(stored(*blobs, number=PageNumber(number)), 512)


def test_a_page_under_another_number_is_corrupt() -> None:
    blob = encode(P7, text_page(512), None).blob
    with pytest.raises(CorruptPageError, match="page 8"):
        decode(stored(blob, number=PageNumber(8)), 512)


def test_a_chain_that_is_cut_is_corrupt() -> None:
    content = text_page(512)
    first = encode(P7, content, None)
    second = encode(P7, b"x" + content[1:], Base(content, 0))
    third = encode(P7, b"yy" + content[2:], Base(b"x" + content[1:], 1))
    for blobs in ([third.blob], [third.blob, first.blob], [third.blob, second.blob], [second.blob]):
        with pytest.raises(CorruptPageError):
            decode(stored(*blobs), 512)


def test_an_encrypted_page_says_so() -> None:
    blob = bytearray(encode(P7, bytes(512), None).blob)
    blob[1] = 5
    with pytest.raises(CorruptPageError, match="encrypted with key 5"):
        decode(stored(bytes(blob)), 512)
    with pytest.raises(InvalidRequestError, match="key 5"):
        check(P7, bytes(blob), 512)


def test_freed() -> None:
    assert is_freed(FREED)
    assert not is_freed(encode(P7, bytes(512), None).blob)
    check(P7, FREED, 512)
    with pytest.raises(CorruptPageError):
        decode(stored(FREED), 512)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\0\0",
        bytes(7 + 513),
        b"\4\0\0" + bytes(4),
        b"\5\0\0" + bytes(4),
        b"\6\0\1" + bytes(4),
        b"\2\0\0" + bytes(4),
        b"\0\0\1" + bytes(4),
        FREED + b"x",
    ],
)
def test_what_no_encoder_makes_is_refused(blob: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        check(P7, blob, 512)


def test_two_megabytes_out_of_one_kilobyte_are_refused() -> None:
    bomb = encode(P7, bytes(65536), None).blob
    with pytest.raises(CorruptPageError):
        decode(stored(bomb), 512)


@pytest.mark.parametrize(
    ("first", "expected"), [(2, True), (10, True), (5, False), (13, False), (0, False), (ord("S"), False)]
)
def test_a_blob_tells_of_an_index_page(first: int, expected: bool) -> None:
    old = bytes([first]) + random.Random(first).randbytes(511)
    new = old[:100] + b"changed" + old[107:]
    zeros = bytes([first]) + bytes(511)
    for content, base in ((old, None), (zeros, None), (new, Base(old, 0))):
        for blob, chain in (encode(P7, content, base), *encode_many([(P7, content, base)])):
            check(P7, blob, 512)
            assert is_index(blob) is expected
            assert is_freed(blob) is False
            below = [encode(P7, old, None).blob] if chain else []
            assert decode(stored(blob, *below), 512) == content
    assert not is_index(FREED)
