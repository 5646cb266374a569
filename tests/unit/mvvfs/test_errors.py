"""Every error of the store has one SQLite code and one exception, which plain SQLite's handlers catch."""

import inspect
import re
from pathlib import Path

import apsw
import pytest

from mvvfs import errors
from pagestore import api

DOCS = Path(__file__).parents[3] / "docs" / "errors.md"
SHOWN = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.Error) and cls is not errors.Error
]


def store_errors() -> list[api.StoreError]:
    version, horizon = api.parse_version("v2"), api.parse_version("v7")
    special = {
        api.ConflictError: api.ConflictError(api.NamespaceId(1), (api.PageNumber(3),), horizon),
        api.BelowHorizonError: api.BelowHorizonError(version, horizon),
        api.TurnTakenError: api.TurnTakenError(1.5),
        api.OutcomeUnknownError: api.OutcomeUnknownError(b"t" * 16, "it went dark"),
    }
    return [special.get(cls) or cls("what happened") for cls in api.StoreError.__subclasses__()]


@pytest.mark.parametrize("exc", store_errors(), ids=lambda exc: type(exc).__name__)
def test_every_store_error_is_in_the_table(exc):
    assert type(exc) in [row.raised for row in errors.TABLE]
    code, shown = errors.translate(exc)
    row = next(row for row in errors.TABLE if row.raised is type(exc))
    assert (code, type(shown)) == (row.code, row.shown)
    assert shown.extendedresult == code
    assert shown.result == code & 0xFF
    assert shown.__cause__ is exc
    assert str(exc) in str(shown)


@pytest.mark.parametrize("cls", SHOWN, ids=lambda cls: cls.__name__)
def test_each_class_is_apsws_of_its_code_too(cls):
    if cls is errors.RegisterError:
        assert issubclass(cls, apsw.ExtensionLoadingError)
        return
    try:
        apsw_class = type(apsw.exception_for(cls.code))
    except AttributeError:
        pytest.skip("this apsw has no exception_for")
    assert issubclass(cls, apsw_class)


def test_only_conflicts_are_busy():
    busy = [cls for cls in SHOWN if cls.code & 0xFF == errors.BUSY]
    assert set(busy) == {errors.ConflictError, errors.OpenCursorError}
    assert all(cls.code == errors.BUSY_SNAPSHOT for cls in busy)


def test_a_conflict_keeps_its_pages_and_version():
    exc = api.ConflictError(api.NamespaceId(1), (api.PageNumber(3),), api.parse_version("v7"))
    code, shown = errors.translate(exc)
    assert code == 517
    assert isinstance(shown, errors.ConflictError)
    assert (shown.pages, shown.version, shown.tries) == ((3,), api.parse_version("v7"), 1)


def test_below_horizon_names_the_horizon():
    _, shown = errors.translate(api.BelowHorizonError(api.parse_version("v2"), api.parse_version("v7")))
    assert api.format_version(api.parse_version("v7")) in str(shown)
    assert isinstance(shown, errors.BelowHorizonError)
    assert shown.horizon == api.parse_version("v7")


def test_outcome_unknown_keeps_the_token():
    _, shown = errors.translate(api.OutcomeUnknownError(b"t" * 16, "it went dark"))
    assert isinstance(shown, errors.OutcomeUnknownError)
    assert shown.token == b"t" * 16


def test_a_subclass_counts_as_its_base():
    class TornPageError(api.CorruptPageError):
        pass

    assert errors.translate(TornPageError("torn"))[0] == apsw.SQLITE_CORRUPT


def test_an_unknown_store_error_is_an_io_error():
    class OddError(api.StoreError):
        pass

    code, shown = errors.translate(OddError("odd"))
    assert code & 0xFF == apsw.SQLITE_IOERR
    assert isinstance(shown, apsw.IOError)


def test_our_own_errors_pass_through():
    own = errors.OptionError("no")
    assert errors.translate(own) == (apsw.SQLITE_CANTOPEN, own)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (517, errors.ConflictError),
        (apsw.SQLITE_CORRUPT, errors.CorruptPageError),
        (apsw.SQLITE_IOERR_LOCK, errors.StoreIOError),
        (apsw.SQLITE_MISUSE, errors.ForkError),
        (apsw.SQLITE_ERROR, errors.UnsupportedError),
        (99, errors.StoreIOError),
    ],
)
def test_for_code_keeps_the_code_of_the_shim(code, cls):
    error = errors.for_code(code, "what")
    assert type(error) is cls
    assert (error.extendedresult, error.result, str(error)) == (code, code & 0xFF, "what")


def test_the_documentation_lists_every_error():
    listed = set(re.findall(r"^\| `(\w+Error)` \| `SQLITE_(\w+)`", DOCS.read_text(), re.MULTILINE))
    names = {**apsw.mapping_result_codes, **apsw.mapping_extended_result_codes}
    expected = {(cls.__name__, names[cls.code]) for cls in SHOWN}
    assert {name for name, _ in listed} == {name for name, _ in expected}
    assert {(name, "SQLITE_" + code) for name, code in listed} == expected
