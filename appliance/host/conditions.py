"""Whether something about this host is so: systemd's ConditionPathExists= and its kin (systemd.unit(5))."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Callable, Mapping

from appliance.errors import ApplianceError
from appliance.host import facts, node, traits, users

_COMPARED = re.compile(r"(<=|>=|<|>|==|=|!=)?\s*(.+)")
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_CONTAINERS = ("docker", "lxc", "podman", "systemd-nspawn", "wsl")


def holds(kind: str, argument: str) -> bool:
    """Whether that condition is met now. A kind is a method below; the schema knows no other."""
    return _KINDS[kind](argument)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _not_empty(path: str) -> bool:
    try:
        with os.scandir(path) as entries:
            return any(entries)
    except OSError:
        return False


def _file_not_empty(path: str) -> bool:
    return stat.S_ISREG(_mode(path)) and os.stat(path).st_size > 0


def _is_on_read_only(path: str) -> bool:
    """Or not there at all."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def _on_command_line(argument: str) -> bool:
    words = _read("/proc/cmdline").split()
    if "=" in argument:
        return argument in words
    return any(word == argument or word.startswith(f"{argument}=") for word in words)


def _numbers(text: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", text)]


def _kernel(argument: str) -> bool:
    release = node.kernel()[0]
    found = _COMPARED.fullmatch(argument)
    if found is None or found[1] is None:
        return fnmatch.fnmatchcase(release, argument)
    ours, theirs = _numbers(release), _numbers(found[2])
    length = len(theirs)
    mine = ours[:length] + [0] * (length - len(ours))
    return _ORDERS[found[1]]((mine > theirs) - (mine < theirs), 0)


def virtualization() -> str:
    """As systemd-detect-virt says, for the common ones; "none" on bare metal."""
    container = re.search(r"(?:^|\0)container=([^\0]*)", _read("/proc/1/environ"))
    if container:
        return container[1] or "container-other"
    if os.path.exists("/.dockerenv"):
        return "docker"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    vendor = (_read("/sys/class/dmi/id/sys_vendor") + _read("/sys/class/dmi/id/product_name")).lower()
    for word, name in (("kvm", "kvm"), ("qemu", "qemu"), ("vmware", "vmware"), ("virtualbox", "oracle"), ("xen", "xen"),
                       ("microsoft", "microsoft"), ("amazon ec2", "amazon"), ("google", "google"),
                       ("parallels", "parallels")):  # fmt: skip
        if word in vendor:
            return name
    return "vm-other" if re.search(r"^flags\s*:.*\bhypervisor\b", _read("/proc/cpuinfo"), re.MULTILINE) else "none"


def _virtualization(argument: str) -> bool:
    found = virtualization()
    if argument in ("yes", "true", "1"):
        return found != "none"
    if argument in ("no", "false", "0"):
        return found == "none"
    is_container = found in _CONTAINERS or found == "container-other"
    if argument in ("container", "vm"):
        return found != "none" and is_container == (argument == "container")
    return found == argument


def _user(argument: str) -> bool:
    if argument == "@system":
        return os.geteuid() < 1000
    try:
        return users.find_account(argument).uid == os.geteuid()
    except ApplianceError:
        return False


def _group(argument: str) -> bool:
    try:
        return users.find_group(argument) in (os.getegid(), *os.getgroups())
    except ApplianceError:
        return False


def _compared(value: float, argument: str) -> bool:
    found = re.fullmatch(r"(<=|>=|<|>|==|=|!=)?\s*(\d+)([KMGT]?)", argument)
    if found is None:
        return False
    return _ORDERS[found[1] or ">="](value, int(found[2]) * _SIZES[found[3]])


def _memory(argument: str) -> bool:
    return _compared(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), argument)


def _environment(argument: str) -> bool:
    name, equals, value = argument.partition("=")
    return os.environ.get(name) == value if equals else name in os.environ


_KINDS: Mapping[str, Callable[[str], bool]] = {
    "path_exists": os.path.exists,
    "path_exists_glob": lambda pattern: bool(glob.glob(pattern)),
    "path_is_directory": os.path.isdir,
    "path_is_symbolic_link": os.path.islink,
    "path_is_mount_point": os.path.ismount,
    "path_is_read_write": lambda path: not _is_on_read_only(path),
    "directory_not_empty": _not_empty,
    "file_not_empty": _file_not_empty,
    "file_is_executable": lambda path: stat.S_ISREG(_mode(path)) and os.access(path, os.X_OK),
    "kernel_command_line": _on_command_line,
    "kernel_version": _kernel,
    "virtualization": _virtualization,
    "host": lambda name: name == facts.host_facts().get("m") or fnmatch.fnmatchcase(node.hostname(), name),
    "architecture": lambda name: name in (facts.host_facts()["a"], node.kernel()[1]),
    "user": _user,
    "group": _group,
    "environment": _environment,
    "memory": _memory,
    "capability": traits.has_capability,
    "ac_power": traits.on_mains,
    "security": traits.has_security,
    "first_boot": traits.is_first_boot,
    "needs_update": traits.needs_update,
    "control_group_controller": traits.has_controllers,
    "cpu_feature": traits.has_cpu_feature,
    "os_release": traits.is_release,
    "credential": traits.has_credential,
    "firmware": traits.has_firmware,
    "cpus": lambda argument: _compared(len(os.sched_getaffinity(0)), argument),
}
