"""The only program of a machine whose disks log every write: updates by the real code on a real file system.

After whatever was acknowledged (a record written, a value kept) it writes so into the last sectors of the disk, past
the file system: the log then says what must be found there from this write on.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import trio

from appliance.host.disk import FileDisk
from appliance.host.slots import RealSlotCalls
from appliance.store import Store
from appliance.update.memory import Memory
from appliance.update.offer import Offer
from appliance.update.picture import HistoryEntry
from appliance.update.progress import Progress
from appliance.update.record import SlotRecord, other
from appliance.update.rollout import Phase, Rollout
from appliance.update.slots import Slots
from appliance.update.whole import fetch_whole

PLACE = "/d"
SIZE, PIECE = 300_000, 1 << 16


def program(version: str) -> bytes:
    return f"version {version}\n".encode() + random.Random(version).randbytes(SIZE)


class Marker:
    """One sector of the bare disk, past its file system."""

    def __init__(self, device: str, at: int) -> None:
        self._fd = os.open(device, os.O_WRONLY | os.O_DIRECT)  # no flush of ours: it would help
        self._at = at
        self._said: dict[str, Any] = {}
        self._page = mmap.mmap(-1, 4096)

    def say(self, **news: Any) -> None:
        self._said.update(news)
        self._page[:512] = json.dumps(self._said).encode().ljust(512)
        os.pwrite(self._fd, memoryview(self._page)[:512], self._at)

    def close(self) -> None:
        os.close(self._fd)


class Keeper:
    """The real store."""

    def __init__(self, store: Store, marker: Marker) -> None:
        self._store, self._marker = store, marker

    async def get(self, key: str) -> bytes | None:
        found = self._store.range(key.encode()).kvs
        return found[0].value if found else None

    async def put(self, key: str, value: bytes) -> None:
        result = await self._store.put(key.encode(), value)
        self._marker.say(revision=result.revision)


class MarkedSlots(Slots):
    def __init__(self, marker: Marker, *, downloads: str) -> None:
        super().__init__(RealSlotCalls(), PLACE + "/slots", downloads=downloads)
        self._marker = marker

    def put(self, record: SlotRecord) -> None:
        super().put(record)
        self._marker.say(sequence=record.sequence)


class Fetcher:
    def open_at(self, url: str, start: int) -> tuple[int, Iterator[bytes]]:
        data = program(url)
        return start, (data[at : at + PIECE] for at in range(start, len(data), PIECE))


async def update(marker: Marker, memory: Memory, version: str, *, good: bool, linked: bool) -> None:
    """In the order of course.py; linked: from the download's own bytes, else copied."""
    data, directory = program(version), PLACE + "/download"
    slots = MarkedSlots(marker, downloads=directory if linked else "")
    record = slots.load()
    assert record is not None
    running = "a" if record.a.blessed and record.a.priority == 2 else "b"
    name = other(running)  # type: ignore[arg-type]
    slot, calls = slots.slot(name), RealSlotCalls()
    sha256 = hashlib.sha256(data).hexdigest()
    offer = Offer("x", version, sha256, len(data))
    state = Rollout(Phase.DOWNLOADING, offer=offer)
    await memory.keep(state)
    calls.make_directory(directory)
    final = f"{directory}/{sha256}"
    fetch_whole(Fetcher(), version, offer, final + ".partial", progress=Progress(), alive=lambda: None)  # type: ignore[arg-type]
    calls.rename(final + ".partial", final)
    calls.sync_directory(directory)
    await memory.keep(replace(state, phase=Phase.CLEARING, slot=name))
    slot.clear()
    await memory.keep(replace(state, phase=Phase.WRITING, slot=name))
    slot.write(final)
    await memory.keep(replace(state, phase=Phase.VERIFYING, slot=name))
    slot.verify(sha256=sha256, length=len(data))
    slot.arm(version=version, sha256=sha256, tries=2, deadline=60)
    await memory.keep(replace(state, phase=Phase.ARMED, slot=name))
    calls.remove(final)
    armed = slots.record
    assert armed is not None
    entry = replace(armed.entry(name), tries=1)
    slots.put(replace(armed, sequence=armed.sequence + 1, **{name: entry}))  # as the launcher spends a try
    await memory.keep(replace(state, phase=Phase.TRIAL, slot=name))
    if good:
        slot.bless()
    else:
        slot.condemn()
    outcome = "blessed" if good else "rolled back"
    entry_of = HistoryEntry(id="", time="", from_version="", to_version=version, outcome=outcome, reason="", kind="")
    await memory.add(entry_of)
    await memory.keep(Rollout())
    marker.say(done=f"{version} {outcome}")


async def story(marker: Marker) -> None:
    store, stopping = Store(FileDisk(PLACE + "/store")), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: store.run(stopping=stopping, task_status=task_status))
        memory = Memory(Keeper(store, marker))
        slots = MarkedSlots(marker, downloads="")
        slots.load()
        slots.seed(PLACE + "/dropped", version="1.0", base="c" * 64)
        marker.say(done="1.0 seeded")
        await update(marker, memory, "2.0", good=True, linked=True)
        await update(marker, memory, "3.0", good=False, linked=True)
        await update(marker, memory, "4.0", good=True, linked=False)
        stopping.set()


def main() -> None:
    for word in sys.argv[1:]:
        device, kind, at = word.split(",")
        subprocess.run(["/bin/busybox", "mount", "-t", kind, device, PLACE], check=True)
        with open(PLACE + "/dropped", "wb") as file:
            file.write(program("1.0"))
        marker = Marker(device, int(at))
        trio.run(story, marker)
        marker.close()
        subprocess.run(["/bin/busybox", "umount", PLACE], check=True)
        print(f"DONE {kind}", flush=True)


if __name__ == "__main__":
    main()
