"""Update on a simulated machine: good and bad versions, requests, and the power cut at every single step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host import files
from appliance.update.rollout import Goal, Phase, Rollout, encode
from tests.sim.slotcalls import PowerLost
from tests.update.machine import Machine, offer, program


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_a_good_version_is_blessed(machine: Machine) -> None:
    await machine.live("")
    assert machine.started == ["1.0", "2.0"]
    assert machine.outcomes == [("2.0", "blessed")]
    picture = machine.update.picture()  # type: ignore[union-attr]
    assert (picture.version, picture.slot, picture.trial, picture.state) == ("2.0", "b", False, "idle")
    assert [(one.version, one.blessed, one.running) for one in picture.slots] == [
        ("1.0", True, False),
        ("2.0", True, True),
    ]
    assert machine.calls.names[machine.layout.slots + "/current"] == "b"
    machine.shelf.append(offer("3.0"))
    await machine.live("")
    assert machine.started[-1] == "3.0"
    assert machine.outcomes[0] == ("3.0", "blessed")


async def test_a_version_that_cannot_start_is_left_and_denied(machine: Machine) -> None:
    machine.crashing = {"2.0"}
    await machine.live("")
    assert machine.started == ["1.0", "2.0", "2.0", "1.0"]
    assert machine.outcomes == [("2.0", "rolled back")]
    assert "used up its 2 starts" in machine.update.history()[0].reason  # type: ignore[union-attr]
    # Never again by itself or unforced; a person may.
    await machine.live("")
    assert machine.outcomes[0][1] == "nothing new"
    await machine.live("2.0")
    assert machine.outcomes[0] == ("2.0", "refused")
    machine.crashing.clear()
    await machine.boot("2.0", force=True)
    await machine.live()
    assert machine.outcomes[0] == ("2.0", "blessed")


async def test_a_version_that_never_gets_well_is_left_and_denied(machine: Machine) -> None:
    machine.health.sick = {"2.0"}
    await machine.live("")
    assert machine.started == ["1.0", "2.0", "1.0"]
    assert machine.outcomes == [("2.0", "rolled back")]
    picture = machine.update.picture()  # type: ignore[union-attr]
    assert "store is backoff" in picture.recent[0].reason
    assert picture.denied == ("2.0",)


async def test_a_unit_that_was_well_must_be_well_again(machine: Machine) -> None:
    await machine.boot("")
    machine.health.units = {"web": False, "broken": False}
    await machine.live()
    assert machine.outcomes == [("2.0", "rolled back")]
    assert "unit web, healthy before" in machine.update.history()[0].reason  # type: ignore[union-attr]


async def test_a_unit_that_was_not_well_need_not_be(machine: Machine) -> None:
    machine.health.units = {"web": True, "broken": False}
    await machine.live("")
    assert machine.outcomes == [("2.0", "blessed")]


async def test_a_store_that_does_not_answer_in_the_trial_is_no_health(machine: Machine) -> None:
    await machine.boot("")
    machine.keeper.broken = "cannot open the store"
    slot, _, _ = machine.launch()
    assert slot == "b"
    from appliance.update import verdict

    kept, verdict._STORE_SECONDS = verdict._STORE_SECONDS, 0.1
    try:
        assert await machine.boot() == "switched"
        machine.keeper.broken = ""
        await machine.live()
    finally:
        verdict._STORE_SECONDS = kept
    assert machine.outcomes == [("2.0", "rolled back")]


async def test_without_a_store_no_update_is_begun(machine: Machine) -> None:
    slots = machine.calls.read(machine.layout.slots + "/record", size_max=8192)
    machine.keeper.values["update/rollout"] = encode(Rollout())
    update_ended = await machine.boot()
    assert update_ended == "idle"
    machine.keeper.broken = "cannot write"
    assert machine.update is not None
    error = await machine.update._course.pursue(Goal("x", "apply", automatic=False))
    assert isinstance(error, UnavailableError)
    assert machine.calls.read(machine.layout.slots + "/record", size_max=8192) == slots


async def test_rollback_by_hand(machine: Machine) -> None:
    await machine.live("")
    assert await run_verb(machine, "rollback") == "switched"
    await machine.live()
    assert machine.started[-1] == "1.0"
    assert machine.outcomes[0] == ("1.0", "rolled back")
    assert machine.update is not None
    assert machine.update.picture().denied == ("2.0",)
    with pytest.raises(ConflictError, match="no blessed version"):
        await machine.update.rollback()


async def run_verb(machine: Machine, verb: str) -> str:
    """One life in which that is asked for; ends by a switch."""
    asks = machine._ask

    async def ask(*_: object) -> None:
        assert machine.update is not None
        await machine.update.wait_resting()
        await getattr(machine.update, verb)()

    machine._ask = ask  # type: ignore[method-assign]
    try:
        return await machine.boot()
    finally:
        machine._ask = asks  # type: ignore[method-assign]


async def test_rollback_onto_a_damaged_slot_is_refused(machine: Machine) -> None:
    await machine.live("")
    machine.calls.write_at(machine.layout.slots + "/a/appliance", 5, b"rot")
    assert await machine.boot() == "idle"
    assert machine.update is not None
    error = await machine.update._course.pursue(Goal("x", "rollback", automatic=False))
    assert isinstance(error, UnavailableError)
    assert "damaged" in error.message
    assert machine.update.picture().slots[1].blessed


async def test_what_is_refused_is_said_and_changes_nothing(machine: Machine) -> None:
    before = machine.calls.read(machine.layout.slots + "/record", size_max=8192)
    machine.shelf = [offer("0.9")]
    await machine.live("")
    assert machine.outcomes == [("", "refused")]
    assert "older than the running 1.0" in machine.update.history()[0].reason  # type: ignore[union-attr]
    await machine.live("0.9")
    assert machine.outcomes[0] == ("0.9", "refused")
    await machine.live("7.0")
    assert machine.outcomes[0] == ("7.0", "failed")
    assert machine.update is not None
    picture = machine.update.picture()
    assert "7.0" not in picture.last_error  # a wish, not a fault
    assert set(picture.errors) <= {"untrusted"}  # of the shelf's 0.9, when a check came by itself meanwhile
    assert machine.calls.read(machine.layout.slots + "/record", size_max=8192) == before
    for _ in range(3):
        await machine.live("7.0")
    assert machine.update.history()[0].count == 4  # type: ignore[union-attr]


async def test_floors_are_passed_step_by_step(machine: Machine) -> None:
    machine.shelf = [offer("2.0"), offer("3.0", floor="2.0"), offer("4.0", floor="3.0")]
    for _ in range(3):
        await machine.live("")
    assert machine.started == ["1.0", "2.0", "2.0", "3.0", "3.0", "4.0"]


async def test_it_checks_by_itself_when_told_to(machine: Machine) -> None:
    machine.settings = replace(machine.settings, strategy="immediate", interval=1.0)
    asks = machine._ask

    async def wait(*_: object) -> None:
        await trio.sleep_forever()

    machine._ask = wait  # type: ignore[method-assign]
    assert await machine.boot() == "switched"
    machine._ask = asks  # type: ignore[method-assign]
    await machine.live()
    assert machine.outcomes == [("2.0", "blessed")]


async def test_updates_that_are_off_say_why(machine: Machine) -> None:
    machine.settings = replace(machine.settings, repository="")
    await machine.live()
    assert machine.update is not None
    assert machine.update.picture().reason == "no repository is set ([update] repository)"
    for verb in ("check", "download", "apply"):
        with pytest.raises(UnavailableError, match="no repository"):
            await getattr(machine.update, verb)()
    machine.update.reconfigure(replace(machine.settings, repository="/r"))
    files.remove(machine.layout.trust_root)
    with pytest.raises(UnavailableError, match="no trust root"):
        await machine.update.check()
    with pytest.raises(InputError, match="say which version"):
        await machine.update.apply(force=True)
    shut = {gate.name: gate.reason for gate in machine.update.explain() if not gate.open}
    assert "no trust root" in shut["trust"]
    assert "only when a person" in shut["strategy"]


async def test_a_dropped_binary_is_taken_and_the_old_one_kept(machine: Machine) -> None:
    from appliance.host.bundle import Bundle
    from appliance.update.memory import Memory
    from appliance.update.seeding import find_place
    from appliance.update.slots import Slots

    await machine.live("")
    machine.calls.put_durable("/origin", program("9.0"))
    bundle = Bundle(
        origin="/origin", file="/origin", payload_id="d" * 64, slot="none", trial=False, guard_pid=None, guard_fd=-1,
        directory="/d", spawn_program="/s", note="", version="9.0", frozen=True,
    )  # fmt: skip
    slots = Slots(machine.calls, machine.layout.slots)
    place = await find_place(slots, bundle, Memory(machine.keeper))
    assert (place.running, place.problem) == ("a", "")
    assert slots.record is not None
    assert (slots.record.a.version, slots.record.b.version, slots.record.base) == ("9.0", "2.0", "d" * 64)
    await machine.live()
    assert machine.started[-1] == "9.0"


@pytest.mark.parametrize("kind", ["good", "crashing", "sick"])
async def test_power_cut_at_every_step_and_it_goes_on_by_itself(tmp_path: Path, kind: str) -> None:
    def machine_of(cut_at: int, seed: int) -> Machine:
        made = Machine(tmp_path / f"{cut_at}-{seed}", seed=seed, cut_at=cut_at)
        made.settings = replace(made.settings, health=replace(made.settings.health, deadline=0.02, settle=0.0))
        made.crashing = {"2.0"} if kind == "crashing" else set()
        made.health.sick = {"2.0"} if kind == "sick" else set()
        return made

    whole = machine_of(0, 0)
    await whole.live("")
    steps = whole.calls.calls - whole.base_calls
    assert steps > 40
    for number in range(1, steps + 1):
        for seed in (1, 2):
            machine = machine_of(number, seed)
            try:
                await machine.live("")
            except PowerLost:
                machine.calls.cut_at = 0
                await machine.live()
            assert machine.calls.cut_at == 0  # the power did go
            begun = any(entry[0] == "2.0" for entry in machine.outcomes)
            if not begun:  # cut before anybody could know of the request
                assert machine.started[-1] == "1.0"
                await machine.live("")
            expected = ("2.0", "blessed") if kind == "good" else ("2.0", "rolled back")
            # What was cut off and begun anew may have failed in between; in the end there is one verdict.
            assert expected in machine.outcomes, (number, seed, machine.started, machine.outcomes)
            assert machine.started[-1] == ("2.0" if kind == "good" else "1.0"), (number, seed, machine.started)
            assert machine.update is not None
            assert machine.update.picture().denied == (() if kind == "good" else ("2.0",))
            assert machine.update._course.state == Rollout(Phase.IDLE)
