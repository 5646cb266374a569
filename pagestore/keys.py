"""Keys: what a store keeps where.  The only file that knows.

Called by the store's files (`commit`, `snapshot`, `history`, `namespaces`); calls nothing.

A key is one family byte and then a tuple in FoundationDB's tuple encoding
(https://github.com/apple/foundationdb/blob/main/design/tuple.md), so that the same keys serve every
engine and FoundationDB's own tools can read them (as a subspace whose raw prefix is the family byte).

    family       tuple                    value
    a image      id, version              allocation image, see `pagestore.images`
    b            id, version, n           a piece of a long one
    c counter    name                     integer, 8 bytes big-endian: the last number given out
    d dropped    id                       name of a namespace whose pages are still to be removed
    e lease      id, lease id             leased page numbers, see `pagestore.allocation`
                 id, number               never written: what grants compare
    f format                              see `pagestore.format`
    g tag        id, name                 version, time, see `pagestore.kept`
    i index      id, token, n             which pages are staged, see `pagestore.staging`
    k kept       id, version, label       what needs a version, see `pagestore.kept`
    l log        id, version              changelog record, see `pagestore.changelog`
      namespace  id, end of log           namespace record, see `pagestore.namespaces`
      turn       id, end of log, "t"      the turn that was given last, see `pagestore.turns`
      bulk       id, end of log, version  a commit whose pages are staged, see `pagestore.staging`
    m more       id, version, n           the rest of a long changelog record
    n name       name                     id, 8 bytes big-endian
    o old        id                       a dropped namespace that may come back, see `pagestore.drops`
    p page       id, number, version      page blob, see `pagestore.encoding`
    q queue      id, version, ticket      a place, see `pagestore.turns`
    r retention  id                       how far it has come, see `pagestore.retention`
    s stage      id, token, number        page blob of a commit to come; number 0: its head
    t time       id, µs, version          empty
    u token      id, token                version, or `VOID_TOKEN`
    w waypoint   id, version              commits up to it, see `pagestore.waypoints`
    x conflict   id, number               never written: what optimistic engines compare
    y measure    id, version              bytes that commits up to it replaced, see `pagestore.retention`

A namespace's record stands right behind its changelog, so that one reverse scan yields the record, the
newest commit and those before it: that is all that `begin` and a commit's check need.  Behind the record
stand the turn that was given last and the bulk commits that are not folded in yet, for the same scan.
Tokens come last because a small record that an engine keeps behind all keys then shares their B-tree leaf.

Worked example: page 3 of namespace 1 at version 00000001 0000000000ff is

    70                                   'p', the family
    15 01                                integer of one byte: namespace id 1
    15 03                                integer of one byte: page number 3
    33 00000001 0000000000ff 0000        versionstamp: ten bytes, then two user bytes, always 0

so all versions of a page lie together, oldest first, and the newest one <= v is found by one reverse
scan.
"""

from __future__ import annotations

from functools import lru_cache

from pagestore.api import VERSION_SIZE, NamespaceId, PageNumber, Version

_INDEX, _MORE, _STAGE = (bytes([b]) for b in b"ims")
_IMAGE, _COUNTER, _DROPPED, _LEASE, _LOG, _NAME, _PAGE, _QUEUE, _TIME, _TOKEN, _CONFLICT = (
    bytes([b]) for b in b"acdelnpqtux"
)
_IMAGE_PIECE = b"b"
_TAG, _KEPT, _OLD, _RETENTION, _WAYPOINT, _MEASURE = (bytes([b]) for b in b"gkorwy")

FORMAT = b"f"

_BYTES, _TEXT, _ZERO, _STAMP = b"\x01", b"\x02", b"\x14", b"\x33"
_USER = b"\0\0"
_STAMP_TAIL = VERSION_SIZE + len(_USER)
_END_OF_LOG = _STAMP + b"\xff" * _STAMP_TAIL

VERSION_SUFFIX = _USER
"""Follows the version in every key that ends with one (`Transaction.set_versioned_key`)."""

VOID_TOKEN = b""
"""Stored for a token whose commit must never happen."""


# ---- the tuple encoding ----


def _integer(value: int) -> bytes:
    """A non-negative integer below 2**64: 0x14 + its length in bytes, then the bytes, big-endian."""
    if value < 256:
        return bytes((0x15, value)) if value else _ZERO
    size = (value.bit_length() + 7) >> 3
    return bytes((0x14 + size,)) + value.to_bytes(size, "big")


@lru_cache(16_384)  # every transaction needs the same ten of its namespace
def _of(family: bytes, id_: NamespaceId) -> bytes:
    return family + _integer(id_)


def _string(code: bytes, value: bytes) -> bytes:
    """Bytes or UTF-8 text, NUL-terminated; a NUL inside is followed by 0xff."""
    return code + value.replace(b"\0", b"\0\xff") + b"\0"


