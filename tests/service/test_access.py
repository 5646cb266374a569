"""Who may do what: tokens, scopes, certificates; and what those who may not can learn."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from pagestore.service import tokens
from pagestore.service.names import BELIEVED_SECONDS
from pagestore.service.settings import Settings, SettingsError
from pagestore.service.tokens import parse_scope
from pagestore.v1 import pagestore_pb2 as pb
from tests.service.certificates import Authority
from tests.service.conftest import Caller, commit_request, kind_of, page

DENIED, NOT_FOUND, UNAUTHENTICATED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "tokens.toml")


def make(file: str, name: str, *scopes: str, **more: object) -> str:
    return tokens.create(file, name, tuple(map(parse_scope, scopes)), **more)


def let_it_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the token file at every call."""
    monkeypatch.setattr(tokens, "_LOOK_SECONDS", -1.0)


# ---- tokens ----


def test_no_token_and_a_wrong_one(serve, call, file):
    make(file, "root", "admin:*")
    service = serve(tokens=file)
    for caller in (call(service), call(service, "mvt_wrong"), call(service, "")):
        for method in ("Info", "List"):
            error = caller.refused(method)
            assert (error.code(), kind_of(error)) == (UNAUTHENTICATED, pb.NOT_ALLOWED)
    odd = Caller(str(service.addresses[0]))
    odd._metadata = (("authorization", "Basic cm9vdDpyb290"),)
    assert odd.refused("Info").code() is UNAUTHENTICATED
    odd.close()


def test_scopes(serve, call, file):
    root_token = make(file, "root", "admin:*")
    reader_token = make(file, "reader", "read:app-*")
    writer_token = make(file, "writer", "write:app-1", "read:app-2")
    service = serve(tokens=file)
    root, reader, writer = (call(service, token) for token in (root_token, reader_token, writer_token))
    one, two, other = (root("Create", name=name).id for name in ("app-1", "app-2", "other"))

    assert [n.name for b in reader("List") for n in b.namespaces] == ["app-1", "app-2"]
    assert reader("Begin", namespace=one).version
    request = commit_request(root, one, {1: page("x")})
    assert reader.refused("Commit", request).code() is DENIED
    assert writer("Commit", request).committed.version
    assert writer.refused("Commit", commit_request(root, two, {1: page("x")})).code() is DENIED
    assert writer.refused("Commit", commit_request(root, other, {1: page("x")})).code() is NOT_FOUND
    both = commit_request(root, one, {1: page("y")})
    both.parts.append(commit_request(root, two, {1: page("y")}).parts[0])
    assert writer.refused("Commit", both).code() is DENIED
    del both.parts[1].writes[:]
    both.parts[1].ClearField("allocated")
    assert writer("Commit", both).committed.version  # what it has only read counts, too
    only_read = commit_request(root, one, {1: page("y")})
    only_read.parts[0].CopyFrom(both.parts[1])
    assert writer.refused("Commit", only_read).code() is DENIED
    for refused in (
        writer.refused("Drop", name="app-1"),
        writer.refused("Create", name="app-1"),
        writer.refused("Create", name="new"),
        writer.refused("Rename", name="app-1", new_name="app-3"),
        reader.refused("Outcome", namespace=one, token=bytes(16)),
        reader.refused("TakeLease", namespace=one, wish=pb.LeaseWish(want=1, seconds=1)),
        reader.refused("RenewLease", namespace=one, lease=b"one", seconds=1),
        reader.refused("TakeTurn", namespace=one, ticket=bytes(16), seconds=1),
        reader.refused("SetTag", namespace=one, name="x", version=bytes(10)),
        reader.refused("Revert", namespace=one, to=bytes(10)),
        writer.refused("SetRetention", namespace=one, retention=pb.Retention()),
        writer.refused("Collect", namespace=one),
        reader.refused("Branch", namespace=one, new_name="app-3", version=bytes(10)),
    ):
        assert (refused.code(), kind_of(refused)) == (DENIED, pb.NOT_ALLOWED)
    begin = pb.BeginRequest(namespace=one, chores=pb.Chores(lease=pb.LeaseWish(want=1, seconds=1)))
    assert not reader("Begin", begin).lease.id


