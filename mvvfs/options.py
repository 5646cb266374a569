"""The options of a connection: one table, three spellings (keyword, URI parameter, environment variable).

Called by `connect` (keywords), `bridge` (URI parameters, at xOpen) and the command line.  docs/options.md
is checked against `OPTIONS` by a test.

1. A keyword or URI parameter wins over the environment; the environment wins over the default.
2. `store` is the exception: what MV_STORE means depends on the name, so `names` looks at it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple
from urllib.parse import quote

from mvvfs.errors import OptionError
from pagestore.api import MAX_MESSAGE_BYTES

Mode = Literal["rwc", "rw", "ro"]
Durability = Literal["full", "normal"]
Reads = Literal["latest", "durable"]
Leases = Literal["on", "off"]
Concurrency = Literal["optimistic", "queued"]
LATEST = "latest"
ReadAhead = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to open a database; docs/options.md explains each field."""

    store: str | None = None
    at: str | None = None
    mode: Mode = "rwc"
    durability: Durability = "full"
    reads: Reads = "latest"
    cache_bytes: int = 64 << 20
    spill_bytes: int = 64 << 20
    timeout: float = 5.0
    message: str = ""
    page_size: int = 0
    slow_ms: float = 1000.0
    leases: Leases = "on"
    concurrency: Concurrency = "optimistic"
    read_ahead: ReadAhead = "auto"
    cache_dir: str | None = None
    cache_dir_size: int = 1 << 30
    freshness: str = LATEST
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    @property
    def within(self) -> float:
        """Seconds that a begin may be old: 0 unless `freshness` is bounded."""
        return 0.0 if self.freshness == LATEST else float(self.freshness.partition(":")[2]) / 1000


class Option(NamedTuple):
    """One row of the table."""

    name: str
    """The keyword of `connect()`, and the URI parameter."""
    parse: Callable[[str], object]
    """Text to value; raises ValueError with what was expected."""
    values: str
    """What may be given, for the documentation."""
    help: str

    @property
    def environment(self) -> str:
        return "MV_" + self.name.upper()

    @property
    def default(self) -> object:
        return _DEFAULTS[self.name]


_DEFAULTS = {each.name: each.default for each in fields(Options)}
MAX_BOUND_MS = 3_600_000
_SECRET = "token"
_SHOWN = 80
"""Characters of a wrong value that its error shows."""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _text(text: str) -> str:
    if not text:
        raise ValueError("something that is not empty")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices))
        return text

    return parse


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", text.strip().lower(), re.ASCII)
    if match is None:
        raise ValueError("a number of bytes, such as 67108864 or 64MiB")
    value = int(match[1]) * _UNITS[match[2]]
    if value >= 1 << 63:
        raise ValueError("a number of bytes below 2^63")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value < math.inf):
        raise ValueError("a number that is not negative")
    return value


def _message(text: str) -> str:
    if len(text.encode(errors="surrogatepass")) > MAX_MESSAGE_BYTES:
        raise ValueError(f"at most {MAX_MESSAGE_BYTES} bytes")
    return text


def _freshness(text: str) -> str:
    if text == LATEST:
        return text
    match = re.fullmatch(r"bounded:(\d+(?:\.\d+)?)", text, re.ASCII)
    if match is None or not 0 < float(match[1]) <= MAX_BOUND_MS:
        raise ValueError(f"latest, or bounded:MS with more than 0 and at most {MAX_BOUND_MS:,} milliseconds")
    return text


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise ValueError("printable ASCII characters without spaces")
    return text


def parse_page_size(text: str) -> int:
    """A page size in bytes, or 0; ValueError if SQLite has none such."""
    size = int(text) if text.isascii() and text.isdigit() else -1
    if size != 0 and (not 512 <= size <= 65536 or size & (size - 1)):
        raise ValueError("a power of two from 512 to 65536, or 0")
    return size


