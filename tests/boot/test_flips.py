"""A byte of the disk flips, in the version that is started or in the other one: what comes up is a version that is
whole, and of the one that is not, nothing is run. Two good versions, 1.0.0 in slot a and 2.0.0 in slot b.

What the initramfs alone decides is shown without firmware and loader; what hangs on the loader, with both. All flips
in both slots, each with the loader: APPLIANCE_TEST_FLIPS=1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from appliance.host import block_devices
from tests.boot import esp_image
from tests.boot.fleet import Fleet, copy_disk
from tests.boot.guest import make_disk
from tests.boot.versions import BINARY, take_image
from tests.boot.vm import CODE, VM

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
]
ALL = pytest.mark.skipif("APPLIANCE_TEST_FLIPS" not in os.environ, reason="APPLIANCE_TEST_FLIPS=1")
SOON = '[update.health]\nsettle = "2s"\n'  # then a good entry has its tries again
LONG = 240.0  # of a machine without KVM beside others
OLD, NEW = "appliance_1.0.0.good+3.efi", "appliance_2.0.0.good+3.efi"
OLD_RUNS, NEW_RUNS = r"appliance: version 1\.0\.0, slot a", r"appliance: version 2\.0\.0, slot b"
CONDEMNED = r"condemned appliance_2\.0\.0\.good"
STARTS = "starting Boot0001"  # by the firmware
NO_INIT = r"Kernel panic.*VFS: Unable to mount root fs"


@dataclass(frozen=True)
class Fleeting:
    """The disk, and what its two versions are made of."""

    disk: Path
    versions: dict[str, Any]


@pytest.fixture(scope="module")
def two() -> Iterator[Fleeting]:
    with tempfile.TemporaryDirectory(prefix="boot-flips-") as place:
        work = Path(place)
        fleet = Fleet(work)
        for version in ("1.0.0", "2.0.0"):
            fleet.build(version)
        fleet.plain_disk(work / "one.img", "1.0.0")
        whole = replace(take_image("1.0.0"), disk=work / "one.img")
        disk = make_disk(whole, work / "two.img", {"/etc/appliance/appliance.toml": SOON})
        new = fleet.parts["2.0.0"]
        slot = block_devices.read_table(str(disk)).find("root-b")
        assert slot is not None
        with disk.open("r+b") as file:
            file.seek(slot.start)
            file.write(new.root.file.read_bytes())
        esp_image.add_entry(disk, NEW, new.uki)
        yield Fleeting(disk, fleet.parts)


# -- where the parts lie -----------------------------------------------------------------------------------------------

Where = Callable[[Path, Any, int], int]
"""(disk, parts of the version, where its slot begins) -> the byte."""


def in_library(disk: Path, parts: Any, slot: int) -> int:
    """A page that every start of ours needs: where Python begins."""
    tree = f"/usr/lib/appliance/{_directory(parts.root.file)}/_internal/libpython3.11.so.1.0"
    told = subprocess.run(["dump.erofs", "-e", f"--path={tree}", parts.root.file], capture_output=True, text=True)
    found = re.search(r"^ *0: .*\| .*: *(\d+)\.\.", told.stdout, re.MULTILINE)
    assert found, (told.stdout + told.stderr)[:1000]
    return slot + int(found[1]) + 100


def _directory(root: Path) -> str:
    told = subprocess.run(["dump.erofs", "--ls", "--path=/usr/lib/appliance", root], capture_output=True, text=True)
    found = re.search(r"\b[0-9a-f]{64}\b", told.stdout)
    assert found, told.stdout + told.stderr
    return found[0]


def in_superblock(disk: Path, parts: Any, slot: int) -> int:
    return slot + 1024 + 8


def in_tree(disk: Path, parts: Any, slot: int) -> int:
    """The topmost block, which the signed hash is of."""
    return slot + (parts.root.blocks + 1) * 4096 + 5


def in_tree_header(disk: Path, parts: Any, slot: int) -> int:
    """The name of the release that the tree belongs to."""
    return slot + parts.root.blocks * 4096 + 16 + 3


def in_kernel(disk: Path, parts: Any, slot: int) -> int:
    kernel = parts.kernel.read_bytes()
    return esp_image.find_kernel(disk, parts.uki) + parts.uki.index(kernel[:4096]) + len(kernel) * 2 // 3


def in_unpacker(disk: Path, parts: Any, slot: int) -> int:
    """What comes before the kernel proper and has no sum but ours: code for a BIOS, which no UEFI machine runs."""
    return esp_image.find_kernel(disk, parts.uki) + parts.uki.index(parts.kernel.read_bytes()[:4096]) + 0x800


def in_initrd(disk: Path, parts: Any, slot: int) -> int:
    """Of our own program, which is its last part."""
    return esp_image.find_kernel(disk, parts.uki) + parts.uki.index(parts.initrd) + len(parts.initrd) - 60_000


def in_command_line(disk: Path, parts: Any, slot: int) -> int:
    """A word of it that means nothing then: no lockdown."""
    return esp_image.find_kernel(disk, parts.uki) + parts.uki.index(b"lockdown=integrity") + 12


def in_entry_begin(disk: Path, parts: Any, slot: int) -> int:
    return esp_image.first_cluster(esp_image.find_directory_entry(disk, parts.uki))


def in_entry_length(disk: Path, parts: Any, slot: int) -> int:
    return esp_image.length(esp_image.find_directory_entry(disk, parts.uki))


def in_entry_name(disk: Path, parts: Any, slot: int) -> int:
    """Of its short name, which the long one is bound to by a sum."""
    return esp_image.find_directory_entry(disk, parts.uki) + 2


@dataclass(frozen=True)
class Flip:
    """``said``: on the console, in this order, when it is in what is started. ``starts``: of the machine until then."""

    name: str
    where: Where
    said: tuple[str, ...]
    starts: int = 1
    bit: int = 4


FLIPS = [
    Flip("a file of the root", in_library, (NEW_RUNS, "Kernel panic", "slot b: it does not hold", CONDEMNED), 3),
    Flip("the root's superblock", in_superblock, ("slot b: cannot mount it", CONDEMNED), 2),
    Flip("the hash tree", in_tree, ("slot b: cannot mount it", CONDEMNED), 2),
    Flip("the tree's header", in_tree_header, (CONDEMNED,), 2),
    Flip("the kernel", in_kernel, (), 4),
    Flip("the code that unpacks it", in_unpacker, ("the kernel image is not what was built", CONDEMNED), 2),
    Flip("the initramfs", in_initrd, (NO_INIT,) * 3, 4),
    Flip("the command line", in_command_line, ("the command line is not what was built", CONDEMNED), 2),
    Flip("where the entry begins", in_entry_begin, (), 1),
    Flip("how long the entry is", in_entry_length, (), 4, bit=6),
    Flip("the entry's name", in_entry_name, (NEW_RUNS,), 1),
]
BY_NAME = {flip.name: flip for flip in FLIPS}


def flip_in(two: Fleeting, disk: Path, version: str, *flips: Flip) -> None:
    parts = two.versions[version]
    slot = block_devices.read_table(str(disk)).find("root-a" if version == "1.0.0" else "root-b")
    assert slot is not None
    places = [(flip.where(disk, parts, slot.start), flip.bit) for flip in flips]  # looked for in what is whole yet
    with disk.open("r+b") as file:
        for at, bit in places:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))


def run(
    disk: Path, work: Path, said: tuple[str, ...], *, until: Callable[[], bool] = lambda: True, **direct: Any
) -> VM:  # fmt: skip
    """Until all of that was said, and so it is; then the power is cut."""
    vm = VM(disk, work, name="flips", extra=["-device", "i6300esb", "-action", "watchdog=reset"])
    vm.start(**direct)
    try:
        for pattern in said:
            vm.wait(pattern, LONG)
        limit = time.monotonic() + LONG
        while not until():
            assert time.monotonic() < limit, vm.last()
            time.sleep(0.5)
    finally:
        vm.put_away()
    return vm


def lines(vm: VM, pattern: str) -> list[str]:
    return [line for line in vm.lines if re.search(pattern, line)]


# -- by the loader -----------------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("name", BY_NAME)
def test_in_the_version_that_is_started(two: Fleeting, tmp_path: Path, name: str) -> None:
    flip, disk = BY_NAME[name], copy_disk(two.disk, tmp_path / "flips.img")
    flip_in(two, disk, "2.0.0", flip)
    last = () if NEW_RUNS in flip.said[-1:] else (OLD_RUNS,)
    vm = run(disk, tmp_path, flip.said + last)
    check(flip, vm, disk)


def check(flip: Flip, vm: VM, disk: Path) -> None:
    """Nothing but what ``said`` names ran of it, and no try more was spent than has to be."""
    assert len(lines(vm, NEW_RUNS)) == flip.said.count(NEW_RUNS), vm.last(30)
    assert len(lines(vm, STARTS)) == flip.starts, vm.last(30)
    left = [name for name in esp_image.boot_entries(disk) if "2.0.0" in name]
    if CONDEMNED in flip.said:
        assert left == ["appliance_2.0.0.good+0-1.efi"]
    if flip.starts == 4:
        assert left == ["appliance_2.0.0.good+0-3.efi"]


@ALL
@pytest.mark.parametrize("name", BY_NAME)
def test_in_the_other_version(two: Fleeting, tmp_path: Path, name: str) -> None:
    disk = copy_disk(two.disk, tmp_path / "flips.img")
    flip_in(two, disk, "1.0.0", BY_NAME[name])
    vm = run(disk, tmp_path, (NEW_RUNS,))
    assert len(lines(vm, STARTS)) == 1


@pytest.mark.parametrize("name", ["the kernel", "how long the entry is"])
def test_a_kernel_that_cannot_be_started_spends_its_try(two: Fleeting, tmp_path: Path, name: str) -> None:
    disk = copy_disk(two.disk, tmp_path / "flips.img")
    flip_in(two, disk, "2.0.0", BY_NAME[name])
    esp_image.rename_entry(disk, NEW, "appliance_2.0.0.good+1-2.efi")
    vm = run(disk, tmp_path, (OLD_RUNS,))
    assert not lines(vm, NEW_RUNS)
    assert len(lines(vm, STARTS)) == 2
    assert "appliance_2.0.0.good+0-3.efi" in esp_image.boot_entries(disk)


@pytest.mark.parametrize(
    "name", ["the root's superblock", "the code that unpacks it", "where the entry begins", "the entry's name"]
)
def test_found_by_whoever_starts_it(two: Fleeting, tmp_path: Path, name: str) -> None:
    flip, disk = BY_NAME[name], copy_disk(two.disk, tmp_path / "flips.img")
    flip_in(two, disk, "2.0.0", flip)
    last = () if NEW_RUNS in flip.said[-1:] else (OLD_RUNS,)
    check(flip, run(disk, tmp_path, flip.said + last), disk)


def test_what_rots_in_the_other_version_is_not_looked_at(two: Fleeting, tmp_path: Path) -> None:
    disk = copy_disk(two.disk, tmp_path / "flips.img")
    flip_in(two, disk, "1.0.0", *FLIPS)
    vm = run(disk, tmp_path, (NEW_RUNS,))
    assert len(lines(vm, STARTS)) == 1


def test_where_nothing_is_whole_it_says_so_and_can_be_mended(two: Fleeting, tmp_path: Path) -> None:
    """It restarts only after a while; written again, the version starts, and is as good as it was."""
    disk, parts = copy_disk(two.disk, tmp_path / "flips.img"), two.versions["2.0.0"]
    flip_in(two, disk, "2.0.0", BY_NAME["the hash tree"])
    flip_in(two, disk, "1.0.0", BY_NAME["the root's superblock"])
    said = (
        CONDEMNED,
        "slot a: cannot mount it",
        "condemned appliance_1.0.0.good",
        "THIS MACHINE CANNOT START: vda holds",
    )
    vm = run(disk, tmp_path, (*said, "vda4, was not touched", "trying again in 60 seconds"))
    assert len(lines(vm, STARTS)) == 2
    assert esp_image.boot_entries(disk) == ["appliance_1.0.0.good+0-1.efi", "appliance_2.0.0.good+0-1.efi"]
    slot = block_devices.read_table(str(disk)).find("root-b")
    assert slot is not None
    with disk.open("r+b") as file:  # as somebody does who has the image
        file.seek(slot.start)
        file.write(parts.root.file.read_bytes())
    whole = ["appliance_1.0.0.good+0-1.efi", NEW]
    run(disk, tmp_path, (NEW_RUNS,), until=lambda: esp_image.boot_entries(disk) == whole)


# -- without it --------------------------------------------------------------------------------------------------------

DIRECT = {
    "a file of the root": "slot b: it does not hold what was signed",
    "the root's superblock": "slot b: cannot mount it",
    "the hash tree": "slot b: cannot mount it",
    "the tree's header": "no boot loader names our entry",
    "the initramfs": NO_INIT,
    "the command line": "the command line is not what was built",
}


@pytest.mark.parametrize("name", DIRECT)
def test_found_before_anything_of_it_is_run(two: Fleeting, tmp_path: Path, name: str) -> None:
    disk, parts = copy_disk(two.disk, tmp_path / "flips.img"), two.versions["2.0.0"]
    initrd, words = bytearray(parts.initrd), parts.command_line
    if name == "the initramfs":
        initrd[-60_000] ^= 16
    elif name == "the command line":
        words = words.replace("lockdown=integrity", "lockdown=intecrity")
    else:
        flip_in(two, disk, "2.0.0", BY_NAME[name])
    (tmp_path / "initrd").write_bytes(initrd)
    if name == "a file of the root":  # it is read to its end, as after a start that failed
        words += " appliance.verify=always"
    vm = run(disk, tmp_path, (DIRECT[name],), kernel=parts.kernel, initrd=tmp_path / "initrd", append=words)
    assert not lines(vm, "appliance: version")
