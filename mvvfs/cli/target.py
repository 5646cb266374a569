"""Which database a command is about: the `--store` option and opening what NAME stands for.

Called by the commands.  An error names the store that was looked into, and why that one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from mvvfs import names
from mvvfs.errors import NoSuchDatabaseError, NoSuchVersionError
from mvvfs.names import Location
from mvvfs.transfer import moment_of, opened
from mvvfs.when import Moment
from pagestore.api import Namespace, NoSuchNamespaceError, NoSuchStoreError, Store

F = TypeVar("F", bound=Callable[..., Any])


def _remember(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(dict)["store"] = value


def store_option(function: F) -> F:
    """`--store`, understood before the command and after it."""
    return click.option(
        "--store",
        "given",
        metavar="STORE",
        expose_value=False,
        callback=_remember,
        help="The store of the database, a folder or a URL.  [default: MV_STORE, if NAME is no folder]",
    )(function)


def given_store() -> str | None:
    """The value of `--store`, or None."""
    store: str | None = click.get_current_context().ensure_object(dict).get("store")
    return store


def locate(name: str) -> Location:
    """Where the database NAME is.  Raises OptionError, InvalidNameError."""
    return names.resolve(name, given_store())


def locate_store(store: str | None = None) -> Location:
    """A store itself: STORE, `--store` or MV_STORE.  Raises NoSuchDatabaseError if nothing says which."""
    url, why = names.chosen_store(store or given_store())
    return Location(url, "", why)


def describe(location: Location) -> str:
    """A database and its store, for people."""
    if location.namespace == names.MAIN:
        return location.store_url
    return f"{location.namespace} in {location.store_url}"


@contextlib.contextmanager
def opened_store(location: Location) -> Iterator[Store]:
    """An existing store.  Raises NoSuchDatabaseError with advice where there is none."""
    try:
        with opened(location) as store:
            yield store
    except NoSuchStoreError:
        raise NoSuchDatabaseError(
            f"there is no store at {location.store_url} ({location.why}): mvctl create makes one"
        ) from None
    except NoSuchNamespaceError:
        raise NoSuchDatabaseError(
            f"no database {location.namespace!r} in {location.store_url} ({location.why}): "
            f"mvctl list {location.store_url} shows what there is"
        ) from None


@contextlib.contextmanager
def opened_database(location: Location) -> Iterator[tuple[Store, Namespace]]:
    """An existing database.  Raises NoSuchDatabaseError with advice where there is none."""
    with opened_store(location) as store:
        yield store, store.open(location.namespace)


def moment(location: Location, at: str) -> Moment:
    """The commit that WHEN comes to.  Raises OptionError, NoSuchVersionError, BelowHorizonError."""
    with opened_database(location) as (store, _):
        found = moment_of(store, location, at)
    if found is None:
        raise NoSuchVersionError("the database has no commit yet")
    return found
