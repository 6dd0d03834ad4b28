"""Start and stop order, as laws over random graphs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.supervisor import State, start_order
from appliance.supervisor.lifecycle import LIVE
from appliance.supervisor.order import decide_stops, leaving, may_start

Graph = dict[str, set[str]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = [f"s{n}" for n in range(draw(st.integers(1, 8)))]
    needs = {name: set(draw(st.sets(st.sampled_from(names[:n])))) if n else set() for n, name in enumerate(names)}
    order = draw(st.permutations(names))
    return {name: needs[name] for name in order}


@given(graphs())
def test_all_needs_stand_in_an_earlier_layer(needs: Graph) -> None:
    before: set[str] = set()
    for layer in start_order(needs):
        assert all(needs[name] <= before for name in layer)
        before.update(layer)
    assert before == set(needs)


@given(graphs(), st.data())
def test_a_cycle_is_refused_and_named(needs: Graph, data: st.DataObject) -> None:
    low = data.draw(st.sampled_from(sorted(needs)))
    above = {low}
    while more := {name for name in needs if needs[name] & above} - above:
        above |= more
    high = data.draw(st.sampled_from(sorted(above)))
    needs[low].add(high)  # low needs one that needs low
    with pytest.raises(InputError) as caught:
        start_order(needs)
    path = str(caught.value).rpartition(": ")[2].split(" -> ")
    assert path[0] == path[-1]
    assert all(after in needs[name] for name, after in itertools.pairwise(path))


def test_an_unknown_need_is_refused_and_named() -> None:
    with pytest.raises(InputError, match="api needs stoer, which does not exist"):
        start_order({"api": {"stoer"}, "store": set()})


@given(graphs(), st.data())
def test_stops_spare_whom_someone_lives_on_and_all_that_leave_get_down(needs: Graph, data: st.DataObject) -> None:
    states = {name: data.draw(st.sampled_from(list(State))) for name in needs}
    unwanted = data.draw(st.sets(st.sampled_from(sorted(needs))))
    gone = leaving(needs, states, unwanted)
    for _ in range(len(needs) + 1):
        for name in (asked := decide_stops(needs, states, unwanted)):
            assert name in leaving(needs, states, unwanted)
            assert not [other for other in needs if name in needs[other] and states[other] in LIVE]
            assert not may_start(name, needs, states, unwanted)
        for name in (name for name in needs if states[name] is State.STOPPING or name in asked):
            states[name] = State.STOPPED
    assert not [name for name in gone if states[name] in LIVE]
