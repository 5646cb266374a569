"""Retention beside writers: `python -m bench.retaining STORE SECONDS`, started by `bench.targets`.

It says "ready", waits until somebody commits, lets go of history for so long, and says as JSON how many
versions went.  All but the last moments goes: what is measured is the work, not the wait until it may be.
"""

from __future__ import annotations

import json
import sys
import time

from pagestore import retention
from pagestore.api import Retention
from pagestore.opener import open_store

GRACE_SECONDS = 0.5
PATIENCE_S = 60.0


def main() -> None:
    url, seconds = sys.argv[1], float(sys.argv[2])
    retention.GRACE_SECONDS = GRACE_SECONDS
    store = open_store(url, create=False)
    namespace = store.open("main").id
    store.set_retention(namespace, Retention(0))
    newest = store.begin(namespace).version
    time.sleep(GRACE_SECONDS)  # all that is there now may go
    print("ready", flush=True)
    deadline = time.monotonic() + PATIENCE_S
    while store.begin(namespace).version == newest:
        if time.monotonic() > deadline:
            sys.exit(f"nobody has committed for {PATIENCE_S:.0f} s")
        time.sleep(0.01)
    went = store.collect(namespace, seconds=seconds)
    print(json.dumps({"versions": went.versions, "complete": went.complete}))
    store.close()


if __name__ == "__main__":
    main()
