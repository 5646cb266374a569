"""Limits, and what comes in that no well-behaved client sends: each has a clear status."""

import time

import grpc
import pytest

from pagestore import wire
from pagestore.api import new_token
from pagestore.service.settings import Settings, SettingsError, parse_address, read_file
from pagestore.v1 import pagestore_pb2 as pb
from tests.service.conftest import commit_request, kind_of, page

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_is_too_large(serve, call):
    service = serve(max_message=1 << 20, max_commit=1 << 19, max_answer=1 << 19)
    caller = call(service)
    namespace = caller("Create", name="main").id
    writes = [pb.PageWrite(number=n, blob=bytes(65536)) for n in range(1, 30)]
    part = pb.CommitPart(namespace=namespace, page_size=65536, writes=writes)
    error = caller.refused("Commit", pb.CommitRequest(token=bytes(16), base=bytes(10), parts=[part]))
    assert error.code() is EXHAUSTED
    assert caller("Info").max_message_bytes == 1 << 20


def test_a_commit_that_is_too_large(serve, call):
    caller = call(serve(max_commit=1000))
    namespace = caller("Create", name="main").id
    contents = {n: bytes(range(256)) * 2 for n in range(1, 20)}
    error = caller.refused("Commit", commit_request(caller, namespace, contents))
    assert (error.code(), kind_of(error)) == (EXHAUSTED, pb.LIMIT)
    assert "1000" in error.details()
    assert caller("Info").max_commit_bytes == 1000


def test_too_many_pages(serve, call):
    caller = call(serve(max_read_pages=10))
    namespace = caller("Create", name="main").id
    version = caller("Begin", namespace=namespace).version
    error = caller.refused("Read", namespace=namespace, version=version, numbers=range(1, 12))
    assert (error.code(), kind_of(error)) == (EXHAUSTED, pb.LIMIT)


def test_a_rate(serve, call):
    caller = call(serve(rate=5, burst=3))
    for _ in range(3):
        caller("Info")
    error = caller.refused("Info")
    assert (error.code(), kind_of(error)) == (EXHAUSTED, pb.OVERLOADED)
    details = {item.key: item.value for item in error.trailing_metadata()}
    seconds = pb.Error.FromString(details[wire.ERROR_KEY]).seconds
    assert 0 < seconds <= 0.2
    time.sleep(seconds)
    caller("Info")


def test_open_streams(serve, call):
    caller = call(serve(max_caller_streams=2))
    namespace = caller("Create", name="main").id
    version = caller("Begin", namespace=namespace).version
    watches = [caller("Watch", namespace=namespace, after=version) for _ in range(2)]
    for watch in watches:
        next(watch)
    error = caller.refused("Watch", namespace=namespace, after=version)
    assert (error.code(), kind_of(error)) == (EXHAUSTED, pb.OVERLOADED)
    watches[0].cancel()
    deadline = time.monotonic() + 5
    while True:
        watch = caller("Watch", namespace=namespace, after=version)
        try:
            next(watch)
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    watches[1].cancel()
    watch.cancel()


def test_a_heartbeat_has_a_least_length(serve, call):
    caller = call(serve(min_heartbeat=0.1))
    namespace = caller("Create", name="main").id
    version = caller("Begin", namespace=namespace).version
    watch = caller("Watch", namespace=namespace, after=version, heartbeat=0.000001)
    started = time.monotonic()
    for _ in range(3):
        next(watch)
    assert time.monotonic() - started > 0.15
    watch.cancel()
    for odd in (float("nan"), float("inf"), -1.0):
        assert caller.refused("Watch", namespace=namespace, after=version, heartbeat=odd).code() is INVALID


# ---- malformed ----


@pytest.fixture
def caller(serve, call):
    return call(serve())


@pytest.fixture
def namespace(caller) -> int:
    return caller("Create", name="main").id


@pytest.mark.parametrize("method", ["Begin", "Commit", "Read", "Info", "Outcome"])
def test_bytes_that_are_no_message(caller, method):
    with pytest.raises(grpc.RpcError) as info:
        caller.raw(method, b"\xff\xff\xff no message")
    assert (info.value.code(), kind_of(info.value)) == (INVALID, pb.INVALID_REQUEST)


@pytest.mark.parametrize("method", ["Watch", "Changelog"])
def test_bytes_that_are_no_message_on_a_stream(caller, method):
    answers = caller.channel.unary_stream(f"/{wire.SERVICE}/{method}")(b"\xff\xff\xff", timeout=5)
    with pytest.raises(grpc.RpcError) as info:
        list(answers)
    assert info.value.code() is INVALID


def test_a_call_that_there_is_not(caller):
    with pytest.raises(grpc.RpcError) as info:
        caller.raw("Frobnicate", b"")
    assert info.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Begin", {"since": b"short"}),
        ("Begin", {"at": bytes(11)}),
        ("Read", {"version": b""}),
        ("Read", {"version": bytes(10), "numbers": [0]}),
        ("Read", {"version": bytes(10), "numbers": [0xFFFFFFFF]}),
        ("Outcome", {"token": bytes(15)}),
        ("TakeTurn", {"ticket": b"x", "seconds": 1}),
        ("TakeTurn", {"ticket": bytes(16), "seconds": 1, "pages": pb.PageNumbers(gaps=[1, 0])}),
        ("LeaveTurn", {"ticket": b""}),
        ("GetAllocation", {"version": b"1"}),
        ("Watch", {"after": b""}),
        ("Changelog", {"after": b"x"}),
    ],
)
def test_fields_that_make_no_sense(caller, namespace, method, fields):
    error = caller.refused(method, namespace=namespace, **fields)
    assert (error.code(), kind_of(error)) == (INVALID, pb.INVALID_REQUEST)


