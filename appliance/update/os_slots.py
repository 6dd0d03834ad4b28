"""The two root partitions of our own image, behind the same face as ``slots``: the boot entries are its record.

Order of an update (156 replayed crash states: notes/boot-qemu.md): the entries of the other slot go first; its
partition is written, synced, read back from the disk; the kernel image under a name that is no entry, read back;
its renaming is the commit point. What the record of ``slots`` says besides (denied versions) is kept in its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from appliance.errors import (
    ApplianceError,
    ConflictError,
    CorruptError,
    NotFoundError,
    UnavailableError,
    UntrustedError,
)
from appliance.host import esp, files
from appliance.host.bundle import Bundle
from appliance.host.failpoint import reach
from appliance.host.slots import SlotCalls
from appliance.update.boot_entries import DIRECTORY, GOOD_TRIES, BootEntry, entry_version, parse_entries, parse_entry
from appliance.update.os_payload import HEADER_SIZE, OsHeader, decode_header
from appliance.update.record import SlotEntry, SlotName, SlotRecord, other
from appliance.update.slots import Slots
from appliance.update.version import parse_version

_PIECE = 1 << 20
MOUNT_POINT = "/boot"
RUNNING_ROOT = "/dev/mapper/root"
UNKNOWN = "0" * 64  # in place of the sha256 of a payload that never was here: the image as it was written to the disk
_ROOT_HASH = re.compile(rb"\broothash=([0-9a-f]{64})\b")
_HEAD_BYTES = 512 << 10  # of a kernel image: its command line is among the first of its sections


def seeds_of_os() -> list[str]:
    """The root that runs, as dm-verity vouches for it, and the kernel images of both slots, while they are lent."""
    directory = f"{MOUNT_POINT}/{DIRECTORY}"
    if not files.is_directory(directory):
        return [RUNNING_ROOT]
    return [RUNNING_ROOT, *(f"{directory}/{one.name}" for one in parse_entries(files.list_directory(directory)))]


class OsSlots(Slots):
    """``devices``: the partitions by slot; ``esp_device`` empty: ``mount_point`` is a directory (tests)."""

    def __init__(
        self,
        calls: SlotCalls,
        directory: str,
        *,
        running: SlotName,
        running_entry: str,
        devices: dict[SlotName, str],
        esp_device: str,
        mount_point: str = MOUNT_POINT,
        start_once: Callable[[str], None] = lambda name: esp.set_loader_variable("LoaderEntryOneShot", name),
    ) -> None:
        super().__init__(calls, directory)
        self.running = running
        self.devices = devices
        self._entry_name = running_entry
        self._esp_device = esp_device
        self._mount_point = mount_point
        self._start_once = start_once
        self._described: dict[SlotName, tuple[str, str]] = {}

    @property
    def running_entry(self) -> BootEntry:
        """Ours. Raises NotFoundError: we were not started by systemd-boot."""
        entry = parse_entry(self._entry_name)
        if entry is None:
            raise NotFoundError("cannot find our boot entry: the boot loader does not name one of ours")
        return entry

    @property
    def trial(self) -> bool:
        """Whether we have yet to prove ourselves."""
        entry = parse_entry(self._entry_name)
        return entry is not None and not entry.good

    def file(self, slot: SlotName) -> str:
        """Its partition."""
        return self.devices[slot]

    def load(self) -> SlotRecord | None:
        """What the boot entries say; denied versions and hashes from the file of the record, where it is whole."""
        kept = super().load() or SlotRecord()
        self.problem = ""
        own = self.running_entry
        record = replace(kept, base="")
        with self._entries() as (directory, entries):
            theirs = next((one for one in entries if one.version != own.version), None)
            mine = next((one for one in entries if one.version == own.version), own)
            self._described = {
                slot: (one.name, self._root_hash(f"{directory}/{one.name}"))
                for slot, one in ((self.running, mine), (other(self.running), theirs)) if one is not None
            }  # fmt: skip
        record = self._with_entry(record, self.running, mine)
        record = self._with_entry(record, other(self.running), theirs)
        self.record = record
        return record

    def _with_entry(self, record: SlotRecord, slot: SlotName, entry: BootEntry | None) -> SlotRecord:
        kept = record.entry(slot)
        if entry is None:
            return _put(record, slot, SlotEntry())
        same = entry_version(kept.version) == entry.version
        version, tries = kept.version if same else entry.version, GOOD_TRIES if entry.left is None else entry.left
        if entry.good:
            priority = 2 if slot == self.running else 1
        else:  # with its tries spent and nobody who said so it is still to be judged
            judged = not tries and any(entry_version(denied) == entry.version for denied, _ in record.denied)
            priority = 0 if judged else 3
        found = SlotEntry(
            version=version, sha256=kept.sha256 if same and kept.sha256 else UNKNOWN,
            priority=0 if entry.is_rotten else priority,
            tries=tries, blessed=entry.good and not entry.is_rotten,
        )  # fmt: skip
        return _put(record, slot, found)

    def running_slot(self, bundle: Bundle) -> SlotName | None:
        """The root that is mounted; the launcher knows nothing of partitions."""
        return self.running

    def _root_hash(self, path: str) -> str:
        found = _ROOT_HASH.search(self._calls.read(path, size_max=_HEAD_BYTES))
        return found[1].decode() if found else ""

    def slot(self, name: SlotName) -> OsSlot:
        """One of the two."""
        return OsSlot(self, name)

    def seed(self, source: str, *, version: str, base: str) -> SlotName:
        """Nobody drops an OS image as a file."""
        raise ConflictError(f"cannot seed a slot with {source}: partitions hold the versions of this machine")

    def holds(self, name: SlotName) -> bool:
        """Whether the slot has an entry that may start; what its partition holds, the initramfs proves."""
        record = self.load() or SlotRecord()
        return record.entry(name).blessed

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """While the worker looks for what it need not fetch."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(ApplianceError):
                held.enter_context(self._entries())
            yield

    def describe(self, name: SlotName) -> tuple[str, str]:
        """The file name of its boot entry, and the hash of the root that its kernel image asks for."""
        return self._described.get(name, ("", ""))

    def point_current(self, slot: SlotName) -> None:
        """Nothing to point: the boot loader chooses."""

    def keep_trying(self) -> None:
        """We came up well once more: give our good entry its tries back."""
        with self._entries() as (directory, entries):
            own = next((one for one in entries if one.version == self.running_entry.version), None)
            if own is not None and own.good and own.left is not None and own.left != GOOD_TRIES:
                self.rename_entry(directory, own, BootEntry(own.version, True, GOOD_TRIES))

    @contextlib.contextmanager
    def _entries(self) -> Iterator[tuple[str, tuple[BootEntry, ...]]]:
        with esp.mounted(self._esp_device, self._mount_point) as place:
            directory = f"{place}/{DIRECTORY}"
            yield directory, parse_entries(files.list_directory(directory))

    @contextlib.contextmanager
    def at_entries(self) -> Iterator[tuple[str, tuple[BootEntry, ...]]]:
        """The directory of the boot entries, and those that are ours."""
        with self._entries() as found:
            yield found

    def rename_entry(self, directory: str, old: BootEntry, new: BootEntry) -> None:
        """Durable when it returns; ours keeps being ours under its new name."""
        if old.name != new.name:
            self._calls.rename(f"{directory}/{old.name}", f"{directory}/{new.name}")
            self._calls.sync_directory(directory)
        if parse_entry(self._entry_name) is not None and old.version == self.running_entry.version:
            self._entry_name = new.name

    def start_once(self, entry: BootEntry) -> None:
        """An older version has to be asked for: by itself the boot loader takes the newest."""
        self._start_once(entry.name)

    def keep_record(self, record: SlotRecord) -> None:
        """What no boot entry can hold."""
        super().put(record)

    @property
    def calls(self) -> SlotCalls:
        """The door."""
        return self._calls


