"""Keys: FoundationDB's tuple encoding, the order of each family, and what can be read back from a key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pagestore import keys
from pagestore.api import MAX_VERSION, ZERO_VERSION, NamespaceId, PageNumber, Version

ids = st.integers(1, 2**40).map(NamespaceId)
numbers = st.integers(0, 2**32 - 2).map(PageNumber)
versions = st.binary(min_size=10, max_size=10).map(Version)
V = Version(bytes.fromhex("000000010000000000ff"))


def inside(key: bytes, range_: tuple[bytes, bytes]) -> bool:
    return range_[0] <= key < range_[1]


def page_key(id_: NamespaceId, number: PageNumber, version: Version) -> bytes:
    return keys.page_prefix(id_, number) + version + keys.VERSION_SUFFIX


def log_key(id_: NamespaceId, version: Version) -> bytes:
    return keys.log_prefix(id_) + version + keys.VERSION_SUFFIX


def time_key(id_: NamespaceId, time_us: int, version: Version) -> bytes:
    return keys.time_prefix(id_, time_us) + version + keys.VERSION_SUFFIX


def test_worked_example_of_the_module() -> None:
    key = page_key(NamespaceId(1), PageNumber(3), V)
    assert key.hex(" ", 1) == "70 15 01 15 03 33 00 00 00 01 00 00 00 00 00 ff 00 00"


def test_tuple_encoding_is_foundationdbs() -> None:
    # as fdb.tuple.pack gives them: https://github.com/apple/foundationdb/blob/main/design/tuple.md
    assert keys.page_prefix(NamespaceId(255), PageNumber(256)) == b"p\x15\xff\x16\x01\x00\x33"
    assert keys.page_prefix(NamespaceId(5551212), PageNumber(0)) == b"p\x17\x54\xb4\x6c\x14\x33"
    assert keys.name("F\xd4O\0bar") == b"n\x02F\xc3\x94O\x00\xffbar\x00"
    assert keys.token(NamespaceId(1), b"foo\0bar") == b"u\x15\x01\x01foo\x00\xffbar\x00"


@given(st.tuples(ids, numbers, versions), st.tuples(ids, numbers, versions))
def test_page_keys_sort_as_their_parts(
    a: tuple[NamespaceId, PageNumber, Version], b: tuple[NamespaceId, PageNumber, Version]
) -> None:
    assert (page_key(*a) < page_key(*b)) == (a < b)


@given(ids, numbers, versions, versions)
def test_page_range_holds_versions_up_to_and_with(
    id_: NamespaceId, number: PageNumber, version: Version, until: Version
) -> None:
    key = page_key(id_, number, version)
    assert inside(key, keys.page(id_, number, until)) == (version <= until)
    assert inside(key, keys.all_pages(id_))
    assert not inside(key, keys.page(id_, PageNumber(number + 1), MAX_VERSION))
    assert not inside(key, keys.all_pages(NamespaceId(id_ + 1)))
    assert keys.version_of(key) == version
    assert keys.number_of_page(key) == number


@given(ids, versions, versions, versions)
def test_log_ranges(id_: NamespaceId, version: Version, after: Version, until: Version) -> None:
    key = log_key(id_, version)
    assert inside(key, keys.log(id_, after, until)) == (after < version <= until)
    assert inside(key, keys.log_and_namespace(id_, after)) == (version >= after)
    assert inside(keys.namespace(id_), keys.log_and_namespace(id_, after))
    assert not inside(keys.namespace(id_), keys.log(id_, ZERO_VERSION, MAX_VERSION))
    assert key < keys.namespace(id_) < log_key(NamespaceId(id_ + 1), ZERO_VERSION)


@given(ids, st.integers(0, 2**60), versions, st.integers(-5, 2**65))
def test_time_range(id_: NamespaceId, time_us: int, version: Version, until: int) -> None:
    key = time_key(id_, time_us, version)
    assert inside(key, keys.times(id_, until)) == (time_us <= until)
    assert keys.time_of(key) == time_us


@given(st.text().filter(lambda text: "\0" not in text))
def test_names_come_back(text: str) -> None:
    key = keys.name(text)
    assert inside(key, keys.all_names())
    assert keys.text_of_name(key) == text


@given(ids, numbers, versions)
def test_belongings_hold_everything_but_the_record(
    id_: NamespaceId, number: PageNumber, version: Version
) -> None:
    own = [
        page_key(id_, number, version),
        log_key(id_, version),
        time_key(id_, number, version),
        keys.token(id_, bytes(version)),
    ]
    ranges = keys.belongings(id_)
    assert all(any(inside(key, range_) for range_ in ranges) for key in own)
    others = [
        keys.namespace(id_),
        keys.dropped(id_),
        keys.name("x"),
        page_key(NamespaceId(id_ + 1), number, version),
    ]
    assert not any(inside(key, range_) for key in others for range_ in ranges)
    assert keys.namespace_of_dropped(keys.dropped(id_)) == id_
