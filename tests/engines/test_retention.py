"""What retention keeps and what it lets go of, over every engine."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from pagestore import beside, changelog, leftovers, retention, sweep
from pagestore.api import (
    BelowHorizonError,
    Change,
    InvalidNameError,
    LimitError,
    NamespaceId,
    NameTakenError,
    NoSuchVersionError,
    OutcomeUnknownError,
    PageNumber,
    Retention,
    Version,
    new_token,
)
from pagestore.engines.base import Engine, KeyRange
from pagestore.engines.pace import Pace
from pagestore.engines.sqlite import SqliteEngine
from pagestore.store import PageStore
from pagestore.verify import verify
from tests.pages import Pages, content


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0)
    monkeypatch.setattr(retention, "is_due", lambda _token: False)


def whole(store: PageStore) -> None:
    store.engine.read(lambda tx: verify(tx, lambda _done, _total: None))


def rows(store: PageStore, family: bytes) -> int:
    return len(store.engine.read(lambda tx: list(tx.scan(KeyRange(family, family + b"\xff")))))


def noise(seed: int) -> bytes:
    """A page that is no delta of any other."""
    return random.Random(seed).randbytes(512)


def history(pages: Pages, commits: int, numbers: range = range(1, 4)) -> list[Version]:
    """Commits that change all of the pages, a little at a time, so that deltas are made."""
    versions = []
    for step in range(commits):
        body = bytearray(content("start", 1))
        body[100:108] = step.to_bytes(8, "big")
        versions.append(pages.commit({n: bytes(body[:-1]) + bytes([n]) for n in numbers}).version)
    return versions


def step_of(pages: Pages, number: int, at: Version) -> int:
    found = pages.read(number, at)
    assert found is not None
    return int.from_bytes(found[100:108], "big")


def let_go(store: PageStore, namespace: NamespaceId) -> None:
    store.set_retention(namespace, Retention(0))
    assert store.collect(namespace).complete
    whole(store)


def test_the_record_of_a_large_commit_is_read_once(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many steps it takes to let go of what it replaced."""
    read = 0
    of_pieces = changelog._read_pieces

    def counted(version: Version, record: bytes, pieces: Iterator[bytes]) -> Change:
        nonlocal read
        read += 1
        return of_pieces(version, record, pieces)

    monkeypatch.setattr(changelog, "_read_pieces", counted)
    monkeypatch.setattr(changelog, "MAX_RECORD", 200)
    monkeypatch.setattr(sweep, "STEP", 10)
    for step in range(3):
        pages.commit({n: noise(1000 * step + n) for n in range(1, 101)})
    page_store.set_retention(pages.id, Retention(0))
    would = page_store.collect(pages.id, dry_run=True)
    read = 0
    done = page_store.collect(pages.id)
    assert (done.versions, done.page_versions) == (would.versions, would.page_versions) == (2, 200)
    assert read <= 4
    assert [pages.read(n) for n in (1, 100)] == [noise(2001), noise(2100)]
    whole(page_store)


# ---- what stays ----


def test_everything_stays_for_30_days(page_store: PageStore, pages: Pages) -> None:
    versions = history(pages, 5)
    assert page_store.retention(pages.id) == Retention(30 * 86400, None)
    done = page_store.collect(pages.id)
    assert (done.versions, done.page_versions, done.bytes) == (0, 0, 0)
    assert [step_of(pages, 1, version) for version in versions] == list(range(5))


def test_what_is_needed_stays_and_all_else_goes(page_store: PageStore, pages: Pages) -> None:
    versions = history(pages, 60)
    page_store.tag(pages.id, "old", versions[3])
    branch = page_store.branch(pages.id, "branch", versions[20])
    hold = page_store.hold(pages.id, versions[40], 3600)
    let_go(page_store, pages.id)
    horizon = page_store.open("main").horizon
    assert horizon == versions[40]
    stay = {3, 20, *range(40, 60)}
    for step, version in enumerate(versions):
        if step in stay:
            assert step_of(pages, 2, version) == step
            assert page_store.allocation(pages.id, version).highest == 3
        else:
            with pytest.raises(BelowHorizonError) as below:
                pages.read(2, version)
            assert below.value.horizon == horizon
            assert f"{horizon.hex()}" in str(below.value)
    assert [change.version for change in page_store.changelog(pages.id)] == [
        versions[step] for step in sorted(stay)
    ]
    page_store.unhold(pages.id, hold)
    let_go(page_store, pages.id)
    with pytest.raises(BelowHorizonError):
        pages.read(1, versions[40])
    assert step_of(Pages(page_store, branch.id), 1, page_store.begin(branch.id).version) == 20
    assert step_of(pages, 1, versions[3]) == 3
    assert step_of(pages, 1, versions[59]) == 59


