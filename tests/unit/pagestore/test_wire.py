"""Values survive the wire, what no peer sends is refused, and the generated code is that of the proto."""

import re
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from pagestore import api, wire
from pagestore.v1 import pagestore_pb2 as pb
from pagestore.wire import history

ROOT = Path(__file__).parents[3]
PROTO = "pagestore/v1/pagestore.proto"

NUMBERS = st.sets(st.integers(1, wire.MAX_PAGE), max_size=50).map(lambda found: tuple(sorted(found)))
VERSIONS = st.binary(min_size=10, max_size=10)
TOKENS = st.binary(min_size=16, max_size=16)
CHANGES = st.builds(
    api.Change,
    version=VERSIONS,
    time_us=st.integers(0, 1 << 60),
    pages=NUMBERS,
    token=TOKENS,
    message=st.text(max_size=20),
    allocated=NUMBERS,
    freed=NUMBERS,
)


def told_of(changes):
    """What is told of commits where it matters only what they changed."""
    if changes is None:
        return None
    return api.ListedChanges(replace(change, time_us=0, token=b"", message="") for change in changes)


LISTS = st.lists(CHANGES, max_size=3).map(api.ListedChanges)
PAGES = st.builds(
    api.StoredPage,
    st.integers(1, wire.MAX_PAGE),
    VERSIONS,
    st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4).map(tuple),
)


def allocation(numbers: tuple[int, ...]) -> api.Allocation:
    runs = []
    for number in numbers:
        if runs and runs[-1].first + runs[-1].length == number:
            runs[-1] = api.PageRun(runs[-1].first, runs[-1].length + 1)
        else:
            runs.append(api.PageRun(number, 1))
    return api.Allocation((numbers[-1] + 1) if numbers else 0, tuple(runs))


@given(NUMBERS)
def test_page_numbers(numbers):
    assert wire.numbers_of(wire.numbers_message(numbers)) == numbers
    assert tuple(wire.page_set_of(wire.page_set_message(api.PageSet.of(numbers)))) == numbers


def test_page_numbers_as_the_proto_says():
    assert wire.numbers_message((3, 4, 9)).SerializeToString().hex(" ") == "0a 03 03 01 05"


@given(NUMBERS)
def test_allocations(numbers):
    value = allocation(numbers)
    assert wire.allocation_of(wire.allocation_message(value)) == value


@given(CHANGES)
def test_changes(change):
    assert wire.change_of(wire.change_message(change)) == change


@given(VERSIONS, st.none() | LISTS, st.none() | NUMBERS, st.none() | VERSIONS, st.binary())
def test_begins(version, changes, numbers, read_version, told):
    given_numbers = None if numbers is None else allocation(numbers)
    value = api.Begin(version, changes, 4096, given_numbers, read_version, told)
    assert wire.begin_of(wire.begin_message(value)) == replace(value, changes=told_of(changes))


@given(VERSIONS, st.none() | LISTS)
def test_watched(version, changes):
    value = api.Watched(version, changes)
    assert wire.watched_of(wire.watched_message(value)) == value


@given(PAGES | st.none())
def test_pages(page):
    number = page.number if page else 7
    assert wire.pages_of([wire.page_message(number, page)], [number]) == [page]


@given(st.data())
def test_commits(data):
    part = api.CommitPart(
        namespace=3,
        reads=api.PageSet.of(data.draw(NUMBERS)),
        writes=[api.PageWrite(n, b"blob") for n in data.draw(NUMBERS)],
        page_size=512,
        allocated=data.draw(NUMBERS),
        freed=data.draw(NUMBERS),
        lease=data.draw(st.none() | TOKENS),
    )
    request = api.CommitRequest(
        token=data.draw(TOKENS),
        base=data.draw(VERSIONS),
        parts=[part],
        message=data.draw(st.text(max_size=9)),
        durability=data.draw(st.sampled_from(["full", "normal"])),
        ticket=data.draw(st.none() | TOKENS),
        time_us=data.draw(st.none() | st.integers(0, 1 << 60)),
        read_version=data.draw(st.none() | VERSIONS),
        tells_others=data.draw(st.booleans()),
        wants_begin=data.draw(st.booleans()),
    )
    found = wire.commit_of(wire.commit_message(request))
    (other,) = found.parts
    assert list(other.reads) == list(part.reads)
    assert (other.writes, other.allocated, other.freed, other.lease) == (
        part.writes,
        part.allocated,
        part.freed,
        part.lease,
    )
    assert replace(found, parts=()) == replace(request, parts=())


@given(VERSIONS, LISTS)
def test_committed(version, changes):
    value = api.Committed(version, 17, (changes, api.ListedChanges()))
    message = wire.committed_message(value)
    told = replace(value, others=(told_of(changes), api.ListedChanges()))
    assert wire.committed_of(message, lambda _: pytest.fail("nothing was omitted")) == told
    message.others[0].changes = b""
    message.others[0].omitted = True
    assert wire.committed_of(message, lambda index: {0: changes}[index]) == value


