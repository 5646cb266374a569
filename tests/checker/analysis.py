"""What is wrong with a history, if anything: `check`.

Strict serializability is what must hold: one order of all transactions that explains every read and in
which a transaction that had ended before another began comes first.

1. The order of the appends to a key is the longest list read; every other list read must be its start.
2. A transaction that was refused or rolled back did not write, but what it read must still be a
   snapshot: it counts as a transaction that only read.
3. An unknown outcome counts as committed once anything that it appended was read.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.checker.graph import REALTIME, RW, WR, WW, Graph, Node, realtime_edges
from tests.checker.history import Append, Status, Transaction


@dataclass(frozen=True, slots=True)
class Anomaly:
    kind: str
    """internal, duplicate, never-appended, incompatible-order, aborted-read, intermediate-read,
    lost-append, lost-update, or a cycle: see `graph`."""
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check(transactions: Iterable[Transaction]) -> list[Anomaly]:
    """Everything found, the plainest first; empty if the history is strictly serializable as far as it shows.

    Raises ValueError if two transactions append the same value to the same key."""
    return _Check(list(transactions)).run()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a transaction saw of a key from outside: the list without its own appends."""

    node: Node
    values: tuple[int, ...]


class _Check:
    def __init__(self, history: Sequence[Transaction]) -> None:
        self.history = history
        self.anomalies: list[Anomaly] = []
        self.writer: dict[tuple[int, int], Node] = {}
        self.appended: dict[tuple[Node, int], list[int]] = defaultdict(list)
        self.seen: dict[int, list[_Seen]] = defaultdict(list)
        self.order: dict[int, tuple[int, ...]] = {}
        self.graph = Graph()

    def run(self) -> list[Anomaly]:
        self._collect_appends()
        for node in range(len(self.history)):
            self._collect_reads(node)
        for key, reads in self.seen.items():
            self._find_order(key, reads)
        self.committed = self._committed()
        for key, reads in self.seen.items():
            self._judge_values(key, reads)
            self._judge_updates(key, reads)
            self._connect(key, reads)
        self._judge_unseen()
        self._connect_in_time()
        for name, cycle in self.graph.cycles():
            self._report(
                name,
                "; ".join(
                    f"{self._name(e.source)} -{e.kind}-> {self._name(e.target)} ({e.why})" for e in cycle
                ),
            )
        return self.anomalies

    def _report(self, kind: str, message: str) -> None:
        self.anomalies.append(Anomaly(kind, message))

    def _name(self, node: Node) -> str:
        return f"T{node}[{self.history[node].process}]"

    # ---- what was recorded ----

    def _collect_appends(self) -> None:
        for node, transaction in enumerate(self.history):
            for op in transaction.operations:
                if isinstance(op, Append):
                    if (op.key, op.value) in self.writer:
                        raise ValueError(
                            f"value {op.value} was appended to key {op.key} twice: it tells nothing"
                        )
                    self.writer[op.key, op.value] = node
                    self.appended[node, op.key].append(op.value)

    def _collect_reads(self, node: Node) -> None:
        """Notes what came from outside, and reports a read at odds with what the transaction did before."""
        outside: dict[int, tuple[int, ...]] = {}
        own: dict[int, tuple[int, ...]] = defaultdict(tuple)
        for op in self.history[node].operations:
            if isinstance(op, Append):
                own[op.key] += (op.value,)
                continue
            mine = own[op.key]
            if op.key in outside:
                if op.values != outside[op.key] + mine:
                    self._report(
                        "internal",
                        f"{self._name(node)} read {list(op.values)} of key {op.key}, but should have seen "
                        f"{list(outside[op.key] + mine)}",
                    )
            elif op.values[len(op.values) - len(mine) :] != mine:
                self._report(
                    "internal",
                    f"{self._name(node)} appended {list(mine)} to key {op.key}, then read {list(op.values)}",
                )
            else:
                outside[op.key] = op.values[: len(op.values) - len(mine)]
        for key, values in outside.items():
            self.seen[key].append(_Seen(node, values))

    # ---- the order of appends ----

    def _find_order(self, key: int, reads: Sequence[_Seen]) -> None:
        order = max((read.values for read in reads), key=len)
        for read in reads:
            if read.values != order[: len(read.values)]:
                self._report(
                    "incompatible-order",
                    f"key {key}: {self._name(read.node)} read {list(read.values)}, "
                    f"which is not the start of {list(order)}",
                )
        if len(set(order)) < len(order):
            self._report("duplicate", f"key {key}: a value appears twice in {list(order)}")
        self.order[key] = order

    def _committed(self) -> frozenset[Node]:
        observed = {
            self.writer[key, value]
            for key, order in self.order.items()
            for value in order
            if (key, value) in self.writer
        }
        return frozenset(
            node
            for node, transaction in enumerate(self.history)
            if transaction.status is Status.OK or (transaction.status is Status.UNKNOWN and node in observed)
        )

    # ---- what is wrong by itself ----

    def _judge_values(self, key: int, reads: Sequence[_Seen]) -> None:
        for value in dict.fromkeys(value for read in reads for value in read.values):
            node = self.writer.get((key, value))
            reader = next(read.node for read in reads if value in read.values)
            if node is None:
                self._report(
                    "never-appended", f"key {key}: {self._name(reader)} read {value}, which nobody appended"
                )
            elif self.history[node].status is Status.FAILED:
                self._report(
                    "aborted-read",
                    f"key {key}: {self._name(reader)} read {value} of {self._name(node)}, "
                    "which did not commit",
                )
        for read in reads:
            node = self.writer.get((key, read.values[-1])) if read.values else None
            if node is not None and node != read.node and self.appended[node, key][-1] != read.values[-1]:
                self._report(
                    "intermediate-read",
                    f"key {key}: {self._name(read.node)} read up to {read.values[-1]}, in the middle of what "
                    f"{self._name(node)} appended: {self.appended[node, key]}",
                )

    def _judge_updates(self, key: int, reads: Sequence[_Seen]) -> None:
        """Two that committed, having read the same list and appended to it: one did not see the other."""
        first: dict[tuple[int, ...], Node] = {}
        for read in reads:
            if read.node in self.committed and self.appended.get((read.node, key)):
                other = first.setdefault(read.values, read.node)
                if other != read.node:
                    self._report(
                        "lost-update",
                        f"key {key}: {self._name(other)} and {self._name(read.node)} both read "
                        f"{list(read.values)}, appended to it and committed",
                    )

    def _judge_unseen(self) -> None:
        """Acknowledged appends that are missing from every list, though one was read later."""
        for (key, value), node in self.writer.items():
            transaction = self.history[node]
            if transaction.status is not Status.OK or value in self.order.get(key, ()):
                continue
            later = [r for r in self.seen.get(key, ()) if self.history[r.node].start > transaction.end]
            if later:
                self._report(
                    "lost-append",
                    f"key {key}: {value} of {self._name(node)} was acknowledged, but "
                    f"{self._name(later[0].node)} read {list(later[0].values)} afterwards",
                )

    # ---- the graph ----

    def _connect(self, key: int, reads: Sequence[_Seen]) -> None:
        order = self.order[key]
        writers = [self._committed_writer(key, value) for value in order]
        place = {value: i for i, value in enumerate(order)}
        unseen = {
            node
            for (node, k), values in self.appended.items()
            if k == key and node in self.committed and not any(value in place for value in values)
        }
        for i, (earlier, later) in enumerate(itertools.pairwise(writers)):
            if earlier is not None and later is not None:
                self.graph.add(earlier, later, WW, f"key {key}: {order[i]} then {order[i + 1]}")
        if writers and writers[-1] is not None:
            for node in unseen:  # not in the longest list, so after it
                self.graph.add(writers[-1], node, WW, f"key {key}: {order[-1]}, then one not seen yet")
        for read in reads:
            if read.values != order[: len(read.values)]:
                continue  # reported; its place is not known
            at = len(read.values)
            last = writers[at - 1] if at else None
            if last is not None:
                self.graph.add(last, read.node, WR, f"key {key}: read up to {order[at - 1]}")
            after = writers[at : at + 1] if at < len(order) else list(unseen)
            for node in after:
                if node is not None:
                    what = order[at] if at < len(order) else "what was appended"
                    self.graph.add(read.node, node, RW, f"key {key}: read without {what}")

    def _committed_writer(self, key: int, value: int) -> Node | None:
        node = self.writer.get((key, value))
        return node if node in self.committed else None

    def _connect_in_time(self) -> None:
        spans = (
            (node, t.start, None if t.status is Status.UNKNOWN else t.end)
            for node, t in enumerate(self.history)
            if t.status is not Status.UNKNOWN or node in self.committed
        )
        for earlier, later in realtime_edges(spans):
            self.graph.add(earlier, later, REALTIME, "ended before the other began")
