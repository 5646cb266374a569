"""Opens a store by its URL: one behind a service here, every other by `pagestore.opener`.

Called by `bridge` and `transfer`; calls `pagestore.opener` and, where a URL asks for it, `mvvfs.remote`.

1. Of each service, as seen with the same credentials, a process has one store object at a time, shared by all
   who open it and closed by the last of them.
2. A credential appears in no error, log or representation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from mvvfs import names
from mvvfs.errors import OptionError
from mvvfs.options import Options, from_keywords
from pagestore import opener
from pagestore.api import Store, StoreReadOnlyError
from pagestore.shared import SharedStores

if TYPE_CHECKING:
    from mvvfs.remote import RemoteStore


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at a service; docs/options.md explains each field."""

    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, options: Options) -> Self:
        return cls(options.token, options.ca, options.cert, options.key)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        return cls.of(from_keywords({}, environ))


_shared: SharedStores[tuple[str, Access], RemoteStore] = SharedStores()


def open_store(
    url: str, *, create: bool, read_only: bool = False, timeout: float = 5.0, access: Access | None = None
) -> Store:
    """The store at `url`, as `pagestore.opener.open_store` opens it; also one behind a service.

    `grpc://HOST:PORT[,HOST:PORT...]`, `grpcs://` the same with TLS, `grpc+unix:/PATH`.  `create`: of no
    meaning for a service.  `access` None: from the environment.  Raises as that does, OptionError (a
    malformed address, a certificate that can't be read), NotAllowedError."""
    if not names.is_service(url):
        return opener.open_store(url, create=create, read_only=read_only, timeout=timeout)
    key = url, access or Access.from_environment()
    timeout = timeout or opener.NETWORK_SECONDS
    store = _shared.open(key, lambda: _make(*key, timeout), timeout)
    try:
        if store.info().read_only and not read_only:
            raise StoreReadOnlyError(f"the service at {url} serves a store that can't be written to")
    except BaseException:
        store.close()
        raise
    return store


def _make(url: str, access: Access, timeout: float) -> RemoteStore:
    try:
        from mvvfs.remote import open_remote
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in ("grpc", "google"):
            raise
        raise OptionError(f"{url}: a service is reached with gRPC: pip install 'mvvfs[client]'") from None
    return open_remote(url, access.token, access.ca, access.cert, access.key, timeout)