@given(LISTS)
def test_packed_changes(changes):
    found = wire.packed_of(wire.packed_message(changes))
    told = told_of(changes)
    assert found == told
    assert found.packed == changes.packed
    assert [found[i] for i in range(len(told))] == list(told)
    assert found[1:] == told[1:]
    assert found[1:].packed == api.ListedChanges(changes[1:]).packed
    assert b"".join(api.split_packed(found.packed)) == changes.packed


@given(LISTS)
def test_packed_changes_on_a_machine_of_the_other_byte_order(changes):
    sent = history.turned(changes.packed, "<" if sys.byteorder == "little" else ">")
    assert history.turned(sent, ">" if sys.byteorder == "little" else "<") == changes.packed
    swapped = [one[:12] + array_of(one[12:]) for one in api.split_packed(changes.packed)]
    assert sent == b"".join(swapped)


def array_of(numbers):
    words = array("I", numbers)
    words.byteswap()
    return words.tobytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:-4],
        lambda packed: packed + bytes(4),
        lambda packed: packed + bytes(20),
        lambda packed: packed[:12] + b"\xff\xff\xff\xff" + packed[16:],
        lambda packed: packed[:24] + packed[28:32] + packed[24:28] + packed[32:],  # 9 before 3
        lambda packed: packed[:24] + bytes(4) + packed[28:],  # page 0
        lambda packed: packed[:28] + b"\xff\xff\xff\xff" + packed[32:],
    ],
)
def test_changes_that_are_not_whole_are_refused(damage):
    change = api.Change(api.ZERO_VERSION, 0, (3, 9), b"", "", (9,), ())
    packed = api.ListedChanges([change]).packed
    assert wire.packed_of(packed) == [change]
    with pytest.raises(wire.WireError, match="whole"):
        wire.packed_of(damage(packed))


def test_what_was_left_out_is_not_nothing():
    for others in (None, ()):
        value = api.Committed(api.ZERO_VERSION, 17, others)
        assert wire.committed_of(wire.committed_message(value), lambda _: api.ListedChanges()) == value


@given(NUMBERS, st.lists(PAGES, max_size=3).map(tuple))
def test_conflicts(numbers, fresh):
    value = api.ConflictError(5, numbers, api.ZERO_VERSION, fresh)
    found = wire.conflict_of(wire.conflict_message(value))
    assert (found.namespace, found.pages, found.version, found.fresh) == (5, numbers, api.ZERO_VERSION, fresh)


@pytest.mark.parametrize("value", [api.Retention(), api.Retention(None, 1 << 40), api.Retention(0.5, 0)])
def test_retention(value):
    assert wire.retention_of(wire.retention_message(value)) == value


def test_tags_what_was_dropped_and_what_was_collected():
    version = api.parse_version("v1f")
    tag = api.Tag("release", version, 12)
    assert wire.tag_of(wire.tag_message(tag)) == tag
    for dropped in (api.Dropped(3, "app", 12, 34), api.Dropped(3, "app", 12, None)):
        assert wire.dropped_of(wire.dropped_message(dropped)) == dropped
    collected = api.Collected(version, 12, 1, 2, 3, True)
    assert wire.collected_of(wire.collected_message(collected)) == collected
    branch = api.Namespace(4, "b", 4096, 12, version, 7, (3, version))
    assert wire.namespace_of(wire.namespace_message(branch)) == branch


def test_namespaces_usage_and_leases():
    namespace = api.Namespace(4, "näme", 4096, 12, api.parse_version("v1f"))
    assert wire.namespace_of(wire.namespace_message(namespace)) == namespace
    usage = api.Usage(1, 2, 3, 4, 5, 6, 7)
    assert wire.usage_of(wire.usage_message(usage)) == usage
    lease = api.Lease(b"l" * 16, (7, 8, 30), 2.5)
    assert wire.lease_of(wire.lease_message(lease)) == lease
    assert wire.lease_of(pb.Lease()) is None


# ---- errors ----


def special(cls: type[api.StoreError]) -> api.StoreError:
    made = {
        api.BelowHorizonError: api.BelowHorizonError(api.parse_version("v2"), api.parse_version("v7")),
        api.TurnTakenError: api.TurnTakenError(1.5),
        api.OutcomeUnknownError: api.OutcomeUnknownError(b"t" * 16, "it went dark"),
        api.OverloadedError: api.OverloadedError("too many calls", 0.5),
    }
    return made.get(cls) or cls("what happened")


def every_error(base: type[api.StoreError] = api.StoreError):
    for cls in base.__subclasses__():
        if cls.__name__ in api.__all__ and cls is not api.ConflictError:
            yield cls
        yield from every_error(cls)


