"""In which order services start and stop, from what each needs. Pure: states in, names out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from appliance.errors import InputError
from appliance.supervisor.lifecycle import LIVE, State

Needs = Mapping[str, Collection[str]]


def start_order(needs: Needs) -> tuple[tuple[str, ...], ...]:
    """Layers: all of one layer may start together once the layers before are ready. Stopping goes the other way.

    Raises InputError naming an unknown need, or a cycle as ``a -> b -> a``.
    """
    for name, wanted in needs.items():
        for other in sorted(wanted):
            if other not in needs:
                raise InputError(f"cannot order services: {name} needs {other}, which does not exist")
    layers: list[tuple[str, ...]] = []
    placed: set[str] = set()
    while len(placed) < len(needs):
        layer = tuple(name for name in needs if name not in placed and placed.issuperset(needs[name]))
        if not layer:
            raise InputError(f"cannot order services: they need each other: {' -> '.join(_cycle(needs, placed))}")
        layers.append(layer)
        placed.update(layer)
    return tuple(layers)


def _cycle(needs: Needs, placed: set[str]) -> list[str]:
    """Walk unplaced needs until a name comes again; every unplaced one has an unplaced need."""
    path: list[str] = []
    name = next(name for name in needs if name not in placed)
    while name not in path:
        path.append(name)
        name = next(other for other in sorted(needs[name]) if other not in placed)
    return [*path[path.index(name) :], name]


def leaving(needs: Needs, states: Mapping[str, State], unwanted: Collection[str]) -> frozenset[str]:
    """Those that must not go on now: nobody wants them, or something they need, however far, is not ready or leaves."""
    found: set[str] = set()
    for layer in start_order(needs):
        for name in layer:
            if name in unwanted or any(other in found or states[other] is not State.READY for other in needs[name]):
                found.add(name)
    return frozenset(found)


def decide_stops(needs: Needs, states: Mapping[str, State], unwanted: Collection[str]) -> tuple[str, ...]:
    """Whom to ask to stop now: the live that leave, dependants first, so nobody is asked while someone lives on it."""
    gone = leaving(needs, states, unwanted)
    held = {other for name, wanted in needs.items() if states[name] in LIVE for other in wanted}
    return tuple(
        name for name in needs
        if name in gone and name not in held and states[name] in (State.STARTING, State.READY)
    )  # fmt: skip


def may_start(name: str, needs: Needs, states: Mapping[str, State], unwanted: Collection[str]) -> bool:
    """Whether everything it needs is ready and stays."""
    return name not in leaving(needs, states, unwanted)