def _read_integer(key: bytes, at: int) -> tuple[int, int]:
    """The integer that starts at `at`, and where the next element does."""
    end = at + 1 + key[at] - 0x14
    return int.from_bytes(key[at + 1 : end], "big"), end


def after(prefix: bytes) -> bytes:
    """The first key behind all that start with `prefix` (whose last byte is not 0xff)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


VERSION_PART = slice(-_STAMP_TAIL, -len(_USER))
"""Where the version is that a page, log or time key ends with."""


def version_of(key: bytes) -> Version:
    return Version(key[VERSION_PART])


# ---- store-wide ----


def store_prefix(name: str) -> bytes:
    """What stands before all keys of a store that shares its engine with others."""
    return _string(_TEXT, name.encode())


def counter(name: str) -> bytes:
    return _COUNTER + _string(_TEXT, name.encode())


def name(text: str) -> bytes:
    return _NAME + _string(_TEXT, text.encode())


def all_names() -> tuple[bytes, bytes]:
    return _NAME, after(_NAME)


def text_of_name(key: bytes) -> str:
    return key[2:-1].replace(b"\0\xff", b"\0").decode()


def dropped(namespace: NamespaceId) -> bytes:
    return _DROPPED + _integer(namespace)


def all_dropped() -> tuple[bytes, bytes]:
    return _DROPPED, after(_DROPPED)


def namespace_of_dropped(key: bytes) -> NamespaceId:
    return NamespaceId(_read_integer(key, 1)[0])


def old(namespace: NamespaceId) -> bytes:
    return _OLD + _integer(namespace)


def all_old() -> tuple[bytes, bytes]:
    return _OLD, after(_OLD)


# ---- one namespace ----


def namespace(id_: NamespaceId) -> bytes:
    return _of(_LOG, id_) + _END_OF_LOG


def log_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return _of(_LOG, id_) + _STAMP


def log_and_namespace(id_: NamespaceId, since: Version) -> tuple[bytes, bytes]:
    """Changelog records of versions >= `since`, behind them the namespace record, then the turn that was
    given last and the bulk commits."""
    prefix = _of(_LOG, id_)
    return prefix + _STAMP + since, after_integer(prefix)


def namespace_and_bulks(id_: NamespaceId) -> tuple[bytes, bytes]:
    """The namespace record, the turn that was given last, and the bulk commits that are not folded in."""
    return namespace(id_), after_integer(_of(_LOG, id_))


def turn_told(id_: NamespaceId) -> bytes:
    """The turn that was given last, between the namespace record and the bulk commits."""
    return namespace(id_) + _string(_TEXT, b"t")


def bulk_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return namespace(id_) + _STAMP


def bulk(id_: NamespaceId, version: Version) -> bytes:
    return bulk_prefix(id_) + version + _USER


def more_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return _of(_MORE, id_) + _STAMP


def more_suffix(n: int) -> bytes:
    """What follows the version."""
    return _USER + _integer(n)


def more(id_: NamespaceId, version: Version) -> tuple[bytes, bytes]:
    """The rest of a changelog record, in order."""
    prefix = more_prefix(id_) + version + _USER
    return prefix, after_integer(prefix)


def staged(id_: NamespaceId, token_: bytes, number: PageNumber) -> bytes:
    return _of(_STAGE, id_) + _string(_BYTES, token_) + _integer(number)


def stage_head(id_: NamespaceId, token_: bytes) -> bytes:
    return _of(_STAGE, id_) + _string(_BYTES, token_) + _ZERO


def staged_pages(id_: NamespaceId, token_: bytes) -> tuple[bytes, bytes]:
    """All pages staged under a token, without their head."""
    prefix = _of(_STAGE, id_) + _string(_BYTES, token_)
    return prefix + _ZERO + b"\0", after_integer(prefix)


def stages(id_: NamespaceId) -> tuple[bytes, bytes]:
    """All that is staged in a namespace."""
    prefix = _of(_STAGE, id_)
    return prefix, after_integer(prefix)


def token_of_staged(key: bytes) -> bytes:
    start = _read_integer(key, 1)[1] + 1
    at = start
    while key[at] != 0 or key[at + 1] == 0xFF:
        at += 1 + (key[at] == 0)
    return key[start:at].replace(b"\0\xff", b"\0")


def number_of_staged(key: bytes, token_: bytes) -> PageNumber:
    start = _read_integer(key, 1)[1] + len(_string(_BYTES, token_))
    return PageNumber(_read_integer(key, start)[0])


def stage_index(id_: NamespaceId, token_: bytes, block: int) -> bytes:
    return _of(_INDEX, id_) + _string(_BYTES, token_) + _integer(block)


def stage_indexes(id_: NamespaceId, token_: bytes) -> tuple[bytes, bytes]:
    prefix = _of(_INDEX, id_) + _string(_BYTES, token_)
    return prefix, after_integer(prefix)


def block_of_index(key: bytes, token_: bytes) -> int:
    return _read_integer(key, _read_integer(key, 1)[1] + len(_string(_BYTES, token_)))[0]


def log(id_: NamespaceId, newer_than: Version, until: Version) -> tuple[bytes, bytes]:
    """Changelog records of versions in (newer_than, until]."""
    prefix = log_prefix(id_)
    return prefix + newer_than + b"\0\1", prefix + until + b"\0\1"


def page_prefix(id_: NamespaceId, number: PageNumber) -> bytes:
    """What stands before the version."""
    return _of(_PAGE, id_) + _integer(number) + _STAMP


def page(id_: NamespaceId, number: PageNumber, until: Version) -> tuple[bytes, bytes]:
    """A page's versions <= `until`."""
    prefix = _of(_PAGE, id_) + _integer(number) + _STAMP
    return prefix, prefix + until + b"\0\1"


