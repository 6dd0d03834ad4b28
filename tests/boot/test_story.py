"""The life of one machine of our own image, on the real built binary: updates that go well and those that do not.

One disk through all of it. What was there before, a unit and a key of the store, is there at the end. Its core alone:
``pytest -m boot``.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host import block_devices
from tests.boot.esp_image import boot_entries
from tests.boot.fleet import BINARY, Fleet, copy_disk, logged_drive, power_on
from tests.boot.replay import Replay, Version
from tests.boot.vm import CODE, VM
from tests.boot.write_log import read_log

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
    pytest.mark.skipif(not BINARY.exists(), reason="needs dist/appliance: ./build.sh"),
]
STATES = 150
LONG = 400.0  # of a machine without KVM beside others
DYING = "int main(void) { return 1; }"


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="boot-story-") as place:
        yield Path(place)


@pytest.fixture(scope="module")
def fleet(work: Path) -> Iterator[Fleet]:
    fleet = Fleet(work).begin()
    yield fleet
    fleet.end()


@pytest.fixture(scope="module")
def machine(fleet: Fleet, work: Path) -> Iterator[VM]:
    fleet.build("1.0.0")
    disk, log = fleet.disk(work / "machine.img", "1.0.0"), work / "writes"
    copy_disk(disk, work / "before.img")
    with log.open("wb") as file:
        file.truncate(1 << 30)
    vm = power_on(disk, work, drive=logged_drive(disk, log))  # up to the first blessing
    yield vm
    if vm.is_on:
        vm.cut_power()
    vm.log.close()


def entries(vm: VM) -> list[str]:
    assert vm.disk is not None
    return boot_entries(vm.disk)


def compiled(work: Path, name: str, source: str) -> bytes:
    """A static /init."""
    (work / f"{name}.c").write_text(source)
    subprocess.run(["gcc", "-static", "-O1", "-o", work / name, work / f"{name}.c"], check=True)
    return (work / name).read_bytes()


def wait_version(vm: VM, version: str, *said: str) -> None:
    """Until that version is up, and has said all that, in whatever order."""
    vm.wait(rf"appliance: version {re.escape(version)}, slot", LONG)
    vm.wait_all(r" ready; status page", *said, timeout=LONG)


@pytest.mark.boot
def test_the_first_boot(machine: VM) -> None:
    wait_version(machine, "1.0.0", r"KEPT nothing in appliance 1\.0\.0")


@pytest.mark.boot
def test_an_update_over_http_is_blessed(machine: VM, fleet: Fleet) -> None:
    fleet.build("2.0.0")
    fleet.publish("2.0.0")
    machine.wait("update switching", LONG)
    machine.wait(r"appliance: version 2\.0\.0, slot b", LONG)
    assert entries(machine) == ["appliance_1.0.0.good+3.efi", "appliance_2.0.0+2-1.efi"]
    machine.wait_all(r" ready; status page", r"update blessed: version=2\.0\.0", timeout=LONG)
    assert entries(machine) == ["appliance_1.0.0.good+3.efi", "appliance_2.0.0.good+3.efi"]


@pytest.mark.boot
def test_power_may_go_at_any_write(machine: VM, fleet: Fleet, work: Path) -> None:
    machine.cut_power()
    table = block_devices.read_table(str(work / "before.img"))
    esp, slot_a, slot_b = (table.find(name) for name in ("esp", "root-a", "root-b"))
    assert esp is not None
    assert slot_a is not None
    assert slot_b is not None
    entries = read_log(work / "writes")
    assert not [one for one in entries if one.data and slot_a.start <= one.at < slot_a.end], "it wrote where it runs"
    versions = {
        version: Version(hashlib.sha256(parts.uki).hexdigest(), parts.root.file.read_bytes())
        for version, parts in fleet.parts.items()
    }  # fmt: skip
    replay = Replay(work / "before.img", esp, slot_b, versions, "1.0.0", work / "esp.scratch")
    count = replay.run(entries, most=STATES)
    print(f"{len(entries)} writes, {count} states: {dict(replay.started)}")
    assert not replay.bad, f"{len(replay.bad)} of {count}: {replay.bad[:5]}"
    assert count > STATES // 3
    assert {name.split("+")[0] for name in replay.started} >= {"appliance_1.0.0.good", "appliance_2.0.0"}
    for name in ("writes", "before.img", "esp.scratch"):
        (work / name).unlink()


@pytest.mark.boot
def test_it_stays_when_power_comes_back(machine: VM) -> None:
    machine.drive = None
    machine.start()
    wait_version(machine, "2.0.0", r"KEPT first in appliance 2\.0\.0")


@pytest.mark.boot
def test_a_version_that_dies_at_once_has_three_tries(machine: VM, fleet: Fleet, work: Path) -> None:
    fleet.build("3.0.0", root_of="2.0.0", init=compiled(work, "dying", DYING))
    before = machine.resets()
    fleet.publish("3.0.0")
    machine.wait("update switching", LONG)
    for left in (2, 1, 0):
        machine.wait("Kernel panic", LONG)
        assert f"appliance_3.0.0+{left}-{3 - left}.efi" in entries(machine)
    back = r"update rolled back: version=3\.0\.0 \(3\.0\.0 used up its 3 starts"
    wait_version(machine, "2.0.0", back, r"KEPT first in appliance 2\.0\.0")
    assert machine.resets() - before >= 4  # the update, and three tries


def test_a_version_that_is_not_well_is_gone_back_from(machine: VM, fleet: Fleet) -> None:
    fleet.build("4.0.0", marked=False)
    fleet.publish("4.0.0")
    machine.wait("update switching", LONG)
    wait_version(machine, "4.0.0")
    wait_version(machine, "2.0.0", r"update rolled back: version=4\.0\.0 \(.*unit web, healthy before")


def test_a_version_that_hangs_is_reset_by_the_watchdog(machine: VM, fleet: Fleet) -> None:
    fleet.build("5.0.0", root_of="2.0.0", arguments="appliance.watchdog=10 appliance.test=hang")
    fleet.publish("5.0.0")
    machine.wait("update switching", LONG)
    before = machine.count("WATCHDOG")
    wait_version(machine, "2.0.0", r"update rolled back: version=5\.0\.0", r"KEPT first in appliance 2\.0\.0")
    assert machine.count("WATCHDOG") - before == 3


@pytest.mark.boot
def test_the_disk_is_whole_at_the_end(machine: VM, work: Path) -> None:
    assert machine.disk is not None
    for _ in range(40):  # its button is looked at once the drivers are loaded
        machine.ask("system_powerdown")
        with contextlib.suppress(TimeoutError):
            machine.wait("the power button was pressed", 10)
            break
    machine.wait_off(LONG)
    table = block_devices.read_table(str(machine.disk))
    for name, command in (("esp", ["fsck.vfat", "-n"]), ("state", ["e2fsck", "-fn"])):
        partition = table.find(name)
        assert partition is not None
        part = work / f"{name}.part"
        with machine.disk.open("rb") as disk, part.open("wb") as out:
            disk.seek(partition.start)
            shutil.copyfileobj(_Limited(disk, partition.size), out, 1 << 20)
        checked = subprocess.run([*command, part], capture_output=True, text=True)
        assert checked.returncode == 0, f"{name}: {checked.stdout}{checked.stderr}"


class _Limited:
    """So many bytes of a file."""

    def __init__(self, file: object, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(min(size, self._left))  # type: ignore[attr-defined]
        self._left -= len(data)
        return data
