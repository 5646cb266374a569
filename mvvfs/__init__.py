"""mvvfs: SQLite that many processes write at once and that remembers every version.

    import mvvfs

    connection = mvvfs.connect("app.db")          # an apsw.Connection
    mvvfs.register()                              # or: any SQLite URI with vfs=mv, in this process

Start reading at ARCHITECTURE.md.
"""

import logging

from mvvfs.compare.api import Commit, changes, diff
from mvvfs.compare.changes import RowChange, SchemaChange
from mvvfs.connect import connect, register
from mvvfs.errors import ConflictError, Error, OutcomeUnknownError
from mvvfs.retry import transaction

__all__ = [
    "Commit",
    "ConflictError",
    "Error",
    "OutcomeUnknownError",
    "RowChange",
    "SchemaChange",
    "changes",
    "connect",
    "diff",
    "register",
    "transaction",
]

for _name in ("mvvfs", "pagestore"):  # a library leaves it to the program what is shown
    logging.getLogger(_name).addHandler(logging.NullHandler())
