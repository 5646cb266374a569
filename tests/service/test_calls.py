"""What each call answers, and how answers are bounded."""

import threading
import time
from dataclasses import replace

import grpc
import pytest

from pagestore import wire
from pagestore.api import StoredPage, StoreUnavailableError, new_token, parse_version
from pagestore.encoding import decode
from pagestore.opener import open_store
from pagestore.service.server import Service
from pagestore.store import PageStore
from pagestore.v1 import pagestore_pb2 as pb
from tests.pages import Pages, content
from tests.service.conftest import commit_request, kind_of, page, wait_until
from tests.told import unpack

FUTURE = b"\xfe" * 10


@pytest.fixture
def service(serve) -> Service:
    return serve()


@pytest.fixture
def caller(service, call):
    return call(service)


@pytest.fixture
def namespace(caller) -> int:
    return caller("Create", name="main").id


def test_create_open_list_rename_drop(caller):
    made = caller("Create", name="a", page_size=4096)
    assert caller("Open", name="a") == made
    assert caller("Rename", name="a", new_name="b").id == made.id
    assert [one.name for batch in caller("List") for one in batch.namespaces] == ["b"]
    caller("Drop", name="b")
    assert caller.refused("Open", name="b").code() is grpc.StatusCode.NOT_FOUND
    assert caller.refused("Begin", namespace=made.id).code() is grpc.StatusCode.NOT_FOUND


def test_a_commit_and_a_read(caller, namespace):
    done = caller.commit(namespace, {1: page("one"), 3: page("three")}).committed
    found = caller("Read", namespace=namespace, version=done.version, numbers=[3, 2, 1])
    assert [(p.number, bool(p.blobs)) for p in found.pages] == [(3, True), (2, False), (1, True)]
    assert found.pages[0].version == done.version


def test_begin_tells_what_changed(caller, namespace):
    first = caller.commit(namespace, {1: page("one")}).committed.version
    second = caller.commit(namespace, {1: page("two")}).committed.version
    begin = caller("Begin", namespace=namespace, since=first)
    assert [change.version for change in wire.packed_of(begin.changes)] == [second]
    assert not begin.forget
    assert caller("Begin", namespace=namespace).forget


def test_a_conflict_is_an_answer_with_pages(caller, namespace):
    base = caller.commit(namespace, {1: page("one"), 2: page("x")}).committed.version
    won = caller.commit(namespace, {1: page("two")}, base).committed.version
    conflict = caller.commit(namespace, {2: page("y")}, base, reads=(1,)).conflict
    assert wire.numbers_of(conflict.pages) == (1,)
    assert conflict.version == won
    assert [p.version for p in conflict.fresh] == [won]


def test_a_commit_tells_of_others(caller, namespace):
    base = caller.commit(namespace, {1: page("one")}).committed.version
    other = caller.commit(namespace, {2: page("two")}, base).committed.version
    done = caller.commit(namespace, {3: page("three")}, base).committed
    assert [change.version for change in wire.packed_of(done.others[0].changes)] == [other]


def test_a_token_commits_once(caller, namespace):
    token = new_token()
    request = commit_request(caller, namespace, {1: page("one")}, token=token)
    first = caller("Commit", request).committed
    assert caller("Commit", request).committed.version == first.version
    assert caller("Outcome", namespace=namespace, token=token).version == first.version
    assert len([c for batch in caller("Changelog", namespace=namespace) for c in batch.changes]) == 1


def test_an_outcome_that_was_asked_for_is_settled(caller, namespace):
    token = new_token()
    assert caller("Outcome", namespace=namespace, token=token).version == b""
    error = caller.refused("Commit", commit_request(caller, namespace, {1: page("x")}, token=token))
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, pb.VOID_TOKEN)


