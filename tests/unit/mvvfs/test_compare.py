"""The parts of a comparison: records, B-tree pages, keys, sets of pages, columns as SQLite tells them."""

from __future__ import annotations

import math
import random
import struct
from itertools import pairwise

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvvfs.compare import btree, records
from mvvfs.compare.btree import Cell
from mvvfs.compare.pages import Cache, PageBits
from mvvfs.compare.records import Damaged
from mvvfs.compare.script import literal
from mvvfs.compare.shapes import KeyOrder, load
from mvvfs.compare.walk import Guide

EXAMPLE = bytes.fromhex("0501110007 07 6162 3ff8000000000000")

# ---- records ----


def test_the_worked_example():
    assert records.values(EXAMPLE, "utf-8") == [7, "ab", None, 1.5]


def test_a_limit_reads_the_beginning_only():
    assert records.fields(EXAMPLE[:8], 2) == [(1, b"\7"), (17, b"ab")]
    with pytest.raises(Damaged, match="ends within a value"):
        records.fields(EXAMPLE[:8])


@pytest.mark.parametrize("length", range(len(EXAMPLE)))
def test_a_record_that_ends_too_early(length):
    with pytest.raises(Damaged):
        records.values(EXAMPLE[:length], "utf-8")


@pytest.mark.parametrize("payload", [b"\2\x0a", b"\2\x0b", b"\1\1", b"\0", b"\3\x80\x80\x01", b""])
def test_what_is_no_record(payload):
    if payload == b"\1\1":
        assert records.values(payload, "utf-8") == []  # what follows a record is not looked at
        return
    with pytest.raises(Damaged):
        records.values(payload, "utf-8")


@given(st.integers(0, (1 << 64) - 1))
def test_varints(value):
    if value >> 56:
        data = bytes((value >> 8 + 7 * i) & 0x7F | 0x80 for i in range(7, -1, -1)) + bytes((value & 0xFF,))
    else:
        groups = [value & 0x7F]
        while value >> 7 * len(groups):
            groups.append(value >> 7 * len(groups) & 0x7F | 0x80)
        data = bytes(reversed(groups))
    assert records.varint(b"x" + data + b"x", 1) == (value, 1 + len(data))


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)]
)
def test_rowids_have_a_sign(value, expected):
    assert records.signed(value) == expected


def test_nan_is_null():
    assert records.values(b"\2\7" + struct.pack(">d", math.nan), "utf-8") == [None]


@given(st.binary(max_size=20))
def test_any_bytes_survive_as_text(data):
    assert records.encode_text(records.decode_text(data, "utf-8")) == data
    even = data[: len(data) & ~1]
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = records.decode_text(even, encoding)
        except UnicodeDecodeError:
            pytest.fail("text that can't be shown")
        assert records.encode_text(text, encoding) == even


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (0.0, -0.0, False),
        ("a", b"a", False),
        (None, None, True),
        (None, 0, False),
    ],
)
def test_the_same_to_the_bit(one, other, expected):
    assert records.same(one, other) is expected


floats = st.floats(allow_nan=False)


@given(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), floats, st.text(), st.binary()))
def test_literals_come_back_to_the_bit(value):
    connection = apsw.Connection(":memory:")
    (back,) = connection.execute(f"SELECT {literal(value)}").fetchone()
    if value != 0.0 or isinstance(value, int):  # SQLite reads -0.0 as 0.0
        assert records.same(back, value)


# ---- pages ----


def page(sql: str, number: int, *, size: int = 512) -> bytes:
    connection = apsw.Connection(":memory:")
    connection.pragma("page_size", size)
    connection.execute(sql)
    image = connection.serialize("main")
    return image[(number - 1) * size : number * size]