@pytest.mark.parametrize("cls", sorted(set(every_error()), key=lambda cls: cls.__name__))
def test_errors_survive(cls):
    exc = special(cls)
    status, error = wire.failure_of(exc)
    found = wire.error_of(status, "", error.SerializeToString())
    assert isinstance(exc, type(found))
    if cls is not api.NoSuchStoreError:
        assert type(found) is cls
    assert str(found).endswith(str(exc)) or cls is api.OutcomeUnknownError
    assert {k: v for k, v in vars(found).items() if k != "args"} == vars(exc)


def test_a_status_without_details():
    assert type(wire.error_of(grpc.StatusCode.UNAVAILABLE, "gone", None)) is api.StoreUnavailableError
    assert type(wire.error_of(grpc.StatusCode.DEADLINE_EXCEEDED, "", None)) is api.StoreUnavailableError
    assert type(wire.error_of(grpc.StatusCode.RESOURCE_EXHAUSTED, "large", None)) is api.LimitError
    assert type(wire.error_of(grpc.StatusCode.UNAUTHENTICATED, "who?", None)) is api.NotAllowedError


def test_an_error_of_a_later_release_goes_by_its_status():
    later = pb.Error(message="new").SerializeToString() + b"\x08\xe7\x07"  # kind 999
    assert type(wire.error_of(grpc.StatusCode.PERMISSION_DENIED, "", later)) is api.NotAllowedError


def test_a_long_text_is_cut():
    _, error = wire.failure_of(api.LimitError("x" * 100_000))
    assert len(error.message) == wire.MAX_ERROR_TEXT


# ---- what nobody sends ----


@pytest.mark.parametrize(
    "refused",
    [
        lambda: wire.version_of(b"short"),
        lambda: wire.token_of(b"t" * 17),
        lambda: wire.namespace_id_of(0),
        lambda: wire.namespace_id_of((1 << 64) - 1),
        lambda: wire.numbers_of(pb.PageNumbers(gaps=[3, 0])),
        lambda: wire.numbers_of(pb.PageNumbers(gaps=[0xFFFFFFFF])),
        lambda: wire.numbers_of(pb.PageNumbers(gaps=[0xFFFFFFFE, 1])),
        lambda: wire.page_set_of(pb.PageNumbers(gaps=[0xFFFFFFFE, 0xFFFFFFFF])),
        lambda: wire.allocation_of(pb.Allocation(free=[3])),
        lambda: wire.allocation_of(pb.Allocation(free=[3, 0])),
        lambda: wire.allocation_of(pb.Allocation(free=[0xFFFFFFFF, 0xFFFFFFFF])),
        lambda: wire.page_of(pb.Page(number=1, version=bytes(10))),
        lambda: wire.page_of(pb.Page(number=0, version=bytes(10), blobs=[b"x"])),
        lambda: wire.pages_of([pb.Page(number=4)], [3]),
        lambda: wire.pages_of([pb.Page(number=3), pb.Page(number=4)], [3]),
        lambda: wire.writes_of([pb.PageWrite(number=0)]),
        lambda: wire.commit_of(pb.CommitRequest()),
        lambda: wire.commit_of(pb.CommitRequest(token=bytes(16), base=bytes(9))),
        lambda: wire.commit_of(pb.CommitRequest(token=bytes(16), base=bytes(10), ticket=b"x")),
        lambda: wire.begin_of(pb.BeginResponse()),
    ],
)
def test_refused(refused):
    with pytest.raises(wire.WireError):
        refused()


def test_missing_fields_have_a_meaning():
    """What an older release leaves out."""
    request = wire.commit_of(
        pb.CommitRequest(token=bytes(16), base=bytes(10), parts=[pb.CommitPart(namespace=1)])
    )
    assert request.durability == "full"
    (part,) = request.parts
    assert (list(part.reads), part.writes, part.allocated, part.freed, part.lease) == ([], [], (), (), None)


# ---- drift ----


def test_the_generated_code_is_that_of_the_proto(tmp_path):
    found = tmp_path / "descriptors"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={found}", PROTO],
        cwd=ROOT / "proto",
        check=True,
    )
    (described,) = descriptor_pb2.FileDescriptorSet.FromString(found.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(generated)
    for one in (described, generated):  # json names are made up from the others
        for message in one.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert described == generated, "run make proto"
    stubs = (ROOT / "pagestore/v1/pagestore_pb2_grpc.py").read_text()
    types = (ROOT / "pagestore/v1/pagestore_pb2.pyi").read_text()
    for service in described.service:
        for method in service.method:
            assert f"'/{wire.SERVICE}/{method.name}'" in stubs, "run make proto"
    for message in described.message_type:
        assert f"class {message.name}(" in types, "run make proto"


def test_every_message_field_and_call_is_documented():
    undocumented = []
    before = ""
    for line in (ROOT / "proto" / PROTO).read_text().splitlines():
        text = line.strip()
        declares = text.startswith(("rpc ", "service ", "message ", "enum ")) or re.search(r" = \d+;$", text)
        if declares and not before.startswith("//"):
            undocumented.append(text)
        before = text
    assert undocumented == []