def test_leases_and_turns(caller, namespace):
    caller.commit(namespace, {1: page("one")})
    lease = caller("TakeLease", namespace=namespace, wish=pb.LeaseWish(want=3, seconds=5))
    assert wire.numbers_of(lease.numbers) == (2, 3, 4)
    caller("RenewLease", namespace=namespace, lease=lease.id, seconds=60)
    caller("ReleaseLease", namespace=namespace, lease=lease.id)
    ours, theirs = new_token(), new_token()
    assert caller("TakeTurn", namespace=namespace, ticket=ours, seconds=5).came
    assert not caller("TakeTurn", namespace=namespace, ticket=theirs, seconds=5).came
    error = caller.refused("Commit", commit_request(caller, namespace, {1: page("x")}))
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.ABORTED, pb.TURN_TAKEN)
    caller("LeaveTurn", namespace=namespace, ticket=ours)
    assert caller("TakeTurn", namespace=namespace, ticket=theirs, seconds=5).came


def test_chores_take_no_call_of_their_own(caller, namespace):
    wish = pb.LeaseWish(want=2, seconds=5)
    request = commit_request(caller, namespace, {1: page("one")})
    request.chores.lease.CopyFrom(wish)
    first = caller("Commit", request).lease
    assert len(wire.numbers_of(first.numbers)) == 2
    begin = pb.BeginRequest(namespace=namespace, chores=pb.Chores(lease=wish, release_leases=[first.id]))
    assert wire.numbers_of(caller("Begin", begin).lease.numbers) == wire.numbers_of(first.numbers)


def test_a_chore_that_fails_harms_nothing(caller, namespace):
    wish = pb.LeaseWish(want=5000, seconds=5)
    answer = caller("Begin", pb.BeginRequest(namespace=namespace, chores=pb.Chores(lease=wish)))
    assert answer.version
    assert not answer.lease.id


def test_history(caller, namespace):
    versions = [caller.commit(namespace, {n: page(str(n))}).committed.version for n in range(1, 121)]
    batches = list(caller("Changelog", namespace=namespace))
    assert [change.version for batch in batches for change in batch.changes] == versions
    assert len(batches) > 1
    (newest,) = caller("Changelog", namespace=namespace, newest_first=True, limit=2)
    assert [change.version for change in newest.changes] == versions[:-3:-1]
    now = time.time_ns() // 1000
    assert caller("VersionAt", namespace=namespace, time_us=now).version == versions[-1]
    assert caller("GetUsage", namespace=namespace).commits == 120
    assert caller("GetAllocation", namespace=namespace, version=versions[-1]).highest == 0


