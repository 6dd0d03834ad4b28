"""Which slot are we? Reads the record; seeds it when we are a dropped file; repairs it when both copies are broken."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from appliance.errors import ApplianceError
from appliance.host.bundle import Bundle
from appliance.host.slots import read_tail
from appliance.update.memory import Memory
from appliance.update.pack import FOOTER_SIZE, parse_footer
from appliance.update.record import SlotName, SlotRecord
from appliance.update.slots import Slots


@dataclass(frozen=True)
class Place:
    """Where we run; ``problem``: why the slots cannot be used; ``lost``: what was wrong and is mended."""

    running: SlotName | None
    problem: str = ""
    lost: str = ""


async def find_place(slots: Slots, bundle: Bundle, memory: Memory) -> Place:
    """Never raises: without slots the appliance runs, and only cannot update itself."""
    if not bundle.frozen and not slots.beside:
        return Place(None, "it runs from source, not from a built binary")
    running: SlotName | None = None
    try:
        await trio.to_thread.run_sync(slots.load)
        lost = slots.problem
        running = slots.running_slot(bundle)
        if running is not None:
            if slots.record is None:
                await _repair(slots, running, bundle, memory)
        else:
            running = await trio.to_thread.run_sync(
                lambda: slots.seed(bundle.file, version=bundle.version, base=bundle.payload_id)
            )
    except ApplianceError as exc:
        return Place(running, exc.message)
    return Place(running, lost=lost)


async def _repair(slots: Slots, slot: SlotName, bundle: Bundle, memory: Memory) -> None:
    """We run from a slot that nothing names any more: write it down, with the denied versions that the store knows."""
    base = parse_footer(read_tail(bundle.origin, FOOTER_SIZE), file=bundle.origin).payload_id
    sha256, _ = await trio.to_thread.run_sync(slots.measure, slots.file(slot))
    fresh = SlotRecord(denied=await memory.denied())
    fresh = fresh.seeded(slot, version=bundle.version, sha256=sha256, base=base)
    await trio.to_thread.run_sync(slots.put, fresh)
    await trio.to_thread.run_sync(slots.point_current, slot)
