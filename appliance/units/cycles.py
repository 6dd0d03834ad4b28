"""Circles in an order, found and named. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def find_cycles(edges: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Cycles that together hold every node that is on one; each starts at its smallest name (after Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    components: list[set[str]] = []
    for root in sorted(edges):
        if root in index:
            continue
        work: list[tuple[str, Iterator[str]]] = [(root, iter(edges.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, others = work[-1]
            for other in others:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(edges.get(other, ()))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set()
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.add(member)
                        if member == node:
                            break
                    if len(component) > 1 or node in edges.get(node, ()):
                        components.append(component)
    return [cycle for component in components for cycle in _cover(component, edges)]


def _cover(component: set[str], edges: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Shortest cycles through each member that no earlier one named."""
    named: set[str] = set()
    for start in sorted(component):
        if start in named:
            continue
        came_from = {start: ""}
        todo = [start]
        for node in todo:
            for other in edges.get(node, ()):
                if other == start:
                    path = [node]
                    while path[-1] != start:
                        path.append(came_from[path[-1]])
                    path.reverse()
                    named.update(path)
                    yield tuple(path)
                    todo.clear()
                    break
                if other in component and other not in came_from:
                    came_from[other] = node
                    todo.append(other)
