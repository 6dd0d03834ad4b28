"""The next step of one unit, from the states of all: level-triggered, so it can be asked again at any time. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from appliance.units.graph import Graph
from appliance.units.lifecycle import State


@dataclass
class Standing:
    """What a decision needs to know about one unit."""

    state: State = State.STOPPED
    desired: bool = True  # a person, or the reload, may say no
    restarting: bool = False  # it goes down to come up again
    tried: bool = False  # it failed since it was last up: whoever only follows it need not wait any longer


class HasStanding(Protocol):
    """Anything with a standing: in the daemon, the runner of one unit."""

    @property
    def standing(self) -> Standing:
        """As of now."""


class Decision(enum.Enum):
    """What to do with a unit now."""

    BEGIN = "begin"  # get in line
    GO = "go"  # what it waits for is there
    STOP = "stop"
    DROP = "drop"  # it has no process; take it off the list


def why_not(name: str, graph: Graph, units: Mapping[str, HasStanding]) -> str:
    """Why that unit must not be up now, though nobody asked it to be down; empty when it may."""
    if name in graph.refused:
        return graph.refused[name]
    through = {name: ""}  # each unit that it requires, however far away, and the chain of words that leads there
    todo = [name]
    for one in todo:
        for other in graph.requires.get(one, ()):
            if other in through:
                continue
            through[other] = f"{through[one]}{'it' if one == name else 'which'} requires {other}, "
            standing = units[other].standing
            if other in graph.refused:
                return f"{through[other]}which cannot start: {graph.refused[other]}"
            if not standing.desired:
                return f"{through[other]}which is stopped"
            if standing.state is State.FAILED:
                return f"{through[other]}which failed"
            if standing.restarting:
                return f"{through[other]}which is restarting"
            todo.append(other)
    return ""


def is_wanted(name: str, graph: Graph, units: Mapping[str, HasStanding], *, going_down: bool = False) -> bool:
    """Whether it should be up now."""
    standing = units[name].standing
    return not going_down and standing.desired and not standing.restarting and not why_not(name, graph, units)


def waiting_for(name: str, graph: Graph, units: Mapping[str, HasStanding]) -> tuple[str, ...]:
    """The units whose coming up (or going down) it must still see before it starts."""
    required = graph.requires.get(name, ())
    return tuple(other for other in graph.after.get(name, ()) if _is_pending(other, other in required, graph, units))


def _is_pending(other: str, required: bool, graph: Graph, units: Mapping[str, HasStanding]) -> bool:
    standing = units[other].standing
    if standing.state is State.STOPPING:
        return True
    if standing.tried and not required:
        return False
    match standing.state:
        case State.WAITING | State.STARTING | State.BACKOFF:
            return True
        case State.STOPPED:
            return is_wanted(other, graph, units)
        case _:
            return False


def decide(name: str, graph: Graph, units: Mapping[str, HasStanding], *, going_down: bool = False) -> Decision | None:
    """What to do with that unit; None: nothing for now."""
    standing = units[name].standing
    wanted = is_wanted(name, graph, units, going_down=going_down)
    match standing.state:
        case State.STOPPED:
            return Decision.BEGIN if wanted else None
        case State.WAITING:
            if not wanted:
                return Decision.DROP
            return None if waiting_for(name, graph, units) else Decision.GO
        case State.STARTING | State.READY:
            if wanted:
                return None
            held_by = (
                other
                for other in graph.followers.get(name, ())
                if units[other].standing.state.is_active and not is_wanted(other, graph, units, going_down=going_down)
            )
            return None if any(held_by) else Decision.STOP
        case State.BACKOFF | State.EXITED:
            return None if wanted else Decision.DROP
        case State.FAILED:
            return Decision.DROP if going_down or not standing.desired or standing.restarting else None
        case State.STOPPING:
            return None
