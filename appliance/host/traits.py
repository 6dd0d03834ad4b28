"""What a host is and has, for conditions: capabilities, mains power, security modules, firmware, processor, release."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping

_YES = ("1", "yes", "y", "true", "t", "on")
_COMPARED = re.compile(r"([A-Za-z0-9_]+)\s*(\$=|!\$=|<=|>=|<|>|==|=|!=)\s*(.*)")
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SECURITY: Mapping[str, Callable[[], bool]] = {
    "selinux": lambda: os.path.exists("/sys/fs/selinux/enforce"),
    "apparmor": lambda: _read("/sys/module/apparmor/parameters/enabled").startswith("Y"),
    "smack": lambda: os.path.exists("/sys/fs/smackfs"),
    "tomoyo": lambda: os.path.exists("/sys/kernel/security/tomoyo/version"),
    "ima": lambda: os.path.isdir("/sys/kernel/security/ima"),
    "audit": lambda: os.path.exists("/proc/self/loginuid"),
    "uefi-secureboot": lambda: _read_bytes(_SECURE_BOOT)[-1:] == b"\1",
    "tpm2": lambda: bool(glob.glob("/sys/class/tpmrm/*")),
}
_CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)


def _read(path: str) -> str:
    return _read_bytes(path).decode(errors="replace")


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 18)
    except OSError:
        return b""


def has_capability(name: str) -> bool:
    """Whether we could have it: it is in our bounding set."""
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)", _read("/proc/self/status"), re.MULTILINE)
    word = name.lower().removeprefix("cap_")
    known = _CAPABILITIES.split()
    return found is not None and word in known and bool(int(found[1], 16) >> known.index(word) & 1)


def on_mains(argument: str) -> bool:
    """Whether it is as said: a host without a battery is on mains."""
    supplies = glob.glob("/sys/class/power_supply/*/type")
    mains = [path for path in supplies if _read(path).strip() in ("Mains", "USB")]
    batteries = [path for path in supplies if _read(path).strip() == "Battery"]
    online = any(_read(path.replace("/type", "/online")).strip() == "1" for path in mains)
    return (online or not batteries) is (argument.lower() in _YES)


def has_security(name: str) -> bool:
    """A security module, or another protection that systemd has a name for."""
    return name in _SECURITY and _SECURITY[name]()


def is_first_boot(argument: str) -> bool:
    """Whether it is as said; systemd tells by a file."""
    return os.path.exists("/run/systemd/first-boot") is (argument.lower() in _YES)


def needs_update(directory: str) -> bool:
    """Whether ``/usr`` is newer than what was made of it in ``/etc`` or ``/var``."""
    try:
        return os.stat("/usr").st_mtime > os.stat(f"{directory}/.updated").st_mtime
    except OSError:
        return os.path.isdir(directory)


def has_controllers(names: str) -> bool:
    """All of these controllers; or ``v2``, ``v1``: which hierarchy there is."""
    known = _read("/sys/fs/cgroup/cgroup.controllers").split()
    is_v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    if names in ("v1", "v2"):
        return is_v2 is (names == "v2")
    if not is_v2:
        known = re.findall(r"^(\w+)\t\d+\t\d+\t1$", _read("/proc/cgroups"), re.MULTILINE)
        known = [{"blkio": "io"}.get(one, one) for one in known] + ["cpuacct"]
    return all(one in known for one in names.split())


def has_cpu_feature(name: str) -> bool:
    """A word behind ``flags`` in /proc/cpuinfo."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found is not None and name.lower() in found[1].lower().split()


def is_release(argument: str) -> bool:
    """``ID=debian``, ``VERSION_ID>=12``, several in a row: all must hold."""
    release = dict(re.findall(r"""^([A-Z0-9_]+)=["']?(.*?)["']?$""", _read("/etc/os-release"), re.MULTILINE))
    words = re.findall(r"""[A-Za-z0-9_]+\s*(?:\$=|!\$=|<=|>=|<|>|==|=|!=)\s*(?:"[^"]*"|\S+)""", argument)
    return bool(words) and all(_is_so(release, word) for word in words)


def _is_so(release: Mapping[str, str], word: str) -> bool:
    found = _COMPARED.fullmatch(word)
    if found is None:
        return False
    mine, order, theirs = release.get(found[1], ""), found[2], found[3].strip('"')
    if order in ("=", "!="):
        return (mine == theirs) is (order == "=")
    a, b = _version(mine), _version(theirs)
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b}.get(order, False)


def _version(text: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(one), "") if one.isdecimal() else (-1, one) for one in re.findall(r"\d+|[A-Za-z~]+", text))


def has_credential(name: str) -> bool:
    """Whether the host, or whoever started us, was given a secret of that name."""
    places = ("/run/credentials/@system", os.environ.get("CREDENTIALS_DIRECTORY", ""))
    return bool(name) and "/" not in name and any(place and os.path.exists(f"{place}/{name}") for place in places)


def has_firmware(name: str) -> bool:
    """``uefi``, or ``device-tree``, perhaps with a word that it is compatible with."""
    if name == "uefi":
        return os.path.isdir("/sys/firmware/efi")
    found = re.fullmatch(r"device-tree(?:-compatible\((.*)\))?", name)
    if found is None:
        return False
    compatible = _read("/proc/device-tree/compatible").split("\0")
    return os.path.isdir("/sys/firmware/devicetree") and (found[1] is None or found[1] in compatible)
