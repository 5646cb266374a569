"""kill -9 at every fault point of a commit over two databases: both have it, or neither."""

from __future__ import annotations

import apsw

import mvvfs
from mvvfs.options import to_uri
from pagestore.opener import open_store
from tests.faults.test_crash import CLUSTER_COMMIT_POINTS, COMMIT_POINTS, at_each, victim
from tests.faults.victim import COMMITS

NUMBERS = "SELECT n FROM {} ORDER BY n"


def numbers(connection: apsw.Connection, table: str) -> list[int]:
    return [n for (n,) in connection.execute(NUMBERS.format(table)).fetchall()]


def verify(url: str, acknowledged: int) -> int:
    """Both hold the same at every version; the number of the last transaction."""
    store = open_store(url, create=False)
    logs = [[change.version for change in store.changelog(store.open(name).id)] for name in ("one", "two")]
    store.close()
    assert logs[0][1:] == logs[1][1:]  # behind the tables' creation
    last = len(logs[0]) - 1
    assert acknowledged <= last <= acknowledged + 1
    for n, version in enumerate(logs[0][1:], start=1):
        at = "v" + version.hex()
        past = mvvfs.connect("one", store=url, at=at)
        past.execute("ATTACH ? AS two", (to_uri("two", store=url, at=at),))
        assert numbers(past, "main.t") == numbers(past, "two.t") == list(range(1, n + 1))
        past.close()
    return last


@at_each(COMMIT_POINTS, CLUSTER_COMMIT_POINTS)
def test_commit(shared: str, point: str) -> None:
    acknowledged = int(victim(None, "commit_both", shared)[-1])
    before = verify(shared, acknowledged)
    told = victim(f"{point}=kill@2", "commit_both", shared)
    last = verify(shared, int(told[-1]) if told else before)
    told = victim(None, "commit_both", shared)
    assert verify(shared, int(told[-1])) == last + COMMITS