def test_info(caller):
    info = caller("Info")
    assert info.max_read_pages == 1024
    assert info.store_id
    assert abs(info.time_us - time.time_ns() // 1000) < 60_000_000


def test_retention_tags_and_holds(caller, namespace):
    version = caller.commit(namespace, {1: page("one")}).committed.version
    assert caller("GetRetention", namespace=namespace).seconds == 30 * 86400
    caller("SetRetention", namespace=namespace, retention=pb.Retention(max_bytes=1 << 20))
    kept = caller("GetRetention", namespace=namespace)
    assert (kept.HasField("seconds"), kept.max_bytes) == (False, 1 << 20)
    tag = caller("SetTag", namespace=namespace, name="first", version=version)
    assert (tag.name, tag.version) == ("first", version)
    assert list(caller("ListTags", namespace=namespace).tags) == [tag]
    caller("DeleteTag", namespace=namespace, name="first")
    assert not caller("ListTags", namespace=namespace).tags
    hold = caller("Hold", namespace=namespace, version=version, seconds=60).hold
    assert caller("Hold", namespace=namespace, version=version, seconds=60, hold=hold).hold == hold
    caller("Unhold", namespace=namespace, hold=hold)
    assert caller("Collect", namespace=namespace, dry_run=True).complete


def test_drop_and_undrop_branch_and_revert(caller, namespace):
    first = caller.commit(namespace, {1: page("one")}).committed.version
    caller.commit(namespace, {1: page("two")})
    branch = caller("Branch", namespace=namespace, new_name="branch", version=first)
    assert (branch.parent, branch.parent_version) == (namespace, first)
    old = caller("Read", namespace=namespace, version=first, numbers=[1]).pages[0]
    begun = caller("Begin", namespace=branch.id).version
    assert caller("Read", namespace=branch.id, version=begun, numbers=[1]).pages[0].blobs == old.blobs
    done = caller("Revert", namespace=namespace, to=first, message="back", token=new_token())
    assert caller("Begin", namespace=namespace).version == done.version
    caller("Drop", name="branch")
    (dropped,) = caller("ListDropped").dropped
    assert (dropped.id, dropped.name) == (branch.id, "branch")
    assert caller("Undrop", id=branch.id, name="again").id == branch.id
    caller("Drop", name="again")
    caller("Purge", id=branch.id)
    assert caller.refused("Undrop", id=branch.id, name="x").code() is grpc.StatusCode.NOT_FOUND


def test_the_service_runs_retention(serve, call, monkeypatch):
    service = serve(collect_every=0.05)
    store, given_back = service.backend.store, []
    collect = store.collect
    monkeypatch.setattr(store, "collect", lambda *all, **more: replace(collect(*all, **more), bytes=5))
    monkeypatch.setattr(store, "give_back", lambda: given_back.append(1))
    call(service)("Create", name="main")
    shown = service.backend.metrics.restorable
    wait_until(lambda: any(sample.labels == {"namespace": "main"} for sample in shown.collect()[0].samples))
    wait_until(lambda: given_back)


# ---- what a begin brings along ----


def written(packed):
    """By version, what whole pages a commit wrote."""
    return {
        version: {number: decode(StoredPage(number, version, (blob,)), 512) for number, blob in writes}
        for version, writes in unpack(packed)
    }


def brought(caller, namespace, since):
    return written(caller("Begin", namespace=namespace, since=since, wants_pages=True).told)


def test_a_begin_brings_along_what_changed(caller, namespace):
    first = caller.commit(namespace, {1: page("one"), 2: page("two")}).committed.version
    second = caller.commit(namespace, {1: page("changed")}).committed.version
    assert brought(caller, namespace, first) == {second: {1: page("changed")}}
    assert brought(caller, namespace, second) == {}
    begin = caller("Begin", namespace=namespace, since=first)
    assert (begin.changes != b"", begin.told) == (True, b"")  # nobody asked


def test_a_repeated_commit_changes_nothing_of_it(caller, namespace):
    """What its second request holds was never looked at."""
    token, since = new_token(), caller.commit(namespace, {1: page("one")}).committed.version
    done = caller.commit(namespace, {1: page("first")}, since, token=token).committed
    again = caller.commit(namespace, {1: page("second"), 2: page("more")}, since, token=token).committed
    assert again.version == done.version
    assert brought(caller, namespace, since) == {done.version: {1: page("first")}}


def test_what_a_service_did_not_commit_itself_is_not_there(serve, call):
    service = serve()
    caller = call(service)
    namespace = caller("Create", name="main").id
    since = caller.commit(namespace, {1: page("one"), 2: page("two")}).committed.version
    here = caller.commit(namespace, {1: page("here")}).committed.version
    other = call(serve(store=service.settings.store, create=False))
    elsewhere = other.commit(namespace, {1: page("there"), 2: page("there")}).committed.version
    last = caller.commit(namespace, {3: page("here")}).committed.version
    assert brought(caller, namespace, since) == {here: {1: page("here")}, last: {3: page("here")}}
    assert brought(other, namespace, since) == {elsewhere: {n: page("there") for n in (1, 2)}}


def wanting(caller, namespace, contents, base, token=None, *, beside=None):
    """The answer to a commit whose caller is going to begin again; it has read `beside` as well."""
    request = commit_request(caller, namespace, contents, base, token=token)
    request.wants_begin = request.without_others = True
    if beside is not None:
        request.parts.add(namespace=beside)
    return caller("Commit", request)


def test_a_commit_brings_the_next_begin(caller, namespace):
    base = caller.commit(namespace, {1: page("one"), 2: page("two")}).committed.version
    theirs = caller.commit(namespace, {2: page("theirs")}, base).committed.version
    token = new_token()
    done = wanting(caller, namespace, {1: page("ours")}, base, token)
    ours = done.committed.version
    assert done.begin.version == ours
    assert [change.version for change in wire.packed_of(done.begin.changes)] == [theirs, ours]
    assert written(done.begin.told) == {theirs: {2: page("theirs")}}  # ours it has
    assert not wanting(caller, namespace, {1: page("ours")}, base, token).HasField("begin")  # repeated
    assert not caller.commit(namespace, {1: page("again")}, ours).HasField("begin")  # not asked for
    second = caller("Create", name="second").id
    base = caller.commit(namespace, {1: page("later")}).committed.version
    assert not wanting(caller, namespace, {3: page("x")}, base, beside=second).HasField("begin")


def test_a_begin_that_fails_leaves_the_commit(caller, namespace, monkeypatch):
    base = caller.commit(namespace, {1: page("one")}).committed.version
    begin = PageStore.begin

    def fail(self, *arguments, reaching=None):
        if reaching is not None:
            raise StoreUnavailableError("not now")
        return begin(self, *arguments)

    monkeypatch.setattr(PageStore, "begin", fail)
    done = wanting(caller, namespace, {1: page("two")}, base)
    assert (done.HasField("committed"), done.HasField("begin")) == (True, False)


# ---- answers are bounded ----


def test_a_read_is_divided(serve, call):
    caller = call(serve(max_answer=2000))
    namespace = caller("Create", name="main").id
    contents = {n: bytes(range(256)) + n.to_bytes(2, "big") * 128 for n in range(1, 21)}
    version = caller.commit(namespace, contents).committed.version
    wanted, calls = list(contents), 0
    while wanted:
        some = caller("Read", namespace=namespace, version=version, numbers=wanted).pages
        assert [p.number for p in some] == wanted[: len(some)]
        wanted = wanted[len(some) :]
        calls += 1
    assert calls > 2


def test_what_has_no_room_is_left_out(serve, call):
    caller = call(serve(max_answer=1000))
    namespace = caller("Create", name="main").id
    base = caller.commit(namespace, {1: page("one")}).committed.version
    for n in range(2, 40):
        caller.commit(namespace, {n: page(str(n))}, base)
    begin = caller("Begin", namespace=namespace, since=base)
    assert begin.forget
    assert begin.HasField("allocation")
    done = caller.commit(namespace, {50: page("x")}, base).committed
    assert done.others[0].omitted
    assert not done.others[0].changes
    random = {n: bytes(range(256)) * 2 for n in range(60, 70)}
    caller.commit(namespace, random, base)
    conflict = caller.commit(namespace, {60: page("y")}, base, reads=tuple(random)).conflict
    assert len(wire.numbers_of(conflict.pages)) == 10
    assert len(conflict.fresh) < 10
    before = caller("Begin", namespace=namespace).version
    caller.commit(namespace, {n: bytes(range(256)) * 2 for n in range(70, 76)})
    done = wanting(caller, namespace, {80: page("x")}, before)
    assert (done.HasField("committed"), done.begin.told) == (True, b"")
    begin = caller("Begin", namespace=namespace, since=before, wants_pages=True)
    assert (begin.forget, begin.changes != b"", begin.told) == (False, True, b"")


# ---- watch ----


def test_a_watch_tells_commits_and_heartbeats(caller, namespace):
    start = caller("Begin", namespace=namespace).version
    watch = caller("Watch", namespace=namespace, after=start, heartbeat=0.05)
    first, second = next(watch), next(watch)
    assert first.version == second.version == start
    assert second.clock_us > first.clock_us > 0
    done = caller.commit(namespace, {1: page("one")}).committed.version
    told = next(message for message in watch if message.changes)
    assert [change.version for change in told.changes] == [done] == [told.version]
    watch.cancel()


def test_many_readers_each_from_where_it_stands(caller, namespace):
    versions = [caller("Begin", namespace=namespace).version]
    versions += [caller.commit(namespace, {1: page(str(n))}).committed.version for n in range(3)]
    watches = [caller("Watch", namespace=namespace, after=after, heartbeat=5) for after in versions]
    for index, watch in enumerate(watches):
        assert [change.version for change in next(watch).changes] == versions[index + 1 :]
    done = caller.commit(namespace, {2: page("last")}).committed.version
    for watch in watches:
        assert [change.version for change in next(watch).changes] == [done]
        watch.cancel()


def test_a_watch_hears_of_commits_made_elsewhere(serve, call):
    """Another service stands for another worker: all that they share is the store."""
    ours, theirs = call(serve()), call(serve())
    namespace = ours("Create", name="main").id
    watch = ours("Watch", namespace=namespace, after=ours("Begin", namespace=namespace).version, heartbeat=10)
    next(watch)
    started = time.monotonic()
    done = theirs.commit(namespace, {1: page("one")}).committed.version
    assert next(watch).version == done
    assert time.monotonic() - started < 2
    watch.cancel()


def test_a_drop_ends_a_watch(caller, namespace):
    watch = caller("Watch", namespace=namespace, after=caller("Begin", namespace=namespace).version)
    next(watch)
    caller("Drop", name="main")
    with pytest.raises(grpc.RpcError) as info:
        list(watch)
    assert info.value.code() is grpc.StatusCode.NOT_FOUND


def test_nothing_runs_once_nobody_watches(service, caller, namespace):
    watch = caller("Watch", namespace=namespace, after=caller("Begin", namespace=namespace).version)
    next(watch)
    watching = service.backend.watching
    wait_until(lambda: watching._task is not None)
    watch.cancel()
    wait_until(lambda: watching._task is None)
    assert not watching._followed


# ---- versions that nobody was told ----


def test_a_version_of_the_future_is_refused_and_believed_by_nobody(service, caller, namespace):
    caller.commit(namespace, {1: page("one")})
    for method, fields in (
        ("Read", {"version": FUTURE, "numbers": [1]}),
        ("Begin", {"at": FUTURE}),
        ("GetAllocation", {"version": FUTURE}),
        ("Watch", {"after": FUTURE}),
    ):
        error = caller.refused(method, namespace=namespace, **fields)
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE, method
    error = caller.refused("Commit", commit_request(caller, namespace, {1: page("x")}, FUTURE))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not service.backend.committer.has_flushed(FUTURE)
    assert not service.backend.committer.has_flushed(parse_version("v00000fff000000000001"))


def test_a_service_that_just_started_believes_old_versions(serve, call):
    before = call(serve())
    namespace = before("Create", name="main").id
    version = before.commit(namespace, {1: page("one")}).committed.version
    after = call(serve())
    assert after("Read", namespace=namespace, version=version, numbers=[1]).pages[0].version == version


# ---- group commit ----


def test_what_waits_together_is_flushed_together(service, caller, namespace, monkeypatch):
    caller.commit(namespace, {1: page("one")})
    store, sync = service.backend.store, service.backend.store.sync
    flushes = []
    entered, go_on = threading.Event(), threading.Event()

    def slow_sync() -> None:
        flushes.append(1)
        entered.set()
        assert go_on.wait(10)
        sync()

    monkeypatch.setattr(store, "sync", slow_sync)
    base = caller("Begin", namespace=namespace).version
    requests = [commit_request(caller, namespace, {n: page(str(n))}, base) for n in range(2, 12)]
    futures = [caller.stub.Commit.future(requests[0])]
    assert entered.wait(10)
    futures += [caller.stub.Commit.future(request) for request in requests[1:]]
    wait_until(lambda: len(service.backend.committer._waiting) == 9)
    assert not any(future.done() for future in futures)
    go_on.set()
    versions = {future.result().committed.version for future in futures}
    assert len(versions) == 10
    assert len(flushes) == 2


def test_a_begin_waits_for_the_flush_of_what_it_tells(service, caller, namespace, monkeypatch):
    """A commit that another process made and has not flushed."""
    other = open_store(service.settings.store, create=False)
    flushed = []
    monkeypatch.setattr(service.backend.store, "sync", lambda: flushed.append(1))
    done = Pages(other, namespace).commit({1: content(1)}, durability="normal").version
    assert caller("Begin", namespace=namespace).version == done
    assert flushed == [1]
    caller("Begin", namespace=namespace)
    assert flushed == [1]
    other.close()


def test_a_flush_that_fails_leaves_the_outcome_unknown_and_ends_the_worker(serve, call, monkeypatch):
    service = serve()
    caller = call(service)
    namespace = caller("Create", name="main").id

    def broken() -> None:
        raise StoreUnavailableError("flush failed: EIO")

    request = commit_request(caller, namespace, {1: page("one")})
    monkeypatch.setattr(service.backend.store, "sync", broken)
    error = caller.refused("Commit", request)
    assert (error.code(), kind_of(error)) == (grpc.StatusCode.UNKNOWN, pb.OUTCOME_UNKNOWN)
    assert service.failed
