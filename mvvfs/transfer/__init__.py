"""Between databases and ordinary SQLite files: import, export, checkout to a file; backup and restore.

Called by the command line and by programs.  Pages are copied by SQLite's own backup API
(https://www.sqlite.org/backup.html) between two connections, so that nothing here knows a page.

1. A source is never written to, and is read in one transaction.
2. What is written appears whole or not at all: a database in one commit, a file by renaming it.
3. Nothing is overwritten without `force`.
"""

from mvvfs.transfer.common import Copied, Progress, moment_of, opened
from mvvfs.transfer.exporting import export_file, reader, write_file
from mvvfs.transfer.importing import import_file
from mvvfs.transfer.target import appearing, refuse_overwriting
from mvvfs.transfer.whole import backup_store, restore_store

__all__ = [
    "Copied",
    "Progress",
    "appearing",
    "backup_store",
    "export_file",
    "import_file",
    "moment_of",
    "opened",
    "reader",
    "refuse_overwriting",
    "restore_store",
    "write_file",
]
