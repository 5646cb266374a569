"""Whole store folders to one file and back.

Called by the command line and by programs; calls `pagestore.embedded`.
"""

from __future__ import annotations

import errno
import os

from mvvfs import names
from mvvfs.errors import UnsupportedError
from mvvfs.transfer.common import Progress
from mvvfs.transfer.target import flush, refuse_overwriting, temporary_name
from pagestore import embedded


def backup_store(store: str, target: str, *, force: bool = False, progress: Progress | None = None) -> None:
    """Copy a store folder, with all history, into one file, consistent while writers write.

    Raises FileExistsError without `force`, and what `pagestore.embedded.backup` raises."""
    refuse_overwriting(target, force)
    _check_folder(store, "backed up")
    if not os.path.lexists(target):
        embedded.backup(names.store_url(store), target, progress)
        return
    temporary = temporary_name(target)
    embedded.backup(names.store_url(store), temporary, progress)
    os.replace(temporary, target)
    flush(os.path.dirname(temporary))


def _check_folder(store: str, what: str) -> None:
    if not names.is_folder(names.store_url(store)):
        raise UnsupportedError(
            f"only a store folder can be {what}, not {store}: do it where the folder is (mvctl copy copies a "
            "database from any store to any other)"
        )


def restore_store(source: str, store: str, *, progress: Progress | None = None) -> None:
    """Bring a store back from a backup file, verified, as a new folder.

    Raises FileNotFoundError, and what `pagestore.embedded.restore` raises."""
    if not os.path.exists(source):
        raise FileNotFoundError(errno.ENOENT, "no such file", source)
    if os.path.isdir(source):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a store's backup", source)
    if not os.access(source, os.R_OK):
        raise PermissionError(errno.EACCES, "may not be read", source)
    _check_folder(store, "restored into")
    embedded.restore(source, names.store_url(store), progress)