OPTIONS: tuple[Option, ...] = (
    Option(
        "store",
        _text,
        "a folder, or a store's URL",
        "The store that the name lives in. Without it a name with a path separator, or one of an existing "
        "store folder, is a store of its own; else `MV_STORE` says, if set; else a new folder is made.",
    ),
    Option(
        "at",
        _text,
        "a version or a time",
        "Open the database, read-only, as it was: `v1a2b`, `2026-11-20 10:00`, `yesterday`, `5m ago`, "
        "`HEAD~3`. UTC unless an offset is given.",
    ),
    Option(
        "mode",
        _one_of("rwc", "rw", "ro"),
        "`rwc`, `rw`, `ro`",
        "`rwc` creates the database (and its store) if there is none; `rw` and `ro` never create.",
    ),
    Option(
        "durability",
        _one_of("full", "normal"),
        "`full`, `normal`",
        "`full`: a commit that returned survives a power cut. `normal`: a power cut may take the last "
        "commits, never one from the middle, and never corrupts.",
    ),
    Option(
        "reads",
        _one_of("latest", "durable"),
        "`latest`, `durable`",
        "`latest`: a transaction sees every commit, also one that is still being flushed. `durable`: it "
        "flushes first, so that nothing it saw can be taken by a power cut.",
    ),
    Option(
        "cache_bytes",
        _bytes,
        "bytes; `64MiB` works too",
        "Size of the page cache that this process's connections to one database share; the largest wish "
        "counts.",
    ),
    Option(
        "spill_bytes",
        _bytes,
        "bytes; `64MiB` works too",
        "As much of what a transaction writes is kept in memory until it commits; the rest in a temporary "
        "file that has no name (in `SQLITE_TMPDIR`, `TMPDIR`, `/var/tmp`, `/usr/tmp` or `/tmp`, the first "
        "that there is).",
    ),
    Option(
        "timeout",
        _number,
        "seconds",
        "How long an operation may wait for the store before it fails. `0`: it waits for nobody else; where "
        "the store is reached over a network, answers may take the default's 5 seconds all the same.",
    ),
    Option(
        "message",
        _message,
        f"text, up to {MAX_MESSAGE_BYTES} bytes",
        "Goes into the changelog with each commit of the connection; `PRAGMA mv_message` changes it.",
    ),
    Option(
        "page_size",
        parse_page_size,
        "bytes: 512, 1024, … 65536",
        "Page size of a database that is created by this; 0: as SQLite decides at the first commit.",
    ),
    Option(
        "slow_ms",
        _number,
        "milliseconds",
        "Transactions at least this long are logged (logger `mvvfs.slow`); 0: none.",
    ),
    Option(
        "leases",
        _one_of("on", "off"),
        "`on`, `off`",
        "`on`: a connection that allocates pages takes a lease of page numbers, so that transactions which "
        "grow the database don't meet there. `off`: they may conflict.",
    ),
    Option(
        "concurrency",
        _one_of("optimistic", "queued"),
        "`optimistic`, `queued`",
        "`optimistic`: transactions run side by side, and one that lost a conflict is refused. `queued`: "
        "each write transaction first waits its turn, as `BEGIN IMMEDIATE` does.",
    ),
    Option(
        "read_ahead",
        _one_of("auto", "on", "off"),
        "`auto`, `on`, `off`",
        "Whether a scan fetches the pages that it is about to read together with the one that it needs. "
        "`auto`: where the store is reached over a network.",
    ),
    Option(
        "cache_dir",
        _text,
        "a folder",
        "Where pages of stores that are reached over a network are kept on this machine's disk, for this "
        "process, others and those to come. Made if need be.",
    ),
    Option(
        "cache_dir_size",
        _bytes,
        "bytes; `10GiB` works too",
        "How large the pages in `cache_dir` may grow, all databases together; of those who have it open "
        "the largest wish counts.",
    ),
    Option(
        "freshness",
        _freshness,
        "`latest`, `bounded:MS`",
        "Of a store behind a service. `latest`: a transaction asks for the newest version, one call. "
        "`bounded:MS`: it begins at the newest version that the service has pushed, with no call, if that "
        "was the newest one at some time in the last MS milliseconds, and never below what this process has "
        "seen or committed.",
    ),
    Option(
        "token",
        _secret,
        "text",
        "What the service is shown (`authorization: Bearer`). Better in the environment than in code; it is "
        "in no log and no error.",
    ),
    Option(
        "ca",
        _text,
        "a file",
        "Of a `grpcs:` store: the certificates (PEM) of the authorities that may have signed the service's. "
        "Without it: those that gRPC trusts.",
    ),
    Option(
        "cert",
        _text,
        "a file",
        "Of a `grpcs:` store that wants one: this client's certificate (PEM), with those that lead to the "
        "authority.",
    ),
    Option(
        "key",
        _text,
        "a file",
        "The private key (PEM) that belongs to `cert`.",
    ),
)

