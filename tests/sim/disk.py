"""A disk in memory that loses power at any operation, runs out of room, and fails once. Deterministic by its seed.

The fault model: what is not synced survives in any subset of 512-byte sectors; a sector that was never durable may hold
noise; names survive in the order they were changed, up to a point. A failed sync leaves its pages readable and clean:
they never reach the disk unless they are written anew (as Linux does it).
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.errors import ApplianceError, NotFoundError, UnavailableError
from appliance.host.disk import DiskFile, NoRoomError

SECTOR = 512


class PowerLost(BaseException):
    """Not an Exception: nothing in the appliance may catch it."""


@dataclass
class Inode:
    durable: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)  # what reads show
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None): truncate

    def apply(self, content: bytearray, offset: int, data: bytes | None) -> None:
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data


class SimDisk:
    def __init__(self, seed: int = 0, *, cut_at: int = 0, room: int | None = None) -> None:
        self.rng = random.Random(seed)
        self.cut_at = cut_at
        self.room = room
        self.operations = 0
        self.dark = False
        self.names_seen: dict[str, Inode] = {}
        self.names_durable: dict[str, Inode] = {}
        self.names_pending: list[Callable[[dict[str, Inode]], None]] = []
        self.faults: dict[int, int] = {}  # operation number -> errno, once
        self.fault_of: Callable[[str, str], int] = lambda kind, name: 0  # (kind, name) -> errno

    # what a test asks

    def rebooted(self) -> SimDisk:
        """What the disk holds after the power came back."""
        other = SimDisk(self.rng.randrange(1 << 30))
        other.names_durable = {name: Inode(i.durable[:], i.durable[:]) for name, i in self.names_durable.items()}
        other.names_seen = dict(other.names_durable)
        return other

    def cut(self) -> None:
        """Lose power now, without an operation under way."""
        if not self.dark:
            self._lose_power()

    # Disk

    def create(self, name: str) -> DiskFile:
        self._operation("create", name)
        inode = Inode()

        def make(names: dict[str, Inode]) -> None:
            names[name] = inode

        self._rename_op(make)
        return SimFile(self, inode, name)

    def open(self, name: str) -> DiskFile:
        self._alive()
        if name not in self.names_seen:
            raise NotFoundError(f"cannot open {name}: no such file")
        return SimFile(self, self.names_seen[name], name)

    def prepare(self) -> None:
        self._alive()

    def names(self) -> list[str]:
        self._alive()
        return sorted(self.names_seen)

    def rename(self, old: str, new: str) -> None:
        self._operation("rename", old)

        def move(names: dict[str, Inode]) -> None:
            if old in names:
                names[new] = names.pop(old)

        self._rename_op(move)

    def remove(self, name: str) -> None:
        self._operation("remove", name)
        self._rename_op(lambda names: names.pop(name, None) and None)

    def sync_names(self) -> None:
        self._operation("sync_names", ".")
        self.names_durable = dict(self.names_seen)
        self.names_pending.clear()

    def path(self, name: str) -> str:
        return f"/sim/{name}"

    # inside

    def _rename_op(self, change: Callable[[dict[str, Inode]], None]) -> None:
        change(self.names_seen)
        self.names_pending.append(change)

    def _alive(self) -> None:
        if self.dark:
            raise PowerLost

    def _operation(self, kind: str, name: str) -> None:
        """Counts, and is where everything goes wrong. The operation itself may then be half done, or not at all."""
        self._alive()
        self.operations += 1
        number = self.faults.pop(self.operations, 0) or self.fault_of(kind, name)
        if number:
            raise as_error(number, kind, name)
        if self.operations == self.cut_at:
            self._lose_power()
            raise PowerLost

    def _lose_power(self) -> None:
        self.dark = True
        kept = self.rng.randint(0, len(self.names_pending))
        for change in self.names_pending[:kept]:
            change(self.names_durable)
        inodes = {id(i): i for i in (*self.names_durable.values(), *self.names_seen.values())}
        for inode in inodes.values():
            self._tear(inode)

    def _tear(self, inode: Inode) -> None:
        mood = self.rng.choice(("all", "none", "prefix", "some", "some"))
        left = self.rng.randint(0, sum(len(d or b"") // SECTOR + 1 for _, d in inode.pending)) if inode.pending else 0
        for offset, data in inode.pending:
            if data is None:
                if mood == "all" or (mood != "none" and self.rng.random() < 0.5):
                    inode.apply(inode.durable, offset, None)
                continue
            at = offset
            while at < offset + len(data):
                end = min((at // SECTOR + 1) * SECTOR, offset + len(data))
                piece = data[at - offset : end - offset]
                left -= 1
                keep = {"all": True, "none": False, "prefix": left >= 0, "some": self.rng.random() < 0.5}[mood]
                old = bytes(inode.durable[at:end])
                if keep:
                    inode.apply(inode.durable, at, piece)
                elif mood == "some" and old != piece and not old.strip(b"\0") and self.rng.random() < 0.2:
                    inode.apply(inode.durable, at, self.rng.randbytes(len(piece)))
                at = end


class SimFile:
    def __init__(self, disk: SimDisk, inode: Inode, name: str) -> None:
        self._disk = disk
        self._inode = inode
        self._name = name
        self._open = True

    def read(self, size: int, offset: int) -> bytes:
        self._disk._alive()
        if not self._open:
            raise UnavailableError(f"cannot read {self._name}: bad file descriptor")
        number = self._disk.fault_of("read", self._name)
        if number:
            raise as_error(number, "read", self._name)
        return bytes(self._inode.seen[offset : offset + size])

    def write(self, data: bytes, offset: int) -> None:
        disk, inode = self._disk, self._inode
        end = offset + len(data)
        if disk.room is not None and end > len(inode.seen):
            used = sum(len(i.seen) for i in disk.names_seen.values())
            if used + end - max(len(inode.seen), offset) > disk.room:
                part = disk.rng.randint(0, len(data) // 2)
                self._put(data[:part], offset)
                raise as_error(errno.ENOSPC, "write", self._name)
        before = disk.cut_at and disk.operations + 1 == disk.cut_at
        if before:  # under way when the power goes: any part of it may be there
            self._put(data, offset)
        try:
            disk._operation("write", self._name)
        except ApplianceError:
            self._put(data[: disk.rng.randint(0, len(data))], offset)
            raise
        self._put(data, offset)

    def _put(self, data: bytes, offset: int) -> None:
        self._inode.apply(self._inode.seen, offset, data)
        self._inode.pending.append((offset, data))

    def sync(self) -> None:
        try:
            self._disk._operation("sync", self._name)
        except ApplianceError as exc:
            self._inode.pending.clear()
            raise UnavailableError(f"cannot sync {self._name}: {exc}") from exc
        for offset, data in self._inode.pending:
            self._inode.apply(self._inode.durable, offset, data)
        self._inode.pending.clear()

    def truncate(self, size: int) -> None:
        self._disk._operation("truncate", self._name)
        self._inode.apply(self._inode.seen, size, None)
        self._inode.pending.append((size, None))

    def size(self) -> int:
        self._disk._alive()
        return len(self._inode.seen)

    def close(self) -> None:
        self._open = False


def as_error(number: int, verb: str, name: str) -> ApplianceError:
    """As FileDisk translates it."""
    kind = NoRoomError if number in (errno.ENOSPC, errno.EDQUOT) and verb != "sync" else UnavailableError
    return kind(f"cannot {verb} {name}: {os.strerror(number)}")
