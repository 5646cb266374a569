"""Prometheus metrics of a worker.

Called by `gate`, the calls and `watching`; shown by `server` (one worker) or `workers` (several, added up by
prometheus_client's multiprocess mode).

1. Labels are bounded: calls and statuses are lists, and only the first so many namespaces have series of
   their own; the rest is counted as `other`.  Callers are no label.
2. What is counted for every call is looked up once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pagestore.api import Version

OTHER = "other"
_BUCKETS = (0.0003, 0.0006, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2, 5, 10)
_KNOWN_VERSIONS = 10_000
_SNAPSHOT_SECONDS = 60.0
"""How long a read counts as a sign that somebody stands at its version."""


class OfCall:
    """Those of one kind of call."""

    def __init__(self, metrics: Metrics, method: str) -> None:
        self._method = method
        self._ended: dict[str, Counter] = {}
        self._metrics = metrics
        self._received = metrics.received.labels(method)
        self._sent = metrics.sent.labels(method)

    @cached_property
    def _seconds(self) -> Histogram:
        return self._metrics.seconds.labels(self._method)

    def ended(self, status: str, seconds: float | None, received: int, sent: int) -> None:
        """`seconds`: None if the call is not timed.  `received` and `sent` in bytes."""
        counter = self._ended.get(status)
        if counter is None:
            counter = self._ended[status] = self._metrics.calls.labels(self._method, status)
        counter.inc()
        if seconds is not None:
            self._seconds.observe(seconds)
        self._received.inc(received)
        self._sent.inc(sent)


class Metrics:
    """All of them; one object for each process."""

    def __init__(self, max_namespaces: int, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"pagestore_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, mode: str = "livesum") -> Gauge:
            return Gauge(f"pagestore_{name}", text, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self.calls = counter("calls", "Calls that ended.", "method", "status")
        self.seconds = Histogram(
            "pagestore_call_seconds",
            "How long calls took, streams apart.",
            ("method",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.received = counter("received_bytes", "Bytes of messages received.", "method")
        self.sent = counter("sent_bytes", "Bytes of messages sent.", "method")
        self.commits = counter("commits", "Commits acknowledged.", "namespace")
        self.conflicts = counter("conflicts", "Commits refused for what others did.", "namespace")
        self.begins = counter(
            "begins",
            "Transactions begun, by what the caller's cache came to: kept, updated, forgotten, ahead.",
            "cache",
        )
        self.pages = counter("pages_read", "Pages that were asked for and sent.")
        self.told = counter("pages_told", "Changed pages that begins brought along.")
        self.groups = counter("commit_groups", "Groups of commits.")
        self.flushes = counter("flushes", "Flushes by this service.")
        self.streams = gauge("streams", "Open streams.")
        self.followed = gauge("followed_namespaces", "Namespaces that somebody watches.")
        self.oldest = gauge(
            "oldest_snapshot_seconds",
            "Age of the oldest version that was read within the last minute: since when it was known here.",
            "livemax",
        )
        self.restorable = Gauge(
            "pagestore_restorable_seconds",
            "How far back a namespace can be read, as of the last run of retention.",
            ("namespace",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.collected = counter("collected_bytes", "Bytes that retention freed.")
        self._of_calls: dict[str, OfCall] = {}
        self._max_namespaces = max_namespaces
        self._namespaces: set[str] = set()
        self._commits: dict[str, Counter] = {}
        self._begun: dict[str, Counter] = {}
        self._snapshots = _Snapshots()
        self.oldest.set(0)

    def of_call(self, method: str) -> OfCall:
        found = self._of_calls.get(method)
        if found is None:
            found = self._of_calls[method] = OfCall(self, method)
        return found

    def namespace(self, name: str) -> str:
        """The label of a namespace."""
        if name not in self._namespaces:
            if len(self._namespaces) >= self._max_namespaces:
                return OTHER
            self._namespaces.add(name)
        return name

    def commits_of(self, name: str) -> Counter:
        """Those to a namespace."""
        label = self.namespace(name)
        found = self._commits.get(label)
        if found is None:
            found = self._commits[label] = self.commits.labels(label)
        return found

    def begun(self, cache: str) -> Counter:
        """See `begins`."""
        found = self._begun.get(cache)
        if found is None:
            found = self._begun[cache] = self.begins.labels(cache)
        return found

    def handed_out(self, version: Version) -> None:
        self._snapshots.handed_out(version)

    def read_at(self, version: Version) -> None:
        self.oldest.set(self._snapshots.read_at(version))


class EngineOperations(Collector):
    """What the store has asked of its cluster, read when it is shown.  (Several workers: not shown.)"""

    def __init__(self, operations: Callable[[], dict[str, int] | None]) -> None:
        self._operations = operations

    def collect(self) -> Iterator[Metric]:
        counted = self._operations()
        if counted is not None:
            family = CounterMetricFamily(
                "pagestore_engine_operations", "Asked of the store's cluster.", labels=["operation"]
            )
            for kind, count in counted.items():
                family.add_metric([kind], count)
            yield family


class _Snapshots:
    """When versions became known here, and the oldest that is being read."""

    def __init__(self) -> None:
        self._known: OrderedDict[Version, float] = OrderedDict()
        self._oldest = 0.0
        self._oldest_at = 0.0

    def handed_out(self, version: Version) -> None:
        if version not in self._known:
            self._known[version] = time.monotonic()
            if len(self._known) > _KNOWN_VERSIONS:
                self._known.popitem(last=False)

    def read_at(self, version: Version) -> float:
        now = time.monotonic()
        since = self._known.get(version)
        age = 0.0 if since is None else now - since
        if age >= self._oldest or now - self._oldest_at > _SNAPSHOT_SECONDS:
            self._oldest, self._oldest_at = age, now
        return self._oldest