def test_who_may_not_read_cannot_tell_whether_it_exists(serve, call, file):
    root_token, token = make(file, "root", "admin:*"), make(file, "tenant", "write:mine-*", "admin:own-*")
    service = serve(tokens=file)
    root, tenant = call(service, root_token), call(service, token)
    secret = root("Create", name="secret").id
    root.commit(secret, {1: page("x")})

    def answer(error: grpc.RpcError) -> tuple[object, ...]:
        return error.code(), kind_of(error)

    for method, there, absent in (
        ("Open", {"name": "secret"}, {"name": "absent"}),
        ("Drop", {"name": "secret"}, {"name": "absent"}),
        ("Rename", {"name": "secret", "new_name": "own-1"}, {"name": "absent", "new_name": "own-1"}),
        ("Create", {"name": "secret"}, {"name": "absent"}),
        ("Begin", {"namespace": secret}, {"namespace": secret + 50}),
        ("Watch", {"namespace": secret, "after": bytes(10)}, {"namespace": secret + 50, "after": bytes(10)}),
        ("Changelog", {"namespace": secret}, {"namespace": secret + 50}),
        ("ListTags", {"namespace": secret}, {"namespace": secret + 50}),
        ("Undrop", {"id": secret, "name": "own-1"}, {"id": secret + 50, "name": "own-1"}),
        ("GetUsage", {"namespace": secret}, {"namespace": secret + 50}),
    ):
        first, second = tenant.refused(method, **there), tenant.refused(method, **absent)
        assert answer(first) == answer(second), method
        texts = [
            e.details().replace("secret", "absent").replace(str(secret + 50), "N") for e in (first, second)
        ]
        assert texts[0].replace(f"namespace {secret} ", "namespace N ") == texts[1], method
    assert list(tenant("List")) == []


def test_a_name_may_be_given_only_where_one_is_admin(serve, call, file):
    token = make(file, "tenant", "admin:own-*")
    tenant = call(serve(tokens=file), token)
    tenant("Create", name="own-1")
    assert tenant.refused("Rename", name="own-1", new_name="else").code() is DENIED
    assert tenant("Rename", name="own-1", new_name="own-2").name == "own-2"
    tenant("Drop", name="own-2")


def test_a_rename_takes_a_database_out_of_a_scope(serve, call, file, monkeypatch):
    root_token, token = make(file, "root", "admin:*"), make(file, "reader", "read:open-*")
    ours, theirs = serve(tokens=file), serve(tokens=file)
    root, reader, elsewhere = call(ours, root_token), call(ours, token), call(theirs, token)
    id_ = root("Create", name="open-1").id
    assert reader("Begin", namespace=id_).version
    assert elsewhere("Begin", namespace=id_).version
    root("Rename", name="open-1", new_name="closed")
    assert reader.refused("Begin", namespace=id_).code() is NOT_FOUND
    later = time.monotonic() + BELIEVED_SECONDS + 1  # another worker notices a little later
    monkeypatch.setattr("pagestore.service.names.time.monotonic", lambda: later)
    assert elsewhere.refused("Begin", namespace=id_).code() is NOT_FOUND


def test_tokens_are_read_again(serve, call, file, monkeypatch):
    let_it_look(monkeypatch)
    first = make(file, "first", "admin:*")
    service = serve(tokens=file)
    caller = call(service, first)
    namespace = caller("Create", name="main").id
    watch = caller(
        "Watch", namespace=namespace, after=caller("Begin", namespace=namespace).version, heartbeat=0.05
    )
    next(watch)
    second = make(file, "second", "read:*")
    assert call(service, second)("Info")
    next(watch)  # a stream goes on while its token does
    tokens.revoke(file, "first")
    assert caller.refused("Info").code() is UNAUTHENTICATED
    with pytest.raises(grpc.RpcError) as info:
        list(watch)
    assert info.value.code() is UNAUTHENTICATED
    Path(file).write_text("[[token]\n")
    assert call(service, second)("Info")  # half a file locks nobody out
    assert caller.refused("Info").code() is UNAUTHENTICATED