def test_the_rows_of_a_leaf():
    content = page("CREATE TABLE t(a); INSERT INTO t(rowid, a) VALUES (-5, 'x'), (7, zeroblob(2000))", 2)
    small, large = btree.table_leaf(2, content, 512)
    assert (small.rowid, small.size, small.overflow) == (-5, len(small.local), 0)
    assert (large.rowid, large.size) == (7, 2003)
    assert 0 < len(large.local) < 477
    assert large.overflow > 2
    assert btree.cells_of(2, content, 512) == [small, large]


@pytest.mark.parametrize("usable", [480, 512, 1024, 4096, 65536])
def test_how_much_of_a_payload_is_local(usable):
    """The rules of https://www.sqlite.org/fileformat2.html#cell_payload_overflow_pages in their own words."""
    rule = btree.sizes(usable)
    for most in (usable - 35, (usable - 12) * 64 // 255 - 23):
        least = (usable - 12) * 32 // 255 - 23
        for size in (0, least, most, most + 1, most + usable, 10 * usable + 17):
            k = least + (size - least) % (usable - 4)
            expected = size if size <= most else k if k <= most else least
            assert rule.local(size, most) == expected


@pytest.mark.parametrize("seed", range(20))
def test_pages_with_bytes_changed_never_surprise(seed):
    contents = [
        page("CREATE TABLE t(a); INSERT INTO t VALUES ('x'), (zeroblob(2000)), (1.5), (NULL)", 2),
        page(
            "CREATE TABLE t(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES (1, zeroblob(900)), (2, 3)",
            2,
        ),
    ]
    random_ = random.Random(seed)
    for content in contents * 200:
        damaged = bytearray(content)
        for _ in range(random_.choice((1, 2, 8))):
            damaged[random_.randrange(512)] = random_.randrange(256)
        for parse in (btree.table_leaf, btree.index_leaf, btree.table_interior, btree.index_interior):
            try:
                parse(2, bytes(damaged), 512)
            except Damaged:
                continue


def test_a_page_of_another_kind_is_named():
    content = page("CREATE TABLE t(a)", 2)
    with pytest.raises(Damaged, match="a table leaf, where an interior table page belongs"):
        btree.table_interior(2, content, 512)


# ---- keys ----


def key(order: KeyOrder, *values: object) -> object:
    names = ", ".join(f"c{i}" for i in range(len(values)))
    content = page(f"CREATE TABLE t({names}); INSERT INTO t VALUES ({', '.join(map(str, values))})", 2)
    return order.key(btree.table_leaf(2, content, 512)[0].local)


@pytest.mark.parametrize(
    ("collation", "ascending"),
    [
        (
            "BINARY",
            ["NULL", "-1e999", "-5", "0.5", "1", "1.5", "9e999", "''", "'A'", "'a'", "'ä'", "x''", "x'41'"],
        ),
        ("NOCASE", ["NULL", "2", "'A'", "'b'", "'C'", "x'00'"]),
        ("RTRIM", ["'A'", "'B'", "'a'"]),
    ],
)
def test_keys_order_as_in_sqlite(collation, ascending):
    order = KeyOrder([(collation, False)], "utf-8")
    keys = [key(order, value) for value in ascending]
    assert all(a < b for a, b in pairwise(keys))
    backwards = KeyOrder([(collation, True)], "utf-8")
    keys = [key(backwards, value) for value in ascending]
    assert all(b < a for a, b in pairwise(keys))


def test_collations_that_are_not_ours():
    assert key(KeyOrder([("NOCASE", False)], "utf-8"), "'A'") == key(
        KeyOrder([("nocase", False)], "utf-8"), "'a'"
    )
    assert KeyOrder([("binary", True)], "utf-8").exact
    assert not KeyOrder([("NOCASE", False)], "utf-8").exact
    assert not KeyOrder([("german", False)], "utf-8").known


def test_a_key_that_goes_on_elsewhere_is_not_known():
    order = KeyOrder([("BINARY", False)], "utf-8")
    assert order.key_of(Cell(0, 5000, b"\4\xa7\x10\0" + b"x" * 20, 7)) is None


def test_a_guide_tells_where_keys_lie():
    table = Guide([5, 10])
    assert [
        table.has(*bounds) for bounds in ((None, 4), (None, 5), (5, 9), (5, 10), (9, None), (10, None))
    ] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    index = Guide([5, 10], key_of=lambda cell: None)
    assert not index.has(4, 5)  # 5 is the separator itself, and stands above
    assert index.has(4, 6)


# ---- sets and caches ----


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30_000)), max_size=50), st.booleans())
def test_page_bits_are_a_set(steps, many):
    start = range(1, 10_000, 2) if many else range(0)
    bits, model = PageBits(start), set(start)
    for adding, number in steps:
        (bits.add if adding else bits.discard)(number)
        (model.add if adding else model.discard)(number)
    assert list(bits) == sorted(model)
    assert len(bits) == len(model)
    assert all((number in bits) == (number in model) for _, number in steps)
    assert bits.isdisjoint([0, 30_001, 99_999])


