"""Two root partitions and their boot entries, on files: cut anywhere, what starts is whole, the next update works."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.errors import ConflictError, UntrustedError
from appliance.host.slots import RealSlotCalls
from appliance.update.boot_entries import BootEntry, parse_entry
from appliance.update.os_payload import OsHeader
from appliance.update.os_slots import OsSlots
from appliance.update.record import SlotName, other
from tests.boot.loader import count, pick

ROOT_SIZE = 5 * 4096


class Cut(BaseException):
    pass


class CutCalls(RealSlotCalls):
    """Ends at the n-th call that changes something, half of it done."""

    def __init__(self, cut_at: int = 0) -> None:
        self.cut_at, self.calls = cut_at, 0

    def _change(self) -> bool:
        self.calls += 1
        return self.calls == self.cut_at

    def write_at(self, path: str, offset: int, data: bytes, *, mode: int = 0o644) -> None:
        cut = self._change()
        super().write_at(path, offset, data[: len(data) // 2] if cut else data, mode=mode)
        if cut:
            raise Cut

    def rename(self, old: str, new: str) -> None:
        if self._change():
            raise Cut
        super().rename(old, new)

    def remove(self, path: str) -> None:
        if self._change():
            raise Cut
        super().remove(path)

    def sync(self, path: str) -> None:
        if self._change():
            raise Cut
        super().sync(path)


class Disk:
    """A machine with 1.0.0 in slot a."""

    def __init__(self, place: Path) -> None:
        self.place, self.once = place, ""
        self.entries = place / "esp/EFI/Linux"
        self.entries.mkdir(parents=True)
        for name in ("root-a", "root-b"):
            (place / name).write_bytes(b"\xee" * (8 * 4096))
        (place / "root-a").write_bytes(root("1.0.0"))
        (self.entries / "appliance_1.0.0.good+3.efi").write_bytes(kernel("1.0.0"))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.entries.iterdir())

    def start(self, calls: CutCalls | None = None) -> OsSlots:
        """What the boot loader does, then what we know of it."""
        entry = pick(self.names(), self.once)
        self.once = ""
        assert entry is not None, f"nothing starts: {self.names()}"
        counted = count(entry)
        (self.entries / entry.name).rename(self.entries / counted.name)
        assert (self.entries / counted.name).read_bytes() == kernel(counted.version), "a torn kernel image is started"
        slot = next((s for s in ("a", "b") if self.root_of(s).startswith(root(counted.version))), None)
        assert slot is not None, f"no slot holds {counted.version}"
        running: SlotName = "a" if slot == "a" else "b"
        return OsSlots(
            calls or CutCalls(), str(self.place / "state"), running=running, running_entry=counted.name,
            devices={"a": str(self.place / "root-a"), "b": str(self.place / "root-b")}, esp_device="",
            mount_point=str(self.place / "esp"), start_once=lambda name: setattr(self, "once", name),
        )  # fmt: skip

    def root_of(self, slot: str) -> bytes:
        return (self.place / f"root-{slot}").read_bytes()


def root(version: str) -> bytes:
    return f"root {version} ".encode().ljust(16, b".") * (ROOT_SIZE // 16)


def kernel(version: str) -> bytes:
    hash_ = hashlib.sha256(version.encode()).hexdigest()
    return f"MZ roothash={hash_} ".encode() + f"kernel {version} ".encode() * 300


def payload(place: Path, version: str) -> tuple[str, str, int]:
    header = OsHeader(
        version=version, root_size=ROOT_SIZE, kernel_size=len(kernel(version)), identity="x", roothash="00"
    )
    data = header.encode() + root(version) + kernel(version)
    file = place / f"{version}.os"
    file.write_bytes(data)
    return str(file), hashlib.sha256(data).hexdigest(), len(data)


def update(disk: Disk, slots: OsSlots, version: str, tries: int = 3) -> None:
    file, sha256, length = payload(disk.place, version)
    slots.load()
    slot = slots.slot(other(slots.running))
    slot.clear()
    slot.write(file)
    slot.verify(sha256=sha256, length=length)
    slot.arm(version=version, sha256=sha256, tries=tries, deadline=600)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_an_update_is_tried_blessed_and_stays(disk: Disk) -> None:
    update(disk, disk.start(), "2.0.0")
    assert disk.names() == ["appliance_1.0.0.good+2-1.efi", "appliance_2.0.0+3.efi"]
    slots = disk.start()
    record = slots.load()
    assert slots.running == "b"
    assert slots.trial
    assert record is not None
    assert (record.b.on_trial, record.b.tries, record.a.blessed) == (True, 2, True)
    assert len(record.b.sha256) == 64
    slots.slot("b").bless()
    assert disk.names() == ["appliance_1.0.0.good+2-1.efi", "appliance_2.0.0.good+3.efi"]
    again = disk.start().load()
    assert again is not None
    assert (again.b.blessed, again.a.blessed) == (True, True)


def test_both_slots_are_described(disk: Disk) -> None:
    update(disk, disk.start(), "2.0.0")
    slots = disk.start()
    slots.load()
    assert slots.describe("a") == ("appliance_1.0.0.good+2-1.efi", hashlib.sha256(b"1.0.0").hexdigest())
    assert slots.describe("b") == ("appliance_2.0.0+2-1.efi", hashlib.sha256(b"2.0.0").hexdigest())


def test_tries_that_are_spent_lead_back_and_are_judged_once(disk: Disk) -> None:
    update(disk, disk.start(), "2.0.0")
    for _ in range(3):
        assert disk.start().running == "b"
    slots = disk.start()
    assert slots.running == "a"
    record = slots.load()
    assert record is not None
    assert (record.b.on_trial, record.b.tries) == (True, 0)
    slots.slot("b").condemn()
    judged = slots.load()
    assert judged is not None
    assert not judged.b.on_trial
    assert judged.denied[0][0] == "2.0.0"
    assert disk.start().running == "a"


def test_a_trial_that_condemns_itself_is_not_started_again(disk: Disk) -> None:
    update(disk, disk.start(), "2.0.0")
    slots = disk.start()
    slots.load()
    slots.slot("b").condemn()
    assert "appliance_2.0.0+0-1.efi" in disk.names()
    assert disk.start().running == "a"


def test_an_older_version_is_asked_for_once_and_then_comes_first(disk: Disk) -> None:
    update(disk, disk.start(), "0.9.0")
    slots = disk.start()
    assert slots.running == "b"
    slots.load()
    slots.slot("b").bless()
    assert disk.names() == ["appliance_0.9.0.good+3.efi", "appliance_1.0.0.good+0.efi"]
    assert disk.start().running == "b"
    slots = disk.start()
    record = slots.load()
    assert record is not None
    assert record.a.blessed
    slots.slot("b").condemn()  # by hand: back to the newer one
    assert "appliance_1.0.0.good+3.efi" in disk.names()
    assert disk.start().running == "a"


def test_a_good_start_gives_the_tries_back(disk: Disk) -> None:
    disk.start()
    slots = disk.start()
    assert disk.names() == ["appliance_1.0.0.good+1-2.efi"]
    slots.keep_trying()
    assert disk.names() == ["appliance_1.0.0.good+3.efi"]
    slots.keep_trying()
    assert disk.names() == ["appliance_1.0.0.good+3.efi"]


def test_a_good_version_that_cannot_start_any_more_gives_way_to_the_other(disk: Disk) -> None:
    update(disk, disk.start(), "2.0.0")
    slots = disk.start()
    slots.load()
    slots.slot("b").bless()
    for _ in range(3):
        assert disk.start().running == "b"
    slots = disk.start()
    assert slots.running == "a"
    record = slots.load()
    assert record is not None
    assert (record.b.blessed, record.b.on_trial) == (False, False)


def test_what_was_not_signed_is_not_armed(disk: Disk) -> None:
    slots = disk.start()
    file, sha256, length = payload(disk.place, "2.0.0")
    slots.load()
    slot = slots.slot("b")
    slot.clear()
    slot.write(file)
    with (disk.place / "root-b").open("r+b") as partition:
        partition.seek(5000)
        partition.write(b"?")
    with pytest.raises(UntrustedError, match="read back"):
        slot.verify(sha256=sha256, length=length)
    assert disk.names() == ["appliance_1.0.0.good+2-1.efi"]


def test_the_running_slot_is_never_cleared(disk: Disk) -> None:
    slots = disk.start()
    with pytest.raises(ConflictError, match="we run from it"):
        slots.slot("a").clear()


def _steps() -> Iterator[tuple[str, Callable[[Disk, OsSlots], None]]]:
    yield "update", lambda disk, slots: update(disk, slots, "2.0.0")
    yield "older", lambda disk, slots: update(disk, slots, "0.9.0")


@pytest.mark.parametrize(("name", "step"), list(_steps()), ids=lambda one: one if isinstance(one, str) else "")
def test_cut_anywhere_in_an_update(tmp_path: Path, name: str, step: Callable[[Disk, OsSlots], None]) -> None:
    cut_at, cuts = 1, 0
    while True:
        place = tmp_path / str(cut_at)
        place.mkdir()
        disk, calls = Disk(place), CutCalls(cut_at)
        try:
            step(disk, disk.start(calls))
        except Cut:
            cuts += 1
        else:
            break
        slots = disk.start()  # asserts that what starts is whole
        slots.load()
        version = parse_entry(slots.running_entry.name)
        assert version is not None
        if slots.running == "a":
            update(disk, slots, "3.0.0")  # and the next one succeeds
            assert disk.start().running == "b"
        cut_at += 1
    assert cuts > 10


@pytest.mark.parametrize("act", ["bless", "condemn"])
def test_cut_anywhere_in_the_verdict(tmp_path: Path, act: str) -> None:
    cut_at, cuts = 1, 0
    while True:
        place = tmp_path / str(cut_at)
        place.mkdir()
        disk, calls = Disk(place), CutCalls(cut_at)
        update(disk, disk.start(), "2.0.0")
        slots = disk.start(calls)
        slots.load()
        try:
            getattr(slots.slot("b"), act)()
        except Cut:
            cuts += 1
        else:
            assert disk.start().running == ("b" if act == "bless" else "a")
            break
        after = disk.start()
        record = after.load()
        assert record is not None
        assert record.a.blessed
        cut_at += 1
    assert cuts >= 3


def test_names_of_entries() -> None:
    for name, entry in {
        "appliance_1.0.0.efi": BootEntry("1.0.0", True, None),
        "appliance_1.0.0.good+3.efi": BootEntry("1.0.0", True, 3),
        "appliance_1.0.0.good+0.efi": BootEntry("1.0.0", True, 0),
        "appliance_2.0.0-rc.1+2-1.efi": BootEntry("2.0.0-rc.1", False, 2, 1),
    }.items():
        assert parse_entry(name) == entry
    assert parse_entry("appliance_2.0.0.tmp") is None
    assert parse_entry("appliance_1.0.0.good+3.efi").name == "appliance_1.0.0.good+3.efi"  # type: ignore[union-attr]
