"""The Python end of the C shim's boundary (native/calls.h): structs to calls, exceptions to SQLite codes.

Called by SQLite through the shim, on whatever thread runs the SQL.  An exception never gets lost: its
text stays with the session (`PRAGMA mv_last_error`), and it is noted for the thread, so that a binding
which looks for a pending exception (APSW) raises it as itself.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from mvvfs import closing, errors, holding, joint, names, when
from mvvfs.database import Database, Databases, c_alloc, c_changes
from mvvfs.options import Options, from_uri
from mvvfs.pragmas import PRAGMAS, TURN_SECONDS
from mvvfs.session import Session
from mvvfs.shim import ffi, lib
from mvvfs.stores import Access, open_store
from pagestore.api import (
    ConflictError,
    LeaseEndedError,
    NameTakenError,
    NoSuchNamespaceError,
    PageNumber,
    PageSet,
    PageWrite,
    Store,
    StoreError,
    StoreReadOnlyError,
    UnsupportedError,
    Version,
)
from pagestore.encoding import FREED, Base, encode_many

_OK, _NOMEM, _INTERRUPT, _IOERR, _NOTFOUND, _MISUSE = 0, 7, 9, 10, 12, 21
_OPEN_READONLY, _OPEN_CREATE = 0x1, 0x4

_log = logging.getLogger("mvvfs")
_slow_log = logging.getLogger("mvvfs.slow")
_databases = Databases()
_handles: dict[Any, Session] = {}  # keeps sessions alive while C holds their handles
_stores: dict[str, int] = {}
"""A number for each store's URL: by it the shim knows which databases belong together."""


def _after_fork() -> None:
    global _databases
    _databases = Databases()  # the parent's are left alone: their connections are refused


os.register_at_fork(after_in_child=_after_fork)


def _failed(session: Session | None, exc: BaseException) -> int:
    """Note what went wrong; the SQLite code to answer with."""
    if isinstance(exc, StoreError | errors.Error):
        code, exc = errors.translate(exc)
    elif isinstance(exc, KeyboardInterrupt):
        code = _INTERRUPT
    elif isinstance(exc, MemoryError):
        code = _NOMEM
    else:
        code = _IOERR
    if session is not None:
        session.last_error = f"{type(exc).__name__}: {exc}"
    lib.mv_set_pending(id(exc))
    return code


def _outside(_type: type[BaseException], exc: BaseException, _traceback: TracebackType) -> int:
    """An exception that came before or after a callback's own `try` (a signal, say)."""
    return _failed(None, exc)


def _session(handle: Any) -> Session:
    session: Session = ffi.from_handle(handle)
    return session


# ---- opening ----


def _text(value: Any) -> str:
    """What a host passes as UTF-8."""
    data: bytes = ffi.string(value)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise errors.OptionError(f"{data!r} is not UTF-8: {exc}") from None


def _open_options(args: Any) -> tuple[str, Options]:
    def parameter(key: str) -> str | None:
        value = lib.mv_uri(args.file, key.encode())
        return None if value == ffi.NULL else _text(value)

    for refused in ("nolock", "immutable"):
        if parameter(refused) not in (None, "0", "no", "off", "false"):
            raise errors.OptionError(f"{refused}=1 can't be used with an mv database")
    return _text(args.name), from_uri(parameter, os.environ)


def _open_store(
    location: names.Location, options: Options, *, create: bool, read_only: bool
) -> tuple[Store, bool]:
    opening = functools.partial(
        open_store, location.store_url, timeout=options.timeout, access=Access.of(options)
    )
    if not read_only:
        try:
            return opening(create=create), False
        except StoreReadOnlyError:
            if create and options.mode == "rw":
                raise
    return opening(create=False, read_only=True), True


def _open_database(args: Any) -> tuple[Database, Options, bool, Version | None]:
    name, options = _open_options(args)
    location = names.resolve(name, options.store, os.environ)
    create = bool(args.flags & _OPEN_CREATE) and options.mode == "rwc" and options.at is None
    store, read_only = _open_store(
        location, options, create=create, read_only=bool(args.flags & _OPEN_READONLY) or options.mode == "ro"
    )
    try:
        try:
            namespace = store.open(location.namespace)
        except NoSuchNamespaceError:
            if not create or read_only:
                raise
            try:
                namespace = store.create(location.namespace, page_size=options.page_size)
            except NameTakenError:  # another process was quicker
                namespace = store.open(location.namespace)
        database = _databases.acquire(store, namespace, options)
    except BaseException:
        store.close()
        raise
    try:
        pinned = None
        if options.at is not None:
            database.begin()  # a snapshot is cached only up to what has been applied
            moment = when.resolve(options.at, store, namespace.id)
            pinned = moment.version
            holding.pin(database, pinned, moment.time_us)
            args.alloc = c_alloc(store.allocation(namespace.id, pinned))
            args.page_size = lib.mv_db_page_size(database.cache)
    except BaseException:
        _databases.release(database)
        raise
    return database, options, read_only, pinned


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_open(args: Any) -> int:
    try:
        database, options, read_only, pinned = _open_database(args)
    except BaseException as exc:  # noqa: BLE001 (becomes a code and a pending exception)
        _log.info("%s can't be opened: %s", ffi.string(args.name).decode(errors="replace"), exc)
        return _failed(None, exc)
    session = Session(database, options, pinned, args.file)
    session.read_only = read_only
    handle = ffi.new_handle(session)
    _handles[handle] = session
    args.session = handle
    lib.mv_db_retain(database.cache)
    args.db = database.cache
    args.read_only = read_only
    args.store = _stores.setdefault(database.store.url, len(_stores) + 1)
    args.namespace = database.id
    args.leases = options.leases == "on"
    args.queued = options.concurrency == "queued"
    args.always_begin = options.reads == "durable"
    args.distant = database.store.distant
    args.within = round(options.within * 1e9)
    if options.read_ahead == "on" or (options.read_ahead == "auto" and database.store.distant):
        lib.mv_db_read_ahead(database.cache)
        args.read_ahead = 1
    args.spill_bytes = options.spill_bytes
    args.slow_seconds = options.slow_ms / 1000
    if pinned is not None:
        args.pinned = 1
        ffi.memmove(args.version, pinned, len(pinned))
    return _OK


