"""How much memory a process took.

Called by the processes that `cluster`, `large` and tests of memory start.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """Bytes that this process had in memory at most.

    Without /proc it may be what its parent had when it started this one: getrusage begins with that."""
    if _STATUS.exists():
        return int(_STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