@pytest.mark.parametrize("method", ["Begin", "Read", "GetUsage", "Outcome", "Watch"])
@pytest.mark.parametrize("namespace_id", [0, (1 << 64) - 1])
def test_a_namespace_that_can_not_be(caller, method, namespace_id):
    assert caller.refused(method, namespace=namespace_id).code() is INVALID


def test_an_id_that_was_never_opened(caller):
    error = caller.refused("Begin", namespace=12345)
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.NOT_FOUND, pb.NO_SUCH_NAMESPACE)


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part.writes[0].__setattr__("number", 0),
        lambda part: part.writes[0].__setattr__("number", 0xFFFFFFFF),
        lambda part: part.writes[0].__setattr__("blob", b"no blob"),
        lambda part: part.writes[0].__setattr__("blob", b""),
        lambda part: part.writes.append(part.writes[0]),
        lambda part: part.__setattr__("page_size", 1000),
        lambda part: part.reads.gaps.append(0),
        lambda part: part.allocated.gaps.append(7),
        lambda part: part.freed.gaps.append(1),
        lambda part: part.__setattr__("namespace", 0),
    ],
)
def test_a_commit_that_makes_no_sense(caller, namespace, change):
    request = commit_request(caller, namespace, {1: page("x")})
    change(request.parts[0])
    error = caller.refused("Commit", request)
    assert (error.code(), kind_of(error)) == (INVALID, pb.INVALID_REQUEST)
    assert not list(caller("Changelog", namespace=namespace))


def test_leases_of_others_and_ended_ones(caller, namespace):
    request = commit_request(caller, namespace, {1: page("x")})
    request.parts[0].allocated.gaps.append(1)
    request.parts[0].lease = new_token()
    error = caller.refused("Commit", request)
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.ABORTED, pb.LEASE_ENDED)
    error = caller.refused("RenewLease", namespace=namespace, lease=b"nobody's", seconds=60)
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.ABORTED, pb.LEASE_ENDED)
    assert kind_of(caller.refused("RenewLease", namespace=namespace, lease=b"", seconds=0)) == pb.LIMIT
    caller("ReleaseLease", namespace=namespace, lease=b"nobody's")


def test_an_old_client_leaves_fields_out(caller, namespace):
    """Whatever it does not know of means what it meant before."""
    assert caller.raw("Begin", pb.BeginRequest(namespace=namespace).SerializeToString())
    request = commit_request(caller, namespace, {1: page("x")})
    request.ClearField("durability")
    request.parts[0].ClearField("reads")
    assert caller("Commit", request).committed.version
    assert caller("Create", name="two").page_size == 0


def test_a_newer_client_sends_fields_that_nobody_knows(caller, namespace):
    unknown = b"\xf2\x3f\x03new"  # field 1022
    data = pb.BeginRequest(namespace=namespace).SerializeToString() + unknown
    assert pb.BeginResponse.FromString(caller.raw("Begin", data)).version


def test_bad_names_and_sizes(caller):
    assert kind_of(caller.refused("Create", name="")) == pb.INVALID_NAME
    assert kind_of(caller.refused("Create", name="x" * 2000)) == pb.INVALID_NAME
    assert caller.refused("Create", name="x", page_size=1000).code() is INVALID
    caller("Create", name="x")
    assert caller.refused("Create", name="x").code() is grpc.StatusCode.ALREADY_EXISTS


# ---- settings ----


@pytest.mark.parametrize("text", ["", ":7420", "host:port", "host:70000", "::1", "[::1", "unix:", "[::1]7"])
def test_addresses_that_are_none(text):
    with pytest.raises(SettingsError):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host", "host:7420"),
        ("127.0.0.1:5", "127.0.0.1:5"),
        ("[::1]:5", "[::1]:5"),
        ("unix:/run/x", "unix:/run/x"),
        ("unix:///run/x", "unix:/run/x"),
    ],
)
def test_addresses(text, shown):
    assert str(parse_address(text)) == shown


def test_a_config_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('store = "/srv/x"\nlisten = "unix:/run/x"\nmax-streams = 7\n')
    assert read_file(str(file)) == {"store": "/srv/x", "listen": ["unix:/run/x"], "max_streams": 7}
    file.write_text("strore = 1\n")
    with pytest.raises(SettingsError, match="strore"):
        read_file(str(file))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 2, "listen": ("unix:/run/x",)}, "Unix socket"),
        ({"workers": 2, "store": "memory:x"}, "memory"),
        ({"workers": 0}, "workers"),
        ({"max_answer": 1 << 30}, "max-message"),
        ({"max_streams": 0}, "max-streams"),
        ({"listen": ()}, "listen"),
    ],
)
def test_settings_that_contradict_each_other(settings, says):
    with pytest.raises(SettingsError, match=says):
        Settings(**({"store": "/srv/x"} | settings)).check()


def test_a_port_that_is_taken(serve):
    taken = serve(listen=("127.0.0.1:0",)).addresses[0]
    with pytest.raises(SettingsError, match="can't listen"):
        serve(listen=(str(taken),))
