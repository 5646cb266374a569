"""Three spellings of an option mean the same, wrong ones are refused, and the documentation is complete."""

import re
from dataclasses import fields
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvvfs.errors import OptionError
from mvvfs.options import OPTIONS, Options, from_keywords, from_uri, to_uri

DOCS = Path(__file__).parents[3] / "docs" / "options.md"

EXAMPLES = {
    "at": ("HEAD~3", "HEAD~3"),
    "mode": ("rw", "rw"),
    "durability": ("normal", "normal"),
    "reads": ("durable", "durable"),
    "cache_bytes": ("4096", 4096),
    "spill_bytes": ("4096", 4096),
    "timeout": ("0.5", 0.5),
    "message": ("a & b = c?", "a & b = c?"),
    "page_size": ("65536", 65536),
    "slow_ms": ("0", 0.0),
}


def test_the_table_and_the_class_name_the_same_options():
    assert [option.name for option in OPTIONS] == [field.name for field in fields(Options)]


@pytest.mark.parametrize(("name", "text", "value"), [(n, *v) for n, v in EXAMPLES.items()])
def test_three_spellings(name, text, value):
    expected = Options(**{name: value})
    assert from_keywords({name: value}, {}) == expected
    assert from_uri({name: text}.get, {}) == expected
    assert from_uri({}.get, {"MV_" + name.upper(): text}) == expected


def test_store_from_the_environment_is_left_to_names():
    assert from_uri({}.get, {"MV_STORE": "/srv/store"}).store is None
    assert from_uri({"store": "/srv/store"}.get, {}).store == "/srv/store"


def test_uri_wins_over_environment_and_none_means_not_given():
    assert from_uri({"durability": "full"}.get, {"MV_DURABILITY": "normal"}).durability == "full"
    assert from_keywords({"durability": None}, {"MV_DURABILITY": "normal"}).durability == "normal"
    assert from_keywords({"durability": "full"}, {"MV_DURABILITY": "normal"}).durability == "full"


def test_an_empty_environment_variable_counts_as_unset():
    assert from_uri({}.get, {"MV_DURABILITY": "", "MV_PAGE_SIZE": ""}) == Options()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mode", "memory"),
        ("durability", "FULL"),
        ("reads", "dirty"),
        ("cache_bytes", "-1"),
        ("cache_bytes", "many"),
        ("cache_bytes", "8589934592g"),
        ("spill_bytes", str(1 << 63)),
        ("timeout", "-1"),
        ("timeout", "nan"),
        ("timeout", "inf"),
        ("timeout", "soon"),
        ("page_size", "1000"),
        ("page_size", "256"),
        ("page_size", "131072"),
        ("page_size", "4k"),
        ("message", "x" * 4097),
        ("message", "é" * 2049),
        ("at", ""),
        ("store", ""),
    ],
)
def test_wrong_values_say_which_option_and_what_was_expected(name, text):
    with pytest.raises(OptionError, match=rf"{name}=.*: expected") as caught:
        from_uri({name: text}.get, {})
    assert "\n" not in str(caught.value)
    if text and name != "store":
        with pytest.raises(OptionError, match="MV_" + name.upper()):
            from_uri({}.get, {"MV_" + name.upper(): text})


@pytest.mark.parametrize("value", [True, b"full", object(), "fu\0ll"])
def test_keywords_of_a_wrong_type(value):
    with pytest.raises(OptionError):
        from_keywords({"durability": value}, {})


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="durable"):
        from_keywords({"durable": "full"}, {})
    with pytest.raises(TypeError, match="durable"):
        to_uri("x", durable="full")


@pytest.mark.parametrize(
    ("text", "value"),
    [("64MiB", 64 << 20), ("1k", 1024), ("2 GB", 2 << 30), ("5B", 5), ("0", 0)],
)
def test_sizes_may_have_units(text, value):
    assert from_uri({"cache_bytes": text}.get, {}).cache_bytes == value


def test_to_uri():
    assert to_uri("app.db", at="HEAD~3", message=None) == "file:app.db?vfs=mv&at=HEAD~3"
    assert to_uri("/a b/c?d#e%f") == "file:/a%20b/c%3Fd%23e%25f?vfs=mv"
    assert to_uri("//a/b") == "file:////a/b?vfs=mv"


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_to_uri_refuses_names_that_no_database_can_have(name):
    with pytest.raises(OptionError):
        to_uri(name)


class _Recorder(apsw.VFS):
    """Notes what SQLite makes of a URI."""

    def __init__(self) -> None:
        super().__init__("options-recorder", "")
        self.seen: tuple[str, dict[str, str | None]] | None = None

    def xFullPathname(self, name: str) -> str:
        return name

    def xOpen(self, name, flags):
        self.seen = (name.filename(), {p: name.uri_parameter(p) for p in ("message", "store", "vfs")})
        raise apsw.CantOpenError("seen")


@pytest.fixture(scope="module")
def recorder():
    vfs = _Recorder()
    yield vfs
    vfs.unregister()


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(name=text, message=text, store=text)
def test_sqlite_reads_back_what_to_uri_wrote(recorder, name, message, store):
    uri = to_uri(name, message=message, store=store).replace("vfs=mv", "vfs=options-recorder")
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(uri, flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE)
    assert recorder.seen is not None
    assert recorder.seen[0] == name
    assert recorder.seen[1]["message"] == message
    assert recorder.seen[1]["store"] == store


def test_the_documentation_has_the_table():
    row = r"^\| `(\w+)` \| `(\w+)=` \| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$"
    rows = re.findall(row, DOCS.read_text(), re.MULTILINE)
    assert [tuple(row) for row in rows] == [
        (o.name, o.name, o.environment, o.values, show(o.default), o.help) for o in OPTIONS
    ]


def show(default: object) -> str:
    if default in (None, ""):
        return "none"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