class OsSlot:
    """Root a or b, and its kernel image on the ESP."""

    def __init__(self, slots: OsSlots, name: SlotName) -> None:
        self._slots = slots
        self._calls = slots.calls
        self.name = name
        self._device = slots.devices[name]
        self._header: OsHeader | None = None

    def clear(self) -> None:
        """Nothing starts from it: every entry but the running one's goes, and what an update left half written."""
        if self.name == self._slots.running:
            raise ConflictError(f"cannot clear slot {self.name}: we run from it")
        own = self._slots.running_entry
        with self._slots.at_entries() as (directory, _):
            for name in files.list_directory(directory):
                entry = parse_entry(name)
                if name.startswith("appliance_") and (entry is None or entry.version != own.version):
                    self._calls.remove(f"{directory}/{name}")
            self._calls.sync_directory(directory)
        reach("update.clear.record")

    def write(self, source: str) -> None:
        """The root into the partition, the kernel image under a name that nothing starts."""
        header = self._read_header(source)
        with self._slots.at_entries() as (directory, _):
            kernel = f"{directory}/{self._temp_name(header.version)}"
            self._calls.remove(kernel)
            offset = 0
            for piece in self._calls.pieces(source):
                for start in range(0, len(piece), _PIECE):
                    self._put(header, offset, piece[start : start + _PIECE], kernel)
                    offset += len(piece[start : start + _PIECE])
                    reach("update.write.piece")
            if offset != header.length:
                sizes = f"{offset} bytes, not {header.length}"
                raise UnavailableError(f"cannot write slot {self.name}: {source} has {sizes}", where=source)
            self._calls.sync(self._device)
            self._calls.sync(kernel)
            self._calls.sync_directory(directory)
        self._keep_header(header)

    def _put(self, header: OsHeader, offset: int, piece: bytes, kernel: str) -> None:
        end = offset + len(piece)
        root = piece[max(0, HEADER_SIZE - offset) : max(0, header.kernel_at - offset)]
        if root and offset < header.kernel_at and end > HEADER_SIZE:
            self._calls.write_at(self._device, max(offset, HEADER_SIZE) - HEADER_SIZE, root, mode=0o600)
        if end > header.kernel_at:
            at = max(offset, header.kernel_at)
            self._calls.write_at(kernel, at - header.kernel_at, piece[at - offset :])

    def verify(self, *, sha256: str, length: int) -> None:
        """Read both back from the disk, compare. Raises UntrustedError."""
        header = self._kept_header()
        digest, size = hashlib.sha256(header.encode()), HEADER_SIZE
        with self._slots.at_entries() as (directory, _):
            kernel = f"{directory}/{self._temp_name(header.version)}"
            for path, count in ((self._device, header.root_size), (kernel, header.kernel_size)):
                left = count
                for piece in self._calls.pieces(path, from_disk=True):
                    digest.update(piece[:left])
                    left -= len(piece[:left])
                    if not left:
                        break
                size += count - left
            if (digest.hexdigest(), size) != (sha256, length):
                self._calls.remove(kernel)
                raise UntrustedError(
                    f"cannot use slot {self.name}: read back {size} bytes with sha256 {digest.hexdigest()}, signed are "
                    f"{length} bytes with sha256 {sha256}",
                    where=self._device,
                )
        reach("update.verify.read")

    def arm(self, *, version: str, sha256: str, tries: int, deadline: int) -> None:
        """The renaming is the commit point."""
        record = self._slots.record or SlotRecord()
        armed = record.armed(self.name, version=version, sha256=sha256, tries=tries, deadline=deadline)
        self._slots.keep_record(armed)
        entry = BootEntry(entry_version(version), good=False, left=tries)
        with self._slots.at_entries() as (directory, entries):
            if any(one.version == entry.version for one in entries):
                raise ConflictError(f"cannot start {version} from slot {self.name}: a boot entry has that version")
            temp = f"{directory}/{self._temp_name(self._kept_header().version)}"
            self._calls.rename(temp, f"{directory}/{entry.name}")
            self._calls.sync_directory(directory)
        reach("update.arm.renamed")
        if not is_newer(entry, self._slots.running_entry):
            self._slots.start_once(entry)
        self._slots.load()

    def bless(self) -> None:
        """It proved itself; what would come before it by its version only is set back."""
        self._rename(lambda own: BootEntry(own.version, good=True, left=GOOD_TRIES))
        own = self._slots.running_entry
        with self._slots.at_entries() as (directory, entries):
            for entry in entries:
                if self.name == self._slots.running and is_newer(entry, own) and entry.may_start:
                    last = BootEntry(entry.version, entry.good, left=0, done=0 if entry.good else max(1, entry.done))
                    self._slots.rename_entry(directory, entry, last)
        self._slots.load()
        self._slots.keep_record((self._slots.record or SlotRecord()).blessed_as(self.name))
        self._slots.load()  # its tries, as its entry has them

    def condemn(self) -> None:
        """No tries are left to it; its version is never taken again."""
        record = self._slots.load() or SlotRecord()
        with self._slots.at_entries() as (directory, entries):  # first what shall start in its place
            for entry in entries:
                is_running = entry.version == self._slots.running_entry.version
                if is_running != (self.name == self._slots.running) and entry.good and not entry.is_rotten:
                    self._slots.rename_entry(directory, entry, BootEntry(entry.version, True, GOOD_TRIES))
        self._rename(lambda own: BootEntry(own.version, own.good, left=0, done=max(1, own.done)))
        self._slots.keep_record(record.condemned(self.name))
        self._slots.load()

    def _rename(self, changed: Callable[[BootEntry], BootEntry]) -> None:
        own, is_running = self._slots.running_entry, self.name == self._slots.running
        with self._slots.at_entries() as (directory, entries):
            for entry in entries:
                if (entry.version == own.version) == is_running:
                    self._slots.rename_entry(directory, entry, changed(entry))

    def _read_header(self, source: str) -> OsHeader:
        for piece in self._calls.pieces(source):
            return decode_header(piece[:HEADER_SIZE])
        raise UntrustedError(f"cannot use the payload: {source} is empty")

    def _temp_name(self, version: str) -> str:
        return f"appliance_{entry_version(version)}.tmp"

    def _header_file(self) -> str:
        return f"{self._slots.directory}/{self.name}/header"

    def _keep_header(self, header: OsHeader) -> None:
        path = self._header_file()
        self._calls.make_directory(path.rpartition("/")[0])
        self._calls.write_at(path, 0, header.encode())
        self._calls.sync(path)
        self._calls.sync_directory(path.rpartition("/")[0])

    def _kept_header(self) -> OsHeader:
        data = self._calls.read(self._header_file(), size_max=HEADER_SIZE)
        if not data:
            raise CorruptError(f"cannot use slot {self.name}: nothing was written into it", where=self._header_file())
        return decode_header(data)


def _put(record: SlotRecord, slot: SlotName, entry: SlotEntry) -> SlotRecord:
    return replace(record, a=entry) if slot == "a" else replace(record, b=entry)


def is_newer(entry: BootEntry, than: BootEntry) -> bool:
    """Whether the boot loader would take it first, tries being equal."""
    try:
        return parse_version(entry.version.replace("_", "+")) > parse_version(than.version.replace("_", "+"))
    except ApplianceError:
        return entry.version > than.version
