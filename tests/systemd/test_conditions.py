"""Conditions hold where systemd-analyze says that they do, on this host."""

from __future__ import annotations

import subprocess

import pytest

from appliance.host.conditions import holds
from appliance.schema import Source
from appliance.systemd import convert
from appliance.units.conditions import unmet
from appliance.units.unit_file import parse_unit

ASKED = (
    "Capability=CAP_SYS_ADMIN", "Capability=cap_chown", "Capability=CAP_SYS_RESOURCE", "Capability=CAP_BPF",
    "ACPower=true", "ACPower=false", "ACPower=!no", "FirstBoot=yes", "FirstBoot=no", "NeedsUpdate=!/var",
    "Security=selinux", "Security=!apparmor", "Security=ima", "Security=uefi-secureboot",
    "Security=nothing", "ControlGroupController=v1", "ControlGroupController=v2", "CPUFeature=fpu",
    "CPUFeature=sse2", "CPUFeature=nonsense", "OSRelease=ID=debian", "OSRelease=ID=fedora",
    "OSRelease=VERSION_ID>=11", "OSRelease=VERSION_ID<12", "OSRelease=VERSION_ID==12 ID=debian",
    'OSRelease=ID="debian" VERSION_ID!=9', "OSRelease=NOTHING=x", "OSRelease=VERSION_ID>12.1",
    "Credential=nothing", "Firmware=uefi", "Firmware=device-tree", "Firmware=device-tree-compatible(x)",
    "KernelVersion=>=3.1", "KernelVersion=!<4.0", "KernelVersion=<2.6", "Architecture=|!arm", "Architecture=x86-64",
    "PathExists=/etc/os-release", "PathExists=!/etc/os-release", "PathExistsGlob=/etc/os-*", "PathIsDirectory=/etc",
    "PathIsMountPoint=/proc", "PathIsReadWrite=/proc/sys/kernel", "PathIsReadWrite=/sys",
    "PathIsReadWrite=/nowhere", "DirectoryNotEmpty=/etc", "FileNotEmpty=/etc/passwd",
    "FileIsExecutable=/bin/sh", "FileIsExecutable=/etc/passwd", "User=root", "User=@system", "User=12345",
    "Group=root", "Group=nogroup", "CPUs=>=1", "CPUs=>100000", "Memory=>1M", "Memory=<1M",
    "KernelCommandLine=nothing=at_all", "Virtualization=nothing", "Host=nothing-of-that-name",
)  # fmt: skip


def asked(condition: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["systemd-analyze", "condition", f"Condition{condition}"], capture_output=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def it_can_tell() -> None:
    if (done := asked("PathExists=/")).returncode:
        pytest.skip(f"systemd-analyze condition does not work on this host: {done.stderr.decode()}")


@pytest.mark.parametrize("condition", ASKED)
def test_as_systemd_sees_it(condition: str) -> None:
    done = asked(condition)
    text = f"[Unit]\nCondition{condition}\n[Service]\nExecStart=/bin/true\n"
    converted = convert([Source("x.service", text)], ".service")
    assert not converted.findings
    unit = parse_unit(converted.toml(), "x.toml").unit
    assert unit is not None
    assert (unmet(unit.document.unit.conditions, holds) == "") is (done.returncode == 0), done.stderr
