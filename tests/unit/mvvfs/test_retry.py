"""`transaction`, on an mv database and on plain SQLite in WAL mode, which has SQLITE_BUSY_SNAPSHOT too."""

import threading

import apsw
import pytest

import mvvfs
from mvvfs import retry
from mvvfs.errors import ConflictError, OpenCursorError, TransactionError
from mvvfs.retry import transaction
from pagestore.api import PageNumber, format_version, parse_version
from pagestore.opener import open_store


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """How long `pause` slept, instead of sleeping."""
    taken: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", taken.append)
    return taken


@pytest.fixture
def mv_pair(tmp_path):
    """Two connections to one counter in an mv database."""
    yield from _pair(mvvfs.connect("app", store=f"memory:{tmp_path}") for _ in range(2))


@pytest.fixture
def plain_pair(tmp_path):
    """Two connections to one counter in a plain file, in WAL mode."""
    first = apsw.Connection(str(tmp_path / "x.db"))
    first.execute("PRAGMA journal_mode = WAL").fetchall()
    yield from _pair([first, apsw.Connection(str(tmp_path / "x.db"))])


@pytest.fixture(params=["mv_pair", "plain_pair"])
def pair(request):
    return request.getfixturevalue(request.param)


def _pair(connections):
    ours, theirs = connections
    ours.execute("CREATE TABLE t(n); INSERT INTO t VALUES (0)")
    yield ours, theirs
    ours.close(force=True)
    theirs.close(force=True)


def count(connection: apsw.Connection) -> int:
    return connection.execute("SELECT n FROM t").get


def fail_after(sql: str, connection: apsw.Connection) -> None:
    connection.execute(sql)
    raise ZeroDivisionError


class Meddler:
    """Adds 1, with another connection's commit in between the first `conflicts` times."""

    def __init__(self, ours: apsw.Connection, theirs: apsw.Connection, conflicts: int) -> None:
        self.ours, self.theirs, self.conflicts = ours, theirs, conflicts
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        n = count(self.ours)
        if self.calls <= self.conflicts:
            self.theirs.execute("UPDATE t SET n = n + 100")
        self.ours.execute("UPDATE t SET n = ?", (n + 1,))
        return f"try {self.calls}"


def test_the_block_commits(pair):
    ours, theirs = pair
    with transaction(ours) as connection:
        assert connection is ours
        ours.execute("UPDATE t SET n = 5")
        assert count(theirs) == 0
    assert count(theirs) == 5


def test_an_exception_rolls_back_and_comes_out(pair):
    ours, _ = pair
    with pytest.raises(ZeroDivisionError), transaction(ours):
        fail_after("UPDATE t SET n = 5", ours)
    assert not ours.in_transaction
    assert count(ours) == 0


def test_a_block_gets_one_try(pair):
    meddler = Meddler(*pair, conflicts=1)
    with pytest.raises(ConflictError, match="tried once") as caught, transaction(pair[0]):
        meddler()
    assert caught.value.tries == 1
    assert caught.value.extendedresult == apsw.SQLITE_BUSY_SNAPSHOT
    assert not pair[0].in_transaction
    assert count(pair[0]) == 100


def test_run_tries_again_until_it_goes_through(pair, naps):
    meddler = Meddler(*pair, conflicts=3)
    assert transaction(pair[0], turn_after=99).run(meddler) == "try 4"
    assert count(pair[1]) == 301
    assert len(naps) == 3


def test_a_decorated_function_is_a_transaction_each_time(pair):
    ours, theirs = pair

    @transaction(ours)
    def add(amount: int, *, times: int = 1) -> int:
        """Add it."""
        ours.execute("UPDATE t SET n = n + ?", (amount * times,))
        return count(ours)

    assert (add(2), add(3, times=2)) == (2, 8)
    assert count(theirs) == 8
    assert (add.__name__, add.__doc__) == ("add", "Add it.")


