"""The driver of the machines: whatever happens to QEMU, a machine is on or off, and says so once. Nothing is booted."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.vm import CODE, GONE, VM, MachineGone

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not CODE.exists(), reason="needs QEMU and OVMF"),
]
MOMENTS = [0.0, 0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.024, 0.032, 0.064, 0.128]


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[VM]:
    vm = VM(None, tmp_path, memory=64)
    yield vm
    vm.put_away()


def is_away(vm: VM) -> bool:
    assert vm._run is not None
    return not vm.is_on and vm._run.process.returncode is not None and vm._run.serial.fileno() == -1


def test_after_its_reset_button_it_is_another_qemu(vm: VM) -> None:
    vm.start()
    assert vm.ask("query-status")["return"]["running"] is True
    first = vm._run
    for count in (1, 2):
        vm.ask("system_reset")
        vm.wait_reset(count)
        assert vm.ask("query-status")["return"]["running"] is True
    assert vm._run is not first
    assert vm.resets() == 2
    vm.cut_power()
    assert is_away(vm)
    assert vm.lines.count(GONE) == 1


def test_its_power_may_be_cut_at_any_moment_of_a_restart(vm: VM) -> None:
    for number, moment in enumerate(MOMENTS, 1):
        vm.start()
        vm.ask("system_reset")
        time.sleep(moment)
        vm.cut_power()
        assert is_away(vm)
        assert vm.lines.count(GONE) == number, "each end is told once"


def test_its_power_may_be_cut_at_any_moment_of_a_start(vm: VM) -> None:
    for moment in MOMENTS:
        vm.start()
        time.sleep(moment)
        vm.cut_power()
        assert is_away(vm)


def test_whoever_waits_when_it_ends_hears_of_it(vm: VM) -> None:
    vm.start()
    said: list[str] = []

    def ask() -> None:
        try:
            while True:
                vm.ask("query-status")
        except MachineGone:
            said.append("asked")

    def wait() -> None:
        try:
            vm.wait("nothing says this")
        except MachineGone:
            said.append("waited")

    threads = [threading.Thread(target=one) for one in (ask, ask, wait)]
    for one in threads:
        one.start()
    assert vm._run is not None
    vm._run.process.kill()  # not by our switch
    for one in threads:
        one.join(60)
    assert sorted(said) == ["asked", "asked", "waited"]
    assert is_away(vm)
    for call in (lambda: vm.ask("query-status"), lambda: vm.wait("nothing says this")):
        with pytest.raises(MachineGone):  # and at once, when it is off
            call()


def test_a_qemu_that_cannot_start_is_off(vm: VM) -> None:
    vm.extra = ["-device", "no-such-device"]
    vm.start()
    with pytest.raises(MachineGone):
        vm.ask("query-status")
    vm.wait_off()
    assert is_away(vm)
    assert "no-such-device" in (vm.work / "vm.serial.log").read_text()


def test_what_is_no_reset_is_an_end(vm: VM) -> None:
    vm.start()
    vm.ask("quit")
    vm.wait_off()
    assert vm.resets() == 0
    assert is_away(vm)