def all_pages(id_: NamespaceId) -> tuple[bytes, bytes]:
    prefix = _of(_PAGE, id_)
    return prefix, after_integer(prefix)


def number_of_page(key: bytes) -> PageNumber:
    return PageNumber(_read_integer(key, _read_integer(key, 1)[1])[0])


def time_prefix(id_: NamespaceId, time_us: int) -> bytes:
    """What stands before the version."""
    return _of(_TIME, id_) + _integer(time_us) + _STAMP


def times(id_: NamespaceId, until_us: int) -> tuple[bytes, bytes]:
    """Time keys of commits recorded at `until_us` or before."""
    prefix = _of(_TIME, id_)
    return prefix, prefix + _integer(min(max(until_us + 1, 0), (1 << 64) - 1))


def time_of(key: bytes) -> int:
    return _read_integer(key, _read_integer(key, 1)[1])[0]


def token(id_: NamespaceId, token_: bytes) -> bytes:
    return _of(_TOKEN, id_) + _string(_BYTES, token_)


def conflict_prefix(id_: NamespaceId) -> bytes:
    """What stands before the page number."""
    return _of(_CONFLICT, id_)


def conflicts(id_: NamespaceId, first: int, last: int) -> tuple[bytes, bytes]:
    """What stands for a run of page numbers."""
    prefix = conflict_prefix(id_)
    return prefix + _integer(first), prefix + _integer(last) + b"\0"


def all_conflicts(id_: NamespaceId) -> tuple[bytes, bytes]:
    prefix = _of(_CONFLICT, id_)
    return prefix, after_integer(prefix)


def image(id_: NamespaceId, version: Version) -> bytes:
    return _of(_IMAGE, id_) + _STAMP + version + _USER


def images(id_: NamespaceId, until: Version) -> tuple[bytes, bytes]:
    """Allocation images of versions <= `until`."""
    prefix = _of(_IMAGE, id_) + _STAMP
    return prefix, prefix + until + b"\0\1"


def image_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return _of(_IMAGE, id_) + _STAMP


def image_piece_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return _of(_IMAGE_PIECE, id_) + _STAMP


def image_piece_suffix(n: int) -> bytes:
    """What follows the version."""
    return _USER + _integer(n)


def image_piece(id_: NamespaceId, version: Version, n: int) -> bytes:
    return image_piece_prefix(id_) + version + image_piece_suffix(n)


def image_pieces(id_: NamespaceId, version: Version) -> tuple[bytes, bytes]:
    """Of one image, in order."""
    prefix = image_piece_prefix(id_) + version + _USER
    return prefix, after_integer(prefix)


def image_pieces_until(id_: NamespaceId, until: Version) -> tuple[bytes, bytes]:
    """Of all images of versions <= `until`."""
    prefix = image_piece_prefix(id_)
    return prefix, prefix + until + b"\0\1"


def version_of_piece(key: bytes) -> Version:
    start = _read_integer(key, 1)[1] + 1
    return Version(key[start : start + VERSION_SIZE])


def lease(id_: NamespaceId, lease_id: bytes) -> bytes:
    return _of(_LEASE, id_) + _string(_BYTES, lease_id)


def leased_numbers(id_: NamespaceId, first: int, last: int) -> tuple[bytes, bytes]:
    """What two grants of one of these numbers have in common; among the leases, and no key of one."""
    prefix = _of(_LEASE, id_)
    return prefix + _integer(first), prefix + _integer(last) + b"\0"


def leases(id_: NamespaceId) -> tuple[bytes, bytes]:
    prefix = _of(_LEASE, id_)
    return prefix, after_integer(prefix)


def queue_prefix(id_: NamespaceId) -> bytes:
    """What stands before the version."""
    return _of(_QUEUE, id_) + _STAMP


