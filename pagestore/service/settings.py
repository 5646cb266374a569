"""How a service is set up: one value for each option of `pagestore serve`, checked as a whole.

Made by `cli` from flags, environment variables and a TOML file; read by everything here.
"""

from __future__ import annotations

import ipaddress
import tomllib
from dataclasses import dataclass, fields
from typing import Any

DEFAULT_PORT = 7420


class SettingsError(Exception):
    """Settings that contradict each other, or that nobody should run with."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    path: str = ""
    """Of a Unix socket; else empty."""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def is_private(self) -> bool:
        """Only this machine gets there."""
        if self.is_unix or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """HOST:PORT, HOST, [IPV6]:PORT or unix:PATH.  Raises SettingsError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path:
            raise SettingsError("unix: is followed by the path of the socket")
        return Address("", 0, path)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise SettingsError(f"{text!r} is no address: expected [IPV6]:PORT")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise SettingsError(f"{text!r} is no address: an IPv6 address stands in brackets")
    if not host or (port and not (port.isascii() and port.isdigit() and int(port) < 65536)):
        raise SettingsError(f"{text!r} is no address: expected HOST:PORT or unix:PATH")
    return Address(host, int(port) if port else DEFAULT_PORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each field is an option of the same name; sizes in bytes, durations in seconds."""

    store: str
    listen: tuple[str, ...] = (f"127.0.0.1:{DEFAULT_PORT}",)
    create: bool = False
    """Make the store if there is none."""
    read_only: bool = False
    timeout: float = 5.0
    """How long a call waits for the store."""
    workers: int = 1
    drain: float = 20.0
    """How long calls may go on after SIGTERM."""
    socket_mode: int = 0o660

    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    """Who shows no certificate of these is refused."""
    tokens: str | None = None
    reflection: bool = True

    max_message: int = 64 << 20
    max_commit: int = 16 << 20
    """Blobs of one commit."""
    max_answer: int = 8 << 20
    """What is divided, or left out, is divided beyond this."""
    max_read_pages: int = 1024
    max_streams: int = 10_000
    """Of one worker."""
    max_caller_streams: int = 1000
    max_calls: int = 1000
    """At a time, in one worker."""
    rate: float = 0.0
    """Calls a second of one caller, by worker; 0: no limit."""
    burst: float = 0.0
    """Calls that a caller may make at once beyond its rate; 0: those of two seconds."""
    min_heartbeat: float = 0.02

    metrics: str | None = None
    metrics_namespaces: int = 100
    """That have time series of their own."""
    log_level: str = "info"
    slow: float = 1.0
    """A call that takes longer is logged."""
    collect_every: float = 600.0
    """Between two runs of retention; 0: none."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(map(parse_address, self.listen))

    def check(self) -> None:
        """Raises SettingsError."""
        if not self.listen:
            raise SettingsError("no address to listen on")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingsError("a certificate and its key come together: tls-cert and tls-key")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsError("tls-client-ca needs tls-cert and tls-key")
        public = [address for address in self.addresses if not address.is_private]
        if public and self.tokens is None:
            raise SettingsError(
                f"{public[0]} can be reached from other machines, and no token is asked for: "
                "set tokens, or listen on a loopback address or a Unix socket"
            )
        if self.workers < 1:
            raise SettingsError("workers: at least 1")
        if self.workers > 1 and any(address.is_unix for address in self.addresses):
            raise SettingsError("a Unix socket belongs to one worker: give each service a socket of its own")
        if self.workers > 1 and self.store.startswith("memory:"):
            raise SettingsError("a store in memory belongs to one worker")
        if not self.max_answer <= self.max_message or not self.max_commit < self.max_message:
            raise SettingsError("max-answer and max-commit fit into max-message")
        for name in ("max_read_pages", "max_streams", "max_caller_streams", "max_calls"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name.replace('_', '-')}: at least 1")


def read_file(path: str) -> dict[str, Any]:
    """Options by name, from a TOML file.  Raises SettingsError."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as exc:
        raise SettingsError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    known = {field.name for field in fields(Settings)}
    options = {name.replace("-", "_"): value for name, value in found.items()}
    unknown = options.keys() - known
    if unknown:
        raise SettingsError(f"{path}: there is no option {min(unknown)!r}")
    if isinstance(options.get("listen"), str):
        options["listen"] = [options["listen"]]
    return options