def test_a_cache_keeps_to_its_size():
    cache = Cache(limit=100)
    for number in range(20):
        cache.put(number, bytes(10))
        if 0 in cache:
            cache.get(0)
    assert len(cache.items()) == 10
    assert 0 in cache
    assert 1 not in cache
    assert cache.pop(0) == bytes(10)
    cache.put(0, None)
    assert cache.get(0) is None


# ---- the schema as SQLite reads it ----


def shapes(*statements: str):
    connection = apsw.Connection(":memory:")
    for statement in statements:
        connection.execute(statement)
    return load(connection.execute("SELECT * FROM sqlite_schema").fetchall(), "utf-8", 4)


def only_table(statement: str):
    (table,) = (t for t in shapes(statement).tables.values() if not t.name.startswith("sqlite_"))
    return table


@pytest.mark.parametrize(
    ("sql", "alias"),
    [
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", 0),
        ("CREATE TABLE t(a, id INTEGER, PRIMARY KEY(id))", 1),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a)", None),
        ("CREATE TABLE t(id INT PRIMARY KEY, a)", None),
        ("CREATE TABLE t(a, id INTEGER PRIMARY KEY AUTOINCREMENT)", 1),
        ("CREATE TABLE t(a, b)", None),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a) WITHOUT ROWID", None),
    ],
)
def test_which_column_is_the_rowid(sql, alias):
    assert only_table(sql).alias == alias


def test_the_record_of_a_without_rowid_table_begins_with_its_key():
    table = only_table(
        "CREATE TABLE t(a, v AS (a), b TEXT, s AS (b) STORED, c, PRIMARY KEY(c DESC, b)) WITHOUT ROWID"
    )
    assert table.key_columns == ("c", "b")
    assert [(column.name, column.field) for column in table.columns] == [("a", 2), ("b", 1), ("c", 0)]
    assert table.width == 4


@pytest.mark.parametrize(
    ("declared", "expected"),
    [("REAL", True), ("double precision", True), ("FLOATING POINT", False), ("INT", False), ("", False)],
)
def test_which_columns_read_as_floats(declared, expected):
    """Affinity is SQLite's to tell: FLOATING POINT has INT in it."""
    (column,) = only_table(f"CREATE TABLE t(c {declared})").columns
    assert column.is_real is expected


def test_a_schema_that_sqlite_cannot_read():
    with pytest.raises(Damaged, match="a schema that SQLite"):
        load([("table", "t", "t", 2, "CREATE TABLE t(")], "utf-8", 4)
    with pytest.raises(Damaged):
        load([("index", "i", "nothing", 2, "CREATE INDEX i ON nothing(a)")], "utf-8", 4)


def test_names_of_rowids():
    assert only_table("CREATE TABLE t(rowid, a)").rowid_name == "_rowid_"
    assert only_table("CREATE TABLE t(ROWID, oid, _rowid_)").rowid_name is None
    assert only_table("CREATE TABLE t(rowid INTEGER PRIMARY KEY, a)").rowid_name == "rowid"
