"""Who needs whom, and in which order: made once from all unit files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from appliance.errors import InputError
from appliance.units.cycles import find_cycles
from appliance.units.unit_section import UnitSection

Edges = Mapping[str, tuple[str, ...]]
NEEDS = ("requires", "binds_to", "requisite")  # without these a unit can neither start nor stay up


@dataclass(frozen=True)
class Graph:
    """Edges between units that exist. ``after`` holds the other units' ``before`` as well."""

    names: frozenset[str]
    requires: Edges  # binds_to and requisite too
    binds_to: Edges
    requisite: Edges
    wants: Edges  # upholds too
    part_of: Edges
    conflicts: Edges  # both ways
    after: Edges
    required_by: Edges
    followers: Edges  # those that come after it
    parts: Edges  # part_of, turned round
    upheld_by: Edges
    stops: Edges  # those that go down with it, however it ended: propagates_stop_to, and stop_propagated_from turned
    reloads: Edges  # those that are asked to read their configuration anew with it
    needed_by: Edges  # of those that are there only while somebody needs them: who might
    to_look_at: Edges  # whom else to look at when that one turned
    on_failure: Edges
    on_success: Edges
    refused: Mapping[str, str]  # units that can never start, and why
    refused_keys: Mapping[str, str]  # the key in their file that is to blame

    def neighbours(self, name: str) -> Iterator[str]:
        """Units whose next step may depend on this one's state."""
        for edges in (self.after, self.followers, self.requires, self.required_by, self.conflicts, self.to_look_at):
            yield from edges.get(name, ())

    def dependants(self, names: Iterable[str]) -> tuple[str, ...]:
        """All that cannot stay up without one of these, themselves excluded."""
        return closure(names, (self.required_by,))

    def stopped_with(self, names: Iterable[str]) -> tuple[str, ...]:
        """All that a stop of these takes down, themselves excluded."""
        return closure(names, (self.required_by, self.parts))

    def pulled_in(self, names: Iterable[str]) -> tuple[str, ...]:
        """All that is started with these, themselves excluded."""
        return closure(names, (self.pulls, self.wants))

    @property
    def pulls(self) -> Edges:
        """What a start takes along and cannot do without: ``requires`` but for what has to be up already."""
        if not self.requisite:
            return self.requires
        return {
            name: tuple(one for one in others if one not in self.requisite.get(name, ()))
            for name, others in self.requires.items()
        }


def closure(names: Iterable[str], edges: tuple[Edges, ...]) -> tuple[str, ...]:
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