@ffi.def_extern(onerror=_outside)
def mv_py_close(handle: Any) -> None:
    session = _handles.pop(handle)
    closing.close(functools.partial(_close, session))


def _close(session: Session) -> None:
    try:
        session.close()
    except StoreError as exc:  # the lease ends by itself
        _log.info("%s: at close: %s", session.database.name, exc)
    finally:
        _databases.release(session.database)


# ---- transactions ----


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_begin(handle: Any, args: Any) -> int:
    session = _session(handle)
    try:
        since = None if args.since == ffi.NULL else Version(ffi.buffer(args.since, 10)[:])
        version, args.ahead = session.begin(since, fresh=bool(args.fresh), how=args.ahead)
        ffi.memmove(args.version, version, 10)
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_join(handle: Any, args: Any) -> int:
    session = _session(handle)
    try:
        holders = [_session(holder) for holder in ffi.unpack(args.holders, args.holder_count)]
        version, allocation = joint.join(session, holders, Version(ffi.buffer(args.version)[:]))
        if allocation is not None:
            args.alloc = c_alloc(allocation)
        ffi.memmove(args.version, version, len(version))
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_fetch(handle: Any, args: Any) -> int:
    session = _session(handle)
    try:
        numbers = [PageNumber(n) for n in ffi.unpack(args.numbers, args.count)]
        version = Version(ffi.buffer(args.version, 10)[:])
        content = session.fetch(version, numbers, args.size)
        args.found = content is not None
        if content is not None:
            ffi.memmove(args.out, content, args.size)
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


_ENCODED_AT_ONCE = 1024
"""Pages: enough for several processors, and no more of them in memory than the store takes at a time."""


def _encode_writes(part: Any) -> Iterator[PageWrite]:
    moves = _session(part.session).database.store.takes_moves
    for start in range(0, part.write_count, _ENCODED_AT_ONCE):
        count = min(part.write_count - start, _ENCODED_AT_ONCE)
        yield from _encode_some(ffi.unpack(part.writes + start, count), moves=moves)
        if part.write_count > _ENCODED_AT_ONCE:
            lib.mv_file_cool(_session(part.session).file)


def _encode_some(structs: list[Any], *, moves: bool) -> Iterator[PageWrite]:
    pages = []
    for page in structs:
        if page.data == ffi.NULL:
            continue
        size, before = page.size, page.before
        content, base = ffi.buffer(page.data, size), None
        if before != ffi.NULL:
            content, base = content[:], Base(ffi.buffer(before, size)[:], page.before_chain)
        pages.append((PageNumber(page.number), content, base))
    encoded = iter(encode_many(pages, moves=moves))
    for page in structs:
        blob = FREED
        if page.data != ffi.NULL:
            blob, page.chain = next(encoded)
        yield PageWrite(PageNumber(page.number), blob)


def _numbers(pointer: Any, count: int) -> list[PageNumber]:
    return ffi.unpack(pointer, count) if count else []


def _part(part: Any) -> joint.Part:
    return joint.Part(
        session=_session(part.session),
        reads=PageSet(ffi.buffer(part.reads, 4 * part.read_count)[:]),
        writes=_encode_writes(part),
        write_count=part.write_count,
        allocated=_numbers(part.allocated, part.allocated_count),
        freed=_numbers(part.freed, part.freed_count),
        page_size=part.page_size,
        leased=bool(part.leased),
    )


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_commit(handle: Any, args: Any) -> int:
    session = _session(handle)
    parts: list[joint.Part] = []
    try:
        structs = [args.parts[i] for i in range(args.part_count)]
        parts = [_part(struct) for struct in structs]
        outcome = joint.commit(Version(ffi.buffer(args.base)[:]), parts, tells_others=bool(args.tells_others))
    except LeaseEndedError as exc:
        args.lease_ended = 1
        return _failed(session, exc)
    except ConflictError as exc:
        return _lost(session, parts, exc)
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    ffi.memmove(args.version, outcome.version, 10)
    if outcome.others is None:
        args.without_others = 1
    for struct, part, others in zip(structs, parts, outcome.others or (), strict=False):
        if others:
            listed = part.session.kept = c_changes(others)
            struct.others = listed.array
            struct.other_count = len(others)
    if outcome.interrupted is not None:
        _interrupt_later(outcome.interrupted)
    return _OK


