"""Which slot we are, when the disk is full, when the record is lost, from source."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import trio

from appliance.host.bundle import Bundle
from appliance.update.memory import Memory
from appliance.update.record import SlotRecord
from appliance.update.seeding import find_place
from appliance.update.slots import Slots
from tests.sim.slotcalls import SimSlotCalls
from tests.update.machine import BASE, SimKeeper, program

BUNDLE = Bundle(
    origin="/origin", file="/origin", payload_id=BASE, slot="none", trial=False, guard_pid=None, guard_fd=-1,
    directory="/d", spawn_program="/s", note="", version="1.0", frozen=True,
)  # fmt: skip


def disk() -> SimSlotCalls:
    calls = SimSlotCalls()
    calls.put_durable("/origin", program("1.0"))
    return calls


async def test_a_first_start_on_a_full_disk_runs_and_seeds_later() -> None:
    calls = disk()
    calls.fail_at = 1
    memory, slots = Memory(SimKeeper(calls)), Slots(calls, "/slots")
    place = await find_place(slots, BUNDLE, memory)
    assert place.running is None
    assert "No space left" in place.problem
    place = await find_place(slots, BUNDLE, memory)
    assert (place.running, place.problem) == ("a", "")
    # The same file, started again: nothing is copied.
    before = calls.calls
    again = await find_place(Slots(calls, "/slots"), BUNDLE, memory)
    assert again.running == "a"
    assert calls.calls - before < 10


async def test_from_source_there_are_no_slots() -> None:
    calls = disk()
    place = await find_place(Slots(calls, "/slots"), replace(BUNDLE, frozen=False), Memory(SimKeeper(calls)))
    assert "runs from source" in place.problem
    assert not calls.exists("/slots/record")


async def test_a_lost_record_is_mended_and_denied_versions_are_not_forgotten(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    await trio.Path(origin).write_bytes(
        b"program" + struct.pack("<QQQ64s64s16s", 1, 2, 3, b"e" * 64, b"1.0", b"APPLIANCE-PACK-1")
    )
    calls = disk()
    memory = Memory(SimKeeper(calls))
    slots = Slots(calls, "/slots")
    await find_place(slots, BUNDLE, memory)
    await memory.keep_denied([("3.0", "f" * 64)])
    calls.write_at("/slots/record", 0, b"rubbish" * 2000)
    running = replace(BUNDLE, origin=str(origin), file="/slots/a/appliance", slot="a")
    place = await find_place(slots, running, memory)
    assert (place.running, place.problem) == ("a", "")
    assert "neither copy is whole" in place.lost
    record = slots.load()
    assert record is not None
    assert (record.base, record.a.blessed, record.denied) == ("e" * 64, True, (("3.0", "f" * 64),))
    assert calls.names["/slots/current"] == "a"
    # Without a readable origin it runs on, and says why it cannot update.
    calls.write_at("/slots/record", 0, b"rubbish" * 2000)
    place = await find_place(slots, replace(running, origin=str(tmp_path / "gone")), memory)
    assert place.running == "a"
    assert "gone" in place.problem
    assert slots.record is None or isinstance(slots.record, SlotRecord)
