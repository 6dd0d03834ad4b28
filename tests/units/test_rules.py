"""The pure part by its laws: table, graph, decisions, restarts, reload, run state, notices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.units import parse_unit
from appliance.units.cycles import find_cycles
from appliance.units.decisions import Decision, Standing, decide, is_wanted
from appliance.units.graph import Graph, build_graph, start_order
from appliance.units.lifecycle import TRANSITIONS, Event, IllegalTransition, State, step
from appliance.units.notices import parse_notice_untrusted
from appliance.units.restart_section import LimitTable, RestartSection
from appliance.units.restarts import backoff_seconds, decide_outcome, is_flapping, is_forgiven, restarts_within
from appliance.units.results import Result
from appliance.units.run_state import RunState, decode_run_state_untrusted
from appliance.units.unit_section import UnitSection

NAMES = "abcdef"


@st.composite
def graphs(draw: st.DrawFn, *, cycles: bool = False) -> Graph:
    """Random units; without cycles an edge goes only from a later name to an earlier one."""
    sections = {}
    for number, name in enumerate(NAMES):
        others = [other for other in (NAMES if cycles else NAMES[:number]) if other != name]
        some = st.lists(st.sampled_from(others), max_size=3, unique=True) if others else st.just([])
        sections[name] = UnitSection(
            requires=tuple(draw(some)), wants=tuple(draw(some)), after=tuple(draw(some)),
            before=tuple(draw(some)) if cycles else (),
        )  # fmt: skip
    return build_graph(sections)


@dataclass
class Sim:
    """A unit without a process."""

    standing: Standing


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_state_and_event_moves_or_raises(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert step(state, event) in State
    else:
        with pytest.raises(IllegalTransition):
            step(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.STOPPED}
    for _ in State:
        reached |= {after for state in reached for after in TRANSITIONS[state].values()}
    assert reached == set(State)
    assert all(TRANSITIONS[state] for state in State)


@given(graphs(cycles=True))
def test_cycles_are_refused_by_name_and_the_rest_is_ordered(graph: Graph) -> None:
    assert not find_cycles(graph.after)
    for name in NAMES:
        if name in graph.refused:
            with pytest.raises(InputError, match=name):
                start_order(graph, [name])
            continue
        try:
            waves = start_order(graph, [name])
        except InputError:
            assert set(graph.pulled_in([name])) & graph.refused.keys()
            continue
        place = {one: number for number, wave in enumerate(waves) for one in wave}
        assert set(place) == {name, *graph.pulled_in([name])}
        for one in place:
            assert all(place[other] < place[one] for other in graph.after.get(one, ()) if other in place)


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3).map(tuple), max_size=6))
def test_found_cycles_are_cycles_and_cover_all(edges: dict[str, tuple[str, ...]]) -> None:
    cycles = find_cycles(edges)
    for cycle in cycles:
        for one, other in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            assert other in edges.get(one, ())
    covered = {name for cycle in cycles for name in cycle}
    for name in edges:
        reach: set[str] = set()
        todo = [name]
        for one in todo:
            for other in edges.get(one, ()):
                if other not in reach:
                    reach.add(other)
                    todo.append(other)
        assert (name in reach) == (name in covered)


def run_to_rest(
    graph: Graph, units: dict[str, Sim], *, going_down: bool = False, fail: frozenset[str] = frozenset()
) -> list[str]:
    """Take decisions until nothing more is due; what happened, in order."""
    trace = []
    for _ in range(1000):
        acted = False
        for name, unit in units.items():
            decision = decide(name, graph, units, going_down=going_down)
            standing = unit.standing
            match decision:
                case None:
                    if standing.state is State.STARTING:
                        down = name in fail
                        standing.state = step(standing.state, Event.ENDING if down else Event.CAME_UP)
                        trace.append(f"{'x' if down else '+'}{name}")
                    elif standing.state is State.STOPPING:
                        gave_up = name in fail and is_wanted(name, graph, units, going_down=going_down)
                        standing.state = step(standing.state, Event.GAVE_UP if gave_up else Event.GONE)
                        standing.restarting = False
                        trace.append(f"-{name}")
                    else:
                        continue
                case Decision.BEGIN:
                    standing.state = step(standing.state, Event.WANTED)
                case Decision.GO:
                    standing.state = step(standing.state, Event.NEEDS_MET)
                case Decision.STOP:
                    standing.state = step(standing.state, Event.ENDING)
                case Decision.DROP:
                    standing.state = step(standing.state, Event.DROPPED)
            acted = True
        if not acted:
            return trace
    raise AssertionError("never at rest")


@given(graphs(), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_decisions_come_to_rest_in_order_and_respect_requirements(graph: Graph, off: set[str], bad: set[str]) -> None:
    units = {name: Sim(Standing(desired=name not in off)) for name in NAMES}
    trace = run_to_rest(graph, units, fail=frozenset(bad))
    for name, unit in units.items():
        assert unit.standing.state in (State.READY, State.STOPPED, State.FAILED), name
        if unit.standing.state is State.READY:
            assert all(units[other].standing.state is State.READY for other in graph.requires.get(name, ()))
    for name in NAMES:
        if f"+{name}" in trace:
            for other in graph.after.get(name, ()):
                if f"+{other}" in trace:
                    assert trace.index(f"+{other}") < trace.index(f"+{name}")
    trace = run_to_rest(graph, units, going_down=True)
    assert all(unit.standing.state is State.STOPPED for unit in units.values())
    for name in NAMES:
        for other in graph.after.get(name, ()):
            if f"-{name}" in trace and f"-{other}" in trace:
                assert trace.index(f"-{name}") < trace.index(f"-{other}")


@given(graphs(cycles=True), st.lists(st.sampled_from(NAMES), max_size=4))
def test_restarts_and_changes_of_mind_come_to_rest_too(graph: Graph, restarted: list[str]) -> None:
    units = {name: Sim(Standing()) for name in NAMES}
    run_to_rest(graph, units)
    for name in restarted:
        units[name].standing.restarting = units[name].standing.state is State.READY
    run_to_rest(graph, units)
    assert not any(unit.standing.restarting for unit in units.values())
    for name, unit in units.items():
        assert (unit.standing.state is State.READY) == is_wanted(name, graph, units)


@given(st.floats(0, 100), st.floats(0, 1000), st.integers(1, 10_000))
def test_the_delay_grows_to_its_cap_and_never_overflows(delay: float, more: float, failures: int) -> None:
    restart = RestartSection(delay=delay, delay_max=delay + more)
    assert delay <= backoff_seconds(restart, failures) <= delay + more
    assert backoff_seconds(restart, failures) <= backoff_seconds(restart, failures + 1)
    assert backoff_seconds(restart, 1) == delay


@given(st.floats(0, 100), st.floats(0, 1), st.integers(1, 100))
def test_jitter_comes_on_top_of_the_capped_delay(jitter: float, chance: float, failures: int) -> None:
    restart = RestartSection(delay=1, delay_max=4, jitter=jitter)
    plain = backoff_seconds(restart, failures)
    assert plain <= backoff_seconds(restart, failures, chance) <= plain + jitter


def test_three_restarts_in_ten_minutes_are_flapping() -> None:
    assert not is_flapping((0.0, 500.0), 600.0)
    assert is_flapping((1.0, 500.0, 501.0), 600.0)
    assert not is_flapping((1.0, 500.0, 501.0), 602.0)
    assert restarts_within((1.0, 500.0, 501.0), 602.0) == 2


ABNORMAL = ("signal", "core-dump", "timeout", "watchdog", "oom-kill", "protocol", "resources")
SYSTEMD = {  # systemd.service(5), "Exit causes and the effect of the Restart= settings"
    "no": (),
    "always": ("success", "exit-code", *ABNORMAL),
    "on-success": ("success",),
    "on-failure": ("exit-code", *ABNORMAL),
    "on-abnormal": ABNORMAL,
    "on-abort": ("signal", "core-dump"),
    "on-watchdog": ("watchdog",),
}


@pytest.mark.parametrize("policy", SYSTEMD)
@pytest.mark.parametrize("result", [one for one in Result if one not in (Result.UNHEALTHY, Result.ASSERT)])
def test_policies(policy: str, result: Result) -> None:
    outcome = decide_outcome(RestartSection(), policy, result=result, reason="x", failures=1, starts=(), now=0)
    if result.value in SYSTEMD[policy]:
        assert outcome.event is Event.GONE_BADLY
    else:
        well = result in (Result.SUCCESS, Result.CONDITION)
        assert outcome.event is (Event.GONE_WELL if well else Event.GAVE_UP)
    for forced in (True, False):
        again = decide_outcome(
            RestartSection(), policy, result=result, reason="x", failures=1, starts=(), now=0, forced=forced
        )
        assert (again.event is Event.GONE_BADLY) is forced


def test_the_burst_counts_only_starts_within_the_interval() -> None:
    restart = RestartSection(limit=LimitTable(burst=3, interval=10))
    for starts, event in (
        ((0.0, 1.0), Event.GONE_BADLY),
        ((0.0, 1.0, 2.0), Event.GAVE_UP),
        ((-20.0, 1.0, 2.0), Event.GONE_BADLY),
    ):
        outcome = decide_outcome(
            restart, "always", result=Result.SIGNAL, reason="x", failures=1, starts=starts, now=5.0
        )
        assert outcome.event is event, starts


def test_a_quiet_stretch_is_forgiven() -> None:
    assert not is_forgiven(RestartSection(delay=1, delay_max=60), 59)
    assert is_forgiven(RestartSection(delay=1, delay_max=60), 60)
    assert not is_forgiven(RestartSection(delay=0, delay_max=0), 9)


@given(
    st.builds(
        RunState,
        name=st.text(),
        boot_id=st.text(),
        state=st.text(),
        reason=st.text(),
        pid=st.integers(),
        text=st.text(),
    )
)
def test_run_states_come_back_as_they_went(run: RunState) -> None:
    assert decode_run_state_untrusted(run.encode()) == run


@given(st.binary(max_size=100))
def test_run_states_of_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_run_state_untrusted(data)
    with pytest.raises(InputError):
        decode_run_state_untrusted(b'{"version": 1, "pid": "7"}')


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_notices_of_any_bytes_are_taken(data: bytes) -> None:
    parse_notice_untrusted(data)


def test_notices() -> None:
    notice = parse_notice_untrusted(b"READY=1\nSTATUS=up \xff\nMAINPID=12\nX=y\nnonsense")
    assert notice.ready
    assert notice.status == "up \ufffd"
    assert notice.main_pid == 12
    assert parse_notice_untrusted(b"MAINPID=-3\nREADY=2").main_pid is None


def test_before_is_after_the_other_way_round() -> None:
    units = {}
    for name, text in (("a", 'before = ["b"]'), ("b", "")):
        unit = parse_unit(f"[unit]\n{text}\n[service]\ncommand = 'x'\n", f"{name}.toml").unit
        assert unit is not None
        units[name] = unit.document.unit
    assert start_order(build_graph(units), ["a", "b"]) == (("a",), ("b",))
