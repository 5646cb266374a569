"""Which of gRPC's pollers is used, by the service and by its clients.

Called before anything imports gRPC: by a worker (`service.workers`; the commands that serve nothing do
without) and by `mvvfs.remote`.

gRPC has a newer poller, EventEngine, since 2026 also under Python, as experiments that are on by default
(https://github.com/grpc/grpc/pull/41432).  A small call costs a quarter to a third less of the processor with
the older one, so that one is chosen as long as there is a choice.  With it, a channel that lost its
connection takes seconds to find a service that is back: `mvvfs.remote.calls` makes a new one after each
failure.  Whoever sets GRPC_EXPERIMENTS, or imports gRPC first, has chosen for themselves.
"""

from __future__ import annotations

import importlib
import os
import sys

VARIABLE = "GRPC_EXPERIMENTS"
OLDER = "-event_engine_client,-event_engine_listener"


def choose() -> None:
    """Load gRPC with the older poller.  The environment, which children inherit, stays."""
    if "grpc" in sys.modules or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = OLDER
    try:
        importlib.import_module("grpc")
    finally:
        del os.environ[VARIABLE]
