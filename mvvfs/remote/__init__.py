"""A store behind a service, over gRPC (proto/pagestore/v1/pagestore.proto): `RemoteStore`.

Opened by `mvvfs.stores`, which imports this only where a URL asks for it: gRPC is in the extra `client`.
"""

from pagestore import poller

poller.choose()  # before the modules that import gRPC

from mvvfs.remote.store import RemoteStore, open_remote  # noqa: E402

__all__ = ["RemoteStore", "open_remote"]
