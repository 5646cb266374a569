"""Which of gRPC's pollers the service uses.

Called by a worker (`workers`) before anything imports gRPC: the commands that serve nothing do without it.

gRPC has a newer poller, EventEngine, since 2026 also under Python, as experiments that are on by default
(https://github.com/grpc/grpc/pull/41432).  For a server, a small call costs a quarter less of the processor
with the older one, so that one is chosen as long as there is a choice.  Not for clients: with the older one
they took seconds to find a service that was back.  Whoever sets GRPC_EXPERIMENTS, or imports gRPC first, has
chosen for themselves.
"""

from __future__ import annotations

import importlib
import os
import sys

VARIABLE = "GRPC_EXPERIMENTS"
OLDER = "-event_engine_listener"


def choose() -> None:
    """Load gRPC with the older poller for servers.  The environment, which children inherit, stays."""
    if "grpc" in sys.modules or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = OLDER
    try:
        importlib.import_module("grpc")
    finally:
        del os.environ[VARIABLE]
