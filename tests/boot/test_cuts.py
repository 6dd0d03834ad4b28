"""The power goes again and again while an OS update is written, at another place each time; nobody does anything but
switch it on again. Up to the commit the old version comes up and goes on with the update by itself; then the new one.

All six places: APPLIANCE_TEST_CUTS=1; else three.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.host import block_devices
from tests.boot.esp_image import boot_entries, find_kernel
from tests.boot.fleet import BINARY, Fleet, power_on
from tests.boot.vm import CODE, VM

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
]
LONG = 400.0
ROOM = "APPLIANCE_FAILPOINT=" + "x" * 40  # on the kernel's command line of the old version


@dataclass(frozen=True)
class Cut:
    """At a failpoint of ours, or when so much of the root has come to the disk. ``always``: see above."""

    name: str
    always: bool = False
    failpoint: str = "none"
    share: float | None = None


CUTS = [
    Cut("the other slot's entry is gone", failpoint="update.clear.record"),
    Cut("the first bytes of the root", share=0.0),
    Cut("half of the root", always=True, share=0.5),
    Cut("the root's last bytes", share=1.0),
    Cut("root and kernel image were read back", always=True, failpoint="update.verify.read"),
    Cut("the entry has its name", always=True, failpoint="update.arm.renamed"),
]
CUTS = [one for one in CUTS if one.always or "APPLIANCE_TEST_CUTS" in os.environ]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="boot-cuts-") as place:
        fleet = Fleet(Path(place)).begin()
        fleet.build("1.0.0", arguments=ROOM)
        fleet.build("2.0.0")
        fleet.publish("2.0.0")
        yield fleet
        fleet.end()


def arm(disk: Path, words_at: int, words: str, failpoint: str) -> None:
    """The command line with that failpoint, in its place on the disk."""
    armed = words.rpartition(" ")[0].replace(ROOM, f"APPLIANCE_FAILPOINT={failpoint}".ljust(len(ROOM)))
    armed += f" appliance.sum={zlib.crc32(armed.encode()):08x}"
    with disk.open("r+b") as file:
        file.seek(words_at)
        assert len(file.read(len(words))) == len(armed)
        file.seek(words_at)
        file.write(armed.encode())


def wait_written(disk: Path, at: int, wanted: bytes) -> None:
    """Until these bytes are on the disk."""
    limit = time.monotonic() + LONG
    with disk.open("rb", buffering=0) as file:
        while os.pread(file.fileno(), len(wanted), at) != wanted:
            assert time.monotonic() < limit
            time.sleep(0.001)


def cut(vm: VM, one: Cut, slot: int, root: bytes) -> None:
    if one.share is None:
        vm.wait("Kernel panic", LONG)
    else:
        vm.wait("update writing", LONG)
        block = int((len(root) // 4096 - 1) * one.share) * 4096
        while not any(root[block : block + 4096]):  # else it is there already
            block += 4096 if one.share == 0 else -4096
        assert vm.disk is not None
        wait_written(vm.disk, slot + block, root[block : block + 4096])
    vm.cut_power()


def test_power_goes_while_an_update_is_written(fleet: Fleet, tmp_path: Path) -> None:
    old: Any = fleet.parts["1.0.0"]
    root = fleet.parts["2.0.0"].root.file.read_bytes()
    disk = fleet.disk(tmp_path / "cuts.img", "1.0.0")
    words_at = find_kernel(disk, old.uki) + old.uki.index(old.command_line.encode())
    slot = block_devices.read_table(str(disk)).find("root-b")
    assert slot is not None
    vm: VM | None = None
    try:
        for one in CUTS:
            arm(disk, words_at, old.command_line, one.failpoint)
            vm = vm.start() if vm else power_on(disk, tmp_path)
            vm.wait(r"appliance: version 1\.0\.0, slot a", LONG)
            cut(vm, one, slot.start, root)
            names = boot_entries(disk)
            assert names[0].startswith("appliance_1.0.0.good+"), (one, names)
            assert names[1:] == (["appliance_2.0.0+3.efi"] if one is CUTS[-1] else []), (one, names)
        assert vm is not None
        vm.start()
        vm.wait(r"appliance: version 2\.0\.0, slot b", LONG)
        vm.wait_all(r"update blessed: version=2\.0\.0", r"KEPT first in appliance 2\.0\.0", timeout=LONG)
        assert sum("KEPT nothing" in line for line in vm.lines) <= 1, "the key was lost on the way"
        assert boot_entries(disk) == ["appliance_1.0.0.good+3.efi", "appliance_2.0.0.good+3.efi"]
    finally:
        if vm is not None:
            vm.put_away()
