"""A file that appears whole or not at all, and over nothing.

Called by `exporting`, `whole`, `mvvfs.cut` and the command line; calls the file system.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from mvvfs.transfer.common import COMPANIONS


def refuse_overwriting(target: str, force: bool) -> None:
    """Raises FileExistsError, IsADirectoryError."""
    for suffix in COMPANIONS:
        if os.path.lexists(target + suffix):
            raise FileExistsError(
                errno.EEXIST, "SQLite would apply it to the new file: remove it first", target + suffix
            )
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "a folder", target)
    if not force and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "file exists", target)


@contextlib.contextmanager
def appearing(target: str, force: bool) -> Iterator[str]:
    """A temporary file beside `target` that takes its name, flushed, when the block ends well."""
    refuse_overwriting(target, force)
    temporary = temporary_name(target)
    try:
        try:  # SQLite would only say that it was unable to open the file
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, target) from None
        try:
            yield temporary
        except OSError as exc:
            if exc.errno != errno.ENOSPC or exc.filename is not None:
                raise
            raise OSError(exc.errno, exc.strerror, target) from exc
        flush(temporary)
        refuse_overwriting(target, force)
        if force:
            os.replace(temporary, target)
        else:
            _rename_unless_there(temporary, target)
        flush(os.path.dirname(temporary))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def temporary_name(target: str) -> str:
    folder, name = os.path.split(os.path.abspath(target))
    return os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")


def _rename_unless_there(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)  # unlike rename(), refuses to overwrite
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, "file exists", target) from None
    except OSError:  # a file system without links
        os.replace(temporary, target)


def flush(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
