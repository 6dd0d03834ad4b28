"""The two slots of our own binary: every sequence of disk calls, each safe to cut anywhere.

Order of an update: say in the record that the other slot holds nothing; remove its file; write a temporary one, sync,
read back, compare with what was signed; rename, sync the directory; arm (one record write, the commit point).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Protocol

from appliance.errors import ApplianceError, CorruptError, UnavailableError, UntrustedError
from appliance.host.bundle import Bundle
from appliance.host.failpoint import reach
from appliance.host.slots import SlotCalls
from appliance.update.record import (
    COPY_SIZE,
    SLOTS,
    SlotEntry,
    SlotName,
    SlotRecord,
    format_copy,
    other,
    read_record,
)

_PIECE = 1 << 20


class Slot(Protocol):
    """One place for a version of one product; the OS image and a user's bundle will be others of this shape."""

    def clear(self) -> None:
        """Make sure that nothing starts from it, then empty it."""

    def write(self, source: str) -> None:
        """Copy the fetched file into it, under a name that nothing starts."""

    def verify(self, *, sha256: str, length: int) -> None:
        """Read back, compare, give it its name. Raises UntrustedError."""

    def arm(self, *, version: str, sha256: str, tries: int, deadline: int) -> None:
        """It is started next, at most ``tries`` times. The commit point."""

    def bless(self) -> None:
        """It proved itself."""

    def condemn(self) -> None:
        """It is never started again, its version never taken again."""


class Slots:
    """The record and both slots. ``record`` is what the disk holds, as far as we know. Synchronous."""

    beside = False  # whether a switch leaves this process as it is: then no launcher is needed

    def __init__(self, calls: SlotCalls, directory: str, *, downloads: str = "") -> None:
        """``downloads``: what lies below it is ours alone, and need not be copied."""
        self._calls = calls
        self._downloads = downloads
        self.directory = directory
        self.record: SlotRecord | None = None
        self.problem = ""
        self.link_problem = ""
        self._first = 1  # the copy to overwrite first

    @property
    def record_file(self) -> str:
        """What the launcher reads."""
        return f"{self.directory}/record"

    def file(self, slot: SlotName) -> str:
        """What the launcher starts."""
        return f"{self.directory}/{slot}/appliance"

    def load(self) -> SlotRecord | None:
        """Read the record; None when there is none, or (``problem`` says so) none that is whole."""
        data = self._calls.read(self.record_file, size_max=2 * COPY_SIZE)
        self.problem = ""
        try:
            self.record, self._first = read_record(data)
        except CorruptError as exc:
            self.record, self._first, self.problem = None, 1, f"{exc.message} ({self.record_file})"
        return self.record

    def running_slot(self, bundle: Bundle) -> SlotName | None:
        """The slot that runs; None: we are a file that a person dropped, and no slot holds us yet."""
        return "a" if bundle.slot == "a" else "b" if bundle.slot == "b" else None

    def spend(self, slot: SlotName) -> None:
        """A start begins: the launcher, or the boot loader, has counted it."""

    def is_download(self, path: str) -> bool:
        """Whether nobody but us has that file."""
        return bool(self._downloads) and path.startswith(self._downloads + "/")

    def slot(self, name: SlotName) -> Slot:
        """One of the two."""
        return BinarySlot(self, name)

    def put(self, record: SlotRecord) -> None:
        """Write the record: the older copy first, synced, then the newer; one of them is whole at every instant."""
        data = format_copy(record)
        is_new = not self._calls.exists(self.record_file)
        if is_new:
            self._calls.make_directory(self.directory)
        for number in (self._first, 1 - self._first):
            self._calls.write_at(self.record_file, number * COPY_SIZE, data)
            reach(f"update.record.unsynced-{number}")
            self._calls.sync(self.record_file)
            if is_new:
                self._calls.sync_directory(self.directory)
            reach(f"update.record.copy-{number}")
        self.record, self._first = record, 1

    def point_current(self, slot: SlotName) -> None:
        """``current`` is for a launcher that finds both copies of the record broken; without it all else still holds.

        Never raises: where there is no room for a link, what the record says is done all the same.
        """
        try:
            self._point_current(slot)
        except ApplianceError as exc:
            self.link_problem = exc.message

    def _point_current(self, slot: SlotName) -> None:
        temp = f"{self.directory}/current.tmp"
        self._calls.remove(temp)
        self._calls.point(temp, slot)
        reach("update.current.made")
        self._calls.rename(temp, f"{self.directory}/current")
        reach("update.current.renamed")
        self._calls.sync_directory(self.directory)

    def seed(self, source: str, *, version: str, base: str) -> SlotName:
        """Take a binary that a person dropped as a blessed version. The blessed slot that ran last stays as it is."""
        record = self.record or SlotRecord()
        sha256, length = self.measure(source)
        for name in SLOTS:  # it is there already: a copy of it was dropped, or a seeding was cut off late
            if record.entry(name).sha256 == sha256 and self.holds(name):
                self.put(record.seeded(name, version=version, sha256=sha256, base=base))
                self.point_current(name)
                return name
        best = max(SLOTS, key=lambda name: (record.entry(name).blessed, record.entry(name).priority, name == "b"))
        name = other(best)
        slot = self.slot(name)
        slot.clear()
        slot.write(source)
        slot.verify(sha256=sha256, length=length)
        self.put((self.record or SlotRecord()).seeded(name, version=version, sha256=sha256, base=base))
        self.point_current(name)
        return name

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """What the slots hold can be read by whoever looks for seeds (``seeds``)."""
        yield

    def describe(self, name: SlotName) -> tuple[str, str]:
        """Of an OS: the boot entry and the root hash of that slot."""
        return "", ""

    @property
    def not_from_disk(self) -> str:
        """Why the slot that was verified last could not be read back from the medium itself."""
        return self._calls.not_from_disk

    def measure(self, path: str, *, from_disk: bool = False) -> tuple[str, int]:
        """sha256 and length."""
        digest, length = hashlib.sha256(), 0
        for piece in self._calls.pieces(path, from_disk=from_disk):
            digest.update(piece)
            length += len(piece)
        return digest.hexdigest(), length

    def holds(self, name: SlotName) -> bool:
        """Whether the slot's file is, byte by byte, what the record says."""
        entry = (self.record or SlotRecord()).entry(name)
        return bool(entry.sha256) and self._calls.exists(self.file(name)) and (
            self.measure(self.file(name))[0] == entry.sha256
        )  # fmt: skip


