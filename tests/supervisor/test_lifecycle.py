"""The table: every pair moves or raises, and what follows from any sequence of facts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.supervisor import Event, IllegalTransition, Restart, State, step
from appliance.supervisor.lifecycle import LIVE, TRANSITIONS


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_moves_or_raises(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert step(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"'{event.value}' while '{state.value}'"):
            step(state, event)


def test_every_state_is_reachable_and_none_is_a_trap() -> None:
    for origin in State:
        seen = {origin}
        while more := {after for state in seen for after in TRANSITIONS[state].values()} - seen:
            seen |= more
        assert seen == set(State), f"from {origin} some states are out of reach"


@given(st.lists(st.sampled_from(list(Event))))
def test_code_runs_only_between_needs_met_and_went_down(events: list[Event]) -> None:
    state, live = State.WAITING, False
    for event in events:
        try:
            state = step(state, event)
        except IllegalTransition:
            continue
        live = {Event.NEEDS_MET: True, Event.WENT_DOWN: False}.get(event, live)
        assert (state in LIVE) is live


def test_backoff_doubles_is_capped_and_never_overflows() -> None:
    restart = Restart(first_delay=1, delay_max=60)
    assert [restart.delay(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert restart.delay(1025) == 60
    assert restart.delay(10**9) == 60
    assert Restart(attempts_max=3).delay(2) == 2
    assert Restart(attempts_max=3).delay(3) is None


def test_failures_are_forgotten_after_a_quiet_stretch() -> None:
    restart = Restart(quiet=100)
    assert restart.failures_after(7, 99) == 8
    assert restart.failures_after(7, 100) == 1
