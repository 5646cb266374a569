"""The `pagestore` command: serve a store, make and revoke tokens, ask a service how it is.

Called as the console script.  Calls `workers`, `tokens`, `settings`.

An option is taken from the command line, else from the environment (PAGESTORE_ and its name), else from the
file that --config names, else it is the default of `settings.Settings`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from pagestore.api import StoreError
from pagestore.service import logs, tokens, workers
from pagestore.service.settings import Settings, SettingsError, parse_address, read_file

_DEFAULTS = {field.name: field.default for field in fields(Settings)}

_FAILED = 1
_USAGE = 2


class _Size(click.ParamType[int]):
    """Bytes, with K, M or G for the powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().upper()
        number, unit = (text[:-1], text[-1]) if text[-1:] in "KMG" and text else (text, "")
        if not number.isdecimal():
            self.fail(f"{value!r} is no size: expected bytes, or 16K, 64M, 1G", param, ctx)
        return int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]


class _Mode(click.ParamType[int]):
    name = "mode"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value!r} is no file mode: expected octal digits", param, ctx)


_SIZE, _MODE = _Size(), _Mode()
_FILE = click.Path(dir_okay=False)

_Command = Callable[..., Any]


def _option(name: str, text: str, **more: Any) -> Callable[[_Command], _Command]:
    """An option of `serve` with its environment variable and the default of `Settings`."""
    field = name.replace("-", "_")
    default = _DEFAULTS.get(field)
    if "default" not in more and not more.get("required"):
        more["default"] = default
    shown = default not in (None, 0, 0.0) and not isinstance(default, bool)
    if more.get("type") is _MODE:
        more["show_default"] = f"{default:o}"
    elif more.get("type") is _SIZE and isinstance(default, int):
        more["show_default"] = f"{default >> 20}M"
    else:
        more.setdefault("show_default", shown)
    flags = more.pop("flags", f"--{name}")
    return click.option(
        flags, field, help=text, envvar=f"PAGESTORE_{field.upper()}", show_envvar=False, **more
    )


def _load(context: click.Context, _param: click.Parameter, path: str | None) -> None:
    if path is not None:
        try:
            context.default_map = read_file(path)
        except SettingsError as exc:
            raise click.UsageError(str(exc), context) from exc


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mvvfs", prog_name="pagestore")
def app() -> None:
    """Serve a page store to other machines."""


@app.command()
@click.option(
    "--config",
    type=_FILE,
    is_eager=True,
    expose_value=False,
    callback=_load,
    envvar="PAGESTORE_CONFIG",
    help="A TOML file with any of these options, by name.",
)
@_option("store", "The store: a folder, or fdb:...", required=True, metavar="URL")
@_option("listen", "HOST:PORT or unix:PATH; may be given again.", multiple=True, metavar="ADDR")
@_option("create", "Make the store if there is none.", is_flag=True)
@_option("read-only", "Refuse every write.", is_flag=True)
@_option("timeout", "Seconds that a call waits for the store.", type=float)
@_option("workers", "Processes, on the same port.", type=int)
@_option("drain", "Seconds that calls may go on after SIGTERM.", type=float)
@_option("socket-mode", "Of a Unix socket.", type=_MODE)
@_option("tls-cert", "Certificate chain, PEM.", type=_FILE)
@_option("tls-key", "Its key, PEM.", type=_FILE)
@_option("tls-client-ca", "Who shows no certificate of this authority is refused.", type=_FILE)
@_option("tokens", "The token file (pagestore token create).", type=_FILE)
@_option("reflection", "Tell the protocol to tools that ask.", flags="--reflection/--no-reflection")
@_option("max-message", "Of one message.", type=_SIZE)
@_option("max-commit", "Of the pages of one commit; more are staged before.", type=_SIZE)
@_option("max-answer", "Beyond it an answer is divided.", type=_SIZE)
@_option("max-read-pages", "Pages of one read.", type=int)
@_option("max-streams", "Streams that one worker has open.", type=int)
@_option("max-caller-streams", "Streams that one caller has open.", type=int)
@_option("max-calls", "Calls at a time in one worker.", type=int)
@_option("rate", "Calls a second of one caller; 0: no limit.", type=float)
@_option("burst", "Calls at once of one caller; 0: those of two seconds.", type=float)
@_option("min-heartbeat", "Seconds, of a watch.", type=float)
@_option("metrics", "Show Prometheus metrics at HOST:PORT.", metavar="ADDR")
@_option("metrics-namespaces", "Namespaces with time series of their own.", type=int)
@_option(
    "log-level", "debug, info, warning or error.", type=click.Choice(["debug", "info", "warning", "error"])
)
@_option("slow", "Seconds; a call that takes longer is logged.", type=float)
@_option("collect-every", "Seconds between two runs of retention; 0: none.", type=float)
def serve(**options: Any) -> int:
    """Serve a store until SIGTERM."""
    options["listen"] = tuple(options["listen"])
    settings = Settings(**options)
    logs.set_up(settings.log_level)
    return workers.run(settings)


