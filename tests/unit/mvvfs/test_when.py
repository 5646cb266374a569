"""What people write for a moment, and the commit that it comes to."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvvfs.errors import OptionError
from mvvfs.when import Moment, format_time, parse_time, resolve
from pagestore.api import (
    MAX_VERSION,
    ZERO_VERSION,
    Begin,
    BelowHorizonError,
    Change,
    NamespaceId,
    NoSuchVersionError,
    PageNumber,
    Version,
    parse_version,
)

NS = NamespaceId(1)
NOW = 1_795_000_000_000_000  # 2026-11-18T11:06:40Z


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


class History:
    """As much of a store as `when` asks: commits at given versions and times, and a horizon."""

    def __init__(self, commits: dict[str, int], head: str = "v100", horizon: str = "v0") -> None:
        self.changes = [Change(parse_version(v), t, (PageNumber(1),), b"", "") for v, t in commits.items()]
        self.head = parse_version(head)
        self.horizon = parse_version(horizon)

    def begin(self, namespace: NamespaceId, since: Version | None = None, at: Version | None = None) -> Begin:
        version = at or self.head
        if version > self.head:
            raise NoSuchVersionError("in the future")
        if version < self.horizon:
            raise BelowHorizonError(version, self.horizon)
        return Begin(version, None, 4096)

    def changelog(
        self, namespace, *, after=ZERO_VERSION, until=MAX_VERSION, newest_first=False, skip=0, limit=0
    ):
        found = [c for c in self.changes if after < c.version <= until]
        if newest_first:
            found.reverse()
        yield from found[skip : skip + limit if limit else None]

    def version_at(self, namespace: NamespaceId, time_us: int) -> Version:
        found = [c.version for c in self.changes if c.time_us <= time_us]
        if not found:
            raise NoSuchVersionError("before the first commit")
        return found[-1]


HISTORY = History(
    {
        "v10": us("2026-11-16T23:59:59"),
        "v20": us("2026-11-17T00:00:00"),
        "v30": us("2026-11-18T10:00:00"),
        "v40": us("2026-11-18T11:05:00"),
    }
)


def at(when: str, history: History = HISTORY) -> str:
    moment = resolve(when, history, NS, now_us=NOW)
    return "v" + moment.version.hex().lstrip("0")


@pytest.mark.parametrize(
    ("when", "version"),
    [
        ("HEAD", "v40"),
        ("now", "v40"),
        ("HEAD~0", "v40"),
        ("HEAD~", "v30"),
        ("HEAD~1", "v30"),
        ("HEAD~3", "v10"),
        ("v40", "v40"),
        ("v3f", "v30"),
        ("v100", "v40"),
        ("v0000000000000000002f", "v20"),
        ("2026-11-17", "v20"),
        ("2026-11-16T23:59:59.5Z", "v10"),
        ("2026-11-18 09:59:59.999999", "v20"),
        ("2026-11-18 10:00", "v30"),
        ("2026-11-18 10:00:00", "v30"),
        ("2026-11-18t10:00:00z", "v30"),
        ("2026-11-18T11:00:00+01:00", "v30"),
        ("2026-11-18 11:00:00 +0100", "v30"),
        ("2026-11-18T10:59:59+01:00", "v20"),
        ("2026-11-18T04:30-05:30", "v30"),
        ("today", "v20"),
        ("yesterday", "v20"),
        ("1m ago", "v40"),
        ("2m ago", "v30"),
        ("90s ago", "v40"),
        ("2 hours ago", "v20"),
        ("1d ago", "v20"),
        ("35h ago", "v20"),
        (" HEAD ", "v40"),
    ],
)
def test_moments(when, version):
    assert at(when) == version


def test_the_time_is_that_of_the_commit():
    assert resolve("2026-11-18 10:30", HISTORY, NS, now_us=NOW) == Moment(
        parse_version("v30"), us("2026-11-18T10:00:00")
    )


def test_a_moment_shows_version_and_time():
    assert str(Moment(parse_version("v30"), 1)) == "v00000000000000000030 of 1970-01-01T00:00:00.000001Z"


@pytest.mark.parametrize(
    "when",
    [
        *("", "v", "vxyz", "v" + "0" * 21, "v-1", "v 1", "v1_0", "v12 34", "HEAD~x", "HEAD^", "head"),
        *("tomorrow", "5 parsecs ago", "-5m ago", "18.11.2026", "20261118", "2026-13-01", "2026-02-30"),
        *("2026-11-18 10", "2026-11-18 25:00", "2026-11-18 10:00:60", "2026-11-18 10:00 CET"),
        *("2026-11-18T10:00+01:75", "2026-11-18T10:00+25:00", "٢٠٢٦-11-18", "9999-12-31T23:59:59-23:59"),
    ],
)
def test_what_is_no_moment_is_refused_in_one_line(when):
    with pytest.raises(OptionError) as caught:
        at(when)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("when", ["2026-11-18 11:06:41", "2027-01-01", "v101"])
def test_the_future_is_refused(when):
    with pytest.raises(NoSuchVersionError, match="future"):
        at(when)


@pytest.mark.parametrize("when", ["2026-11-16", "1w ago", "v9", "v0", "HEAD~4", "1969-12-31", "999999w ago"])
def test_before_the_first_commit(when):
    with pytest.raises(NoSuchVersionError, match="before the first commit"):
        at(when)


@pytest.mark.parametrize("when", ["HEAD", "HEAD~1", "v1"])
def test_a_database_without_commits_says_so(when):
    with pytest.raises(NoSuchVersionError, match="no commit yet"):
        at(when, History({}))


def test_below_the_horizon_names_it():
    history = History({"v10": 1, "v20": 2, "v30": 3}, horizon="v20")
    with pytest.raises(BelowHorizonError, match="v00000000000000000020"):
        at("v1f", history)
    with pytest.raises(BelowHorizonError, match="v00000000000000000020"):
        at("HEAD~2", history)
    assert at("v20", history) == "v20"


def test_a_horizon_between_two_commits_is_itself_readable():
    history = History({"v10": 1, "v30": 3}, horizon="v20")
    assert at("v25", history) == "v20"
    with pytest.raises(BelowHorizonError):
        at("v1f", history)


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_shown_time_is_read_back_exactly(time_us):
    assert parse_time(format_time(time_us), NOW) == time_us


@given(st.integers(1, 10**6), st.sampled_from("smhdw"))
def test_ago_counts_back_from_now(count, unit):
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    assert parse_time(f"{count}{unit} ago", NOW) == NOW - count * seconds * 1_000_000