def _lost(session: Session, parts: list[joint.Part], exc: ConflictError) -> int:
    """A conflict; where there are several databases, the exception tells in which one."""
    _, shown = errors.translate(exc)
    for part in parts:
        if part.session.database.id == exc.namespace and isinstance(shown, errors.ConflictError):
            shown.schema = part.session.schema()
    return _failed(session, shown)


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_lease(handle: Any, args: Any) -> int:
    session = _session(handle)
    try:
        asked = time.monotonic()
        lease = session.lease(args.want)
        if len(lease.numbers) > args.want:
            raise StoreError(f"a lease of {len(lease.numbers)} page numbers where {args.want} were asked for")
        ffi.memmove(args.numbers, array("I", lease.numbers), 4 * len(lease.numbers))
        args.count = len(lease.numbers)
        args.seconds = lease.seconds - (time.monotonic() - asked)
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_renew_lease(handle: Any, seconds: Any) -> int:
    """That it can't be renewed is no error yet: the commit decides."""
    session = _session(handle)
    try:
        seconds[0] = session.renew_lease()
    except (LeaseEndedError, UnsupportedError):  # the latter from a service of an earlier release
        seconds[0] = 0
    except StoreError as exc:
        _log.info("%s: a long transaction could not renew its page numbers: %s", session.database.name, exc)
        seconds[0] = -1
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


_FIRST_WAIT, _NEXT_WAIT = 0.1, 0.005
"""Seconds to wait in xLock at the first and at each further try: in between the host's busy handler sleeps,
which counts only its own time."""


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_flush(handle: Any, version: Any) -> int:
    session = _session(handle)
    try:
        session.flush(Version(ffi.buffer(version, 10)[:]))
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)
    return _OK


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_turn(handle: Any, take: int) -> int:
    session = _session(handle)
    try:
        if not take:
            closing.close(session.leave_turn)
            return _OK
        sessions = session.peers(lib.MV_WRITABLE) if take == lib.MV_TURN_OF_ALL else [session]
        wait = min(_NEXT_WAIT if session.is_waiting else _FIRST_WAIT, session.options.timeout)
        came = joint.take_turn(sessions, seconds=TURN_SECONDS, wait=wait, again=session.is_waiting)
        session.is_waiting = not came
        return _OK if came else errors.BUSY
    except BaseException as exc:  # noqa: BLE001
        return _failed(session, exc)


def _interrupt_later(interruption: BaseException) -> None:
    """The commit happened, so the statement must succeed; the interrupt comes right after it."""
    if isinstance(interruption, KeyboardInterrupt):
        lib.mv_interrupt_again()
    else:
        _log.error("after a commit that happened", exc_info=interruption)


# ---- the rest ----


@ffi.def_extern(onerror=_outside)
def mv_py_failed(handle: Any, file: Any, code: int, what: Any) -> None:
    session = _session(handle)
    error = errors.for_code(code, ffi.string(what).decode(errors="replace"))  # may be cut off
    session.last_error = f"{type(error).__name__}: {error}"
    if code != errors.BUSY:
        lib.mv_set_pending(id(error))
        return
    # xLock: SQLite may still wait and go on
    holders = tuple(session.peers(lib.MV_HOLDING))
    joint.lost(holders, [holder.reads() for holder in holders])


@ffi.def_extern(error=_IOERR, onerror=_outside)
def mv_py_pragma(handle: Any, file: Any, name: Any, value: Any, out: Any, size: int) -> int:
    session = _session(handle)
    pragma = PRAGMAS.get(ffi.string(name).decode(errors="replace").lower())
    if pragma is None:
        return _NOTFOUND
    code = _OK
    try:
        answer = pragma(session, None if value == ffi.NULL else _text(value))
    except BaseException as exc:  # noqa: BLE001
        code, answer = _failed(session, exc), str(exc)  # SQLite makes it the statement's error message
    if answer:
        encoded = answer.encode()[: size - 1].decode(errors="ignore").encode()
        ffi.memmove(out, encoded + b"\0", len(encoded) + 1)
    return code


_OUTCOMES = ("not committed", "committed", "refused")


@ffi.def_extern(onerror=_outside)
def mv_py_slow(handle: Any, args: Any) -> None:
    session = _session(handle)
    sql = "" if args.sql == ffi.NULL else ffi.string(args.sql).decode(errors="replace")
    _slow_log.warning(
        "%s: transaction of %.0f ms %s: %d pages read, %d written, tries %d: %s",
        session.database.name,
        args.seconds * 1000,
        _OUTCOMES[args.outcome],
        args.pages_read,
        args.pages_written,
        max(session.tries, 1),
        sql,
    )


if lib.mv_setup():
    raise OSError("pthread_atfork failed")
