"""Limits hold on a kernel that has all cgroup v2 controllers, which this host may lack: in QEMU, on Debian's own.

Debian's Python and our modules lie in the initramfs; there is no disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from units.stage import spawn_program

from boot.vm import VM

HOUSE = Path(__file__).parents[2]
sys.path.insert(0, str(HOUSE / "packaging/image"))

pytestmark = pytest.mark.qemu
INIT = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
export PATH=/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
{python} -B /guest.py > /dev/ttyS0 2>&1
/bin/busybox poweroff -f
"""
_LIST = """
import ctypes, encodings.ascii, encodings.latin_1, encodings.unicode_escape, stat, subprocess, sys
import appliance.host.cgroups, appliance.host.group_usage, appliance.host.kernel, appliance.units.fences
import appliance.units.cgroup_programs, appliance.units.device_program
import appliance.units.sandbox_filter, appliance.units.system_call_groups, appliance.units.system_call_numbers
print(*{one.__file__ for one in list(sys.modules.values()) if getattr(one, "__file__", None)}, sep="\\n")
"""


def files_of_python(python: str, listing: str = _LIST) -> set[Path]:
    """What it loads for our modules, and the libraries that these need."""
    listed = subprocess.run([python, "-c", listing], capture_output=True, text=True, check=True, cwd=HOUSE).stdout
    found = {Path(line) for line in listed.splitlines() if line.startswith("/")}
    binaries = {Path(python).resolve(), *(one for one in found if one.suffix == ".so")}
    for binary in binaries:
        told = subprocess.run(["ldd", binary], capture_output=True, text=True).stdout
        found |= {Path(one) for one in re.findall(r"(/\S+) \(0x", told)}
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    from cpio import Cpio  # type: ignore[import-not-found]
    from kernel import fetch_kernel  # type: ignore[import-not-found]

    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64")
    work = tmp_path_factory.mktemp("fences")
    python = sys.executable
    real = Path(python).resolve()
    archive = Cpio()
    for name in ("proc", "sys", "dev", "tmp", "var/tmp", "run", "etc"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    for path in files_of_python(python):
        archive.file(str(path), path.read_bytes(), 0o755)
        cached = path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"
        if path.suffix == ".py" and cached.exists():
            archive.file(str(cached), cached.read_bytes())
    archive.file(str(real), real.read_bytes(), 0o755)
    archive.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    archive.file("bin/sh", Path("/bin/busybox").read_bytes(), 0o755)
    archive.file("spawn", Path(spawn_program()).read_bytes(), 0o755)
    paths = ":".join(dict.fromkeys([str(HOUSE), *(one for one in sys.path if "site-packages" in one)]))
    archive.file("guest.py", (Path(__file__).parent / "guest_fences.py").read_bytes())
    archive.file("init", INIT.format(python=f"PYTHONPATH={paths} {real}").encode(), 0o755)
    initrd = work / "initrd"
    initrd.write_bytes(archive.finish())
    machine = VM(None, work, memory=512)
    try:
        kernel = fetch_kernel(HOUSE / ".build/kernel")
        machine.start(kernel=kernel.image, initrd=initrd, append="console=ttyS0 panic=-1 quiet")
        found: dict[str, str] = {}
        while "done" not in found:
            name, _, text = machine.wait(r"CHECK ", 240).partition("CHECK ")[2].partition(":")
            found[name] = text.strip()
        yield found
    finally:
        if machine.is_on:
            machine.cut_power()
        machine.log.close()


def test_values_are_in_the_kernel(told: dict[str, str]) -> None:
    assert told["controllers"] == "cpu cpuset io memory pids"
    assert told["values"] == "67108864 33554432 1048576 1048576 1 50 25000/100000 0 20"


def test_too_much_memory_kills_the_whole_group(told: dict[str, str]) -> None:
    assert told["memory"] == "'' -9 -9 True"


def test_no_more_tasks_than_allowed(told: dict[str, str]) -> None:
    assert told["tasks"] == "7 11 8 True"


def test_a_quota_of_the_cpu_holds(told: dict[str, str]) -> None:
    assert told["cpu"].startswith("True"), told["cpu"]


def test_a_delegated_group_is_its_user_s(told: dict[str, str]) -> None:
    assert told["delegated"] == "0 cpu cpuset io memory pids"


def test_files_are_fenced_in_an_initramfs_that_cannot_pivot(told: dict[str, str]) -> None:
    assert told["protected"] == "30 /sys/fs/cgroup/x 30 /x made /tmp/x"


def test_devices_are_fenced_by_a_program_of_the_kernel(told: dict[str, str]) -> None:
    assert told["devices"] == "0 0 1 1"
