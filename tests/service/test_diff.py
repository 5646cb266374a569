"""What changed, asked of a store behind a service."""

from __future__ import annotations

import contextlib

import mvvfs


def test_diff_and_changes(serve):
    service = serve(max_read_pages=10)
    url = f"grpc:{service.addresses[0]}".replace("grpc:unix:", "grpc+unix:")
    with contextlib.closing(mvvfs.connect("app", store=url, page_size=512)) as db:
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        before = db.pragma("mv_version")
        series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        db.execute(f"{series} INSERT INTO t SELECT i, zeroblob(i) FROM n")
        db.execute("UPDATE t SET a = 'new' WHERE id = 1000")
        assert [change.op for change in mvvfs.diff("app", before, store=url)] == ["insert"] * 2000
        (change,) = mvvfs.diff("app", "HEAD~1", store=url)
        assert (change.op, change.key, change.new) == ("update", (1000,), {"id": 1000, "a": "new"})
        counts = [len(list(commit)) for commit in mvvfs.changes("app", since=before, store=url)]
        assert counts == [2000, 1]
        following = mvvfs.changes("app", since="HEAD", store=url, follow=True)
        db.execute("DELETE FROM t WHERE id = 1")
        assert [change.key for change in next(following)] == [(1,)]
        following.close()
