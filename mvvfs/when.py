"""WHEN: what a person writes for a moment in a database's past, and the commit that it comes to.

Called by `bridge` (`at=`), `transfer` and the command line; asks the store's changelog.

    v1a2b                        a version: `v` and hex digits, leading zeros optional
    2026-11-20T10:00:00Z         RFC 3339
    2026-11-20 10:00[:SS]        UTC unless an offset follows
    2026-11-20                   00:00:00 of that day
    today   yesterday            00:00:00 of that day, UTC
    90s ago   5m ago   2h ago   3d ago   1w ago
    now   HEAD   HEAD~3          the newest commit, the third before it
    tag:NAME                     the version of that tag

A moment between two commits means the earlier one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from mvvfs.errors import OptionError
from pagestore.api import (
    BelowHorizonError,
    Change,
    NamespaceId,
    NoSuchVersionError,
    Store,
    Version,
    format_version,
    parse_version,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(\d{1,12})\s*(s|m|h|d|w|sec|min|second|minute|hour|day|week)s?\s+ago", re.ASCII)
_TAG = "tag:"
_HEAD = re.compile(r"HEAD(?:~(\d{0,12}))?", re.ASCII)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:\s*(Z|[+-]\d\d:?\d\d))?)?",
    re.ASCII | re.IGNORECASE,
)
EXAMPLES = "v1a2b, 2026-11-20 10:00, 2026-11-20T10:00:00+01:00, yesterday, 5m ago, HEAD~3, tag:NAME"


@dataclass(frozen=True, slots=True)
class Moment:
    """A commit in a database's past."""

    version: Version
    """What to read at."""
    time_us: int
    """When it was committed: Unix time, microseconds."""

    def __str__(self) -> str:
        return f"{format_version(self.version)} of {format_time(self.time_us)}"


def format_time(time_us: int) -> str:
    """Unix microseconds as RFC 3339 in UTC; all six digits, so that it finds the same commit again."""
    return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def resolve(when: str, store: Store, namespace: NamespaceId, *, now_us: int | None = None) -> Moment:
    """The newest commit of the database that is not after WHEN.

    `now_us` (Unix microseconds; default: the clock) is what `today` and `5m ago` count from.  Raises
    OptionError (not a WHEN), NoSuchVersionError (in the future, or before the first commit) and
    BelowHorizonError (no longer kept; names the oldest version that is)."""
    text = when.strip()
    now = time.time_ns() // 1000 if now_us is None else now_us
    head = _HEAD.fullmatch(text)
    if head is not None or text == "now":
        back = 0 if head is None or head[1] is None else int(head[1] or 1)
        return _back_from_newest(store, namespace, back)
    if text.startswith(_TAG):
        return _at_version(_tagged(text.removeprefix(_TAG), store, namespace), store, namespace)
    if text.startswith("v"):
        return _at_version(version(text), store, namespace)
    time_us = parse_time(text, now)
    if time_us > now:
        raise NoSuchVersionError(f"{when} ({format_time(time_us)}) is in the future")
    if time_us < 0:
        raise NoSuchVersionError(f"{when} is before the first commit")
    try:
        found = store.version_at(namespace, time_us)
    except NoSuchVersionError:
        raise NoSuchVersionError(f"{when} ({format_time(time_us)}) is before the first commit") from None
    return _at_version(found, store, namespace)


def version(text: str) -> Version:
    """The version that is written so; OptionError if none is."""
    try:
        return parse_version(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a version: expected v and up to 20 hex digits") from None


def _tagged(name: str, store: Store, namespace: NamespaceId) -> Version:
    for tag in store.tags(namespace, name) if name else ():
        return tag.version
    raise NoSuchVersionError(f"the database has no tag {name!r}")


def parse_time(text: str, now_us: int) -> int:
    """A time as Unix microseconds, `today` and the like counted from `now_us`; OptionError if it is none."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_us - int(ago[1]) * _SECONDS[ago[2][0]] * 1_000_000
    if text in ("today", "yesterday"):
        day = 86_400_000_000
        return now_us - now_us % day - (day if text == "yesterday" else 0)
    match = _TIME.fullmatch(text)
    try:
        if match is not None:
            return _from_calendar(match)
    except (ValueError, OverflowError) as exc:  # a 13th month, a year that an offset moves past 9999
        raise OptionError(f"{text!r} is not a time: {exc}") from None
    raise OptionError(f"{text!r} is not a version or time; examples: {EXAMPLES}")


def _from_calendar(match: re.Match[str]) -> int:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    micros = int((match[7] or "0")[:6].ljust(6, "0"))
    zone = _zone(match[8])
    moment = datetime(year, month, day, hour, minute, second, micros, zone).astimezone(UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _zone(offset: str | None) -> timezone:
    if offset is None or offset in "Zz":
        return UTC
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    if minutes > 59:
        raise ValueError("an offset's minutes must be in 0..59")
    away = timedelta(hours=hours, minutes=minutes)
    return timezone(-away if offset[0] == "-" else away)


def _back_from_newest(store: Store, namespace: NamespaceId, back: int) -> Moment:
    for change in store.changelog(namespace, newest_first=True, skip=back, limit=1):
        return _readable(change, change.version, store, namespace)
    for oldest in store.changelog(namespace, limit=1):
        kept = Moment(oldest.version, oldest.time_us)
        raise NoSuchVersionError(f"HEAD~{back} is before the first commit that is kept, {kept}")
    raise NoSuchVersionError("the database has no commit yet")


def _at_version(asked: Version, store: Store, namespace: NamespaceId) -> Moment:
    _check(asked, store, namespace)  # refuses the future, and what is below the horizon
    for change in _newest(store, namespace, asked):
        if change.version == asked:
            return Moment(asked, change.time_us)
        return _readable(change, asked, store, namespace)
    for _ in store.changelog(namespace, limit=1):
        raise NoSuchVersionError(f"{format_version(asked)} is before the first commit of the database")
    raise NoSuchVersionError("the database has no commit yet")


def _check(version: Version, store: Store, namespace: NamespaceId) -> None:
    """Whether it may be read: raises BelowHorizonError, NoSuchVersionError."""
    store.begin(namespace, since=version, at=version)  # nothing came between: the cheapest to answer


def _newest(store: Store, namespace: NamespaceId, until: Version) -> Iterator[Change]:
    return store.changelog(namespace, until=until, newest_first=True, limit=1)


def _readable(change: Change, asked: Version, store: Store, namespace: NamespaceId) -> Moment:
    """The commit itself, or what was asked for where only that is kept: nothing changed in between."""
    try:
        _check(change.version, store, namespace)
    except BelowHorizonError as below:
        if asked >= below.horizon:
            return Moment(below.horizon, change.time_us)
        _check(asked, store, namespace)
        return Moment(asked, change.time_us)
    return Moment(change.version, change.time_us)
