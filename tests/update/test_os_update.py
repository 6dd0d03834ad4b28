"""Our own OS image through the same machinery: OsSlots on files, a boot loader that counts, two lives."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.cli.update import _status_text
from appliance.host.bundle import Bundle
from appliance.host.slots import RealSlotCalls, architecture
from appliance.update import Offer, Product, Update
from appliance.update.boot_entries import DIRECTORY, parse_entry
from appliance.update.offer import download_path, offer_to_json, target_path
from appliance.update.os_payload import OsHeader
from appliance.update.os_slots import OsSlots
from appliance.update.record import SlotName
from tests.update.machine import Machine, SimHealth
from tests.update.test_bundles import MemoryKeeper

OS = Product("appliance", "os")


def kernel_image(version: str) -> bytes:
    return f"MZ roothash={hashlib.sha256(version.encode()).hexdigest()} {version}".encode() * 30


def payload(version: str) -> bytes:
    root, kernel = version.encode().ljust(8192, b"r"), kernel_image(version)
    header = OsHeader(version=version, root_size=len(root), kernel_size=len(kernel), identity="x", roothash="y")
    return header.encode() + root + kernel


class OsMachine:
    """Firmware and systemd-boot: of the entries with tries left the newest; a counted one loses a try first."""

    def __init__(self, place: Path, layout: Any, settings: Any) -> None:
        self.layout, self.settings, self.keeper = layout, settings, MemoryKeeper()
        self.entries = place / "esp" / DIRECTORY
        self.entries.mkdir(parents=True)
        (self.entries / "appliance_1.0.0.good+3.efi").write_bytes(kernel_image("1.0.0"))
        self.devices: dict[SlotName, str] = {"a": str(place / "a"), "b": str(place / "b")}
        (place / "a").write_bytes(b"1.0.0".ljust(8192, b"r"))
        (place / "b").write_bytes(b"\0" * 8192)
        self.esp = str(place / "esp")
        self.started: list[str] = []
        self.sick: set[str] = set()
        self.update: Update | None = None

    def content(self, slot: SlotName) -> str:
        return Path(self.devices[slot]).read_bytes().decode(errors="replace")

    def keep(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def boot_entry(self) -> str:
        names = [one.name for one in self.entries.iterdir()]
        entries = [entry for name in names if (entry := parse_entry(name)) is not None]
        able = [entry for entry in entries if entry.left != 0] or entries
        chosen = max(able, key=lambda entry: entry.version)
        if not chosen.left:
            return chosen.name
        counted = replace(chosen, left=chosen.left - 1, done=chosen.done + 1)
        (self.entries / chosen.name).rename(self.entries / counted.name)
        return counted.name

    async def ask_worker(self, settings: object, verb: str, path: str) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        data = payload("2.0.0")
        offer = Offer(
            target_path("alpha", "2.0.0", architecture(), OS), "2.0.0", hashlib.sha256(data).hexdigest(), len(data)
        )
        if verb == "refresh":
            return {"event": "offers", "offers": [offer_to_json(offer)]}
        file = Path(download_path(self.layout.update + "/download", offer))
        self.keep(file, data)
        return {"event": "downloaded", "file": str(file), "fetched": 7}

    async def boot(self, *, ask: bool = False) -> str:
        name = self.boot_entry()
        entry = parse_entry(name)
        assert entry is not None
        running: SlotName = "a" if self.content("a").startswith(entry.version) else "b"
        assert self.content(running).startswith(entry.version)
        self.started.append(entry.version)
        bundle = Bundle(
            origin="/o", file="/o", payload_id="c" * 64, slot="none", trial=False, guard_pid=None, guard_fd=-1,
            directory="/d", spawn_program="/s", note="", version=entry.version, frozen=True,
        )  # fmt: skip
        switched, health = trio.Event(), SimHealth(sick=self.sick, version=entry.version)

        async def reboot() -> None:
            switched.set()

        self.update = update = Update(
            layout=self.layout, settings=self.settings, bundle=bundle, processes=None,  # type: ignore[arg-type]
            keeper=self.keeper, health=health, switch=reboot, publish=lambda *_, **__: None,
            ask_worker=self.ask_worker, product=OS,
            slots=OsSlots(
                RealSlotCalls(), self.layout.slots, running=running, running_entry=name, devices=self.devices,
                esp_device="", mount_point=self.esp, start_once=lambda _: None,
            ),
        )  # fmt: skip
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: update.run(stopping=stopping, task_status=task_status))
            with trio.move_on_after(60):
                async with trio.open_nursery() as waiting:

                    async def wait_switched() -> None:
                        await switched.wait()
                        waiting.cancel_scope.cancel()

                    async def wait_resting() -> None:
                        await update.wait_resting()
                        if ask:
                            await update.apply()
                            await trio.sleep_forever()
                        waiting.cancel_scope.cancel()

                    waiting.start_soon(wait_switched)
                    waiting.start_soon(wait_resting)
            stopping.set()
        return "reboot" if switched.is_set() else "idle"


@pytest.fixture
def machine(tmp_path: Path) -> OsMachine:
    made = Machine(tmp_path)
    return OsMachine(tmp_path, made.layout, made.settings)


async def test_an_os_image_is_switched_to_by_reboot_and_blessed(machine: OsMachine) -> None:
    assert await machine.boot(ask=True) == "reboot"
    assert await machine.boot() == "idle"
    assert machine.started == ["1.0.0", "2.0.0"]
    assert machine.update is not None
    assert [(one.to_version, one.outcome) for one in machine.update.history()] == [("2.0.0", "blessed")]
    assert any("2.0.0.good" in one.name for one in machine.entries.iterdir())
    assert machine.update.picture().slot == "b"
    assert await machine.boot() == "idle"
    assert machine.started[-1] == "2.0.0"


async def test_status_shows_both_slots(machine: OsMachine) -> None:
    """As a person sees it: versions, what became of them, tries, boot entries, the hash that dm-verity goes by."""

    def shown() -> list[list[str]]:
        assert machine.update is not None
        text = _status_text(json.loads(json.dumps(asdict(machine.update.picture()))))
        rows = [re.split("  +", line) for line in text[text.index("SLOT") :].splitlines()[:3]]
        assert rows[0] == ["SLOT", "VERSION", "STATE", "TRIES LEFT", "BOOT ENTRY", "ROOT HASH"]
        return rows[1:]

    assert await machine.boot(ask=True) == "reboot"
    hashes = [hashlib.sha256(version).hexdigest() for version in (b"1.0.0", b"2.0.0")]
    assert shown() == [
        ["a", "1.0.0", "running, blessed", "2", "appliance_1.0.0.good+2-1.efi", hashes[0]],
        ["b", "2.0.0", "trial, 2 tries left", "2", "appliance_2.0.0+2.efi", hashes[1]],
    ]
    assert await machine.boot() == "idle"
    assert shown()[1] == ["b", "2.0.0", "running, blessed", "3", "appliance_2.0.0.good+3.efi", hashes[1]]


async def test_one_that_is_not_well_is_left_and_denied(machine: OsMachine) -> None:
    machine.sick = {"2.0.0"}
    assert await machine.boot(ask=True) == "reboot"
    assert await machine.boot() == "reboot"
    assert await machine.boot() == "idle"
    assert machine.started == ["1.0.0", "2.0.0", "1.0.0"]
    assert machine.update is not None
    assert [(one.to_version, one.outcome) for one in machine.update.history()] == [("2.0.0", "rolled back")]
    assert machine.update.picture().denied == ("2.0.0",)


async def test_one_that_dies_in_all_its_tries_is_denied_too(machine: OsMachine) -> None:
    assert await machine.boot(ask=True) == "reboot"
    machine.boot_entry()  # hangs
    machine.boot_entry()  # hangs: both tries are spent
    assert await machine.boot() == "idle"
    assert machine.started == ["1.0.0", "1.0.0"]
    assert machine.update is not None
    assert machine.update.picture().denied == ("2.0.0",)
    assert machine.update.history()[0].outcome == "rolled back"


async def test_the_last_try_may_prove_itself(machine: OsMachine) -> None:
    assert await machine.boot(ask=True) == "reboot"
    machine.boot_entry()  # hangs
    assert await machine.boot() == "idle"
    assert machine.started == ["1.0.0", "2.0.0"]
    assert machine.update is not None
    assert machine.update.history()[0].outcome == "blessed"
