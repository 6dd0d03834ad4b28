"""Who needs whom, and in which order: made once from all unit files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from appliance.errors import InputError
from appliance.units.unit_file import UnitSection


@dataclass(frozen=True)
class Graph:
    """Edges between units that exist. ``after`` holds the other units' ``before`` as well."""

    names: frozenset[str]
    requires: Mapping[str, tuple[str, ...]]
    wants: Mapping[str, tuple[str, ...]]
    after: Mapping[str, tuple[str, ...]]
    required_by: Mapping[str, tuple[str, ...]]
    followers: Mapping[str, tuple[str, ...]]  # those that come after it
    refused: Mapping[str, str]  # units that can never start, and why
    refused_keys: Mapping[str, str]  # the key in their file that is to blame

    def neighbours(self, name: str) -> Iterator[str]:
        """Units whose next step may depend on this one's state."""
        for edges in (self.after, self.followers, self.requires, self.required_by):
            yield from edges.get(name, ())

    def dependants(self, names: Iterable[str]) -> tuple[str, ...]:
        """All that cannot stay up without one of these, themselves excluded."""
        return closure(names, (self.required_by,))

    def pulled_in(self, names: Iterable[str]) -> tuple[str, ...]:
        """All that is started with these, themselves excluded."""
        return closure(names, (self.requires, self.wants))


def closure(names: Iterable[str], edges: tuple[Mapping[str, tuple[str, ...]], ...]) -> tuple[str, ...]:
    """What can be reached from these along the edges, themselves excluded, nearest first."""
    first = list(names)
    seen = dict.fromkeys(first)
    todo = list(first)
    for name in todo:
        for table in edges:
            for other in table.get(name, ()):
                if other not in seen:
                    seen[other] = None
                    todo.append(other)
    return tuple(seen)[len(dict.fromkeys(first)) :]


def build_graph(sections: Mapping[str, UnitSection], unreadable: frozenset[str] = frozenset()) -> Graph:
    """``unreadable``: units whose file exists but is not valid."""
    names = frozenset(sections)
    after: dict[str, dict[str, None]] = {name: {} for name in sections}
    for name, section in sections.items():
        for other in section.after:
            if other in names:
                after[name][other] = None
        for other in section.before:
            if other in names:
                after[other][name] = None
    refused: dict[str, str] = {}
    keys: dict[str, str] = {}
    for name, section in sections.items():
        for other in section.requires:
            if other not in names:
                why = "whose file is not valid" if other in unreadable else "which does not exist"
                refused[name], keys[name] = f"it requires {other}, {why}", "unit.requires"
    ordered = {name: tuple(others) for name, others in after.items()}
    cycles = find_cycles(ordered)
    for cycle in cycles:
        words = " after ".join((*cycle, cycle[0]))
        for name in cycle:
            key = "unit.after" if sections[name].after else "unit.before"
            refused[name], keys[name] = f"the order has a cycle: {words}", key
    in_cycle = {name for cycle in cycles for name in cycle}
    for name in in_cycle:  # or two that still run from better days would wait for each other to stop
        ordered[name] = tuple(other for other in ordered[name] if other not in in_cycle)
    return Graph(
        names=names,
        requires={name: _known(one.requires, names) for name, one in sections.items() if one.requires},
        wants={name: _known(one.wants, names) for name, one in sections.items() if one.wants},
        after={name: others for name, others in ordered.items() if others},
        required_by=_reverse({name: _known(one.requires, names) for name, one in sections.items()}),
        followers=_reverse(ordered),
        refused=refused,
        refused_keys=keys,
    )


def start_order(graph: Graph, names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Those and all they pull in, in waves: each wave waits for the ones before. Raises InputError (unknown, cycle)."""
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in graph.names:
            raise InputError(f"cannot plan {name}: there is no such unit")
    everything = dict.fromkeys((*wanted, *graph.pulled_in(wanted)))
    for name in everything:
        if name in graph.refused:
            raise InputError(f"cannot plan {name}: {graph.refused[name]}")
    left = {name: {other for other in graph.after.get(name, ()) if other in everything} for name in everything}
    waves = []
    while left:
        wave = tuple(sorted(name for name, others in left.items() if not others))
        assert wave, "cycles are refused before"
        waves.append(wave)
        for name in wave:
            del left[name]
        for others in left.values():
            others.difference_update(wave)
    return tuple(waves)


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


def _known(names: tuple[str, ...], known: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in known)


def _reverse(edges: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    turned: dict[str, list[str]] = {}
    for name, others in edges.items():
        for other in others:
            turned.setdefault(other, []).append(name)
    return {name: tuple(others) for name, others in turned.items()}
