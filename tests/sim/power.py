"""The simulated machine under the launcher's own C code, and with every write that an update makes on the one disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from appliance.errors import CorruptError, UnavailableError
from appliance.host.bundle import Bundle
from appliance.update import UpdateSettings
from appliance.update.offer import download_path
from appliance.update.record import SLOTS, SlotName, read_record
from appliance.update.slots import Slots
from tests.sim.c_launcher import CRecord
from tests.sim.slotcalls import PowerLost, SimSlotCalls
from tests.update.machine import BASE, Machine, program

ORIGIN = "/origin"
PIECE = 900


def _sequence(data: bytes) -> int:
    try:
        record, _ = read_record(data)
    except CorruptError:
        return -1
    return -1 if record is None else record.sequence


class PowerMachine(Machine):
    """``origin``: the version of the file that init starts; ``base``: its payload, as the record would name it."""

    def __init__(
        self, place: Path, calls: SimSlotCalls | None = None, *, origin: str = "1.0", base: str = BASE
    ) -> None:
        super().__init__(place)
        self.base = base
        self.origin = origin
        if calls is not None:
            self.take(calls)

    def take(self, calls: SimSlotCalls, values: dict[str, bytes] | None = None) -> None:
        """Go on with this disk, and with what the store held."""
        self.calls = self.keeper._calls = calls
        self.keeper.values = dict(values or {})
        calls.put_durable(ORIGIN, program(self.origin))

    async def ask_worker(self, settings: UpdateSettings, verb: str, path: str) -> dict[str, Any]:
        """The download is made as the worker makes it, too."""
        if verb == "refresh":
            return await super().ask_worker(settings, verb, path)
        await trio.lowlevel.checkpoint()
        (found,) = [one for one in self.shelf if one.path == path]
        directory, calls = self.layout.update + "/download", self.calls
        file = download_path(directory, found)
        partial, data = file + ".partial", program(found.version)
        if not calls.exists(file) or Slots(calls, directory).measure(file)[0] != found.sha256:
            for at in range(0, len(data), PIECE):
                calls.write_at(partial, at, data[at : at + PIECE])
            calls.sync(partial)
            calls.rename(partial, file)
            calls.sync_directory(directory)
        return {"event": "downloaded", "file": file}

    async def boot(self, *asks: str, force: bool = False) -> str:
        """As the machine; what is cut stays as it is."""
        ended = await super().boot(*asks, force=force)
        if ended == "power lost":
            raise PowerLost
        return ended

    def launch(self) -> tuple[str, bool, str]:
        """main.c, with record.c itself: which file is started, after its try was spent."""
        while True:
            name, trial = self._choose()
            file = ORIGIN if name is None else f"{self.layout.slots}/{name}/appliance"
            data = self.calls.read(file, size_max=1 << 20)
            version = data.partition(b"\n")[0].removeprefix(b"version ").decode(errors="replace")
            assert data == program(version), "half a program was started"
            self.started.append(version)
            if version not in self.crashing:
                return name or "none", trial, version

    def _choose(self) -> tuple[SlotName | None, bool]:
        calls, slots = self.calls, self.layout.slots
        if not calls.exists(f"{slots}/record"):
            return None, False
        exists = {name: calls.exists(f"{slots}/{name}/appliance") for name in SLOTS}
        data = calls.read(f"{slots}/record", size_max=8192)
        record = CRecord(data)
        assert record.sequence == _sequence(data), "C and Python do not read the same"
        if record.newest < 0:
            link = calls.names.get(f"{slots}/current")
            return next((name for name in SLOTS if link == name and exists[name]), None), False
        if record.base != self.base:
            return None, False  # a person has put another file there
        name = record.pick(exists, may_try=True)
        if name is None or record.blessed(name):
            return name, False
        writes = record.spend(name)
        assert writes, "the launcher cannot spend a try"
        try:
            for at, copy in writes:
                calls.write_at(f"{slots}/record", at, copy)
                calls.sync(f"{slots}/record")
        except UnavailableError:
            return record.pick(exists, may_try=False), False
        return name, True

    def _bundle(self, slot: str, trial: bool, version: str) -> Bundle:
        file = ORIGIN if slot == "none" else f"{self.layout.slots}/{slot}/appliance"
        payload_id = self.base if slot == "none" else "f" * 64
        return Bundle(
            origin=ORIGIN, file=file, payload_id=payload_id, slot=slot, trial=trial, guard_pid=None, guard_fd=-1,
            directory="/d", spawn_program="/s", note="", version=version, frozen=True,
        )  # fmt: skip
