"""The table of an update, and what a starting process does first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.update.offer import Offer
from appliance.update.record import SlotEntry, SlotRecord
from appliance.update.rollout import (
    CUTS_MAX,
    SWITCHES_MAX,
    TRANSITIONS,
    Facts,
    Goal,
    IllegalTransitionError,
    Next,
    Phase,
    Rollout,
    decide_start,
    decode,
    encode,
)

A, B = "a" * 64, "b" * 64
OFFER = Offer("alpha/2.0/x86_64/appliance", "2.0", B, 10)
OLD = SlotRecord(7, "c" * 64, SlotEntry("1.0", A, 2, 0, True), SlotEntry())
ARMED = OLD.armed("b", version="2.0", sha256=B, tries=2, deadline=60)
SPENT = replace(ARMED, b=replace(ARMED.b, tries=0))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("target", Phase)
def test_each_step_moves_or_raises(phase: Phase, target: Phase) -> None:
    state = Rollout(phase)
    if target in TRANSITIONS[phase]:
        assert state.to(target).phase is target
    else:
        with pytest.raises(IllegalTransitionError, match=target.value):
            state.to(target)
        assert state.phase is phase


def test_every_phase_is_reached_and_left() -> None:
    reached, border = {Phase.IDLE}, {Phase.IDLE}
    while border:
        border = {target for phase in border for target in TRANSITIONS[phase]} - reached
        reached |= border
    assert reached == set(Phase)
    assert all(TRANSITIONS[phase] for phase in Phase)


rollouts = st.builds(
    Rollout,
    st.sampled_from(Phase),
    st.builds(Goal, st.text(max_size=9), st.sampled_from(["check", "download", "apply", "rollback"]), st.just("1.2")),
    st.sampled_from([None, OFFER]),
    st.sampled_from([None, "a", "b"]),
    st.text(max_size=9),
    st.lists(st.text(max_size=9), max_size=3).map(tuple),
    st.integers(0, 9),
    st.text(max_size=40),
    st.integers(0, 1 << 40),
    st.floats(0, 1e10),
    st.text(max_size=40),
    st.integers(0, 9),
)


@given(rollouts)
def test_what_is_kept_is_read_back(state: Rollout) -> None:
    assert decode(encode(state)) == state


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode(data)


def start(kept: Rollout, record: SlotRecord | None, running: str | None = "a", trial: bool = False) -> Next:
    return decide_start(kept, Facts(running, trial, record))  # type: ignore[arg-type]


def test_what_a_start_does_first() -> None:
    goal = Goal("id", "apply")
    assert start(Rollout(), None) is Next.REST
    assert start(Rollout(), OLD) is Next.REST
    for phase in (Phase.CHECKING, Phase.AVAILABLE, Phase.DOWNLOADING, Phase.DOWNLOADED, Phase.CLEARING, Phase.WRITING,
                  Phase.VERIFYING):  # fmt: skip
        assert start(Rollout(phase, goal, OFFER), OLD) is Next.BEGIN
        assert start(Rollout(phase, replace(goal, verb="check"), OFFER), OLD) is Next.REST
    assert start(Rollout(Phase.DOWNLOADING, replace(goal, verb="download"), OFFER), OLD) is Next.BEGIN
    assert start(Rollout(Phase.DOWNLOADED, replace(goal, verb="download"), OFFER), OLD) is Next.REST
    # The record is the commit point: armed counts, whatever was kept.
    for kept in (Rollout(), Rollout(Phase.VERIFYING, goal, OFFER, "b"), Rollout(Phase.SWITCHING, goal, OFFER, "b")):
        assert start(kept, ARMED) is Next.SWITCH
        assert start(kept, ARMED, "b", trial=True) is Next.PROVE
        assert start(kept, SPENT, "b", trial=True) is Next.PROVE
        assert start(kept, SPENT) is Next.CONDEMN_OTHER
    assert start(Rollout(Phase.SWITCHING, goal, OFFER, "b", switches=SWITCHES_MAX), ARMED) is Next.CONDEMN_OTHER
    assert start(Rollout(Phase.ROLLING_BACK, goal, OFFER, "b"), ARMED) is Next.CONDEMN_OTHER
    assert start(Rollout(Phase.ROLLING_BACK, goal, OFFER, "b"), ARMED, "b") is Next.CONDEMN_SELF
    assert start(Rollout(Phase.ROLLING_BACK, goal, OFFER, "b"), ARMED.condemned("b")) is Next.ROLLED_BACK
    assert start(Rollout(Phase.TRIAL, goal, OFFER, "b"), ARMED.condemned("b")) is Next.ROLLED_BACK
    assert start(Rollout(Phase.TRIAL, goal, OFFER, "b"), ARMED.blessed_as("b"), "b") is Next.BLESSED
    assert start(Rollout(Phase.BLESSED, goal, OFFER, "b"), ARMED.blessed_as("b"), "b") is Next.BLESSED
    by_hand = Rollout(Phase.ROLLING_BACK, replace(goal, verb="rollback"), OFFER, "b")
    assert start(by_hand, ARMED.blessed_as("b"), "b") is Next.CONDEMN_SELF
    assert start(by_hand, ARMED.blessed_as("b").condemned("b"), "a") is Next.ROLLED_BACK


def test_a_trial_that_ended_with_the_machine_is_no_verdict() -> None:
    def begin(kept: Rollout, boot: str = "this boot", record: SlotRecord = SPENT) -> Next:
        return decide_start(kept, Facts("a", False, record, boot))

    for phase in (Phase.SWITCHING, Phase.TRIAL):
        cut = Rollout(phase, Goal("id", "apply"), OFFER, "b", boot="the boot before")
        assert begin(cut) is Next.TRY_AGAIN
        assert begin(replace(cut, cuts=CUTS_MAX - 1)) is Next.TRY_AGAIN
        # A version that takes the machine down each time; one that died while the machine lived; nobody can say.
        assert begin(replace(cut, cuts=CUTS_MAX)) is Next.CONDEMN_OTHER
        assert begin(replace(cut, boot="this boot")) is Next.CONDEMN_OTHER
        assert begin(replace(cut, boot="")) is Next.CONDEMN_OTHER
        assert begin(cut, boot="") is Next.CONDEMN_OTHER
        assert begin(replace(cut, slot="a")) is Next.CONDEMN_OTHER
        assert begin(cut, record=ARMED) is Next.SWITCH
    assert begin(Rollout(Phase.ROLLING_BACK, Goal("id"), OFFER, "b", boot="the boot before")) is Next.CONDEMN_OTHER
