"""Who must come before whom, and the cycles in that.

A node is a transaction's place in the history.  An edge a -> b says that a precedes b in every serial
order that explains what was seen:

    ww        b appended to a list right after a
    wr        b read a list that ends with what a appended
    rw        b appended right after the end of what a read
    realtime  a had ended before b began

Cycles are named after Adya: G0 (ww only), G1c (ww and wr), G-single (one rw), G2 (more of them); with
"-realtime" added where the cycle needs a realtime edge: then the history may be serializable, but not
in the order in which things happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

WW, WR, RW, REALTIME = "ww", "wr", "rw", "realtime"

Node = int


@dataclass(frozen=True, slots=True)
class Edge:
    source: Node
    target: Node
    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class Level:
    """A kind of cycle to look for: made of `kinds`, with exactly one edge of kind `single` if that is set."""

    name: str
    kinds: frozenset[str]
    single: str | None = None


def _levels() -> Iterator[Level]:
    for suffix, extra in (("", frozenset[str]()), ("-realtime", frozenset({REALTIME}))):
        yield Level("G0" + suffix, frozenset({WW}) | extra)
        yield Level("G1c" + suffix, frozenset({WW, WR}) | extra)
        yield Level("G-single" + suffix, frozenset({WW, WR}) | extra, single=RW)
        yield Level("G2" + suffix, frozenset({WW, WR, RW}) | extra)


LEVELS = tuple(_levels())
"""The worst first."""

ENOUGH_TRIES = 200
"""Edges to start from before a cycle that was found counts as short enough."""


@dataclass
class Graph:
    outgoing: dict[Node, dict[Node, dict[str, Edge]]] = field(default_factory=dict)

    def add(self, source: Node, target: Node, kind: str, why: str) -> None:
        if source != target:
            self.outgoing.setdefault(source, {}).setdefault(target, {}).setdefault(
                kind, Edge(source, target, kind, why)
            )

    def edges_from(self, node: Node, kinds: frozenset[str]) -> Iterator[Edge]:
        for edges in self.outgoing.get(node, {}).values():
            for kind, edge in edges.items():
                if kind in kinds:
                    yield edge
                    break

    def cycles(self) -> Iterator[tuple[str, list[Edge]]]:
        """For each tangle of transactions its worst kind of cycle, and a short one of that kind."""
        found: list[frozenset[Node]] = []
        for level in LEVELS:
            kinds = level.kinds | {level.single} if level.single else level.kinds
            for component in self._components(kinds):
                if any(known <= component for known in found):
                    continue
                cycle = self._shortest_cycle(component, level)
                if cycle:
                    found.append(frozenset(edge.source for edge in cycle))
                    yield level.name, cycle

    def _shortest_cycle(self, component: frozenset[Node], level: Level) -> list[Edge]:
        starts = level.kinds if level.single is None else frozenset({level.single})
        best: list[Edge] = []
        inside = (
            edge
            for node in sorted(component)
            for edge in self.edges_from(node, starts)
            if edge.target in component
        )
        for tries, edge in enumerate(inside):
            path = self._path(edge.target, edge.source, component, level.kinds)
            if path is not None and (not best or len(path) + 1 < len(best)):
                best = [edge, *path]
            if len(best) == 2 or (best and tries >= ENOUGH_TRIES):
                break
        return best

    def _path(
        self, source: Node, target: Node, within: frozenset[Node], kinds: frozenset[str]
    ) -> list[Edge] | None:
        came_by: dict[Node, Edge] = {}
        queue = deque([source])
        while queue and target not in came_by:
            node = queue.popleft()
            for edge in self.edges_from(node, kinds):
                if edge.target in within and edge.target != source and edge.target not in came_by:
                    came_by[edge.target] = edge
                    queue.append(edge.target)
        if target not in came_by:
            return None
        path: list[Edge] = []
        node = target
        while node != source:
            path.append(came_by[node])
            node = came_by[node].source
        return path[::-1]

    def _components(self, kinds: frozenset[str]) -> Iterator[frozenset[Node]]:
        """Strongly connected components of two or more nodes (Tarjan, without recursion)."""
        order: dict[Node, int] = {}
        low: dict[Node, int] = {}
        stack: list[Node] = []
        on_stack: set[Node] = set()
        for root in self.outgoing:
            if root in order:
                continue
            work = [(root, self._targets(root, kinds))]
            order[root] = low[root] = len(order)
            stack.append(root)
            on_stack.add(root)
            while work:
                node, targets = work[-1]
                child = next(targets, None)
                if child is None:
                    work.pop()
                    if work:
                        parent = work[-1][0]
                        low[parent] = min(low[parent], low[node])
                    if low[node] == order[node]:
                        at = stack.index(node)
                        component = frozenset(stack[at:])
                        del stack[at:]
                        on_stack -= component
                        if len(component) > 1:
                            yield component
                elif child not in order:
                    order[child] = low[child] = len(order)
                    stack.append(child)
                    on_stack.add(child)
                    work.append((child, self._targets(child, kinds)))
                elif child in on_stack:
                    low[node] = min(low[node], order[child])

    def _targets(self, node: Node, kinds: frozenset[str]) -> Iterator[Node]:
        return (edge.target for edge in self.edges_from(node, kinds))


def realtime_edges(spans: Iterable[tuple[Node, int, int | None]]) -> Iterator[tuple[Node, Node]]:
    """(a, b) for every a that ended before b began, without those that follow from others.

    A span is a node, its start and its end (None: it may still end at any time)."""
    events: list[tuple[int, int, Node]] = []
    for node, start, end in spans:
        events.append((start, 0, node))  # a start comes before an end at the same moment: they overlap
        if end is not None:
            events.append((end, 1, node))
    before: dict[Node, frozenset[Node]] = {}
    latest: frozenset[Node] = frozenset()  # ended, and not before the start of another that ended
    for _, is_end, node in sorted(events):
        if is_end:
            latest = (latest - before[node]) | {node}
        else:
            before[node] = latest
            for earlier in latest:
                yield earlier, node
