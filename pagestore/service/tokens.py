"""Bearer tokens: a file of hashes with scopes, read again whenever it changes.

Called by `gate` for each call, and by the command line, which makes and revokes them.

1. The file holds the SHA-256 of each token, never a token.  A token is 256 random bits, so that no slower
   hash is needed.
2. A scope is RIGHT:GLOB.  `write` includes `read`, `admin` both.  Globs are those of fnmatch, on names.
3. The file is looked at no more than once a second, when somebody calls: no timer, no restart.
4. A file that can't be read stops the service from starting.  If it breaks later, the tokens of before stay
   and the log says so: half a file, while someone edits it, locks nobody out and lets nobody in.

    [[token]]
    name = "tenant-7"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    scopes = ["write:tenant-7-*", "read:shared"]
    expires = 2027-01-01T00:00:00Z                      # optional
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

_PREFIX = "mvt_"
_LOOK_SECONDS = 1.0
_HEX = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("pagestore.service")


class TokenFileError(Exception):
    """The token file can't be used; says what is wrong with it."""


class Right(IntEnum):
    """Each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """One right in all namespaces of a pattern."""

    right: Right
    pattern: str

    def __str__(self) -> str:
        return f"{self.right.name.lower()}:{self.pattern}"


def parse_scope(text: str) -> Scope:
    """RIGHT:GLOB.  Raises ValueError."""
    right, colon, pattern = text.partition(":")
    if not colon or not pattern or right.upper() not in Right.__members__:
        raise ValueError(f"{text!r} is no scope: expected read:GLOB, write:GLOB or admin:GLOB")
    return Scope(Right[right.upper()], pattern)


@dataclass(frozen=True, eq=False)
class Caller:
    """Who calls, and what it may do."""

    name: str
    """As logs and limits know it."""
    scopes: tuple[Scope, ...]
    expires: float | None = None
    """Unix seconds."""
    everywhere: Right | None = field(init=False)
    """The right in each and every namespace."""

    def __post_init__(self) -> None:
        rights = [scope.right for scope in self.scopes if scope.pattern == "*"]
        object.__setattr__(self, "everywhere", max(rights, default=None))

    def may(self, right: Right, name: str) -> bool:
        if self.everywhere is not None and self.everywhere >= right:
            return True
        return any(scope.right >= right and fnmatch.fnmatchcase(name, scope.pattern) for scope in self.scopes)

    def expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


EVERYTHING = (Scope(Right.ADMIN, "*"),)


@dataclass(frozen=True, slots=True)
class Entry:
    """One token of the file."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    expires: datetime | None = None

    def text(self) -> str:
        scopes = ", ".join(json.dumps(str(scope), ensure_ascii=False) for scope in self.scopes)
        lines = [
            "[[token]]",
            f"name = {json.dumps(self.name, ensure_ascii=False)}",
            f'sha256 = "{self.sha256}"',
            f"scopes = [{scopes}]",
        ]
        if self.expires is not None:
            lines.append(f"expires = {self.expires.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
        return "\n".join(lines) + "\n"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


# ---- the file ----


def load(path: str) -> tuple[Entry, ...]:
    """Raises TokenFileError."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise TokenFileError(f"{path}: everybody may write to it (chmod o-w)")
            content = tomllib.load(file)
    except OSError as exc:
        raise TokenFileError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise TokenFileError(f"{path}: {exc}") from exc
    if content.keys() - {"token"}:
        raise TokenFileError(f"{path}: unknown key {min(content.keys() - {'token'})!r}")
    try:
        entries = tuple(_entry(table) for table in content.get("token", ()))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise TokenFileError(f"{path}: a token has name, sha256, scopes and maybe expires: {exc}") from exc
    for what in ("name", "sha256"):
        if len({getattr(entry, what) for entry in entries}) < len(entries):
            raise TokenFileError(f"{path}: two tokens have the same {what}")
    return entries


def _entry(table: dict[str, object]) -> Entry:
    unknown = table.keys() - {"name", "sha256", "scopes", "expires"}
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
    name, digest, scopes, expires = table["name"], table["sha256"], table["scopes"], table.get("expires")
    if not isinstance(name, str) or not name:
        raise ValueError("name is a text")
    if not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise ValueError("sha256 is 64 hexadecimal digits")
    if not isinstance(scopes, list) or not scopes:
        raise ValueError("scopes is a list of RIGHT:GLOB")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ValueError("expires is a time with an offset")
    return Entry(name, digest, tuple(parse_scope(scope) for scope in scopes), expires)


def create(path: str, name: str, scopes: Sequence[Scope], expires: datetime | None = None) -> str:
    """Add a token to the file, which is made if need be; returns the token, which is kept nowhere.

    Raises TokenFileError."""
    token = _PREFIX + secrets.token_urlsafe(32)
    with _Rewrite(path) as rewrite:
        if any(entry.name == name for entry in rewrite.entries):
            raise TokenFileError(f"{path}: there is a token called {name!r} already")
        rewrite.replace((*rewrite.entries, Entry(name, _hash(token), tuple(scopes), expires)))
    return token


def revoke(path: str, name: str) -> None:
    """Raises TokenFileError."""
    with _Rewrite(path) as rewrite:
        left = tuple(entry for entry in rewrite.entries if entry.name != name)
        if len(left) == len(rewrite.entries):
            raise TokenFileError(f"{path}: there is no token called {name!r}")
        rewrite.replace(left)


class _Rewrite:
    """One process at a time changes the file; readers see the old one or the new one."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        self._lock = -1
        self.entries: tuple[Entry, ...] = ()

    def __enter__(self) -> _Rewrite:
        try:
            self._lock = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise TokenFileError(f"{self._path}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if os.path.exists(self._path):
                self.entries = load(self._path)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def replace(self, entries: Sequence[Entry]) -> None:
        new = self._path + ".new"
        try:
            mode = os.stat(self._path).st_mode & 0o777 if os.path.exists(self._path) else 0o600
            with suppress(FileNotFoundError):
                os.unlink(new)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write("\n".join(entry.text() for entry in entries))
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(new, self._path)
        except OSError as exc:
            raise TokenFileError(f"{self._path}: {exc.strerror}") from exc


# ---- what the service asks ----


class Tokens:
    """The tokens of a file, as it is now."""

    def __init__(self, path: str) -> None:
        """Raises TokenFileError."""
        self._path = path
        self._looked = time.monotonic()
        self._state = self._stat()
        self._callers = self._read()

    def find(self, token: str) -> Caller | None:
        """Whose token it is; None if nobody's, any more."""
        self._look()
        caller = self._callers.get(_hash(token))
        return None if caller is None or caller.expired(time.time()) else caller

    def holds(self, caller: Caller) -> bool:
        """Whether what `find` said before still goes."""
        self._look()
        return caller in self._callers.values() and not caller.expired(time.time())

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        state = self._stat()
        if state == self._state:
            return
        self._state = state
        try:
            self._callers = self._read()
            log.info("tokens read again", extra={"count": len(self._callers)})
        except TokenFileError as exc:
            log.error("the token file is broken, the tokens of before stay: %s", exc)

    def _stat(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, Caller]:
        """A caller that is as it was stays the same object, so that its streams go on."""
        before: dict[str, Caller] = getattr(self, "_callers", {})
        callers = {}
        for entry in load(self._path):
            expires = entry.expires.timestamp() if entry.expires else None
            caller = Caller(entry.name, entry.scopes, expires)
            old = before.get(entry.sha256)
            same = old is not None and (old.name, old.scopes, old.expires) == (
                caller.name,
                caller.scopes,
                expires,
            )
            callers[entry.sha256] = old if same and old is not None else caller
        return callers
