"""Steps, waves and channels on a simulated machine: launcher, slots, store and the real Update, whole lives of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.errors import InputError, NotFoundError
from appliance.host import files
from appliance.update.policy import Policy, Wave, policy_to_json
from tests.sim.slotcalls import PowerLost
from tests.update.machine import Machine, offer


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.shelf = [offer("2.0"), offer("3.0", "2.0"), offer("4.0", "3.0")]
    return made


async def test_a_version_that_was_asked_for_is_reached_over_its_floors(machine: Machine) -> None:
    """One request, three blessings; whoever asked gets one answer: the last."""
    await machine.live("4.0")
    assert machine.started == ["1.0", "2.0", "3.0", "4.0"]
    assert machine.outcomes == [("4.0", "blessed"), ("3.0", "blessed"), ("2.0", "blessed")]
    last, *steps = machine.update.history()  # type: ignore[union-attr]
    assert last.id
    assert [(entry.id, entry.reason) for entry in steps] == [("", "a step on the way to 4.0")] * 2


async def test_without_a_version_each_check_takes_the_next_step(machine: Machine) -> None:
    for version in ("2.0", "3.0", "4.0"):
        await machine.live("")
        assert machine.outcomes[0] == (version, "blessed")


async def test_a_step_that_fails_ends_the_way(machine: Machine) -> None:
    machine.crashing = {"3.0"}
    await machine.live("4.0")
    assert machine.started[-1] == "2.0"
    assert machine.outcomes[0] == ("3.0", "rolled back")
    assert machine.outcomes[1] == ("2.0", "blessed")


@pytest.mark.parametrize("cut", range(1, 400, 7))
async def test_power_cuts_on_the_way_do_not_end_it(tmp_path: Path, cut: int) -> None:
    """Wherever the power goes: once the first step was kept, 4.0 is reached by itself."""
    machine = Machine(tmp_path, seed=cut, cut_at=cut)
    machine.shelf = [offer("2.0"), offer("3.0", "2.0"), offer("4.0", "3.0")]
    asks = ("4.0",)
    for _ in range(20):
        try:
            if await machine.boot(*asks) == "idle":
                break
        except PowerLost:  # in the launcher
            machine.calls.cut_at = 0
        asks = ()
    assert machine.started[-1] in ("1.0", "4.0"), machine.started
    if machine.started[-1] == "1.0":  # it was cut before the request was kept
        assert "2.0" not in machine.started


async def test_a_wave_holds_and_explains(machine: Machine) -> None:
    machine.shelf = [replace(offer("2.0"), waves=(Wave(9e9, 1.0),))]
    await machine.live("")
    assert machine.outcomes == [("", "nothing new")]
    gates = {gate.name: gate for gate in machine.update.explain()}  # type: ignore[union-attr]
    assert not gates["channel"].open
    assert "2.0 comes here at 2255-03-14" in gates["channel"].reason
    assert files.exists(machine.layout.wave_lot)
    await machine.live("2.0")  # a person's word is enough
    assert machine.outcomes[0] == ("2.0", "blessed")


class Channels:
    """Two channels behind the worker of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.asked: list[str] = []
        self.shelves = {"alpha": [offer("2.0")], "stable": [offer("0.9")]}
        self.policy = Policy()
        honest = machine.ask_worker

        async def ask(settings: object, verb: str, path: str) -> dict[str, object]:
            channel = settings.channel  # type: ignore[attr-defined]
            self.asked.append(channel)
            if channel not in self.shelves:
                await trio.lowlevel.checkpoint()
                raise NotFoundError(f"cannot use channel {channel}")
            machine.shelf = self.shelves[channel]
            answer = await honest(settings, verb, path)  # type: ignore[arg-type]
            return {**answer, "policy": policy_to_json(self.policy)} if verb == "refresh" else answer

        machine.ask_worker = ask  # type: ignore[method-assign,assignment]


async def live_and(machine: Machine, *verbs: tuple[str, dict[str, object]]) -> None:
    """One life in which these are done."""
    asks = machine._ask

    async def act(*_: object) -> None:
        update = machine.update
        assert update is not None
        await update.wait_resting()
        for verb, options in verbs:
            await getattr(update, verb)(**options)
        await update.wait_resting()
        await asks((), False, stopping=_[2])  # type: ignore[arg-type]

    machine._ask = act  # type: ignore[method-assign]
    try:
        await machine.boot()
    finally:
        machine._ask = asks  # type: ignore[method-assign]


async def test_switching_channels(machine: Machine) -> None:
    channels = Channels(machine)
    machine.settings = replace(machine.settings, channel="alpha")
    await live_and(machine, ("channel", {"channel": "stable"}))
    assert machine.update is not None
    assert channels.asked == ["stable"]
    assert machine.update.picture().channel == "stable"
    await machine.live("")  # another life: it is remembered, and nothing older is taken
    assert machine.outcomes[0][1] == "nothing new"
    assert "nobody asked for a downgrade" in machine.update.history()[0].reason
    await live_and(machine, ("channel", {"channel": "stable", "allow_downgrade": True}))
    await machine.live("")
    assert machine.started[-1] == "0.9"
    assert machine.outcomes[0] == ("0.9", "blessed")
    channels.shelves["stable"] = [offer("0.8")]
    await machine.live("")  # that was allowed once
    assert machine.started[-1] == "0.9"
    with pytest.raises(InputError, match="allowed are alpha, beta, stable"):
        await machine.update.channel("nightly")
    machine.settings = replace(machine.settings, channel="beta")  # the file was changed: it counts again
    channels.shelves["beta"] = [offer("5.0")]
    await machine.live("")
    assert machine.outcomes[0] == ("5.0", "blessed")


async def test_a_channel_that_the_repository_does_not_have_is_not_taken(machine: Machine) -> None:
    Channels(machine)
    machine.settings = replace(machine.settings, channel="alpha")
    with pytest.raises((NotFoundError, ExceptionGroup)):
        await live_and(machine, ("channel", {"channel": "beta"}))
    await machine.boot()
    assert machine.update is not None
    assert machine.update.picture().channel == "alpha"
