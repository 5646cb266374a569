"""The pragmas of an mv database: `PRAGMA mv_version`, `mv_at`, `mv_message` and the like.

Called by `bridge`, when SQLite prepares the statement: perhaps twice, and not again when a prepared statement
is used once more.  So each may be repeated without harm.  Calls the shim, the session and `when`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from mvvfs import holding, joint, when
from mvvfs.database import c_alloc
from mvvfs.errors import OptionError, TransactionError
from mvvfs.session import Session
from mvvfs.shim import ffi, lib
from pagestore.api import Version, format_version

TURN_SECONDS = 5.0
"""The turn of a transaction that asked for the write lock first; one that lost says how long it needs."""


def _version(session: Session, _value: str | None) -> str:
    """The version that the open transaction stands at, or the last one stood at."""
    version = ffi.new("uint8_t[10]")
    lib.mv_file_version(session.file, version)
    return format_version(Version(ffi.buffer(version)[:]))


def _at(session: Session, value: str | None) -> str | None:
    """`PRAGMA mv_at = WHEN` stands at a moment until `PRAGMA mv_at = ''`; without a value, which."""
    if value is None:
        return None if session.pinned is None else format_version(session.pinned)
    if not value.strip():
        _stand(session, None)
        return None
    database = session.database
    database.begin()  # a snapshot is cached only up to what has been applied
    moment = when.resolve(value, database.store, database.id)
    version = moment.version
    holding.pin(database, version, moment.time_us)
    _stand(session, version)
    return format_version(version)


def _stand(session: Session, version: Version | None) -> None:
    database = session.database
    if version is None:
        refused = lib.mv_file_pin(session.file, ffi.NULL, ffi.NULL, 0)
    else:
        alloc = c_alloc(database.store.allocation(database.id, version))
        refused = lib.mv_file_pin(session.file, version, alloc, lib.mv_db_page_size(database.cache))
        if refused:
            lib.mv_alloc_release(alloc)
    if refused:
        raise TransactionError(
            "PRAGMA mv_at works between transactions: end this one, and read open cursors to their end"
        )
    session.pinned = version


def _message(session: Session, value: str | None) -> str:
    """What goes into the changelog with each commit of this connection."""
    if value is not None:
        session.set_message(value)
    return session.message


def _stats(session: Session, _value: str | None) -> str:
    stats = ffi.new("mv_stats *")
    lib.mv_file_stats(session.file, stats)
    return json.dumps({name: getattr(stats, name) for name, _ in ffi.typeof("mv_stats").fields})


def _last_error(session: Session, _value: str | None) -> str | None:
    return session.last_error


def _turn(session: Session, value: str | None) -> str:
    """`PRAGMA mv_turn = 'pages 5'`, `'all 5'` (seconds) or `'leave'`: for `mvvfs.transaction`."""
    what, _, seconds = (value or "").partition(" ")
    sessions = joint.last_lost(session, session.peers(lib.MV_ALL_PEERS))
    if what == "leave":
        for each in sessions:
            each.leave_turn()
        return "left"
    if what not in ("pages", "all"):
        raise OptionError("mv_turn takes 'pages SECONDS', 'all SECONDS' or 'leave'")
    hold = min(max(float(seconds or TURN_SECONDS), 0.1), joint.MAX_TURN_SECONDS)
    wait = max(session.options.timeout, hold)
    came = joint.take_turn(sessions, seconds=hold, everything=what == "all", wait=wait)
    return "taken" if came else "waiting"


def _confirm(session: Session, _value: str | None) -> str:
    """Whether what the last transaction has read still holds, if it started without asking: for
    `mvvfs.transaction`."""
    peers = (session, *session.peers(lib.MV_ALL_PEERS))
    unconfirmed = {id(peer): peer for peer in peers if lib.mv_file_unconfirmed(peer.file)}
    return "confirmed" if all(peer.confirm() for peer in unconfirmed.values()) else "changed"


PRAGMAS: dict[str, Callable[[Session, str | None], str | None]] = {
    "mv_at": _at,
    "mv_confirm": _confirm,
    "mv_last_error": _last_error,
    "mv_message": _message,
    "mv_stats": _stats,
    "mv_turn": _turn,
    "mv_version": _version,
}
"""By name: what to do with the value, if there is one, and what to answer."""
