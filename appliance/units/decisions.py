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
    unwanted: str = ""  # why not desired, when it was not asked for by name
    restarting: bool = False  # it goes down to come up again
    tried: bool = False  # it failed since it was last up: whoever only follows it need not wait any longer
    on_demand: bool = False  # up only while called: it has a trigger, is disabled, an instance, or transient
    disabled: bool = False  # it does not start, and its triggers do not work, unless asked for by name
    per_connection: bool = False  # it is only what units of connections are made from
    masked: bool = False  # nothing may start it
    called: str = ""  # who wants an on-demand unit up; empty again when it is at rest
    held: str = ""  # why it is down, when that came of a stop of another one that it is part of
    skipped: str = ""  # the condition that did not hold when its turn came: nobody waits for it
    lasts: bool = True  # it counts as up when its process is over: a oneshot, or remain_after_exit
    planned: bool = False  # a transaction starts it, and has called whatever comes along
    came_up: bool = False  # since it last got in line


class HasStanding(Protocol):
    """Anything with a standing: in the daemon, the runner of one unit."""

    @property
    def standing(self) -> Standing:
        """As of now."""


Standings = Mapping[str, HasStanding]


class Decision(enum.Enum):
    """What to do with a unit now."""

    BEGIN = "begin"  # get in line
    GO = "go"  # what it waits for is there
    STOP = "stop"
    DROP = "drop"  # it has no process; take it off the list


def is_asked(name: str, graph: Graph, units: Standings) -> bool:
    """Whether somebody wants it up: always, unless it is on demand."""
    standing = units[name].standing
    if standing.skipped or standing.per_connection:
        return False
    if name in graph.needed_by and standing.state.is_up:  # systemd: StopWhenUnneeded=
        return any(_needs(units[other].standing) for other in graph.needed_by[name])
    if not standing.on_demand or standing.called:
        return True
    return any(units[other].standing.state.is_up for other in graph.upheld_by.get(name, ()))


def _needs(standing: Standing) -> bool:
    """Whether that one keeps up what it needs, or will soon."""
    if standing.state is State.EXITED:
        return standing.lasts
    return standing.state not in (State.STOPPED, State.FAILED)


def why_not(name: str, graph: Graph, units: Standings) -> str:
    """Why that unit must not be up now, though nobody asked it to be down; empty when it may."""
    return _why_not(name, graph, units, conflicts=True)


def _why_not(name: str, graph: Graph, units: Standings, *, conflicts: bool) -> str:
    if name in graph.refused:
        return graph.refused[name]
    if units[name].standing.held:
        return units[name].standing.held
    if conflicts and (winner := _beaten_by(name, graph, units)):
        return f"it conflicts with {winner}"
    through = {name: ""}  # each unit that it requires, however far away, and the chain of words that leads there
    todo = [name]
    for one in todo:
        for other in graph.requires.get(one, ()):
            if other in through:
                continue
            through[other] = f"{through[one]}{'it' if one == name else 'which'} requires {other}, "
            if why := _why_not_with(one, other, graph, units, conflicts=conflicts):
                return f"{through[other]}which {why}"
            todo.append(other)
    return ""


def _why_not_with(one: str, other: str, graph: Graph, units: Standings, *, conflicts: bool) -> str:
    """What is wrong with ``other``, without which ``one`` cannot be."""
    standing = units[other].standing
    if other in graph.refused:
        return f"cannot start: {graph.refused[other]}"
    if not standing.desired or standing.held:
        return "is stopped"
    if standing.state is State.FAILED:
        return "failed"
    if standing.restarting:
        return "is restarting"
    if conflicts and (winner := _beaten_by(other, graph, units)):
        return f"conflicts with {winner}"
    if (
        standing.state is State.STOPPED
        and not units[one].standing.state.is_active
        and not is_asked(other, graph, units)
    ):
        return "is not up already" if other in graph.requisite.get(one, ()) else ""
    if other in graph.binds_to.get(one, ()) and not _holds(other, graph, units):
        return f"is {standing.state.value}"
    return ""


def _holds(name: str, graph: Graph, units: Standings) -> bool:
    """Whether a unit bound to that one may stay up, or get in line."""
    standing = units[name].standing
    match standing.state:
        case State.WAITING | State.STARTING | State.READY | State.RELOADING:
            return True
        case State.EXITED:
            return standing.lasts
        case State.STOPPED:
            return is_asked(name, graph, units)
        case _:
            return False


def _beaten_by(name: str, graph: Graph, units: Standings) -> str:
    """The unit that it conflicts with and that goes first; of two that could both start, the first by name."""
    for other in graph.conflicts.get(name, ()):
        if other in graph.refused or not units[other].standing.desired or not is_asked(other, graph, units):
            continue
        if _claims(units[other].standing):
            if not _claims(units[name].standing) or other < name:
                return other
        elif other < name and not _claims(units[name].standing) and _could_start(other, graph, units):
            return other
    return ""


def _claims(standing: Standing) -> bool:
    match standing.state:
        case State.STOPPED | State.FAILED:
            return False
        case State.EXITED:
            return standing.lasts
        case _:
            return standing.desired and not standing.held


def _could_start(name: str, graph: Graph, units: Standings) -> bool:
    return units[name].standing.state is State.STOPPED and not _why_not(name, graph, units, conflicts=False)


def is_wanted(name: str, graph: Graph, units: Standings, *, going_down: bool = False) -> bool:
    """Whether it should be up now."""
    standing = units[name].standing
    if going_down or not standing.desired or standing.restarting:
        return False
    return is_asked(name, graph, units) and not why_not(name, graph, units)


def comes_back(name: str, graph: Graph, units: Standings) -> bool:
    """Of one that goes down: whether only for a moment, for it, or what it requires, is restarted."""
    standing = units[name].standing
    if standing.restarting:
        return True
    if not standing.desired or standing.held:
        return False
    why = why_not(name, graph, units)
    return not why or why.endswith("is restarting")


def waiting_for(name: str, graph: Graph, units: Standings) -> tuple[str, ...]:
    """The units whose coming up (or going down) it must still see before it starts."""
    required = graph.requires.get(name, ())
    found = [other for other in graph.after.get(name, ()) if _is_pending(other, other in required, graph, units)]
    found += [other for other in graph.conflicts.get(name, ()) if units[other].standing.state.is_active]
    return tuple(dict.fromkeys(found))


def _is_pending(other: str, required: bool, graph: Graph, units: Standings) -> bool:
    standing = units[other].standing
    if standing.state is State.STOPPING or standing.restarting:
        return True
    if standing.tried and not required:
        return False
    match standing.state:
        case State.WAITING | State.STARTING | State.BACKOFF:
            return True
        case State.STOPPED:
            return is_asked(other, graph, units) and comes_back(other, graph, units)
        case _:
            return False


def decide(name: str, graph: Graph, units: Standings, *, going_down: bool = False) -> Decision | None:
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
        case State.STARTING | State.READY | State.RELOADING:
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
