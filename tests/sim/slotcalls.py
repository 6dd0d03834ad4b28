"""A disk for slots that loses power: SlotCalls in memory.

Fault model: of the writes to a file that were not synced, any subset survives, the last of them perhaps torn. Of the
changes of names in a directory that were not synced, any prefix survives, in the order they were made. A name may
outlive the data that was to be in it: exactly what happens to those who rename before they sync.

``lose_power`` takes one of the disks that may be left, by the seed; ``tests.sim.left`` lists them all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from appliance.errors import NotFoundError, UnavailableError


class PowerLost(BaseException):
    """Not an Exception: nothing in the appliance may catch it."""


@dataclass(eq=False)
class SimFile:
    durable: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def now(self) -> bytes:
        return _written(self.durable, self.pending)


def _written(data: bytes, writes: list[tuple[int, bytes]]) -> bytes:
    made = bytearray(data)
    for offset, piece in writes:
        made.extend(b"\0" * (offset - len(made)))
        made[offset : offset + len(piece)] = piece
    return bytes(made)


Thing = SimFile | str  # a string is where a symbolic link points to


class SimSlotCalls:
    """``cut_at``: the number of the changing call at which the power goes; ``fail_at``: where the disk is full."""

    not_from_disk = ""

    def __init__(self, seed: int = 0, cut_at: int = 0, fail_at: int = 0, *, freeze: bool = False) -> None:
        """``freeze``: at the cut the disk stays as it is, what is synced apart from what is not."""
        self.rng = random.Random(seed)
        self.freeze = freeze
        self.broken_from = 0  # from this call on every one fails, and says so
        self.broken = "No space left on device"
        self.unreadable = ""  # reading this file from the disk fails
        self.cut_at = cut_at
        self.fail_at = fail_at
        self.calls = 0
        self.names: dict[str, Thing] = {}
        self._durable: dict[str, Thing] = {}
        self._pending: dict[str, list[tuple[str, Thing | None]]] = {}

    def change(self, what: str = "") -> None:
        """Count one changing call; here the power may go."""
        self.calls += 1
        if self.calls == self.cut_at:
            if not self.freeze:
                self.lose_power()
            raise PowerLost(f"at call {self.calls}: {what}")
        if self.calls == self.fail_at:
            raise UnavailableError(f"cannot write {what}: No space left on device")
        if self.broken_from and self.calls >= self.broken_from:
            raise UnavailableError(f"cannot write {what}: {self.broken}")

    def lose_power(self) -> None:
        for file in {id(thing): thing for thing in (*self.names.values(), *self._durable.values())}.values():
            if isinstance(file, SimFile):
                kept = [write for write in file.pending if self.rng.random() < 0.5]
                if kept and self.rng.random() < 0.5:
                    offset, piece = kept[-1]
                    kept[-1] = offset, piece[: self.rng.randint(0, len(piece))]
                file.durable, file.pending = _written(file.durable, kept), []
        for directory in list(self._pending):
            changes = self._pending.pop(directory)
            for path, thing in changes[: self.rng.randint(0, len(changes))]:
                self._settle(path, thing)
        self.names = dict(self._durable)

    def _settle(self, path: str, thing: Thing | None) -> None:
        if thing is None:
            self._durable.pop(path, None)
        else:
            self._durable[path] = thing

    def _name(self, path: str, thing: Thing | None) -> None:
        self._pending.setdefault(path.rpartition("/")[0], []).append((path, thing))
        if thing is None:
            del self.names[path]
        else:
            self.names[path] = thing

    def _file(self, path: str) -> SimFile:
        found = self.names.get(path)
        if not isinstance(found, SimFile):
            raise NotFoundError(f"cannot read {path}: No such file or directory")
        return found

    def put_durable(self, path: str, data: bytes) -> None:
        """As if it had always been there."""
        self.names[path] = self._durable[path] = SimFile(data)

    def read(self, path: str, *, size_max: int) -> bytes:
        return self._file(path).now()[:size_max] if path in self.names else b""

    def pieces(self, path: str, *, from_disk: bool = False) -> Iterator[bytes]:
        data = self._file(path).now()
        if from_disk and path == self.unreadable:
            yield data[:1000]
            raise UnavailableError(f"cannot read {path}: Input/output error")
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    def write_at(self, path: str, offset: int, data: bytes, *, mode: int = 0o644) -> None:
        self.change(path)
        if path not in self.names:
            self._name(path, SimFile())
        self._file(path).pending.append((offset, data))

    def sync(self, path: str) -> None:
        self.change(path)
        file = self._file(path)
        file.durable, file.pending = file.now(), []

    def sync_directory(self, path: str) -> None:
        self.change(path)
        for name, thing in self._pending.pop(path, []):
            self._settle(name, thing)

    def make_directory(self, path: str) -> None:
        pass

    def rename(self, old: str, new: str) -> None:
        self.change(new)
        thing = self.names[old]
        self._name(new, thing)
        self._name(old, None)

    def remove(self, path: str) -> None:
        self.change(path)
        if path in self.names:
            self._name(path, None)

    def point(self, path: str, target: str) -> None:
        self.change(path)
        self._name(path, target)

    def link(self, path: str, target: str) -> bool:
        self.change(path)
        self._name(path, self._file(target))
        return True

    def exists(self, path: str) -> bool:
        return path in self.names
