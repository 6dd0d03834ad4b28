"""From a bare kernel to a machine that the appliance can run on. Before trio; each step may fail, none ends the start.

A state partition that cannot be mended is not touched further: the machine comes up on memory, says so, and can be
looked at through its control API (emergency).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.errors import ApplianceError, NotFoundError
from appliance.host import block_devices, clock, entropy, files, gpt, machine_state, mounts
from appliance.machine.boot_facts import BootFacts
from appliance.machine.hardening import SYSCTL
from appliance.machine.provisioning import take_left_files
from appliance.machine.timekeeping import remembered_time

_MOUNTS = (
    ("devpts", "/dev/pts", "devpts", mounts.NO_SUID | mounts.NO_EXEC, "gid=5,mode=0620,ptmxmode=0666"),
    ("shm", "/dev/shm", "tmpfs", mounts.NO_SUID | mounts.NO_DEVICES, "mode=1777"),
    ("mqueue", "/dev/mqueue", "mqueue", mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC, ""),
    ("tmp", "/tmp", "tmpfs", mounts.NO_SUID | mounts.NO_DEVICES, "mode=1777,size=50%"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC, "nsdelegate"),
    ("securityfs", "/sys/kernel/security", "securityfs", mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC, ""),
)
_STATE = "/var"
_LIFE_SECONDS = 25 * 365 * 86400.0  # a version that is older than this is not what runs
_KEPT = ("/var/etc/appliance", "/var/lib/appliance/identity", "/var/cache", "/var/log", "/var/tmp")


@dataclass
class Started:
    """What came of it."""

    facts: BootFacts
    emergency: str = ""  # why the state is only in memory
    troubles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # since the kernel started, at the end of each step


def start_machine(facts: BootFacts, *, say: Callable[[str], None], built: float) -> Started:
    """``built``: seconds since 1970 before which it cannot be, whatever the machine's clock thinks."""
    started = Started(facts)
    for step in ("kernel", "drivers", "verity"):
        started.seconds[step] = float(getattr(facts, f"seconds_{step}") or 0)
    started.seconds["program"] = clock.boot_seconds()

    def attempt(what: Callable[[], object]) -> bool:
        try:
            what()
        except ApplianceError as exc:
            started.troubles.append(exc.message)
            say(exc.message)
            return False
        return True

    for source, target, kind, flags, data in _MOUNTS:
        machine_state.make_directories(target)
        attempt(lambda: mounts.mount(source, target, kind, flags, data))  # noqa: B023
    attempt(machine_state.loopback_up)
    started.seconds["mounts"] = clock.boot_seconds()
    _mount_state(facts, started, say)
    started.seconds["state"] = clock.boot_seconds()
    machine_state.make_directories(*_KEPT)
    attempt(lambda: mounts.mount("/var/etc/appliance", "/etc/appliance", "", mounts.BIND))
    flags = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXEC
    attempt(lambda: mounts.mount("", "/etc/appliance", "", mounts.REMOUNT | mounts.BIND | flags))
    attempt(lambda: _take_provision(facts, started, say))
    started.notes += machine_state.set_sysctl(SYSCTL)
    attempt(lambda: _believe_clock(built, started, say))
    attempt(_give_identity)
    started.seconds["identity"] = clock.boot_seconds()
    steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in started.seconds.items())
    say(f"machine made ready, seconds since the kernel started: {steps}")
    return started


def _believe_clock(built: float, started: Started, say: Callable[[str], None]) -> None:
    """Not one from before we were made, nor one from far after: some firmware reads 1970 as 2070."""
    end = built + _LIFE_SECONDS
    remembered = remembered_time()
    known, of_what = built, "the day that this version was made"
    if built < remembered < end:
        known, of_what = remembered, "the time of the last run"
    now = clock.wall_seconds()
    if not known <= now < end:
        machine_state.set_clock(known)
        wrong = f"the machine's clock said {clock.timestamp(now)}: set to {of_what}"
        say(wrong)
        started.notes.append(wrong)


def _mount_state(facts: BootFacts, started: Started, say: Callable[[str], None]) -> None:
    device = f"/dev/{facts.state}"
    try:
        if not facts.state:
            raise NotFoundError("cannot mount the state: the disk has no partition by that name")
        if mended := block_devices.check_ext4(device):
            say(f"state: {mended}")
            started.notes.append(f"state: mended by fsck: {mended}")
        _grow_partition(facts, started)
        flags = mounts.NO_SUID | mounts.NO_DEVICES
        mounts.mount(device, _STATE, "ext4", flags, "errors=remount-ro")
    except ApplianceError as exc:
        started.emergency = exc.message
        say(f"{exc.message}: going on with the state in memory")
        mounts.mount("state", _STATE, "tmpfs", mounts.NO_SUID | mounts.NO_DEVICES, "mode=0755,size=50%")
        return
    try:
        block_devices.grow_ext4(_STATE, device)
    except ApplianceError as exc:
        started.troubles.append(exc.message)


def _grow_partition(facts: BootFacts, started: Started) -> None:
    """Up to the end of the disk, when that is larger than the table knows."""
    disk = f"/dev/{facts.disk}"
    try:
        table = block_devices.read_table(disk)
        grown = gpt.grow_last(table, block_devices.device_size(disk))
        before, after = table.find("state"), grown.find("state")
        if before is None or after is None or after.size - before.size < gpt.ALIGNMENT:
            return
        block_devices.write_table(disk, grown)
        block_devices.resize_partition(disk, after)
        started.notes.append(f"state: grown from {before.size >> 20} to {after.size >> 20} MiB")
    except ApplianceError as exc:  # it works as small as it is
        started.troubles.append(exc.message)


def _take_provision(facts: BootFacts, started: Started, say: Callable[[str], None]) -> None:
    """Never into a state that is only in memory: it would be wiped from the disk, and then gone."""
    if facts.disk and not started.emergency and (taken := take_left_files(f"/dev/{facts.disk}")):
        say(f"provisioned by the installer: {', '.join(taken)}")


def _give_identity() -> None:
    """Machine id and random seed, kept; the host name is the settings' matter."""
    place = "/var/lib/appliance/identity"
    try:
        machine_id = files.read_text(f"{place}/machine-id").strip()
    except NotFoundError:
        machine_id = entropy.token(16)
        files.write_atomic(f"{place}/machine-id", f"{machine_id}\n".encode())
    files.write_atomic("/run/appliance/machine-id", f"{machine_id}\n".encode(), durable=False)
    with contextlib.suppress(NotFoundError):
        machine_state.stir_entropy(files.read_bytes(f"{place}/random-seed"))
    files.write_atomic(f"{place}/random-seed", machine_state.new_seed(), mode=0o600)
    name = f"appliance-{machine_id[:8]}"
    files.write_atomic("/run/appliance/hostname", f"{name}\n".encode(), durable=False)
    machine_state.set_host_name(name)