@app.group()
def token() -> None:
    """Make, list and revoke bearer tokens."""


_tokens_option = click.option(
    "--tokens", "path", required=True, type=_FILE, envvar="PAGESTORE_TOKENS", help="The token file."
)


def _scope(context: click.Context, param: click.Parameter, texts: Sequence[str]) -> tuple[tokens.Scope, ...]:
    try:
        return tuple(map(tokens.parse_scope, texts))
    except ValueError as exc:
        raise click.BadParameter(str(exc), context, param) from exc


@token.command("create")
@_tokens_option
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    callback=_scope,
    metavar="RIGHT:GLOB",
    help="read, write or admin, and the names it is for; may be given again.",
)
@click.option("--days", type=float, help="How long it is good for; without: until it is revoked.")
@click.argument("name")
def create_token(path: str, scopes: tuple[tokens.Scope, ...], days: float | None, name: str) -> None:
    """Make a token called NAME and show it, once: the file keeps only its hash."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    click.echo(tokens.create(path, name, scopes, expires))


@token.command("list")
@_tokens_option
def list_tokens(path: str) -> None:
    """Names and scopes."""
    for entry in tokens.load(path):
        until = f"  until {entry.expires:%Y-%m-%d %H:%M}" if entry.expires else ""
        click.echo(f"{entry.name}  {' '.join(map(str, entry.scopes))}{until}")


@token.command("revoke")
@_tokens_option
@click.argument("name")
def revoke_token(path: str, name: str) -> None:
    """Take a token back; services notice within a second, at the next call."""
    tokens.revoke(path, name)


@app.command()
@click.option("--tls-ca", type=_FILE, help="The service's certificate authority, PEM: use TLS.")
@click.option("--timeout", type=float, default=5.0, show_default=True, help="Seconds.")
@click.argument("address")
def health(address: str, tls_ca: str | None, timeout: float) -> int:
    """Ask the service at ADDRESS whether it serves; exit code 0 if so.  Needs no token."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    where = str(parse_address(address))
    if tls_ca is None:
        channel = grpc.insecure_channel(where)
    else:
        with open(tls_ca, "rb") as file:
            channel = grpc.secure_channel(where, grpc.ssl_channel_credentials(file.read()))
    with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as exc:
            silent = exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            said = f"no answer within {timeout:g} s" if silent else f"{exc.code().name}: {exc.details()}"
            click.echo(f"{where}: {said}", err=True)
            return _FAILED
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    click.echo(f"{where}: {status}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else _FAILED


def run(arguments: Sequence[str] | None = None) -> int:
    """One command; its exit code.  What goes wrong is one line on stderr."""
    try:
        result = app.main(
            args=None if arguments is None else list(arguments), prog_name="pagestore", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.ClickException as exc:
        code, line = _USAGE, " ".join(exc.format_message().split())
    except SettingsError as exc:
        code, line = _USAGE, str(exc)
    except (tokens.TokenFileError, StoreError, OSError) as exc:
        code, line = _FAILED, str(exc)
    except (click.Abort, KeyboardInterrupt):
        code, line = 130, "interrupted"
    click.echo(f"pagestore: {line}", err=True)
    return code


def main() -> None:
    """The console script."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it tells of each failed handshake, in no JSON
    sys.exit(run())