def test_a_dry_run_says_what_a_run_does(page_store: PageStore, pages: Pages) -> None:
    versions = history(pages, 50)
    page_store.tag(pages.id, "t", versions[7])
    page_store.set_retention(pages.id, Retention(0))
    before = rows(page_store, b"p"), rows(page_store, b"l")
    would = page_store.collect(pages.id, dry_run=True)
    assert (rows(page_store, b"p"), rows(page_store, b"l")) == before
    done = page_store.collect(pages.id)
    assert would == done
    assert before[0] - rows(page_store, b"p") == done.page_versions > 50
    assert before[1] - rows(page_store, b"l") == done.versions == 48


def test_nothing_is_left_of_what_is_not_needed(page_store: PageStore, pages: Pages) -> None:
    for step in range(300):
        pages.commit({1: noise(step), 2 + step % 5: noise(1000 + step)})
    pages.commit(dict.fromkeys(range(2, 7)))
    pages.commit({1: noise(300)})
    let_go(page_store, pages.id)
    assert rows(page_store, b"p") == 1  # freed pages leave no mark when nothing is left to hide
    assert rows(page_store, b"l") == 2  # the record of the namespace, and the newest commit's
    assert rows(page_store, b"t") == rows(page_store, b"a") == 1
    assert page_store.allocation(pages.id, pages.version()).highest == 1


