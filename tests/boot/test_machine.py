"""A machine of our own OS by itself: its screen, its end, its network, what it keeps closed, how it gets up again.

Started without firmware and loader, which are not the matter here and take half of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from appliance.host import block_devices
from tests.boot.guest import make_disk, start, unit
from tests.boot.versions import Image, take_image
from tests.boot.vm import VM

pytestmark = pytest.mark.qemu
PASSWORD = "correct horse"
FACTS = """\
exec > /dev/console 2>&1
B=/var/lib/test/busybox
say() { while IFS= read -r line; do echo "FACT $1 $line"; done; }
until $B ip addr show dev bond0 | $B grep -q 10.7.0.1; do $B sleep 0.2; done
until $B ip addr show dev eth0 | $B grep -q "inet 10.0.2"; do $B sleep 0.2; done
until $B ip -6 addr show dev eth0 | $B grep -q "inet6 fec0"; do $B sleep 0.2; done
$B ip addr | say address
$B cat /proc/net/vlan/config | say vlan
$B cat /sys/class/net/eth2/master/uevent | say bond
$B cat /sys/class/net/eth3/master/uevent | say bridge
$B tail -n +2 /proc/net/tcp | say tcp
$B tail -n +2 /proc/net/tcp6 | say tcp
$B cat /proc/mounts | say mount
$B cat /sys/kernel/security/lockdown | say lockdown
$B hostname | say hostname
$B touch /usr/bin/x 2>&1 | say readonly
$B mkdir -p /tmp/l /tmp/u /tmp/w /tmp/o
$B mount -t overlay overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w /tmp/o && echo FACT overlay mounted
/usr/bin/appliance doctor | say doctor
echo 'this is = no [toml' > /etc/appliance/appliance.toml
echo FACT done
"""
SETTINGS = """\
[node]
name = "box7"
[machine]
recovery_password_hash = "{hash}"
[[network.interface]]
name = "eth1"
addresses = ["10.5.0.1/24"]
gateway = "10.5.0.254"
[[network.interface]]
name = "eth1.5"
kind = "vlan"
parent = "eth1"
id = 5
addresses = ["10.6.0.1/24"]
[[network.interface]]
name = "bond0"
kind = "bond"
members = ["eth2"]
addresses = ["10.7.0.1/24"]
[[network.interface]]
name = "br0"
kind = "bridge"
members = ["eth3"]
addresses = ["10.8.0.1/24"]
"""
CABLES = [
    word for number in (1, 2, 3)
    for word in ("-netdev", f"user,id=h{number},restrict=on", "-device",
                 f"virtio-net-pci,netdev=h{number},romfile=")
]  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Image:
    return take_image()


def facts_until_done(vm: VM) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    while "done" not in facts:
        name, _, text = vm.wait(r"FACT ", 240).partition("FACT ")[2].partition(" ")
        facts.setdefault(name, []).append(text.strip())
    return facts


@pytest.fixture(scope="module")
def box(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VM, dict[str, list[str]]]]:
    work = tmp_path_factory.mktemp("box")
    secret = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    files = {
        "/etc/appliance/appliance.toml": SETTINGS.format(hash=secret),
        "/etc/appliance/units/facts.toml": unit("exec /var/lib/test/busybox sh /var/lib/test/facts"),
        "/var/lib/test/facts": FACTS,
        "/etc/appliance/units/db.toml": unit("exec /var/lib/test/busybox sleep 100000", kind="exec"),
        "/etc/appliance/units/web.toml": unit(
            "exec /var/lib/test/busybox sleep 100000", kind="exec", more="[unit]\nrequires = ['db']\nafter = ['db']\n"
        ),
    }
    vm = start(image, make_disk(image, work / "box.img", files), work, extra=CABLES)
    try:
        yield vm, facts_until_done(vm)
    finally:
        vm.put_away()


def test_its_network_is_as_its_settings_say(box: tuple[VM, dict[str, list[str]]]) -> None:
    facts = box[1]
    addresses = "\n".join(facts["address"])
    for one in ("10.0.2.15/24", "fec0::", "10.5.0.1/24", "10.6.0.1/24", "10.7.0.1/24", "10.8.0.1/24"):
        assert one in addresses
    assert ["eth1.5", "|", "5", "|", "eth1"] in [line.split() for line in facts["vlan"]]
    assert "INTERFACE=bond0" in facts["bond"]
    assert "INTERFACE=br0" in facts["bridge"]
    assert not [line for line in box[0].lines if "network" in line and "failed" in line]


def test_nothing_listens_beyond_loopback(box: tuple[VM, dict[str, list[str]]]) -> None:
    listening = [line.split()[1] for line in box[1]["tcp"] if line.split()[3] == "0A"]
    assert listening, "the status page at least"
    assert all(one.startswith("0100007F:") for one in listening), listening


def test_what_is_mounted_how(box: tuple[VM, dict[str, list[str]]]) -> None:
    facts = box[1]
    mounts = {line.split()[1]: set(line.split()[3].split(",")) | {line.split()[0]} for line in facts["mount"]}
    assert {"/dev/mapper/root", "ro", "nosuid", "nodev"} <= mounts["/"]
    for place in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/etc/appliance"):
        assert {"nosuid", "nodev", "noexec"} <= mounts[place], place
    for place in ("/run", "/tmp", "/var", "/dev/shm"):
        assert {"nosuid", "nodev"} <= mounts[place], place
    assert {"nosuid", "noexec"} <= mounts["/dev"]
    assert "Read-only file system" in "\n".join(facts["readonly"])
    assert facts["overlay"] == ["mounted"]


def test_what_is_on(box: tuple[VM, dict[str, list[str]]]) -> None:
    facts = box[1]
    assert facts["lockdown"] == ["none [integrity] confidentiality"]
    assert facts["hostname"] == ["box7"]
    doctor = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in facts["doctor"] if "  " in line)
    for name in ("verity", "lockdown", "sysctl", "watchdog", "seccomp", "mounts"):
        assert doctor[name].startswith("ok"), (name, facts["doctor"])
    for name in ("secure boot", "landlock", "lsm", "tpm"):
        assert name in doctor, facts["doctor"]


def test_screen_recovery_console_settings_that_are_kept_and_ctrl_alt_del(
    box: tuple[VM, dict[str, list[str]]],
) -> None:
    vm = box[0]
    vm.wait("units  +[23] up of 3", 240)
    vm.type("u")
    vm.wait("^web +ready", 180)
    vm.type("c")
    vm.wait("recovery console", 180)
    vm.type("wrong\r")
    vm.wait("wrong", 180)
    vm.type(f"{PASSWORD}\r")
    vm.wait("reset-settings", 180)
    vm.type("status\rnetwork\rnonsense\r")
    vm.wait("Appliance 1.0.0 on box7", 180)
    vm.wait("eth1.5 10.6.0.1/24", 180)
    vm.wait('no command "nonsense"', 180)
    resets = vm.resets()
    vm.type("reboot\r")
    vm.wait("unit web: stopped", 180)
    vm.wait("unit db: stopped", 180)
    vm.wait("reboot$", 180)
    vm.wait("the settings that counted last are used", 240)
    assert vm.resets() == resets + 1
    seen = ("SETTINGS .*the file is not used", "Appliance 1.0.0 on box7", "service power-button: ready")
    vm.wait_all(*seen, timeout=240)
    vm.ask("send-key", keys=[{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")])
    vm.wait("unit web: stopped", 180)  # in order, and not at once as the kernel would
    vm.wait("reboot$", 180)
    vm.wait_reset(resets + 2)


def test_without_its_state_it_comes_up_and_says_so(image: Image, tmp_path: Path) -> None:
    disk = make_disk(image, tmp_path / "bare.img")
    state = block_devices.read_table(str(disk)).find("state")
    assert state is not None
    with disk.open("r+b") as file:
        file.seek(state.start)
        file.write(bytes(16 << 20))
    vm = start(image, disk, tmp_path)
    try:
        vm.wait("going on with the state in memory", 240)
        vm.wait_all("EMERGENCY", "Z ready; status page", "service console: ready", timeout=240)
        vm.type("c")
        vm.wait("no recovery console", 180)
    finally:
        vm.put_away()


@pytest.mark.parametrize(("action", "patience"), [("=hang", 25), ("", 45)])
def test_a_hang_and_a_crash_of_the_first_process_restart_the_machine(
    image: Image, tmp_path: Path, action: str, patience: int
) -> None:
    """``patience``: of the watchdog; enough of it for the crash to come first on a slow machine."""
    disk = make_disk(image, tmp_path / "sick.img")
    words = f"appliance.watchdog={patience} APPLIANCE_FAILPOINT=watchdog-fed{action}"
    vm = start(image, disk, tmp_path, arguments=words)
    try:
        if action:
            vm.wait("service watchdog: ready", 300)
            vm.wait_event("WATCHDOG", timeout=300)
        else:
            vm.wait("Kernel panic.*Attempted to kill init", 300)
            vm.wait_reset(timeout=300)
    finally:
        vm.put_away()