_BY_NAME = {option.name: option for option in OPTIONS}


def _parse(option: Option, text: str, spelling: str) -> object:
    try:
        return option.parse(text)
    except ValueError as exc:
        shown = (
            "..." if option.name == _SECRET else repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
        )
        raise OptionError(f"{spelling}={shown}: expected {exc}") from None


def _build(given: Mapping[str, object], environ: Mapping[str, str]) -> Options:
    values = dict(given)
    for option in OPTIONS:
        text = environ.get(option.environment, "")
        if option.name not in values and option.name != "store" and text:
            values[option.name] = _parse(option, text, option.environment)
    return Options(**values)  # type: ignore[arg-type]  # each value came out of its option's parser


def from_uri(parameter: Callable[[str], str | None], environ: Mapping[str, str]) -> Options:
    """Options from the URI's parameters (`parameter(name)` is the text, or None) and the environment.

    Raises OptionError.  Parameters that are not in `OPTIONS` are SQLite's, or nobody's, as with SQLite."""
    given: dict[str, object] = {}
    for option in OPTIONS:
        text = parameter(option.name)
        if text is not None:
            given[option.name] = _parse(option, text, option.name)
    return _build(given, environ)


def from_keywords(keywords: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Options:
    """Options from keyword arguments (None: not given) and the environment (None: the process's).

    Raises OptionError for a wrong value, TypeError for an unknown keyword."""
    given: dict[str, object] = {}
    for name, value in keywords.items():
        if name not in _BY_NAME:
            raise TypeError(f"unknown option: {name}")
        if value is not None:
            given[name] = _parse(_BY_NAME[name], _as_text(name, value), name)
    return _build(given, os.environ if environ is None else environ)


def _as_text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        shown = "..." if name == _SECRET else repr(value)
        raise OptionError(f"{name}={shown}: expected text or a number")
    text = str(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if "\0" in text:
        raise OptionError(f"{name} holds a NUL character")
    return text


def to_uri(name: str, **keywords: object) -> str:
    """The `file:` URI that opens database `name` through the VFS; keywords that are None are left out.

    `to_uri("app.db", at="HEAD~3")` is `file:app.db?vfs=mv&at=HEAD~3`.  Raises OptionError for a name
    with a NUL, TypeError for an unknown keyword.  https://www.sqlite.org/uri.html"""
    if not name:
        raise OptionError("the name of the database is empty")
    if "\0" in name:
        raise OptionError("the name of the database holds a NUL character")
    authority = "//" if name.startswith("//") else ""  # else SQLite takes the name's start for a host
    parts = ["vfs=mv"]
    for key, value in keywords.items():
        if key not in _BY_NAME:
            raise TypeError(f"unknown option: {key}")
        if value is not None:
            parts.append(f"{key}={quote(_as_text(key, value), safe='~')}")
    return f"file:{authority}{quote(name, safe='/')}?{'&'.join(parts)}"