def test_the_tries_are_bounded(pair, naps):
    meddler = Meddler(*pair, conflicts=99)
    with pytest.raises(ConflictError, match="tried 4 times") as caught:
        transaction(pair[0], tries=4, turn_after=99).run(meddler)
    assert (meddler.calls, caught.value.tries, len(naps)) == (4, 4, 3)
    assert count(pair[0]) == 400


def test_pauses_are_random_double_and_have_a_bound(naps):
    for refused in range(1, 40):
        retry.pause(refused)
    assert all(nap <= retry.FIRST_PAUSE * 2**i for i, nap in enumerate(naps))
    assert max(naps) <= retry.LONGEST_PAUSE
    assert max(naps[8:]) > retry.LONGEST_PAUSE / 4
    assert len(set(naps)) == len(naps)


def test_the_last_conflict_names_pages_version_and_tables(pair):
    ours, _ = pair
    root = PageNumber(ours.execute("SELECT rootpage FROM sqlite_schema WHERE name = 't'").get)

    def lose() -> None:
        raise ConflictError("lost", pages=(root,), version=parse_version("v7"))

    with pytest.raises(ConflictError, match=r"1 page\(s\) changed by v0*7: 2 \(in t\)") as caught:
        transaction(ours, tries=2).run(lose)
    assert caught.value.pages == (root,)
    assert caught.value.version == parse_version("v7")
    assert caught.value.tables == ("t",)
    assert isinstance(caught.value.__cause__, ConflictError)


def test_busy_of_another_kind_is_not_retried(pair):
    calls = []
    busy = apsw.BusyError("someone else's")
    busy.extendedresult = apsw.SQLITE_BUSY

    def fail_plainly() -> None:
        calls.append(1)
        raise busy

    with pytest.raises(apsw.BusyError) as caught:
        transaction(pair[0]).run(fail_plainly)
    assert caught.value is busy
    assert len(calls) == 1


def test_begin_immediate_waits_its_turn(plain_pair, monkeypatch):
    ours, theirs = plain_pair
    theirs.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(retry.time, "sleep", lambda _: theirs.in_transaction and theirs.execute("COMMIT"))
    transaction(ours, mode="IMMEDIATE").run(ours.execute, "UPDATE t SET n = 9")
    assert count(theirs) == 9


def test_begin_immediate_gives_up(plain_pair):
    ours, theirs = plain_pair
    theirs.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConflictError, match="tried 3 times"):
        transaction(ours, mode="IMMEDIATE", tries=3).run(count, ours)
    with pytest.raises(ConflictError, match="tried once"), transaction(ours, mode="IMMEDIATE"):
        pass
    assert not ours.in_transaction


@pytest.mark.parametrize("how", ["block", "run", "decorator"])
def test_a_transaction_inside_a_transaction_is_refused(pair, how):
    ours, _ = pair
    inner = transaction(ours)

    def nested() -> None:
        if how == "block":
            with inner:
                pass
        elif how == "run":
            inner.run(count, ours)
        else:
            inner(count)(ours)

    with pytest.raises(TransactionError, match="savepoint"):
        transaction(ours).run(nested)
    assert not ours.in_transaction


def test_savepoints_work_inside(pair):
    ours, theirs = pair
    with transaction(ours):
        ours.execute("UPDATE t SET n = 1")
        with pytest.raises(ZeroDivisionError), ours:
            fail_after("UPDATE t SET n = 2", ours)
    assert count(theirs) == 1


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
def test_ending_the_transaction_inside_is_refused(pair, statement):
    ours, _ = pair
    with pytest.raises(TransactionError, match="ended the transaction"), transaction(ours):
        ours.execute(statement)