def test_a_token_ends(serve, call, file):
    token = make(file, "short", "read:*", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert call(serve(tokens=file), token).refused("Info").code() is UNAUTHENTICATED


def test_the_file_holds_no_token(file):
    token = make(file, "a", "read:*")
    assert token not in Path(file).read_text()
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert [entry.name for entry in tokens.load(file)] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "[[token]]\nname = 'a'\n",
        "[[token]]\nname = 'a'\nsha256 = 'zz'\nscopes = ['read:*']\n",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['own:*']\n",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = []\n",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['read:*']\nrights = 3\n",
        f"[[token]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['read:*']\nexpires = 2030-01-01T00:00:00\n",
        "tokens = 3\n",
        "not toml",
    ],
)
def test_a_broken_token_file_stops_the_start(serve, file, text):
    Path(file).write_text(text)
    with pytest.raises(SettingsError, match=r"tokens\.toml"):
        serve(tokens=file)


def test_a_token_file_that_everybody_may_write_is_refused(serve, file):
    make(file, "a", "read:*")
    os.chmod(file, 0o666)
    with pytest.raises(SettingsError, match="everybody"):
        serve(tokens=file)


# ---- addresses and TLS ----


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7420", "example.org"])
def test_without_tokens_only_this_machine_is_served(address, tmp_path):
    with pytest.raises(SettingsError, match="no token"):
        Settings(store=str(tmp_path), listen=(address,)).check()
    Settings(store=str(tmp_path), listen=(address,), tokens="file").check()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost", "unix:/run/x"])
def test_this_machine_needs_no_tokens(address, tmp_path):
    Settings(store=str(tmp_path), listen=(address,)).check()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def test_tls(serve, call, authority, tmp_path):
    pair = authority.issue("service")
    service = serve(listen=("127.0.0.1:0",), tls_cert=pair.cert, tls_key=pair.key)
    good = grpc.ssl_channel_credentials(Path(authority.file).read_bytes())
    assert call(service, credentials=good)("Info").max_message_bytes
    wrong = grpc.ssl_channel_credentials(Path(Authority(tmp_path, "another").file).read_bytes())
    assert call(service, credentials=wrong).refused("Info").code() is grpc.StatusCode.UNAVAILABLE
    assert call(service).refused("Info").code() is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls(serve, call, authority, tmp_path):
    pair = authority.issue("service")
    service = serve(
        listen=("127.0.0.1:0",), tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=authority.file
    )
    roots = Path(authority.file).read_bytes()

    def credentials(client) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(roots, client and client.key_bytes, client and client.cert_bytes)

    assert call(service, credentials=credentials(authority.issue("client")))("Info").max_message_bytes
    stranger = Authority(tmp_path, "another").issue("stranger")
    for client in (None, stranger):
        caller = call(service, credentials=credentials(client))
        assert caller.refused("Info").code() is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_is_replaced_without_a_restart(serve, call, authority, tmp_path):
    pair = authority.issue("service")
    service = serve(listen=("127.0.0.1:0",), tls_cert=pair.cert, tls_key=pair.key)
    other = Authority(tmp_path, "another")
    new = other.issue("replacement")
    os.replace(new.key, pair.key)
    os.replace(new.cert, pair.cert)
    credentials = grpc.ssl_channel_credentials(Path(other.file).read_bytes())
    assert call(service, credentials=credentials)("Info").max_message_bytes


def test_certificate_and_key_come_together(tmp_path):
    with pytest.raises(SettingsError, match="together"):
        Settings(store=str(tmp_path), tls_cert="x").check()
    with pytest.raises(SettingsError, match="tls-client-ca"):
        Settings(store=str(tmp_path), tls_client_ca="x").check()


def test_a_certificate_that_is_not_there(serve, tmp_path):
    with pytest.raises(SettingsError, match="certificate"):
        serve(listen=("127.0.0.1:0",), tls_cert=str(tmp_path / "no"), tls_key=str(tmp_path / "no"))
