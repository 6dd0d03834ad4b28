"""A whole machine for updates: launcher, slots on a disk that loses power, a store, and Update itself, real.

The launcher's rule is the C program's (tests/binary shows the real one); worker and network are a shelf of versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from appliance.errors import UnavailableError
from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.update import Offer, Update, UpdateSettings
from appliance.update.offer import download_path, offer_to_json, target_path
from appliance.update.record import SLOTS, SlotEntry, pick
from appliance.update.settings import HealthSettings
from appliance.update.slots import Slots
from tests.sim.slotcalls import PowerLost, SimSlotCalls

BASE = "c" * 64


def program(version: str) -> bytes:
    return f"version {version}\n".encode() * 200


def offer(version: str, floor: str = "") -> Offer:
    data = program(version)
    path = target_path("alpha", version, architecture())
    return Offer(path, version, hashlib.sha256(data).hexdigest(), len(data), floor)


class SimKeeper:
    """Durable at once; the power may go before or after."""

    def __init__(self, calls: SimSlotCalls) -> None:
        self.values: dict[str, bytes] = {}
        self.broken = ""
        self._calls = calls

    async def get(self, key: str) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise UnavailableError(self.broken)
        return self.values.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise UnavailableError(self.broken)
        self._calls.change(f"store {key}")
        self.values[key] = value
        self._calls.change(f"stored {key}")


@dataclass
class SimHealth:
    """Scripted: which versions are not well, and what the units are."""

    sick: set[str] = field(default_factory=set)
    units: dict[str, bool] = field(default_factory=lambda: {"web": True, "broken": False})
    version: str = ""

    def services_ready(self) -> tuple[bool, tuple[str, ...]]:
        return (False, ("store is backoff",)) if self.version in self.sick else (True, ())

    def unit_health(self) -> Mapping[str, bool]:
        return self.units


class Machine:
    """``boot`` is one life of the process: until it switches, dies, loses power, or has nothing more to do."""

    def __init__(self, tmp_path: Path, *, seed: int = 0, cut_at: int = 0, running: str = "1.0") -> None:
        self.layout = Layout(str(tmp_path))
        if not Path(self.layout.trust_root).exists():  # thousands of machines stand in one place: writing is 3 ms
            Path(self.layout.trust_root).parent.mkdir(parents=True, exist_ok=True)
            Path(self.layout.trust_root).write_text("{}")
        self.calls = SimSlotCalls(seed)
        self.keeper = SimKeeper(self.calls)
        self.health = SimHealth()
        self.shelf = [offer("2.0")]
        self.crashing: set[str] = set()  # versions that die before Python
        self.settings = UpdateSettings(
            repository="/r", channel="alpha", strategy="manual",
            health=HealthSettings(settle=0.0, deadline=1.0, tries=2),
        )  # fmt: skip
        self.started: list[str] = []
        self.asked: list[str] = []
        self.published = trio.Event()
        self.calls.put_durable("/origin", program(running))
        slots = Slots(self.calls, self.layout.slots)
        slots.load()
        slots.seed("/origin", version=running, base=BASE)
        self.base_calls = self.calls.calls
        self.calls.cut_at = self.base_calls + cut_at if cut_at else 0
        self.update: Update | None = None

    async def ask_worker(self, settings: UpdateSettings, verb: str, path: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        self.asked.append(verb)
        if verb == "refresh":
            return {"event": "offers", "offers": [offer_to_json(one) for one in self.shelf]}
        (found,) = [one for one in self.shelf if one.path == path]
        file = download_path(self.layout.update + "/download", found)
        self.calls.put_durable(file, program(found.version))
        return {"event": "downloaded", "file": file}

    def launch(self) -> tuple[str, bool, str]:
        """The launcher: pick, spend a try, start. A version that crashes spends its tries until another is picked."""
        while True:
            slots = Slots(self.calls, self.layout.slots)
            record = slots.load()
            assert record is not None, slots.problem
            gone = [slot for slot in SLOTS if not self.calls.exists(slots.file(slot))]
            name = pick(replace(record, **{slot: SlotEntry() for slot in gone}))
            assert name is not None, "neither old nor new"
            entry = record.entry(name)
            if not entry.blessed:
                spent = replace(entry, tries=entry.tries - 1)
                slots.put(replace(record, sequence=record.sequence + 1, **{name: spent}))
            data = self.calls.read(slots.file(name), size_max=1 << 20)
            version = data.partition(b"\n")[0].removeprefix(b"version ").decode()
            assert data == program(version), "half a program was started"
            self.started.append(version)
            if version not in self.crashing:
                return name, not entry.blessed, version

    def _bundle(self, slot: str, trial: bool, version: str) -> Bundle:
        return Bundle(
            origin="/origin", file="/x", payload_id=BASE, slot=slot, trial=trial, guard_pid=None, guard_fd=-1,
            directory="/d", spawn_program="/s", note="", version=version, frozen=True,
        )  # fmt: skip

    async def boot(self, *asks: str, force: bool = False) -> str:
        """One life; returns how it ended: "switched", "idle" (nothing is under way any more). Raises PowerLost."""
        slot, trial, version = self.launch()
        self.health.version = version
        bundle = self._bundle(slot, trial, version)
        switched, stopping = trio.Event(), trio.Event()

        async def switch() -> None:
            switched.set()

        self.update = Update(
            layout=self.layout, settings=self.settings, bundle=bundle, processes=None,  # type: ignore[arg-type]
            keeper=self.keeper, health=self.health, switch=switch, publish=lambda *_, **__: self.published.set(),
            ask_worker=self.ask_worker,
            slots=Slots(self.calls, self.layout.slots, downloads=self.layout.update + "/download"),
        )  # fmt: skip
        end = ""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: self._life(stopping, task_status))
                nursery.start_soon(self._ask, asks, force, stopping)
                nursery.start_soon(self._stop_when, switched, stopping)
                with trio.fail_after(60):
                    await stopping.wait()
                end = "switched" if switched.is_set() else "idle"
                nursery.cancel_scope.cancel()
        except* PowerLost:
            end = "power lost"
        if end == "power lost":
            self.calls.cut_at = 0
        return end

    async def _life(self, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        assert self.update is not None
        await self.update.run(stopping=stopping, task_status=task_status)

    async def _stop_when(self, event: trio.Event, stopping: trio.Event) -> None:
        await event.wait()
        stopping.set()

    async def _ask(self, asks: tuple[str, ...], force: bool, stopping: trio.Event) -> None:
        """Wait until what the start found to do is done; ask; wait again; then this life is over."""
        assert self.update is not None
        await self.update.wait_resting()
        for version in asks:
            asked = await self.update.apply(version, force=force)
            while not any(entry.id == asked.request for entry in self.update.history()):
                self.published = trio.Event()
                await self.published.wait()
        stopping.set()

    async def live(self, *asks: str, lives_max: int = 12) -> None:
        """Boot until nothing is under way; what is asked is asked in the first life only."""
        for _ in range(lives_max):
            if await self.boot(*asks) == "idle":
                return
            asks = ()
        raise AssertionError(f"no end: started {self.started}")

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        assert self.update is not None
        return [(entry.to_version, entry.outcome) for entry in self.update.history()]
