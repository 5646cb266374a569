"""Where a service is, and what it is shown: from a URL and options to what gRPC takes.

Called by `store`; calls nothing.

    grpc://HOST[:PORT][,HOST[:PORT]...]     plain, for a trusted network
    grpcs://HOST[:PORT][,HOST[:PORT]...]    TLS
    grpc+unix:/PATH                         a Unix socket
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import grpc

from mvvfs.errors import OptionError

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s\[\]:/@,?#]+)(?::([0-9]{1,5}))?", re.ASCII)
DEFAULT_PORT = 7420
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A service: each target is the same store."""

    url: str
    targets: tuple[str, ...]
    """As gRPC names them, to be tried in turn."""
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    """None: no TLS."""
    token: str | None = field(repr=False)


def parse(url: str, token: str | None, ca: str | None, cert: str | None, key: str | None) -> Address:
    """Raises OptionError, which never shows what stands before an `@` (some put secrets there)."""
    scheme, _, rest = url.partition(":")
    if scheme == "grpc+unix":
        path = unquote(rest.removeprefix("//"))
        if not path.startswith("/"):
            raise OptionError("a service on a Unix socket is written grpc+unix:/absolute/path")
        targets: tuple[str, ...] = (f"unix:{path}",)
    else:
        targets = tuple(_target(scheme, each) for each in rest.removeprefix("//").rstrip("/").split(","))
    if scheme != "grpcs":
        if ca or cert or key:
            raise OptionError(f"ca, cert and key are for grpcs:, and the store is {scheme}:")
        return Address(url, targets, None, token)
    if bool(cert) != bool(key):
        raise OptionError("cert and key come together: the client's certificate and its private key")
    credentials = grpc.ssl_channel_credentials(_pem("ca", ca), _pem("key", key), _pem("cert", cert))
    return Address(url, targets, credentials, token)


def _target(scheme: str, text: str) -> str:
    match = _HOST_PORT.fullmatch(text)
    if match is None or not 0 < int(match[2] or DEFAULT_PORT) <= _MAX_PORT:
        shown = "" if "@" in text else f", not {text!r}"
        raise OptionError(
            f"a service is written {scheme}://HOST[:PORT][,HOST[:PORT]...]{shown} "
            "(the scheme once; a token: in token=)"
        )
    return f"{match[1]}:{match[2] or DEFAULT_PORT}"


def _pem(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as exc:
        raise OptionError(f"{option}={path!r}: {exc.strerror}") from exc
    if b"-----BEGIN " not in content:  # gRPC would take it, and only say that nobody answers
        raise OptionError(f"{option}={path!r}: not a PEM file")
    return content
