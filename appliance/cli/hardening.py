"""What protects this host, for ``doctor``: seen from the kernel, not from what somebody meant to switch on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from appliance.cli.checks import Check
from appliance.host import bpf
from appliance.machine import MOUNTS, SYSCTL, BootFacts, read_boot_facts

_SYS_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def hardening() -> Iterator[Check]:
    """A line for each. What our own OS image has on is missed only there; elsewhere it is that host's matter."""
    facts = read_boot_facts()
    if facts is not None:
        yield _verity(facts)
        yield _sysctl()
        yield _mounts()
    lockdown = _first("/sys/kernel/security/lockdown")
    level = lockdown.partition("[")[2].partition("]")[0]
    yield _wanted("lockdown", level not in ("", "none"), level or "not in this kernel", facts)
    yield _watchdog(facts)
    yield Check("secure boot", "ok", _secure_boot())
    yield Check("lsm", "ok", _first("/sys/kernel/security/lsm").replace(",", ", ") or "cannot be seen")
    version = ctypes.CDLL(None).syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    yield Check("landlock", "ok", f"version {version}" if version > 0 else "not in this kernel")
    why = bpf.why_not()
    yield _wanted("bpf", not why, why or "devices and addresses of units are fenced", facts)
    actions = _first("/proc/sys/kernel/seccomp/actions_avail")
    yield _wanted("seccomp", bool(actions), actions or "not in this kernel", facts)
    tpm = _first("/sys/class/tpm/tpm0/tpm_version_major")
    yield Check("tpm", "ok", f"version {tpm}" if tpm else "none seen")


def _wanted(name: str, is_on: bool, found: str, facts: BootFacts | None, remedy: str = "") -> Check:
    return Check(name, "ok" if is_on or facts is None else "warn", found, "" if is_on or facts is None else remedy)


def _verity(facts: BootFacts) -> Check:
    source = next((words[0] for words in _mounted() if words[1] == "/"), "")
    is_on = source == "/dev/mapper/root" and bool(facts.roothash)
    found = f"slot {facts.slot}, root hash {facts.roothash[:16]}" if is_on else f"root is {source}"
    return _wanted("verity", is_on, found, facts, "boot the image's own kernel")


def _sysctl() -> Check:
    other = [
        f"{name} = {found or 'missing'}"
        for name, value in SYSCTL.items()
        if (found := _first(f"/proc/sys/{name.replace('.', '/')}")) not in (value, "")
    ]
    found = ", ".join(other) if other else f"all {len(SYSCTL)} as they should be"
    return Check("sysctl", "warn" if other else "ok", found, "somebody has set them: restart" if other else "")


def _mounts() -> Check:
    options = {words[1]: set(words[3].split(",")) for words in _mounted()}
    lax = [f"{place} lacks {' '.join(sorted(missing))}" for place, wanted in MOUNTS.items()
           if (missing := set(wanted) - options.get(place, set(wanted)))]  # fmt: skip
    found = "; ".join(lax) or "root read-only; nosuid, nodev, noexec where they should be"
    return Check("mounts", "warn" if lax else "ok", found, "somebody has mounted them anew: restart" if lax else "")


def _watchdog(facts: BootFacts | None) -> Check:
    place = "/sys/class/watchdog/watchdog0"
    state, name = _first(f"{place}/state"), _first(f"{place}/identity")
    if state == "active":
        return Check("watchdog", "ok", f"{name}, {_first(f'{place}/timeout')} s")
    found = f"{name or 'there is one'}, not armed" if os.path.exists(place) else "none on this machine"
    return _wanted("watchdog", False, found, facts, "a hang of the kernel is not noticed; enable it in the firmware")


def _secure_boot() -> str:
    try:
        with open(_SECURE_BOOT, "rb") as file:
            return "on" if file.read()[4:5] == b"\x01" else "off"
    except OSError:
        return "off (no EFI variables)"


def _mounted() -> list[list[str]]:
    with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
        return [line.split(" ") for line in file]


def _first(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