def test_one_large_commit_is_let_go_of_in_many_steps(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STEP", 10)
    for seed in (1000, 2000, 3000):
        pages.commit({n: noise(seed + n) for n in range(1, 100)})
    page_store.set_retention(pages.id, Retention(0))
    steps = 0
    carry_out = sweep.carry_out

    def counted(*arguments: object) -> bool:
        nonlocal steps
        steps += 1
        return carry_out(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "carry_out", counted)
    assert page_store.collect(pages.id).page_versions == 2 * 99
    assert steps > 20
    whole(page_store)
    assert all(pages.read(n) == noise(3000 + n) for n in range(1, 100))


def test_out_of_time(page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STEP", 3)
    history(pages, 30)
    page_store.set_retention(pages.id, Retention(0))
    runs = 1
    while not page_store.collect(pages.id, seconds=1e-6).complete:
        whole(page_store)
        runs += 1
        if runs == 3:
            break
    assert page_store.collect(pages.id).complete
    assert rows(page_store, b"l") == 2


def test_a_base_below_the_horizon_is_refused(page_store: PageStore, pages: Pages) -> None:
    versions = history(pages, 3)
    page_store.tag(pages.id, "kept", versions[0])
    let_go(page_store, pages.id)
    with pytest.raises(BelowHorizonError):
        pages.commit({9: content(1)}, base=versions[0])  # readable, but nobody knows what came after it
    assert page_store.begin(pages.id, versions[0]).changes is None
    assert page_store.begin(pages.id, versions[2]).changes == ()


def test_times_below_the_horizon(page_store: PageStore, pages: Pages) -> None:
    versions = history(pages, 6)
    times = {change.version: change.time_us for change in page_store.changelog(pages.id)}
    page_store.tag(pages.id, "kept", versions[2])
    let_go(page_store, pages.id)
    assert page_store.version_at(pages.id, times[versions[5]]) == versions[5]
    assert page_store.open("main").horizon_us == times[versions[5]]
    for step in (0, 1, 3):
        if times[versions[step]] not in (times[versions[2]], times[versions[5]]):
            with pytest.raises(BelowHorizonError):
                page_store.version_at(pages.id, times[versions[step]])
    with pytest.raises(NoSuchVersionError):
        page_store.version_at(pages.id, 1)


def test_a_run_ends_while_others_commit(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STEP", 8)
    history(pages, 20)
    page_store.set_retention(pages.id, Retention(0))
    carry_out = sweep.carry_out
    later = 0

    def beside_another(*arguments: object) -> bool:
        nonlocal later
        later += 1
        pages.commit({1: noise(later)})
        return carry_out(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep, "carry_out", beside_another)
    done = page_store.collect(pages.id)
    assert done.complete
    assert done.versions == 19
    assert len(list(page_store.changelog(pages.id))) == 1 + later


# ---- beside commits ----


def test_commits_leave_it_to_a_run(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(pages, 40)
    let_go(page_store, pages.id)
    history(pages, 40)
    engine = page_store.engine
    retention._advance(engine, pages.id, 5)

    def step_of_a_run() -> None:
        step = engine.read(lambda tx: sweep.next_step(tx, pages.id, 6))
        assert step is not None
        assert sweep.carry_out(engine, pages.id, step, 5, Pace(engine, 6))

    def go_beside_a_commit() -> bool:
        before = rows(page_store, b"l")
        retention.beside_commit(engine, pages.id, 1, 5)
        return rows(page_store, b"l") < before

    step_of_a_run()
    assert not go_beside_a_commit()
    sweep.end_run(engine, pages.id, 5)
    assert go_beside_a_commit()
    step_of_a_run()  # and then it is killed
    assert not go_beside_a_commit()
    now = sweep._now_us
    monkeypatch.setattr(sweep, "_now_us", lambda: now() + sweep.RUN_US)
    assert go_beside_a_commit()
    monkeypatch.setattr(sweep, "_now_us", lambda: now() + 2 * sweep.RUN_US)
    step_of_a_run()  # by a clock that is ahead
    monkeypatch.setattr(sweep, "_now_us", now)
    assert go_beside_a_commit()
    page_store.collect(pages.id)
    whole(page_store)
    history(pages, 40)
    retention._advance(engine, pages.id, 5)
    assert go_beside_a_commit()  # a run that ended has said so


def most_rows(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch, family: bytes, commits: int
) -> int:
    """Of a family, at most, while every commit but the newest may go, and one in four lets go of some."""
    monkeypatch.setattr(retention, "is_due", lambda token: token[-1] % 4 == 0)
    monkeypatch.setattr(retention, "_SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(beside, "QUIET_SECONDS", 0.0)
    page_store.set_retention(pages.id, Retention(0))
    most = 0
    for step in range(commits):
        pages.commit({1: noise(step), 2: noise(1000 + step)})
        most = max(most, rows(page_store, family) if step % 20 == 0 else 0)
    return most


@pytest.mark.long_on_cluster
def test_history_stays_short_by_itself(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert most_rows(page_store, pages, monkeypatch, b"l", 400) < 150
    whole(page_store)


@pytest.mark.long_on_cluster
def test_what_a_move_leaves_behind_goes_before_the_next_one(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "TOKEN_SECONDS", 0)
    assert most_rows(page_store, pages, monkeypatch, b"u", 300) < 150
    whole(page_store)


def test_commits_do_not_look_where_nothing_can_be_old_enough(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_arguments: object) -> bool:
        raise AssertionError("it looked where the horizon belongs")

    history(pages, 5)
    monkeypatch.setattr(retention, "_advance", moved)
    for policy in (Retention(), Retention(None, None), Retention(60.0)):
        page_store.set_retention(pages.id, policy)
        retention.beside_commit(page_store.engine, pages.id, 1, 5)
    page_store.set_retention(pages.id, Retention(None, 10**12))
    with pytest.raises(AssertionError, match="looked"):
        retention.beside_commit(page_store.engine, pages.id, 1, 5)


def test_a_look_that_moved_nothing_is_not_taken_again_at_once(
    page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    history(pages, 5)
    page_store.set_retention(pages.id, Retention(None, 10**12))
    looks = 0
    advance = retention._advance

    def counted(engine: Engine, id_: NamespaceId, timeout: float) -> bool:
        nonlocal looks
        looks += 1
        return advance(engine, id_, timeout)

    monkeypatch.setattr(retention, "_advance", counted)
    for _ in range(3):
        retention.beside_commit(page_store.engine, pages.id, 1, 5)
    assert looks == 1
    now = retention._now_us
    monkeypatch.setattr(retention, "_now_us", lambda: now() + round(1e6 * retention._NEXT_LOOK) + 1)
    retention.beside_commit(page_store.engine, pages.id, 1, 5)
    assert looks == 2


@pytest.mark.long_on_cluster
def test_by_size(page_store: PageStore, pages: Pages) -> None:
    versions = [pages.commit({1: noise(step), 2: noise(1000 + step)}).version for step in range(700)]
    page_store.set_retention(pages.id, Retention(None, 20_000))
    page_store.collect(pages.id)
    whole(page_store)
    usage = page_store.usage(pages.id)
    a_measure = retention._MEASURED * usage.live_bytes
    assert usage.history_bytes <= 20_000 + 2 * a_measure
    assert pages.read(1, versions[-1]) == noise(699)
    with pytest.raises(BelowHorizonError):
        pages.read(1, versions[100])
    page_store.set_retention(pages.id, Retention(None, 10**12))
    assert page_store.collect(pages.id).versions == 0


def test_policies(page_store: PageStore, pages: Pages) -> None:
    for policy in (Retention(None, None), Retention(12.5, 10**13), Retention(0, 0), Retention()):
        page_store.set_retention(pages.id, policy)
        assert page_store.retention(pages.id) == policy
    for wrong in (Retention(-1), Retention(1, -1), Retention(float("nan"))):
        with pytest.raises(ValueError, match="history"):
            page_store.set_retention(pages.id, wrong)


# ---- tags and holds ----


def test_tags(page_store: PageStore, pages: Pages) -> None:
    versions = [pages.commit({1: noise(step)}).version for step in range(4)]
    made = page_store.tag(pages.id, "b", versions[1])
    assert page_store.tag(pages.id, "b", versions[1]) == made
    page_store.tag(pages.id, "ä/b c", versions[1])
    assert [tag.name for tag in page_store.tags(pages.id)] == ["b", "ä/b c"]
    assert page_store.tags(pages.id, "b") == page_store.tags(pages.id)[:1]
    assert page_store.tags(pages.id, "c") == []
    with pytest.raises(NameTakenError, match="untag it first"):
        page_store.tag(pages.id, "b", versions[2])
    for wrong in ("", "\0", "x" * 1025, "\ud800"):
        with pytest.raises(InvalidNameError):
            page_store.tag(pages.id, wrong, versions[1])
    with pytest.raises(NoSuchVersionError):
        page_store.tag(pages.id, "future", Version(b"\xfe" * 10))
    with pytest.raises(NoSuchVersionError, match="no tag 'c'"):
        page_store.untag(pages.id, "c")
    let_go(page_store, pages.id)
    page_store.untag(pages.id, "b")
    let_go(page_store, pages.id)
    assert pages.read(1, versions[1]) == noise(1)  # the other tag keeps it
    page_store.tag(pages.id, "again", versions[1])
    page_store.untag(pages.id, "ä/b c")
    before = rows(page_store, b"p")
    page_store.untag(pages.id, "again")
    with pytest.raises(BelowHorizonError):
        page_store.tag(pages.id, "too late", versions[1])
    assert len(list(page_store.changelog(pages.id))) == 2
    let_go(page_store, pages.id)
    assert rows(page_store, b"p") < before
    assert [rows(page_store, family) for family in (b"l", b"t", b"a", b"k", b"g")] == [2, 1, 1, 0, 0]


def test_holds(page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = history(pages, 10)
    hold = page_store.hold(pages.id, versions[4], 60)
    let_go(page_store, pages.id)
    assert page_store.open("main").horizon == versions[4]
    assert pages.commit({50: content(1)}, base=versions[4]).version > versions[-1]
    assert page_store.hold(pages.id, versions[4], 60, hold) == hold
    later = time.time_ns() // 1000 + 61 * 10**6
    monkeypatch.setattr(retention, "_now_us", lambda: later)
    let_go(page_store, pages.id)
    assert page_store.open("main").horizon > versions[4]
    with pytest.raises(BelowHorizonError):
        page_store.hold(pages.id, versions[4], 60, hold)
    page_store.unhold(pages.id, hold)
    for seconds in (0, -1, 3601):
        with pytest.raises(LimitError):
            page_store.hold(pages.id, versions[-1], seconds)


# ---- tokens ----


def test_tokens_stay_for_a_day(page_store: PageStore, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    old = (1).to_bytes(6, "big") + bytes(10)
    first = pages.commit({1: content(0)}, token=old).version
    recent = new_token()
    pages.commit({1: content(1)}, token=recent)
    history(pages, 5)
    assert page_store.outcome(pages.id, old) == first
    let_go(page_store, pages.id)
    assert page_store.outcome(pages.id, recent) is not None
    with pytest.raises(OutcomeUnknownError):
        page_store.outcome(pages.id, old)
    assert page_store.outcome(pages.id, new_token()) is None


# ---- the file ----


def test_space_is_given_back(page_store: PageStore, pages: Pages) -> None:
    if not isinstance(page_store.engine, SqliteEngine):
        assert page_store.give_back() == 0
        return
    for step in range(40):
        pages.commit({n: noise(1000 * step + n) for n in range(1, 60)})
    page_store.give_back()
    let_go(page_store, pages.id)
    assert page_store.give_back() > 100_000
    assert page_store.give_back(whole=True) >= 0
    whole(page_store)
    assert pages.read(7) == noise(39007)
    assert pages.read(PageNumber(60)) is None
