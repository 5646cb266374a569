"""What a caller gets for what the file system says.

Called by whatever opens files itself; calls nothing.
"""

from __future__ import annotations

import errno

from pagestore.api import StoreError, StoreFullError, StoreReadOnlyError, StoreUnavailableError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room: on the disk, in a quota, under a limit on file sizes."""

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def file_error(exc: OSError) -> StoreError:
    where = f"{exc.filename}: " if exc.filename else ""
    if exc.errno in FULL:
        return StoreFullError(f"{where}{exc.strerror}")
    if exc.errno in _FORBIDDEN:
        return StoreReadOnlyError(f"{where}{exc.strerror}")
    return StoreUnavailableError(f"{where}{exc.strerror}")