def ticket_suffix(ticket: bytes) -> bytes:
    """What follows the version's own suffix."""
    return _string(_BYTES, ticket)


def queue(id_: NamespaceId) -> tuple[bytes, bytes]:
    prefix = _of(_QUEUE, id_)
    return prefix, after_integer(prefix)


def ticket_of(key: bytes) -> bytes:
    at = _read_integer(key, 1)[1] + 1 + _STAMP_TAIL + 1
    return key[at:-1].replace(b"\0\xff", b"\0")


def tag(id_: NamespaceId, text: str) -> bytes:
    return _of(_TAG, id_) + _string(_TEXT, text.encode())


def tags(id_: NamespaceId) -> tuple[bytes, bytes]:
    prefix = _of(_TAG, id_)
    return prefix, after_integer(prefix)


def text_of_tag(key: bytes) -> str:
    return key[_read_integer(key, 1)[1] + 1 : -1].replace(b"\0\xff", b"\0").decode()


def kept(id_: NamespaceId, version: Version, label: bytes) -> bytes:
    return _of(_KEPT, id_) + _STAMP + version + _USER + _string(_BYTES, label)


def kept_at(id_: NamespaceId, first: Version, last: Version) -> tuple[bytes, bytes]:
    """All that needs one of the versions in [first, last]."""
    prefix = _of(_KEPT, id_) + _STAMP
    return prefix + first, prefix + last + b"\0\1"


def version_of_kept(key: bytes) -> Version:
    start = _read_integer(key, 1)[1] + 1
    return Version(key[start : start + VERSION_SIZE])


def label_of(key: bytes) -> bytes:
    return key[_read_integer(key, 1)[1] + 1 + _STAMP_TAIL + 1 : -1].replace(b"\0\xff", b"\0")


def retention(id_: NamespaceId) -> bytes:
    return _of(_RETENTION, id_)


def measure(id_: NamespaceId, version: Version) -> bytes:
    return _of(_MEASURE, id_) + _STAMP + version + _USER


def measures(id_: NamespaceId, newer_than: Version, until: Version) -> tuple[bytes, bytes]:
    """Measures of versions in (newer_than, until]."""
    prefix = _of(_MEASURE, id_) + _STAMP
    return prefix + newer_than + b"\0\1", prefix + until + b"\0\1"


def waypoint(id_: NamespaceId, version: Version) -> bytes:
    return _of(_WAYPOINT, id_) + _STAMP + version + _USER


def waypoints(id_: NamespaceId, first: Version, last: Version) -> tuple[bytes, bytes]:
    """Waypoints of versions in [first, last]."""
    prefix = _of(_WAYPOINT, id_) + _STAMP
    return prefix + first, prefix + last + b"\0\1"


def log_from(id_: NamespaceId, first: Version, until: Version) -> tuple[bytes, bytes]:
    """Changelog records of versions in [first, until]."""
    prefix = log_prefix(id_)
    return prefix + first, prefix + until + b"\0\1"


def tokens(id_: NamespaceId, before: bytes) -> tuple[bytes, bytes]:
    """Tokens that sort before this one."""
    prefix = _of(_TOKEN, id_)
    return prefix, token(id_, before)


def pages_from(id_: NamespaceId, number: PageNumber) -> tuple[bytes, bytes]:
    """Every version of the pages with this number and higher ones."""
    prefix = _of(_PAGE, id_)
    return prefix + _integer(number), after_integer(prefix)


def shed(id_: NamespaceId) -> list[tuple[bytes, bytes]]:
    """All keys of a namespace but its record, its pages and what needs them."""
    number = _integer(id_)
    helpers = (_TIME, _TOKEN, _IMAGE, _IMAGE_PIECE, _WAYPOINT, _LEASE, _QUEUE, _TAG, _MEASURE)
    families = (*helpers, _STAGE, _INDEX, _MORE, _RETENTION)  # progress goes last
    prefixes = [family + number for family in families]
    log_and_bulks = ((_LOG + number, namespace(id_)), (namespace(id_) + b"\0", after_integer(_LOG + number)))
    return [*log_and_bulks, *((prefix, after_integer(prefix)) for prefix in prefixes)]


def after_integer(prefix: bytes) -> bytes:
    """The first key behind all that start with this prefix, which ends in an integer of the tuple.

    (No element's code is 0xff, so nothing of it sorts behind.)"""
    return prefix + b"\xff"


def belongings(id_: NamespaceId) -> list[tuple[bytes, bytes]]:
    """All keys of a namespace but its record, for removal."""
    number = _integer(id_)
    prefixes = [family + number for family in (_PAGE, _KEPT)]
    return [*shed(id_), *((prefix, after_integer(prefix)) for prefix in prefixes)]
