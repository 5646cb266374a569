"""The workloads, by name.  A new one: its `Workload` and `Client`, a line here, cases in `bench.suite`."""

from __future__ import annotations

from bench.workloads.base import Workload
from bench.workloads.branches import Branches, Templates
from bench.workloads.calls import ServiceCalls
from bench.workloads.cluster import ClusterUpdates
from bench.workloads.diffs import DiffRow
from bench.workloads.history import HistoryCommits, HistoryReads, OpenPast
from bench.workloads.inserts import BulkLoad, Inserts, RandomInserts
from bench.workloads.jobs import ClaimJobs
from bench.workloads.reads import ColdScan, FullScan, OpenAndRead, PointReads
from bench.workloads.updates import ReadModifyWrite
from bench.workloads.ycsb import Ycsb

_ALL: tuple[Workload, ...] = (
    Inserts(name="insert-own", title="insert, a table per writer", own_table=True),
    Inserts(name="insert-one", title="insert, one table", own_table=False),
    Inserts(
        name="insert-own-1k", title="insert of 1 KiB, a table per writer", own_table=True, row_bytes=1024
    ),
    Inserts(name="leases", title="insert of 1 KiB, leases on against off", own_table=True, row_bytes=1024),
    RandomInserts(name="insert-random", title="insert, random keys, one table of 1,000,000 rows"),
    ReadModifyWrite(name="hot-row", title="increment of one row", distribution="uniform", rows=1),
    ReadModifyWrite(
        name="hot-row-immediate",
        title="increment of one row, BEGIN IMMEDIATE",
        distribution="uniform",
        rows=1,
    ),
    ClaimJobs(name="claim-jobs", title="claim of a job from a table"),
    ClaimJobs(name="claim-jobs-immediate", title="claim of a job from a table, BEGIN IMMEDIATE"),
    ReadModifyWrite(name="rmw-uniform", title="read-modify-write, uniform", distribution="uniform"),
    ReadModifyWrite(name="rmw-zipfian", title="read-modify-write, zipfian", distribution="zipfian"),
    Ycsb(name="ycsb-a", title="YCSB A, half updates", reads=0.5),
    Ycsb(name="ycsb-b", title="YCSB B, 5 % updates", reads=0.95),
    Ycsb(name="ycsb-c", title="YCSB C, reads only", reads=1.0),
    PointReads(name="point-reads", title="point reads, warm"),
    FullScan(name="scan", title="full scan of 1,000,000 rows", rows=1_000_000, row_bytes=24),
    FullScan(
        name="scan-cached",
        title="full scan of 1,000,000 rows, cache_size 64 MiB",
        rows=1_000_000,
        row_bytes=24,
        cache_kib=65_536,
    ),
    BulkLoad(name="bulk", title="bulk load, 10,000 rows a commit"),
    OpenAndRead(name="open", title="open and first read"),
    ColdScan(name="scan-cold", title="open and scan of 100,000 rows", rows=100_000),
    OpenAndRead(name="look-up-cold", title="open and look-up of one of 100,000 rows", rows=100_000),
    HistoryCommits(name="history-commits", title="commits on a long history"),
    PointReads(name="bounded-reads", title="point reads, warm, served, bounded"),
    PointReads(name="served-reads", title="point reads, warm, served, latest"),
    ReadModifyWrite(
        name="bounded-updates", title="read-modify-write, served, bounded", distribution="uniform"
    ),
    ReadModifyWrite(name="served-updates", title="read-modify-write, served, latest", distribution="uniform"),
    HistoryCommits(name="beside-retention", title="commits beside retention of a long history, their p99"),
    HistoryReads(name="history-reads", title="uncached reads on a long history"),
    OpenPast(name="open-past", title="open at a moment of a long history, against now"),
    OpenPast(name="open-version", title="open at a version of a long history, against now"),
    OpenPast(name="open-tag", title="open at a tag in a long history, against now"),
    OpenPast(name="open-back", title="open at HEAD~n of a long history, any n, against now"),
    Branches(name="branch", title="branch, against a commit of one row"),
    Branches(name="branch-large", title="branch of 1,000,000 rows, against one of 1,000"),
    Templates(name="template", title="a new database as a branch of a template, against a script"),
    Templates(name="template-served", title="the same, through a service"),
    DiffRow(name="diff-row", title="diff of one changed row of 1,000,000, against one of 1,000"),
    ServiceCalls(name="service-begin", title="service: begin", call="begin"),
    ServiceCalls(name="service-read", title="service: read of 1 page", call="read"),
    ServiceCalls(name="service-read-32", title="service: read of 32 pages", call="read", pages=32),
    ServiceCalls(name="service-commit", title="service: commit of 1 page", call="commit"),
    ClusterUpdates(name="fdb-rmw", title="FoundationDB: read-modify-write, direct"),
    ClusterUpdates(name="fdb-rmw-service", title="FoundationDB: read-modify-write through the service"),
)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}
