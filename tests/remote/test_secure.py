"""TLS, tokens and scopes from end to end, as programs and `mvctl` come to a service."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest

import mvvfs
import mvvfs.cli.app
from mvvfs import errors
from mvvfs.cli.exits import Exit
from pagestore.service import tokens
from pagestore.service.server import serving
from pagestore.service.settings import Settings
from pagestore.service.tokens import parse_scope
from tests.service.certificates import Authority
from tests.service.conftest import wait_until

Serve = Callable[..., str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tokens, "_LOOK_SECONDS", -1.0)  # the service looks at it at every call
    return str(tmp_path / "tokens.toml")


@pytest.fixture
def token(token_file: str) -> Callable[..., str]:
    """`token(name, *scopes)` makes one."""
    return lambda name, *scopes: tokens.create(token_file, name, tuple(map(parse_scope, scopes)))


@pytest.fixture
def serve(folder: str, authority: Authority, token_file: str) -> Iterator[Serve]:
    """`serve(**settings)` starts a service with TLS and tokens; the URL of its store."""
    tokens.create(token_file, "operator", (parse_scope("admin:*"),))  # so that there is a file
    with ExitStack() as stack:

        def start(**settings: object) -> str:
            pair = authority.issue("service")
            usual = {"store": folder, "create": True, "listen": ("0.0.0.0:0",), "tokens": token_file}
            chosen = Settings(**(usual | settings), tls_cert=pair.cert, tls_key=pair.key)
            service = stack.enter_context(serving(chosen))
            return f"grpcs://localhost:{str(service.addresses[0]).rpartition(':')[2]}"

        yield start


def connect(url: str, name: str, **options: object) -> apsw.Connection:
    return mvvfs.connect(name, store=url, timeout=2, **options)


def refusal(kind: type[errors.Error], work: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        work()
    return str(caught.value)


def test_sql_with_a_token_over_tls(serve, token, authority):
    url, secret = serve(), token("tenant", "admin:tenant-*")
    access = {"token": secret, "ca": authority.file}
    db = connect(url, "tenant-1", **access)
    db.execute("CREATE TABLE t(x); INSERT INTO t VALUES (1)")

    @mvvfs.transaction(db)
    def add() -> None:
        db.execute("INSERT INTO t SELECT max(x) + 1 FROM t")

    add()
    other = connect(url, "tenant-1", **access, freshness="bounded:500")
    assert other.execute("SELECT sum(x) FROM t").get == 3
    assert connect(url, "tenant-1", **access, at="HEAD~1").execute("SELECT sum(x) FROM t").get == 1
    mvvfs.register()
    connection = sqlite3.connect(
        f"file:tenant-1?vfs=mv&store={url}&ca={authority.file}&token={secret}", uri=True
    )
    assert connection.execute("SELECT sum(x) FROM t").fetchone() == (3,)
    connection.close()


def test_scopes_are_kept_through_sql(serve, token, authority):
    url = serve()
    admin, reader = token("admin", "admin:*"), token("reader", "read:open")
    for name in ("open", "closed"):
        connect(url, name, token=admin, ca=authority.file).execute("CREATE TABLE t(x)")
    show = {"token": reader, "ca": authority.file}
    db = connect(url, "open", **show)
    assert db.execute("SELECT count(*) FROM t").get == 0
    with pytest.raises(errors.NotAllowedError) as caught:
        db.execute("INSERT INTO t VALUES (1)")
    assert caught.value.result == apsw.SQLITE_AUTH
    closed, absent = (
        refusal(errors.NoSuchDatabaseError, lambda name=name: connect(url, name, **show, mode="rw"))
        for name in ("closed", "absent")
    )
    assert closed.replace("closed", "absent") == absent
    refusal(errors.NotAllowedError, lambda: connect(url, "absent", **show))  # may not create one
    assert reader not in closed


def test_a_token_that_is_missing_unknown_or_revoked(serve, token, token_file, authority):
    url, secret = serve(), token("tenant", "admin:*")
    db = connect(url, "app", token=secret, ca=authority.file)
    watching = connect(url, "app", token=secret, ca=authority.file, freshness="bounded:500")
    db.execute("CREATE TABLE t(x)")
    assert watching.execute("SELECT count(*) FROM t").get == 0
    for shown in (None, "mvt_of-somebody-else"):
        text = refusal(
            errors.NotAllowedError, lambda shown=shown: connect(url, "app", token=shown, ca=authority.file)
        )
        assert "token" in text
        assert "somebody-else" not in text
    tokens.revoke(token_file, "tenant")
    refusal(errors.NotAllowedError, lambda: db.execute("INSERT INTO t VALUES (1)"))

    def refused() -> bool:
        try:
            watching.execute("SELECT count(*) FROM t").fetchall()
        except errors.NotAllowedError:
            return True
        return False

    wait_until(refused)


CLUE = {
    "another authority": "CERTIFICATE_VERIFY_FAILED",
    "no tls": "failed to connect",
    "another name": "Hostname Verification",
}


@pytest.mark.parametrize("client", CLUE)
def test_who_cannot_check_the_service_does_not_talk_to_it(serve, token, authority, tmp_path, client):
    url, secret = serve(), token("tenant", "admin:*")
    where, ca = {
        "another authority": (url, Authority(tmp_path, "another").file),
        "no tls": (url.replace("grpcs:", "grpc:"), None),
        "another name": (url.replace("localhost", "127.0.0.2"), authority.file),
    }[client]

    def is_told() -> bool:
        """On a busy machine, time may be over before it can be known why."""
        text = refusal(
            errors.StoreUnavailableError,
            lambda: mvvfs.connect("app", store=where, token=secret, ca=ca, timeout=0.5),
        )
        assert secret not in text
        return CLUE[client] in text

    wait_until(is_told)


def test_mutual_tls(serve, token, authority, tmp_path):
    url, secret = serve(tls_client_ca=authority.file), token("tenant", "admin:*")
    known, stranger = authority.issue("client"), Authority(tmp_path, "another").issue("stranger")
    access = {"token": secret, "ca": authority.file}
    db = connect(url, "app", **access, cert=known.cert, key=known.key)
    db.execute("CREATE TABLE t(x)")
    refusal(errors.StoreUnavailableError, lambda: mvvfs.connect("app", store=url, **access, timeout=0.5))
    refusal(
        errors.StoreUnavailableError,
        lambda: mvvfs.connect("app", store=url, **access, cert=stranger.cert, key=stranger.key, timeout=0.5),
    )


def test_files_that_are_none(serve, token, tmp_path):
    url = serve()
    missing, garbage = str(tmp_path / "missing"), tmp_path / "garbage"
    garbage.write_text("no certificate")
    assert "missing" in refusal(errors.OptionError, lambda: connect(url, "app", ca=missing))
    for given in ({"ca": str(garbage)}, {"cert": str(garbage), "key": str(garbage)}):
        text = refusal(errors.OptionError, lambda given=given: connect(url, "app", **given))
        assert "not a PEM file" in text


def test_mvctl(serve, token, authority, monkeypatch, capsys):
    url, secret = serve(), token("tenant", "admin:app-*")

    def run(*args: str) -> tuple[int, str]:
        code = mvvfs.cli.app.run(args)
        out, err = capsys.readouterr()
        assert secret not in out + err
        return code, out + err

    monkeypatch.setenv("MV_STORE", url)
    monkeypatch.setenv("MV_CA", authority.file)
    code, text = run("list")
    assert (code, text.count("\n")) == (Exit.UNAVAILABLE, 1)
    monkeypatch.setenv("MV_TOKEN", secret)
    assert run("ping")[0] == Exit.OK
    assert run("create", "app-1")[0] == Exit.OK
    assert run("create", "other")[0] == Exit.UNAVAILABLE
    assert run("shell", "app-1", "-c", "CREATE TABLE t(x); INSERT INTO t VALUES (7)")[0] == Exit.OK
    assert run("shell", "app-1", "-c", "SELECT x FROM t") == (Exit.OK, "7\n")
    assert run("info", "other")[0] == Exit.NOT_FOUND
    assert [line.split()[-1] for line in run("list")[1].splitlines()] == ["app-1"]