def test_a_commit_that_fails_otherwise_leaves_nothing_open(pair):
    ours, _ = pair
    ours.execute(
        "PRAGMA foreign_keys = ON; CREATE TABLE p(id INTEGER PRIMARY KEY);"
        "CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(apsw.ConstraintError), transaction(ours):
        ours.execute("INSERT INTO c VALUES (7)")
    assert not ours.in_transaction
    assert ours.execute("SELECT count(*) FROM c").get == 0


def test_an_open_cursor_is_named_as_the_reason(pair):
    ours, theirs = pair
    ours.execute("INSERT INTO t VALUES (1), (2)")
    cursors = []

    def leave_a_cursor_open() -> None:
        cursor = ours.execute("SELECT n FROM t")
        next(cursor)
        cursors.append(cursor)
        theirs.execute("INSERT INTO t VALUES (100)")
        ours.execute("UPDATE t SET n = n + 1")

    with pytest.raises(OpenCursorError, match="cursor of this connection is still open"):
        transaction(ours).run(leave_a_cursor_open)
    assert len(cursors) == 1


def test_a_cursor_of_the_function_itself_is_let_go(pair):
    ours, theirs = pair
    ours.execute("INSERT INTO t VALUES (1), (2)")
    calls = []

    def leave_a_cursor_open() -> None:
        cursor = ours.execute("SELECT n FROM t")
        next(cursor)
        calls.append(1)
        if len(calls) == 1:
            theirs.execute("INSERT INTO t VALUES (100)")
        ours.execute("UPDATE t SET n = n + 1")

    transaction(ours).run(leave_a_cursor_open)
    assert len(calls) == 2


def messages(tmp_path) -> list[str]:
    store = open_store(f"memory:{tmp_path}", create=False)
    try:
        return [change.message for change in store.changelog(store.open("app").id)][-2:]
    finally:
        store.close()


def test_the_message_is_that_of_this_transaction_only(mv_pair, tmp_path):
    ours, _ = mv_pair
    ours.execute("PRAGMA mv_message = 'before'").fetchall()
    with transaction(ours, message="it's"):
        ours.execute("UPDATE t SET n = 1")
    ours.execute("UPDATE t SET n = 2")
    assert messages(tmp_path) == ["it's", "before"]


def test_the_message_is_reset_after_a_failure(mv_pair, tmp_path):
    ours, _ = mv_pair
    with pytest.raises(ZeroDivisionError), transaction(ours, message="it's"):
        fail_after("UPDATE t SET n = 5", ours)
    meddler = Meddler(*mv_pair, conflicts=1)
    with pytest.raises(ConflictError), transaction(ours, message="it's"):
        meddler()
    ours.execute("UPDATE t SET n = 2")
    assert messages(tmp_path) == ["", ""]


def test_a_conflict_at_commit_names_pages_version_and_tables(mv_pair):
    ours, theirs = mv_pair

    def meet() -> None:
        count(ours)
        ours.execute("UPDATE t SET n = 5")
        theirs.execute("UPDATE t SET n = n + 6")

    with pytest.raises(ConflictError, match=r"tried 2 times: 1 page\(s\) .* \(in t\)") as caught:
        transaction(ours, tries=2).run(meet)
    assert caught.value.tables == ("t",)
    assert caught.value.version is not None
    assert format_version(caught.value.version) == theirs.pragma("mv_version")


def test_a_conflict_at_an_earlier_statement_says_more_than_locked(mv_pair):
    with pytest.raises(ConflictError, match="tried once: another commit changed"), transaction(mv_pair[0]):
        Meddler(*mv_pair, conflicts=1)()


def test_concurrent_counters_lose_nothing(tmp_path):
    def count_up() -> None:
        connection = mvvfs.connect("app", store=str(tmp_path / "store"))
        add = transaction(connection, tries=1000)(connection.execute)
        for _ in range(50):
            add("UPDATE t SET n = n + 1")
        connection.close()

    first = mvvfs.connect("app", store=str(tmp_path / "store"))
    first.execute("CREATE TABLE t(n); INSERT INTO t VALUES (0)")
    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(first) == 200
    first.close()


@pytest.mark.parametrize("bad", [{"tries": 0}, {"mode": "EXCLUSIVE"}, {"message": "a\0b"}])
def test_arguments_that_make_no_sense(pair, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        transaction(pair[0], **bad)
