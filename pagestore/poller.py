"""Which of gRPC's pollers this process uses.

Called, before they import gRPC, by the packages that do: `wire`, `service` and `mvvfs.remote`.

gRPC has a newer poller, EventEngine, since 2026 also under Python, as experiments that are on by default
(https://github.com/grpc/grpc/pull/41432).  A small call costs a third less of the processor, at both ends,
and takes a quarter less time with the older one, so that one is chosen as long as there is a choice.  Whoever
sets GRPC_EXPERIMENTS, or imports gRPC first, has chosen for themselves.
"""

from __future__ import annotations

import importlib
import os
import sys

VARIABLE = "GRPC_EXPERIMENTS"
OLDER = "-event_engine_client,-event_engine_listener"


def choose() -> None:
    """Load gRPC with the older poller; the environment, which children inherit, stays as it was."""
    if "grpc" in sys.modules or VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = OLDER
    try:
        importlib.import_module("grpc")
    finally:
        del os.environ[VARIABLE]
