"""From the name of a database to the store that it lives in and its name there.

Called by `bridge` (at xOpen), `transfer` and the command line; asks the file system, and nothing else,
whether a name is that of an existing store.

The first rule that fits:

1. `store=` is given: the name is that of a database in it.
2. The name holds a path separator, or is that of an existing store folder: the folder is the store, and
   the database is its `main`.
3. `MV_STORE` is set: the name is that of a database in it.
4. Else: a store folder of that name, to be made, and its `main`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mvvfs.errors import InvalidNameError, NoSuchDatabaseError, OptionError
from pagestore.embedded import is_store

MAIN = "main"
"""The database of a store folder that is opened by the folder's name."""

_SERVICES = ("grpc:", "grpcs:", "grpc+unix:")
_SCHEMES = ("memory:", "fdb:", *_SERVICES)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is."""

    store_url: str
    """For `pagestore.opener.open_store`; a folder's path is absolute, so a later chdir changes nothing."""
    namespace: str
    """Its name in that store."""
    why: str
    """By which rule, as a phrase for people."""


def resolve(name: str, store: str | None = None, environ: Mapping[str, str] = os.environ) -> Location:
    """Where the database `name` is, or would be created.

    Raises InvalidNameError (empty, or with a NUL) and OptionError (a URL where a name belongs, or a
    malformed store URL).  Does not look whether the database exists."""
    if not name:
        raise InvalidNameError("the name of the database is empty")
    if "\0" in name:
        raise InvalidNameError("the name of the database holds a NUL character")
    if store is not None:
        return Location(store_url(store), name, "the store was given")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
        raise OptionError(f"{name!r} is a URL: give it as store=, and the name of a database in it")
    if os.sep in name:
        return Location(os.path.abspath(name), MAIN, "the name is a path")
    if is_store(name):
        return Location(os.path.abspath(name), MAIN, "the name is that of a store folder here")
    from_environment = environ.get("MV_STORE")
    if from_environment:
        return Location(store_url(from_environment), name, "MV_STORE names the store")
    return Location(os.path.abspath(name), MAIN, "no store was given: the name is that of a folder")


def is_folder(url: str) -> bool:
    """Whether a store's URL is that of an embedded one."""
    return not url.startswith(_SCHEMES)


def is_service(url: str) -> bool:
    """Whether a store's URL is that of a service."""
    return url.startswith(_SERVICES)


def store_url(text: str) -> str:
    """A store as the user wrote it (a folder, a `file:` URL, another scheme's), as an absolute URL or path.

    Raises OptionError."""
    if not is_folder(text):
        return text
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise OptionError(f"store={text!r}: no such kind of store (a folder, grpc://HOST:PORT, fdb:)")
    if not text.startswith("file:"):
        return os.path.abspath(text)
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise OptionError(f"store={text!r}: expected file:///absolute/path or file:path")
    return os.path.abspath(unquote(parts.path))


def chosen_store(store: str | None, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The store where no database is named: its URL, and why.  NoSuchDatabaseError if nothing says."""
    if store:
        return store_url(store), "the store was given"
    from_environment = environ.get("MV_STORE")
    if from_environment:
        return store_url(from_environment), "MV_STORE names the store"
    raise NoSuchDatabaseError("which store? give --store FOLDER, or set MV_STORE")
