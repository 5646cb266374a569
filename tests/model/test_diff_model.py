"""`mvvfs.diff` and `mvvfs.changes` against what SQLite itself shows at both versions."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mvvfs
from mvvfs.compare import changeset, comparison, overflow
from mvvfs.compare.api import History
from mvvfs.compare.changes import Difference, RowChange, SchemaChange
from mvvfs.compare.script import script
from mvvfs.tables import table_map
from pagestore.api import format_version, parse_version
from pagestore.opener import open_store
from tests import cluster

Rows = dict[tuple[Any, ...], dict[str, Any]]
State = dict[str, Rows]

SCHEMA = (
    "CREATE TABLE r(id INTEGER PRIMARY KEY, a TEXT, b, c REAL)",
    "CREATE INDEX r_a ON r(a)",
    "CREATE TABLE p(k TEXT PRIMARY KEY, a, b)",
    "CREATE TABLE w(a, b, k, PRIMARY KEY(k, b DESC)) WITHOUT ROWID",
    "CREATE INDEX w_a ON w(a)",
    "CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, a, b) WITHOUT ROWID",
)
TABLES = {"r": "id, a, b", "p": "k, a, b", "w": "k, a, b", "n": "k, a, b"}
KEYS = {"r": "id", "p": "k", "w": "k", "n": "k"}

numbers = st.integers(0, 60)
sizes = st.sampled_from((0, 3, 40, 300, 3000, 9000))


@st.composite
def statements(draw: st.DrawFn) -> str:
    table = draw(st.sampled_from(sorted(TABLES)))
    first, count, size = draw(numbers), draw(st.sampled_from((1, 1, 2, 30))), draw(sizes)
    key = KEYS[table]
    name = "i" if table == "r" else "'k' || i"
    value = draw(
        st.sampled_from(
            (
                f"randomblob({size})",
                f"hex(randomblob({size // 2}))",
                "NULL",
                "1",
                "1.0",
                "i * 1.5",
                "random() / 3.0",
                "'äöü€'",
            )
        )
    )
    series = (
        f"WITH RECURSIVE s(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s WHERE i < {first + count - 1})"
    )
    into = f"{table}({TABLES[table]})"
    where = f"WHERE {key} IN ({series} SELECT {name} FROM s)"
    blobs = f"{where} AND typeof(a) = 'blob'"
    return draw(
        st.sampled_from(
            (
                f"{series} INSERT OR REPLACE INTO {into} SELECT {name}, {value}, {value} FROM s",
                f"{series} INSERT OR IGNORE INTO {into} SELECT {name}, {value}, i FROM s",
                f"DELETE FROM {table} {where}",
                f"UPDATE {table} SET a = {value.replace('i *', '3 *')} {where}",
                f"UPDATE {table} SET a = randomblob(length(a)) {blobs}",
                f"UPDATE {table} SET a = CAST(substr(a, 1, length(a) - 1) || x'07' AS BLOB) {blobs}",
                f"UPDATE OR IGNORE {table} SET {key} = {'id + 1000' if table == 'r' else 'upper(k)'} {where}",
            )
        )
    )


upheavals = st.sampled_from(
    (
        "VACUUM",
        "DELETE FROM r",
        "ALTER TABLE r RENAME TO r2; ALTER TABLE r2 RENAME TO r",
        "DROP TABLE p; CREATE TABLE p(k TEXT PRIMARY KEY, a, b)",
        "CREATE TABLE extra(x); INSERT INTO extra VALUES (1), (2); DROP TABLE IF EXISTS other;"
        "ALTER TABLE extra RENAME TO other",
        "CREATE TABLE IF NOT EXISTS autos(i INTEGER PRIMARY KEY AUTOINCREMENT, x);"
        "INSERT INTO autos(x) VALUES (1)",
        "DROP INDEX IF EXISTS r_a",
        "ANALYZE",
    )
)
commits = st.lists(
    st.one_of(st.lists(statements(), min_size=1, max_size=3), upheavals), min_size=1, max_size=8
)


def state(connection: apsw.Connection) -> State:
    """All rows by their identity."""
    found: State = {}
    flags = {row[1]: bool(row[4]) for row in connection.execute("PRAGMA main.table_list")}
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        keys = {"w": ["k", "b"], "n": ["k"]}.get(name, ["rowid"])
        assert flags[name] == (keys != ["rowid"])
        rows = connection.execute(f"SELECT {', '.join([*keys, *columns])} FROM {name}").fetchall()
        found[name] = {
            exact(row[: len(keys)]): dict(zip(columns, row[len(keys) :], strict=True)) for row in rows
        }
    return found


def exact(values: Any) -> tuple[Any, ...]:
    """1 is not 1.0."""
    return tuple((type(value).__name__, value) for value in values)


def expected(old: State, new: State) -> set[Any]:
    found = set()
    for name in old.keys() | new.keys():
        before, after = old.get(name, {}), new.get(name, {})
        for key in before.keys() | after.keys():
            one, other = before.get(key), after.get(key)
            if one is None or other is None or exact(one.values()) != exact(other.values()):
                found.add((name, key, one and exact(one.items()), other and exact(other.items())))
    return found


def matches(differences: Iterator[Difference], old: State, new: State) -> None:
    found = list(differences)
    renames = {c.table: c.name for c in found if isinstance(c, SchemaChange) and c.op == "renamed"}
    rows = shown(found)
    assert len(rows) == len(set(rows))
    assert set(rows) == expected({renames.get(name, name): rows for name, rows in old.items()}, new)


def shown(differences: list[Difference]) -> list[Any]:
    rows = [change for change in differences if isinstance(change, RowChange)]
    for row in rows:
        assert row.op == ("insert" if row.old is None else "delete" if row.new is None else "update")
    return [
        (row.table, exact(row.key), row.old and exact(row.old.items()), row.new and exact(row.new.items()))
        for row in rows
    ]


counter = itertools.count()

cases = given(
    script=commits,
    page_size=st.sampled_from((512, 1024, 4096)),
    encoding=st.sampled_from(("UTF-8", "UTF-16le", "UTF-16be")),
    guided=st.booleans(),
    nearby=st.booleans(),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@cases
def test_a_diff_is_the_difference(**case):
    is_the_difference(f"memory:diff {next(counter)}", **case)


@pytest.mark.foundationdb
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@cases
def test_on_a_cluster(**case):
    with cluster.prefix() as prefix:
        is_the_difference(cluster.url(prefix), **case)


@pytest.mark.long
@pytest.mark.foundationdb
@pytest.mark.timeout(1800)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@cases
def test_on_a_cluster_for_longer(**case):
    with cluster.prefix() as prefix:
        is_the_difference(cluster.url(prefix), **case)


def is_the_difference(url, script, page_size, encoding, guided, nearby):
    store = open_store(url, create=True)
    patch = pytest.MonkeyPatch()
    if not guided:
        patch.setattr(comparison, "_GUIDED_BYTES", 0)
    if not nearby:
        patch.setattr(overflow, "_NEARBY", ())
    try:
        db = mvvfs.connect("app", store=url, page_size=page_size)
        db.execute(f"PRAGMA encoding = '{encoding}'")
        for statement in SCHEMA:
            db.execute(statement)
        states = {db.pragma("mv_version"): state(db)}
        for commit in script:
            if isinstance(commit, str):
                for statement in commit.split(";"):
                    db.execute(statement)
                    states[db.pragma("mv_version")] = state(db)
                continue
            with mvvfs.transaction(db):
                for statement in commit:
                    with contextlib.suppress(apsw.ConstraintError):
                        db.execute(statement)
            states[db.pragma("mv_version")] = state(db)
        db.close()
        check(url, states)
    finally:
        patch.undo()
        store.close()


def check(url: str, states: dict[str, State]) -> None:
    versions = list(states)
    for a, b in [
        (versions[0], versions[-1]),
        (versions[-1], versions[0]),
        (versions[len(versions) // 2], versions[-1]),
    ]:
        matches(mvvfs.diff("app", a, b, store=url), states[a], states[b])
        script_leads_there(url, a, b)
        changeset_leads_there(url, a, b)
    before = versions[0]
    for commit in mvvfs.changes("app", since=before, store=url):
        matches(iter(commit), states[before], states[commit.version])
        before = commit.version
    assert before == versions[-1]
    replayed(url, states)
    backwards(url, versions)


def replayed(url: str, states: dict[str, State]) -> None:
    """One copy, brought from each version to the next."""
    store = open_store(url, create=False)
    versions = list(states)
    with copy(url, versions[0]) as one:
        history = History(store, store.open("app"))
        for before, change in zip(
            versions, store.changelog(history.namespace.id, after=parse_version(versions[0])), strict=False
        ):
            for statement in script(history.comparison(parse_version(before), change)):
                one.execute(statement)
            assert state(one).items() >= states[format_version(change.version)].items()


def backwards(url: str, versions: list[str]) -> None:
    """From the newest commit to the oldest: the tables that each touched, beside what `dbstat` says."""
    store = open_store(url, create=False)
    history = History(store, store.open("app"))
    changes = list(store.changelog(history.namespace.id, after=parse_version(versions[0])))
    maps = []
    for version in versions:
        with contextlib.closing(mvvfs.connect("app", store=url, at=version)) as connection:
            maps.append(table_map(connection))
    for at in range(len(changes) - 1, -1, -1):
        expected = {known[n] for n in changes[at].pages for known in maps[at : at + 2] if n in known}
        before = parse_version(versions[at])
        assert history.comparison(before, changes[at]).touched() == expected


def script_leads_there(url: str, a: str, b: str) -> None:
    with copy(url, a) as one, copy(url, b) as other:
        for statement in script(compared(url, a, b)):
            one.execute(statement)
        assert one.pragma("integrity_check") == "ok"
        assert (
            dict(objects(one)).items() >= dict(objects(other)).items()
        )  # ANALYZE may make more than there was
        assert state(one).items() >= state(other).items()


def changeset_leads_there(url: str, a: str, b: str) -> None:
    """For the tables that have a primary key and the same columns in both."""
    out = io.BytesIO()
    changeset.write(compared(url, a, b), out)
    with copy(url, a) as one, copy(url, b) as other:
        before = state(one)
        common = {name for name in ("r", "p", "w", "n") if name in before and name in state(other)}
        if out.getvalue():
            apsw.Changeset.apply(out.getvalue(), one, conflict=refuse)
        for name in common:
            columns = ", ".join(row[1] for row in other.execute(f"PRAGMA table_info({name})"))
            query = f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3"
            assert list(map(exact, one.execute(query))) == list(map(exact, other.execute(query)))


def refuse(_change: apsw.TableChange, *_rest: Any) -> int:
    raise AssertionError("a change that does not fit")


def compared(url: str, a: str, b: str) -> comparison.Comparison:
    store = open_store(url, create=False)
    return comparison.compare(store, store.open("app"), parse_version(a), parse_version(b))


@contextlib.contextmanager
def copy(url: str, at: str) -> Iterator[apsw.Connection]:
    """A version as an ordinary database in memory."""
    with (
        contextlib.closing(mvvfs.connect("app", store=url, at=at)) as origin,
        contextlib.closing(apsw.Connection(":memory:")) as plain,
    ):
        with plain.backup("main", origin, "main") as backup:
            backup.step()
        yield plain


def objects(connection: apsw.Connection) -> list[tuple[Any, Any]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()
    return [(row[:2], row[2:]) for row in rows if not row[1].startswith("sqlite_autoindex")]
