"""Every disk that a power cut may leave while an OS update is written, as the boot loader would find it.

From the log of the guest's writes (write_log): the prefixes of all that changed the ESP, and subsets of what no flush
had followed. Each must start the old version or the new one, and what is started must be whole, kernel and root.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.host.gpt import Partition
from tests.boot.loader import pick
from tests.boot.write_log import Entry

Writes = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Version:
    """What must be found of it: its kernel image's hash, its root."""

    kernel: str
    root: bytes


@dataclass
class Replay:
    """``slot``: the partition that is written; the other one may not be touched."""

    before: Path
    esp: Partition
    slot: Partition
    versions: Mapping[str, Version]
    old: str
    scratch: Path
    bad: list[str] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)

    def run(self, entries: list[Entry], *, most: int, seed: int = 1) -> int:
        """How many states were looked at."""
        rng = random.Random(seed)
        self._esp, self._slot = (bytearray(self._read(part)) for part in (self.esp, self.slot))
        pending: Writes = []
        touching = [number for number, one in enumerate(entries) if self._inside(one.at, self.esp) and one.data]
        small = [number for number in touching if len(entries[number].data) <= 8192]
        chosen = set(small if len(small) <= most // 3 else rng.sample(small, most // 3))
        bulk = [number for number in touching if number not in small]
        chosen |= set(rng.sample(bulk, min(len(bulk), most // 10)))
        count = 0
        for number, one in enumerate(entries):
            if one.flush:
                self._apply(pending, self._esp, self._slot)
                pending = []
            if one.data and one.lasting:
                self._apply([(one.at, one.data)], self._esp, self._slot)
            elif one.data and (self._inside(one.at, self.esp) or self._inside(one.at, self.slot)):
                pending.append((one.at, one.data))
            if number in chosen:
                self._look(pending, f"after write {number}")
                share = rng.choice((0.2, 0.5, 0.8))
                self._look([write for write in pending if rng.random() < share], f"a subset at write {number}")
                self._look(_torn(pending, rng), f"torn at write {number}")
                count += 3
        self._look(pending, "at the end")
        return count + 1

    def _look(self, writes: Writes, name: str) -> None:
        esp = bytearray(self._esp)
        slot_writes = [one for one in writes if self._inside(one[0], self.slot)]
        self._apply([one for one in writes if self._inside(one[0], self.esp)], esp, bytearray())
        self.scratch.write_bytes(esp)
        listed = subprocess.run(["mdir", "-b", "-i", self.scratch, "::EFI/Linux"], capture_output=True, text=True)
        names = [os.path.basename(line) for line in listed.stdout.split()]
        kernels = {name: kernel for name in names if (kernel := self._kernel(name))[:2] == b"MZ"}  # others: not listed
        entry = pick(kernels)
        if entry is None:
            self.bad.append(f"{name}: nothing starts: {names} {listed.stderr}")
            return
        self.started[entry.name] += 1
        wanted, kernel = self.versions[entry.version], kernels[entry.name]
        if hashlib.sha256(kernel).hexdigest() != wanted.kernel:
            self.bad.append(f"{name}: {entry.name} is torn, of {names}")
        if entry.version != self.old:
            slot = bytearray(self._slot)
            self._apply(slot_writes, bytearray(), slot)
            if slot[: len(wanted.root)] != wanted.root:
                self.bad.append(f"{name}: {entry.name} is whole, and its root is not")

    def _kernel(self, name: str) -> bytes:
        read = ["mcopy", "-n", "-i", self.scratch, f"::EFI/Linux/{name}", "-"]
        return subprocess.run(read, capture_output=True).stdout

    def _read(self, part: Partition) -> bytes:
        with self.before.open("rb") as file:
            file.seek(part.start)
            return file.read(part.size)

    def _inside(self, at: int, part: Partition) -> bool:
        return part.start <= at < part.end

    def _apply(self, writes: Iterable[tuple[int, bytes]], esp: bytearray, slot: bytearray) -> None:
        for at, data in writes:
            part, target = (self.esp, esp) if self._inside(at, self.esp) else (self.slot, slot)
            if self._inside(at, part):
                target[at - part.start : at - part.start + len(data)] = data


def _torn(writes: Writes, rng: random.Random) -> Writes:
    """All but the last few, which are there by sectors."""
    kept = writes[:-4]
    for at, data in writes[-4:]:
        kept += [(at + n, data[n : n + 512]) for n in range(0, len(data), 512) if rng.random() < 0.5]
    return kept
