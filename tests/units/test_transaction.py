"""Start, stop and restart are computed first: laws of the plan, and that the loop comes to rest exactly there."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.units.decisions import Decision, Standing, comes_back, decide, is_wanted
from appliance.units.graph import Graph, build_graph
from appliance.units.lifecycle import Event, State, step
from appliance.units.operations import Operations
from appliance.units.register import Register
from appliance.units.transaction import Transaction, called_along, plan
from appliance.units.unit_section import RELATIONS, UnitSection

NAMES = "abcdefg"


class Sim:
    """A unit without a process."""

    def __init__(self, name: str, *, on_demand: bool) -> None:
        self.name = name
        self.standing = Standing(on_demand=on_demand)
        self.failures = 0

    def try_again(self, reason: str) -> None:
        if self.standing.state is State.BACKOFF:
            self.standing.state = step(self.standing.state, Event.RESTART_DUE)
        elif self.standing.state in (State.FAILED, State.EXITED):
            self.standing.state = step(self.standing.state, Event.DROPPED)


class World:
    """Units, and the loop over them, as ``Settling`` runs it."""

    def __init__(self, graph: Graph, *, on_demand: bool) -> None:
        self.graph = graph
        self.units = {name: Sim(name, on_demand=on_demand) for name in NAMES}
        self.trace: list[str] = []
        self.register = Register(
            layout=cast(Any, None),
            settings=cast(Any, None),
            keeper=cast(Any, None),
            publish=cast(Any, None),
            directory="/",
        )
        self.register.runners = cast(Any, self.units)
        self.register.graph = graph
        self.operations = Operations(self.register)
        self.operations.settling = cast(Any, self)

    def mark(self, names: Any) -> None:
        """All are looked at in turn anyway."""

    def plan(self, verb: Any, *names: str) -> Transaction:
        return plan(verb, names, self.graph, self.units)

    def run(self, transaction: Transaction) -> list[str]:
        self.trace = []
        self.operations._apply(transaction, "asked")
        self.rest()
        return self.trace

    def rest(self) -> None:
        for _ in range(2000):
            turned = [self._turn(name, unit) for name, unit in self.units.items()]
            if not any(turned):
                return
        raise AssertionError("never at rest")

    def _turn(self, name: str, unit: Sim) -> bool:
        standing = unit.standing
        before = standing.state
        decision = decide(name, self.graph, self.units)
        if decision in (Decision.STOP, Decision.DROP) and not comes_back(name, self.graph, self.units):
            standing.called = ""
        match decision:
            case Decision.BEGIN:
                standing.state = step(before, Event.WANTED)
                for other in called_along(name, self.graph, self.units):
                    self.units[other].standing.called = "pulled in"
                standing.planned = False
            case Decision.GO:
                standing.state = step(before, Event.NEEDS_MET)
                self.trace.append(f"+{name}")
                self.check()
            case Decision.STOP:
                standing.state = step(before, Event.ENDING)
            case Decision.DROP:
                standing.state = step(before, Event.DROPPED)
            case None if before is State.STARTING:
                standing.state = step(before, Event.CAME_UP)
            case None if before is State.STOPPING:
                standing.state = step(before, Event.GONE)
                self.trace.append(f"-{name}")
            case _:
                return False
        if standing.state is State.STOPPED:
            standing.restarting = False
        return True

    def check(self) -> None:
        """Two that conflict never have processes at once."""
        for name, others in self.graph.conflicts.items():
            for other in others:
                assert not (self.units[name].standing.state.is_active and self.units[other].standing.state.is_active)

    @property
    def up(self) -> set[str]:
        return {name for name, unit in self.units.items() if unit.standing.state is State.READY}


@st.composite
def graphs(draw: st.DrawFn, *, kinds: tuple[str, ...] = RELATIONS) -> Graph:
    """Random units. Order and needs go from a later name to an earlier one; conflicts and parts anywhere."""
    sections = {}
    for number, name in enumerate(NAMES):
        relations: dict[str, Any] = {}
        for kind in kinds:
            anywhere = kind in ("conflicts", "part_of", "on_failure", "on_success", "wants")
            others = [other for other in (NAMES if anywhere else NAMES[:number]) if other != name]
            if kind == "before" or not others:
                continue
            few = draw(st.integers(0, 9)) if kind in ("after", "requires", "wants") else draw(st.integers(0, 3))
            if few > 2:
                relations[kind] = tuple(draw(st.lists(st.sampled_from(others), max_size=2, unique=True)))
        sections[name] = UnitSection(**relations)
    return build_graph(sections)


def positions(transaction: Transaction) -> dict[tuple[str, str], int]:
    return {(step.action, step.unit): step.wave for step in transaction.steps}


@settings(deadline=None, max_examples=300)
@given(graphs(), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_laws_of_a_start(graph: Graph, names: list[str]) -> None:
    world = World(graph, on_demand=True)
    try:
        found = world.plan("start", *names)
    except InputError:
        return
    place, up, down = positions(found), set(found.units("start")), set(found.units("stop"))
    assert set(names) <= up
    assert not up & down
    assert not down, "nothing runs yet"
    for one in up:
        needs = [other for other in graph.requires.get(one, ()) if other not in graph.requisite.get(one, ())]
        assert set(needs) <= up, "nothing starts without what it requires"
        assert not set(graph.conflicts.get(one, ())) & up
        for other in graph.after.get(one, ()):
            assert other not in up or place["start", other] < place["start", one]
    reachable = {*names, *graph.pulled_in(names)}
    assert up | {one.unit for one in found.left_out} <= reachable
    assert all(step.why for step in found.steps)


@settings(deadline=None, max_examples=300)
@given(graphs(), st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2), min_size=1, max_size=4), st.data())
def test_what_was_planned_is_what_happens(graph: Graph, rounds: list[list[str]], data: st.DataObject) -> None:
    world = World(graph, on_demand=True)
    for names in rounds:
        verb = data.draw(st.sampled_from(["start", "stop", "restart"]))
        before = world.up
        try:
            found = world.plan(verb, *names)
        except InputError:
            continue
        trace = world.run(found)
        up, down = found.units("start"), found.units("stop")
        happened_up = [one[1:] for one in trace if one[0] == "+"]
        happened_down = [one[1:] for one in trace if one[0] == "-"]
        held_up = {*before, *world.up}  # who upholds may itself go down meanwhile, after what it upholds was started
        upheld = {one for one in world.units if held_up.intersection(graph.upheld_by.get(one, ()))}
        upheld |= set(graph.pulled_in(upheld))
        lost = {one for one in up if one not in world.up}
        for one in lost:  # only what binds it to something else may take it away again
            assert not is_wanted(one, graph, world.units)
        assert set(down) <= set(happened_down) | (set(before) - world.up)
        assert set(happened_up) - upheld - set(before) <= set(up) | set(found.unchanged)
        for one in set(before) - world.up:
            assert one in down
        place = {key: number for number, key in reversed(list(enumerate(trace)))}
        for one in happened_up:
            for other in graph.after.get(one, ()):
                if f"+{other}" in place and other in up and one in up:
                    assert place[f"+{other}"] < place[f"+{one}"], (one, other, trace, verb, names, found)
        for one in happened_down:
            for other in graph.after.get(one, ()):
                if f"-{other}" in place and one in down and other in down:
                    assert place[f"-{one}"] < place[f"-{other}"], "the other way round"


@settings(deadline=None, max_examples=200)
@given(graphs(kinds=("requires", "wants", "after", "binds_to", "part_of", "conflicts", "upholds", "requisite")))
def test_units_that_are_always_wanted_come_to_rest_without_two_that_conflict(graph: Graph) -> None:
    world = World(graph, on_demand=False)
    world.rest()
    for name, others in graph.conflicts.items():
        assert name not in world.up or not set(others) & world.up
    for name in world.up:
        assert set(graph.requires.get(name, ())) <= world.up


@settings(deadline=None, max_examples=200)
@given(graphs(kinds=("requires", "wants", "after", "part_of", "binds_to")), st.sampled_from(NAMES))
def test_a_stop_is_the_start_turned_round(graph: Graph, name: str) -> None:
    world = World(graph, on_demand=True)
    try:
        started = world.plan("start", name)
    except InputError:
        assume(False)
    world.run(started)
    assume(world.up == set(started.units("start")))
    stopped = world.plan("stop", *world.up)
    assert set(stopped.units("stop")) == set(started.units("start"))
    came, went = positions(started), positions(stopped)
    for one in world.up:
        for other in world.up:
            if other in graph.after.get(one, ()):
                assert came["start", other] < came["start", one]
                assert went["stop", other] > went["stop", one]
    world.run(stopped)
    assert not world.up


def world_of(**sections: dict[str, tuple[str, ...]]) -> World:
    known = {name: UnitSection(**cast(Any, relations)) for name, relations in sections.items()}
    world = World(build_graph(known), on_demand=True)
    world.units = {name: Sim(name, on_demand=True) for name in known}
    world.register.runners = cast(Any, world.units)
    return world


def steps(transaction: Transaction) -> list[str]:
    return [f"{one.wave}{'+' if one.action == 'start' else '-'}{one.unit}: {one.why}" for one in transaction.steps]


def test_a_start_names_what_it_pulls_in_and_why() -> None:
    world = world_of(
        web={"requires": ("db",), "after": ("db",), "wants": ("cache", "gone")},
        db={"after": ("disk",)},
        cache={},
        disk={},
    )
    found = world.plan("start", "web")
    assert steps(found) == ["1+cache: wanted by web", "1+db: required by web", "2+web: asked for"]
    world.run(found)
    assert world.plan("start", "web").steps == ()
    assert set(world.plan("start", "web").unchanged) == {"web", "db", "cache"}
    assert steps(world.plan("stop", "db")) == ["1-web: requires db", "2-db: asked for"]
    assert steps(world.plan("restart", "db")) == [
        "1-web: requires db", "2-db: asked for", "3+db: asked for", "4+web: comes back: requires db",
    ]  # fmt: skip
    world.run(world.plan("restart", "db"))
    assert world.trace == ["-web", "-db", "+db", "+web"]


def test_conflicts_stop_the_other_and_what_needs_it_first() -> None:
    world = world_of(blue={"conflicts": ("green",)}, green={}, page={"requires": ("green",), "after": ("green",)})
    world.run(world.plan("start", "page"))
    found = world.plan("start", "blue")
    assert steps(found) == ["1-page: requires green", "2-green: conflicts with blue", "3+blue: asked for"]
    assert world.run(found) == ["-page", "-green", "+blue"]
    assert world.units["green"].standing.unwanted == "it conflicts with blue"
    assert world.run(world.plan("start", "green")) == ["-blue", "+green"]


@pytest.mark.parametrize(
    ("sections", "name", "message"),
    [
        ({"a": {"requires": ("b",)}}, "a", "cannot start a: it requires b, which does not exist"),
        (
            {"a": {"requires": ("b",)}, "b": {"requires": ("c",)}},
            "a",
            "cannot start a: it requires b, which cannot start: it requires c, which does not exist",
        ),
        ({"a": {"after": ("b",)}, "b": {"after": ("a",)}}, "a", "cannot start a: the order has a cycle: a after b after a"),  # noqa: E501
        (
            {"a": {"requires": ("b", "c")}, "b": {"conflicts": ("c",)}, "c": {}},
            "a",
            "cannot start a: it needs b and c, which conflict",
        ),
        ({"a": {"requisite": ("b",)}, "b": {}}, "a", "cannot start a: it requires b, which is not up already"),
        ({"a": {}}, "z", "cannot start z: there is no such unit"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_reason(
    sections: dict[str, dict[str, tuple[str, ...]]], name: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        world_of(**sections).plan("start", name)
    assert caught.value.message == message


def test_what_is_only_wanted_and_cannot_be_is_left_out() -> None:
    world = world_of(
        a={"wants": ("b", "c", "d")}, b={"requires": ("gone",)}, c={"conflicts": ("a",)}, d={"conflicts": ("e",)}, e={}
    )
    found = world.plan("start", "a", "e")
    assert found.units("start") == ("a", "e")
    assert {(one.unit, one.why) for one in found.left_out} == {
        ("b", "it requires gone, which does not exist"),
        ("c", "it conflicts with a"),
        ("d", "it conflicts with e"),
    }


def test_parts_go_down_and_come_back_with_the_whole() -> None:
    world = world_of(pod={}, one={"part_of": ("pod",), "after": ("pod",)}, two={"part_of": ("one",)})
    world.run(world.plan("start", "pod", "one", "two"))
    assert set(world.run(world.plan("restart", "pod"))) == {"-one", "-two", "-pod", "+pod", "+one", "+two"}
    world.run(world.plan("stop", "pod"))
    assert not world.up
    assert world.units["two"].standing.held == "it is part of one, which is stopped"
    assert world.run(world.plan("start", "one")) == ["+one"]


def test_bound_units_go_when_the_other_ends_by_itself() -> None:
    world = world_of(disk={}, db={"binds_to": ("disk",), "after": ("disk",)})
    world.run(world.plan("start", "db"))
    world.units["disk"].standing.lasts = False
    world.units["disk"].standing.state = State.EXITED
    world.rest()
    assert world.units["db"].standing.state is State.STOPPED
