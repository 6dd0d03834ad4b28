"""What a start, stop or restart will do, computed before anything is done. Pure.

As systemd's transactions: what is pulled in, what has to go because it conflicts, what goes down along, in which
order. What is only wanted and cannot be is left out and named; what is required and cannot be refuses the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.errors import InputError, NotFoundError
from appliance.units.decisions import Standing, Standings, is_asked
from appliance.units.graph import Graph, closure, waves
from appliance.units.lifecycle import State

Verb = Literal["start", "stop", "restart"]
VERBS: tuple[Verb, ...] = ("start", "stop", "restart")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One unit up, or down. All steps of a wave may go at once; each wave waits for the ones before."""

    wave: int
    action: str  # "start" or "stop"
    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A unit that was wanted, but cannot be."""

    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """All that will be done, in order."""

    verb: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    unchanged: tuple[str, ...]  # asked for or pulled in, and up (or down) already
    left_out: tuple[LeftOut, ...]

    def units(self, action: str) -> tuple[str, ...]:
        """Those that go up, or down; in order."""
        return tuple(step.unit for step in self.steps if step.action == action)

    def why(self, unit: str, action: str) -> str:
        """The reason of that step; empty when there is none."""
        return next((step.why for step in self.steps if step.unit == unit and step.action == action), "")


def plan(verb: Verb, names: Iterable[str], graph: Graph, units: Standings) -> Transaction:
    """Raises InputError: an unknown name, a circle, something required that cannot be, or two that conflict."""
    asked = tuple(dict.fromkeys(names))
    for name in asked:
        if name not in graph.names:
            raise NotFoundError(f"cannot {verb} {name}: there is no such unit")
    if verb == "stop":
        downs = _downs(asked, graph, units, "asked for", stops=True)
        down = {name: why for name, why in downs.items() if units[name].standing.state is not State.STOPPED}
        unchanged = tuple(name for name in asked if name not in down)
        return _transaction(verb, asked, {}, down, unchanged, (), graph)
    return _plan_start(verb, asked, graph, units)


@dataclass(frozen=True)
class _Supposed:
    standing: Standing


def standings_of(names: Iterable[str], *, up: bool) -> Standings:
    """Where no daemon can be asked: as if all were up, or none."""
    state = State.READY if up else State.STOPPED
    return {name: _Supposed(Standing(state=state, on_demand=True)) for name in names}


def called_along(name: str, graph: Graph, units: Standings) -> tuple[str, ...]:
    """Units on demand that come up with one that starts by itself: just those that a start by hand would take along."""
    if units[name].standing.planned:
        return ()
    idle = [other for other in graph.pulled_in((name,)) if _is_callable(units[other].standing)]
    if not idle:
        return ()
    try:
        found = plan("start", [name], graph, units)
    except InputError:
        return ()
    return tuple(other for other in found.units("start") if other in idle and not _is_contested(other, graph, units))


def _is_contested(name: str, graph: Graph, units: Standings) -> bool:
    """Whether it, or what it requires, conflicts with one that somebody wants up: what is only pulled in gives way."""
    needed = (name, *closure((name,), (graph.pulls,)))
    return next(rivals_of(needed, graph, units), None) is not None


def _is_callable(standing: Standing) -> bool:
    return standing.on_demand and standing.desired and not standing.called and not standing.masked


def _plan_start(verb: Verb, asked: tuple[str, ...], graph: Graph, units: Standings) -> Transaction:
    again: dict[str, str] = {}
    if verb == "restart":
        again = {name: why for name, why in _downs(asked, graph, units, "asked for").items() if _runs(units, name)}
    left_out: dict[str, str] = {}
    while True:
        chosen = _choose(verb, asked, graph, units, left_out)
        for name, why in again.items():
            if name not in left_out:
                chosen.setdefault(name, f"comes back: {why}")
        down = _conflicting(verb, asked, chosen, graph, units)
        torn = next((name for name in down if name in chosen), None)
        if torn is None:
            break
        _leave_out(verb, torn, down[torn], asked, chosen, left_out, graph)
    up = {name: why for name, why in chosen.items() if name in again or not _is_up(units, name)}
    unchanged = tuple(name for name in chosen if name not in up)
    down |= again
    missing = tuple(LeftOut(unit=name, why=why) for name, why in sorted(left_out.items()))
    return _transaction(verb, asked, up, down, unchanged, missing, graph)


def _choose(
    verb: Verb, asked: tuple[str, ...], graph: Graph, units: Standings, left_out: dict[str, str]
) -> dict[str, str]:
    """All that is started, nearest first, and why. What is wanted and cannot be goes to ``left_out``."""
    chosen = dict.fromkeys(asked, "asked for")
    for name in asked:
        hard, wrong = _required(name, graph, units, chosen)
        if wrong:
            raise InputError(f"cannot {verb} {name}: {wrong}")
        for other, why in hard.items():
            chosen.setdefault(other, why)
    hard_ones = tuple(chosen)
    for number, one in enumerate(hard_ones):
        for other in hard_ones[:number]:
            if other in graph.conflicts.get(one, ()):
                raise InputError(f"cannot {verb} {asked[0]}: it needs {other} and {one}, which conflict")
    todo = list(chosen)
    for name in todo:
        for other in graph.wants.get(name, ()):
            if other in chosen or other in left_out:
                continue
            hard, wrong = _required(other, graph, units, chosen)
            new = {other: f"wanted by {name}", **hard}
            if not wrong:
                wrong = next(
                    (
                        f"{'it' if one == other else f'it requires {one}, which'} conflicts with {rival}"
                        for one in new
                        for rival in graph.conflicts.get(one, ())
                        if rival in chosen or rival in new
                    ),
                    "",
                )
            if wrong:
                left_out[other] = wrong
                continue
            for one, why in new.items():
                if one not in chosen:
                    chosen[one] = why
                    todo.append(one)
    return chosen


def _required(name: str, graph: Graph, units: Standings, chosen: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """What it cannot do without, and why it cannot be, if so."""
    found: dict[str, str] = {}
    chain = {name: ""}
    todo = [name]
    for one in todo:
        if units[one].standing.masked and not units[one].standing.state.is_up:
            return {}, f"{chain[one]}which is masked" if chain[one] else "it is masked; see appliance unit unmask"
        if one in graph.refused:
            lead = f"{chain[one]}which cannot start: " if chain[one] else ""
            return {}, f"{lead}{graph.refused[one]}"
        for other in graph.requires.get(one, ()):
            if other in chain:
                continue
            words = f"{chain[one]}{'it' if one == name else 'which'} requires {other}, "
            if other in graph.requisite.get(one, ()):
                if not units[other].standing.state.is_up and other not in chosen:
                    return {}, f"{words}which is not up already"
                continue
            chain[other] = words
            found[other] = f"required by {one}"
            todo.append(other)
    return found, ""


def _conflicting(
    verb: Verb, asked: tuple[str, ...], chosen: Mapping[str, str], graph: Graph, units: Standings
) -> dict[str, str]:
    """What has to go, and what goes with it. Raises InputError when that is what was asked for."""
    rivals: dict[str, str] = {}
    for name in chosen:
        for other in graph.conflicts.get(name, ()):
            if _runs(units, other):
                rivals.setdefault(other, f"conflicts with {name}")
    down = dict(rivals)
    for name, why in rivals.items():
        for other, inner in _downs((name,), graph, units, why).items():
            if other not in down and _runs(units, other):
                down[other] = inner
    for name in asked:
        if name in down:
            raise InputError(f"cannot {verb} {name}: it would have to stop, for it {down[name]}")
    return down


def _leave_out(
    verb: Verb,
    torn: str,
    why: str,
    asked: tuple[str, ...],
    chosen: Mapping[str, str],
    left_out: dict[str, str],
    graph: Graph,
) -> None:
    """``torn`` would start and stop at once: whoever only wants it goes without."""
    hard = {*asked, *closure(asked, (graph.pulls,))}
    if torn in hard:
        raise InputError(f"cannot {verb} {asked[0]}: it requires {torn}, which would have to stop: {why}")
    for name in chosen:
        if name not in hard and (name == torn or torn in closure((name,), (graph.pulls,))):
            left_out[name] = f"it would have to stop: {why}" if name == torn else f"it requires {torn}, which {why}"
    assert torn in left_out, "each turn leaves out one more"


def _downs(
    names: Iterable[str], graph: Graph, units: Standings, why: str, *, stops: bool = False
) -> dict[str, str]:
    """These and all that a stop of them takes down, nearest first, and why. ``stops``: they do not come back."""
    found = dict.fromkeys(names, why)
    todo = list(found)
    ties = [(graph.required_by, "requires"), (graph.parts, "is part of")]
    if stops:
        ties.append((graph.stops, "is stopped with"))
    for name in todo:
        for edges, words in ties:
            for other in edges.get(name, ()):
                if other not in found and units[other].standing.state is not State.STOPPED:
                    found[other] = f"{words} {name}"
                    todo.append(other)
    return found


def _runs(units: Standings, name: str) -> bool:
    return units[name].standing.state not in (State.STOPPED, State.FAILED)


def _is_up(units: Standings, name: str) -> bool:
    standing = units[name].standing
    return standing.state.is_up and (standing.state is not State.EXITED or standing.lasts)


def rivals_of(names: Iterable[str], graph: Graph, units: Standings) -> Iterator[tuple[str, str]]:
    """Units that nobody may want up any more once these are: each with the one that it conflicts with."""
    for name in names:
        for other in graph.conflicts.get(name, ()):
            if units[other].standing.desired and is_asked(other, graph, units):
                yield other, name


def _transaction(
    verb: Verb,
    names: tuple[str, ...],
    up: Mapping[str, str],
    down: Mapping[str, str],
    unchanged: tuple[str, ...],
    left_out: tuple[LeftOut, ...],
    graph: Graph,
) -> Transaction:
    waits_for: dict[str, set[str]] = {}
    for name in down:  # whoever comes after it goes first
        waits_for[f"-{name}"] = {f"-{other}" for other in graph.followers.get(name, ()) if other in down}
    for name in up:
        first = {f"+{other}" for other in graph.after.get(name, ()) if other in up}
        first |= {f"-{other}" for other in graph.after.get(name, ()) if other in down}
        first |= {f"-{other}" for other in graph.conflicts.get(name, ()) if other in down}
        first |= {f"-{name}"} if name in down else set()
        waits_for[f"+{name}"] = first
    steps = tuple(
        Step(
            wave=number,
            action="start" if key[0] == "+" else "stop",
            unit=key[1:],
            why=(up if key[0] == "+" else down)[key[1:]],
        )
        for number, wave in enumerate(waves(waits_for), start=1)
        for key in sorted(wave, key=lambda key: (key[0] == "+", key[1:]))
    )
    return Transaction(verb=verb, names=names, steps=steps, unchanged=unchanged, left_out=left_out)