def build_graph(
    sections: Mapping[str, UnitSection],
    unreadable: frozenset[str] = frozenset(),
    *,
    targets: frozenset[str] = frozenset(),
    masked: frozenset[str] = frozenset(),
    triggers: Edges = MappingProxyType({}),
) -> Graph:
    """``unreadable``: units whose file exists but is not valid. ``targets``: they come after what they pull in.

    ``triggers``: they come before what they start, so that it is given its sockets from the first time on.
    """
    names = frozenset(sections)
    ordered = _order(sections, targets, triggers)
    refused: dict[str, str] = {}
    keys: dict[str, str] = {}
    for name, section in sections.items():
        for key in NEEDS:
            for other in getattr(section, key):
                if other not in names:
                    why = "whose file is not valid" if other in unreadable else "which does not exist"
                    why = "which is masked" if other in masked else why
                    refused[name], keys[name] = f"it requires {other}, {why}", f"unit.{key}"
    cycles = find_cycles(ordered)
    for cycle in cycles:
        words = " after ".join((*cycle, cycle[0]))
        for name in cycle:
            key = "unit.after" if sections[name].after else "unit.before"
            refused[name], keys[name] = f"the order has a cycle: {words}", key
    in_cycle = {name for cycle in cycles for name in cycle}
    for name in in_cycle:  # or two that still run from better days would wait for each other to stop
        ordered[name] = tuple(other for other in ordered[name] if other not in in_cycle)

    def edges(*attributes: str) -> dict[str, tuple[str, ...]]:
        found = {}
        for name, section in sections.items():
            named = dict.fromkeys(one for key in attributes for one in getattr(section, key) if one in names)
            if named:
                found[name] = tuple(named)
        return found

    requires, conflicts, part_of, upholds = edges(*NEEDS), edges("conflicts"), edges("part_of"), edges("upholds")
    rivals = _both_ways(conflicts)
    for name in sections.keys() - refused.keys() if rivals else ():
        needed = (name, *closure((name,), (requires,)))
        torn = next(((one, two) for one in needed for two in rivals.get(one, ()) if two in needed), None)
        if torn is not None:
            refused[name] = f"it needs {torn[0]} and {torn[1]}, which conflict"
            keys[name] = "unit.conflicts" if name in torn and sections[name].conflicts else "unit.requires"
    passing = [name for name, section in sections.items() if section.stop_when_unneeded]
    needs = turned(edges(*NEEDS, "wants", "upholds")) if passing else {}
    needed_by = {name: needs.get(name, ()) for name in passing}
    upheld_by = turned(upholds)
    return Graph(
        names=names,
        requires=requires,
        binds_to=edges("binds_to"),
        requisite=edges("requisite"),
        wants=edges("wants", "upholds"),
        part_of=part_of,
        conflicts=rivals,
        after={name: others for name, others in ordered.items() if others},
        required_by=turned(requires),
        followers=turned(ordered),
        parts=turned(part_of),
        upheld_by=upheld_by,
        stops=_joined(edges("propagates_stop_to"), turned(edges("stop_propagated_from"))),
        reloads=_joined(edges("propagates_reload_to"), turned(edges("reload_propagated_from"))),
        needed_by=needed_by,
        to_look_at=_joined(upholds, turned(needed_by)),
        on_failure=edges("on_failure"),
        on_success=edges("on_success"),
        refused=refused,
        refused_keys=keys,
    )


def _order(
    sections: Mapping[str, UnitSection], targets: frozenset[str], triggers: Edges
) -> dict[str, tuple[str, ...]]:
    after: dict[str, dict[str, None]] = {name: {} for name in sections}
    for name, section in sections.items():
        for other in section.after:
            if other in after:
                after[name][other] = None
        for other in section.before:
            if other in after:
                after[other][name] = None
    for name, section in sections.items():  # what has to be up already is waited for, unless it says it comes later
        for other in (*section.binds_to, *section.requisite):
            if other in after and name not in after[other]:
                after[name][other] = None
    for name, others in triggers.items():
        for other in others:
            if other in after and name in after and other not in after[name]:
                after[other][name] = None
    for name in targets & sections.keys():  # reached when what it pulls in is up, unless somebody says otherwise
        section = sections[name]
        for other in (*section.requires, *section.binds_to, *section.wants):
            if other in after and name not in after[other]:
                after[name][other] = None
    return {name: tuple(others) for name, others in after.items()}


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
    return waves({name: {other for other in graph.after.get(name, ()) if other in everything} for name in everything})


def waves(waits_for: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Each wave holds, by name, what waits only for the waves before. The order has no circle."""
    left = {name: set(others) for name, others in waits_for.items()}
    found = []
    while left:
        wave = tuple(sorted(name for name, others in left.items() if not others))
        assert wave, "cycles are refused before"
        found.append(wave)
        for name in wave:
            del left[name]
        for others in left.values():
            others.difference_update(wave)
    return tuple(found)


def turned(edges: Edges) -> Edges:
    """The same edges, seen from the other end."""
    found: dict[str, list[str]] = {}
    for name, others in edges.items():
        for other in others:
            found.setdefault(other, []).append(name)
    return {name: tuple(others) for name, others in found.items()}


def _joined(some: Edges, others: Edges) -> Edges:
    return {name: tuple(dict.fromkeys((*some.get(name, ()), *others.get(name, ())))) for name in {**some, **others}}


def _both_ways(edges: Edges) -> Edges:
    back = turned(edges)
    return _joined(edges, back)