class BinarySlot:
    """A or b."""

    def __init__(self, slots: Slots, name: SlotName) -> None:
        self._slots = slots
        self._calls = slots._calls
        self.name = name
        self._directory = f"{slots.directory}/{name}"
        self._file = slots.file(name)
        self._temp = self._file + ".tmp"

    def clear(self) -> None:
        """Make sure that nothing starts from it, then empty it."""
        record = self._slots.load()
        if record is not None and record.entry(self.name) != SlotEntry():
            self._slots.put(record.cleared(self.name))
        reach("update.clear.record")
        self._calls.make_directory(self._directory)
        self._calls.remove(self._file)
        reach("update.clear.removed")
        self._calls.remove(self._temp)
        self._calls.sync_directory(self._directory)

    def write(self, source: str) -> None:
        """Copy the fetched file into it, under a name that nothing starts. A download needs only another name."""
        self._calls.make_directory(self._directory)
        self._calls.remove(self._temp)
        if self._slots.is_download(source) and self._calls.link(self._temp, source):
            self._calls.write_at(self._temp, 0, b"", mode=0o755)
            self._calls.sync(self._temp)
            self._calls.sync_directory(self._directory)
            reach("update.write.piece")
            return
        offset = 0
        try:
            for piece in _regular(self._calls.pieces(source)):
                self._calls.write_at(self._temp, offset, piece, mode=0o755)
                offset += len(piece)
                reach("update.write.piece")
            if not offset:
                raise UnavailableError(f"cannot write slot {self.name}: {source} is empty", where=source)
            self._calls.sync(self._temp)
        except ApplianceError:  # of no use, and on a full disk in everybody's way
            with contextlib.suppress(ApplianceError):
                self._calls.remove(self._temp)
            raise

    def verify(self, *, sha256: str, length: int) -> None:
        """Read back, compare, give it its name. Raises UntrustedError."""
        found, size = self._slots.measure(self._temp, from_disk=True)
        if (found, size) != (sha256, length):
            self._calls.remove(self._temp)
            raise UntrustedError(
                f"cannot use slot {self.name}: read back {size} bytes with sha256 {found}, signed are {length} bytes "
                f"with sha256 {sha256}",
                where=self._temp,
            )
        reach("update.verify.read")
        self._calls.rename(self._temp, self._file)
        reach("update.verify.renamed")
        self._calls.sync_directory(self._directory)

    def arm(self, *, version: str, sha256: str, tries: int, deadline: int) -> None:
        """It is started next, at most ``tries`` times. The commit point."""
        record = self._known()
        self._slots.put(record.armed(self.name, version=version, sha256=sha256, tries=tries, deadline=deadline))

    def bless(self) -> None:
        """It proved itself."""
        self._slots.put(self._known().blessed_as(self.name))
        self._slots.point_current(self.name)

    def condemn(self) -> None:
        """It is never started again, its version never taken again."""
        self._slots.put(self._known().condemned(self.name))
        self._slots.point_current(other(self.name))

    def _known(self) -> SlotRecord:
        known = self._slots.record
        if self._slots.load() is None:  # another launcher may have spent a try since we last looked
            self._slots.record = known
        if self._slots.record is None:
            where = self._slots.record_file
            raise CorruptError(f"cannot change slot {self.name}: there is no slot record", where=where)
        return self._slots.record


def _regular(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            yield piece[start : start + _PIECE]
