"""How exposed a unit is: what each fence that it lacks leaves open, weighed as systemd-analyze security does. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from appliance.units.cgroup_programs import has_devices_fenced
from appliance.units.filter_program import ALLOW
from appliance.units.sandbox_filter import filter_of
from appliance.units.sandbox_section import (
    ALL_CAPABILITIES,
    CAPABILITIES,
    FAMILIES,
    NAMESPACES,
    SandboxSection,
    capability_mask,
    names_allowed,
)
from appliance.units.system_calls import Filter, calls_of
from appliance.units.unit_file import UnitDocument

_WORDS = ((100, "dangerous"), (90, "unsafe"), (75, "exposed"), (50, "medium"), (10, "ok"), (1, "safe"), (0, "perfect"))


@dataclass(frozen=True)
class Row:
    """One fence. ``badness`` from 0 (it holds) to 1; None: it makes no difference to this unit."""

    setting: str
    state: str
    weight: int
    badness: float | None
    exposure: float = 0.0  # its share of the whole, of 10

    @property
    def mark(self) -> Literal["ok", "bad", "n/a"]:
        """For the table."""
        return "n/a" if self.badness is None else "bad" if self.badness else "ok"


@dataclass(frozen=True)
class Exposure:
    """Of one unit, from 0.0 ("perfect") to 10.0 ("dangerous")."""

    unit: str
    exposure: float
    word: str
    rows: tuple[Row, ...]


def assess(name: str, document: UnitDocument) -> Exposure:
    """All rows, the worst first."""
    rows = list(_rows(document))
    counted = [row for row in rows if row.badness is not None]
    total = sum(row.weight for row in counted) or 1
    score = -(-sum(round((row.badness or 0) * row.weight) for row in counted) * 100 // total)
    word = next(text for least, text in _WORDS if score >= least)
    shared = [
        Row(row.setting, row.state, row.weight, row.badness, round((row.badness or 0) * row.weight * 10 / total, 2))
        for row in rows
    ]
    shared.sort(key=lambda row: (-row.exposure, row.badness is None, row.setting))
    return Exposure(name, score / 10, word, tuple(shared))


def _rows(document: UnitDocument) -> Iterator[Row]:
    sandbox = document.sandbox.hardened()
    service = document.service
    is_root = (service is None or service.user in (None, "root", "0")) and not sandbox.dynamic_user
    yield from _of_user(document, is_root)
    yield from _of_files(sandbox)
    yield from _of_programs(document)
    yield from _of_switches(sandbox)
    yield from _of_capabilities(sandbox)
    yield from _of_namespaces(sandbox)
    yield from _of_families(sandbox)
    yield from _of_calls(sandbox)


def _of_user(document: UnitDocument, is_root: bool) -> Iterator[Row]:
    service, sandbox = document.service, document.sandbox
    user = "a dynamic user" if sandbox.dynamic_user else f"user {service.user}" if service and service.user else "root"
    nobody = user in ("user nobody", "user 65534")
    yield Row("user / dynamic_user", f"runs as {user}", 2000, 1.0 if is_root else 0.9 if nobody else 0.0)
    groups = None if is_root else float(bool(service and service.supplementary_groups))
    yield Row("supplementary_groups", "root needs none" if is_root else "other groups" * bool(groups), 200, groups)
    mask = int(service.umask, 8) if service else 0o22
    world = 1.0 if not mask & 0o2 else 0.5 if not mask & 0o4 else 0.2 if not mask & 0o40 else 0.0
    yield Row("umask", f"files are made with umask {mask:04o}", 100, world)
    yield _switch("resources.delegate", document.resources.delegate is False, "manages control groups itself", 100)
    access = service.notices_from() if service else "none"
    yield _switch("notify_access", access != "all", "every process of it may change its state", 1000)
    ambient = bool(sandbox.ambient_capabilities)
    yield Row(
        "ambient_capabilities", "given to it" if ambient else "none given", 500, None if is_root else float(ambient)
    )


def _switch(setting: str, holds: bool, open_text: str, weight: int) -> Row:
    return Row(setting, "holds" if holds else open_text, weight, 0.0 if holds else 1.0)


def _of_files(sandbox: SandboxSection) -> Iterator[Row]:
    root = {False: 1.0, True: 0.5, "full": 0.3, "strict": 0.0}[sandbox.read_only_root]
    state = "may write to the system" if root == 1 else "holds" if not root else "may write to a part of the system"
    yield Row("read_only_root", state, 1000, root)
    home = {False: 1.0, "read-only": 0.5, "tmpfs": 0.1, True: 0.0}[sandbox.protect_home]
    yield Row("protect_home", "holds" if home <= 0.1 else "sees the homes of people", 1000, home)
    rooted = sandbox.root_directory not in (None, "/")
    yield _switch("root_directory", rooted, "runs in the host's root directory", 200)
    proc = {"default": 1.0, "ptraceable": 2 / 3, "noaccess": 1 / 3, "invisible": 0.0}[sandbox.protect_proc]
    yield Row("protect_proc", "holds" if not proc else "sees the processes of others", 1000, proc)
    yield _switch("proc_subset", sandbox.proc_subset == "pid", "sees all of /proc", 10)
    has_mounts = bool(
        sandbox.read_only_root or sandbox.protect_home or sandbox.private_tmp or sandbox.private_devices
        or sandbox.private_mounts or sandbox.root_directory
    )  # fmt: skip
    yield _switch("private_mounts", has_mounts, "may mount for the whole host", 1000)


_SWITCHES = (  # setting, what is open without it, weight
    ("private_tmp", "sees the temporary files of others", 1000),
    ("private_devices", "may have access to hardware", 1000),
    ("private_network", "has the host's network", 2500),
    ("private_users", "sees the host's users", 1000),
    ("protect_control_groups", "may change control groups", 1000),
    ("protect_kernel_modules", "may load kernel modules", 1000),
    ("protect_kernel_tunables", "may change kernel settings", 1000),
    ("protect_kernel_logs", "may read or write the kernel's log", 1000),
    ("protect_clock", "may set the clock", 1000),
    ("protect_hostname", "may change the host's name", 50),
    ("lock_personality", "may change the ABI it runs under", 100),
    ("memory_deny_write_execute", "may make memory that is written and executed", 100),
    ("no_new_privileges", "may gain privileges", 1000),
    ("restrict_realtime", "may take all CPU time as real-time", 500),
    ("restrict_suid_sgid", "may make set-user-id files", 1000),
)


def _of_switches(sandbox: SandboxSection) -> Iterator[Row]:
    for setting, text, weight in _SWITCHES:
        yield _switch(setting, bool(getattr(sandbox, setting)), text, weight)


def _of_programs(document: UnitDocument) -> Iterator[Row]:
    """Devices and addresses: whether the programs of its cgroup hold, not whether this host takes them."""
    resources = document.resources
    devices = 1.0 if not has_devices_fenced(document) else 0.5 if resources.device_allow else 0.0
    state = "may open all devices" if devices == 1 else "may open some devices" if devices else "holds"
    yield Row("resources.device_policy", state, 1000, devices)
    if "any" not in resources.ip_address_deny and not {"0.0.0.0/0", "::/0"} <= set(resources.ip_address_deny):
        addresses, state = 1.0, "may send to all addresses"
    elif set(resources.ip_address_allow) - {"localhost", "127.0.0.0/8", "127.0.0.1", "::1"}:
        addresses, state = 0.5, "may send to some addresses"
    elif resources.ip_address_allow:
        addresses, state = 0.2, "may send to this host only"
    else:
        addresses, state = 0.0, "holds"
    yield Row("resources.ip_address_deny", state, 1000, addresses)


_CAPABILITY_ROWS = (  # names without CAP_, what they allow, weight
    ("SYS_ADMIN", "has administrator privileges", 1500),
    ("SETUID SETGID SETPCAP", "may become another user", 1500),
    ("SYS_PTRACE", "may look into other processes", 1500),
    ("SYS_TIME", "may set the clock", 1000),
    ("NET_ADMIN", "may configure the network", 1000),
    ("SYS_RAWIO", "has raw I/O", 1000),
    ("SYS_MODULE", "may load kernel modules", 1000),
    ("AUDIT_CONTROL AUDIT_READ AUDIT_WRITE", "has the audit system", 500),
    ("SYSLOG", "has the kernel's log", 500),
    ("SYS_NICE SYS_RESOURCE", "may change its share of resources", 500),
    ("MKNOD", "may make device nodes", 500),
    ("CHOWN FSETID SETFCAP", "may change owners and modes of all files", 1000),
    ("DAC_OVERRIDE DAC_READ_SEARCH FOWNER IPC_OWNER", "may override file permissions", 1000),
    ("KILL", "may signal all processes", 500),
    ("NET_BIND_SERVICE NET_BROADCAST NET_RAW", "may take low ports and raw sockets", 500),
    ("SYS_BOOT", "may reboot", 100),
    ("MAC_ADMIN MAC_OVERRIDE", "may change mandatory access control", 100),
    ("LINUX_IMMUTABLE", "may mark files immutable", 75),
    ("IPC_LOCK", "may lock memory", 50),
    ("SYS_CHROOT", "may chroot", 50),
    ("BLOCK_SUSPEND", "may keep the host awake", 25),
    ("WAKE_ALARM", "may wake the host", 25),
    ("LEASE", "may lease files", 25),
    ("SYS_TTY_CONFIG", "may hang terminals up", 25),
    ("SYS_PACCT", "may switch accounting", 25),
    ("BPF", "may load BPF programs", 25),
)


def _of_capabilities(sandbox: SandboxSection) -> Iterator[Row]:
    mask = ALL_CAPABILITIES if sandbox.capabilities is None else capability_mask(sandbox.capabilities)
    lost = {
        "CAP_SYS_MODULE": sandbox.protect_kernel_modules, "CAP_SYSLOG": sandbox.protect_kernel_logs,
        "CAP_SYS_TIME": sandbox.protect_clock, "CAP_WAKE_ALARM": sandbox.protect_clock,
        "CAP_MKNOD": sandbox.private_devices, "CAP_SYS_RAWIO": sandbox.private_devices,
    }  # fmt: skip
    for names, text, weight in _CAPABILITY_ROWS:
        full = [f"CAP_{name}" for name in names.split()]
        has = any(mask >> CAPABILITIES.index(name) & 1 and not lost.get(name) for name in full)
        yield _switch(f"capabilities ~{' '.join(full)}", not has, text, weight)


def _of_namespaces(sandbox: SandboxSection) -> Iterator[Row]:
    allowed = frozenset(NAMESPACES)
    if sandbox.restrict_namespaces is True:
        allowed = frozenset()
    elif isinstance(sandbox.restrict_namespaces, tuple):
        allowed = names_allowed(sandbox.restrict_namespaces, NAMESPACES)
    weights = {"user": 1500, "mnt": 500, "ipc": 500, "pid": 500, "cgroup": 500, "net": 500, "uts": 100}
    for name, weight in weights.items():
        yield _switch(f"restrict_namespaces ~{name}", name not in allowed, f"may make {name} namespaces", weight)


def _of_families(sandbox: SandboxSection) -> Iterator[Row]:
    allowed = frozenset(FAMILIES)
    if sandbox.restrict_address_families is not None:
        allowed = names_allowed(sandbox.restrict_address_families, FAMILIES)
    parts = (
        (("AF_INET", "AF_INET6"), "internet sockets", 1500), (("AF_UNIX", "AF_LOCAL"), "local sockets", 25),
        (("AF_NETLINK",), "netlink sockets", 200), (("AF_PACKET",), "packet sockets", 1000),
    )  # fmt: skip
    usual = {name for names, _, _ in parts for name in names}
    for names, what, weight in parts:
        holds = not allowed & frozenset(names)
        yield _switch(f"restrict_address_families ~{' '.join(names)}", holds, f"may make {what}", weight)
    yield _switch("restrict_address_families ~...", allowed <= usual, "may make exotic sockets", 1250)


_CALL_ROWS = (
    ("@swap", 1000), ("@obsolete", 250), ("@clock", 1000), ("@cpu-emulation", 250), ("@debug", 1000), ("@mount", 1000),
    ("@module", 1000), ("@raw-io", 1000), ("@reboot", 1000), ("@privileged", 700), ("@resources", 700),
)  # fmt: skip


def _of_calls(sandbox: SandboxSection) -> Iterator[Row]:
    wanted = sandbox.system_call_architectures
    native = wanted == ("native",)
    yield Row("system_call_architectures", "holds" if native else "may use foreign ABIs", 1000, 0.0 if native else 1.0)
    filter_ = filter_of(sandbox)
    for group, weight in _CALL_ROWS:
        open_call = next((call for call in sorted(calls_of(group)) if _may(filter_, call)), None)
        if not sandbox.system_calls:
            yield Row(f"system_calls ~{group}", "no list of system calls", weight, 1.0)
        else:
            yield _switch(f"system_calls ~{group}", open_call is None, f"may call {open_call}", weight)


def _may(filter_: Filter, call: str) -> bool:
    return filter_.answers.get(call, filter_.otherwise) == ALLOW
