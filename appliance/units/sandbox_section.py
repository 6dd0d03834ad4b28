"""``[sandbox]`` of a unit file: what it may do and see, by systemd's meanings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.units.system_calls import ARCHITECTURES, call_problem, error_number

_CAPABILITY_NAMES = (  # by number: linux/capability.h
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP "
    "CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER "
    "CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL "
    "CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ "
    "CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
)
CAPABILITIES = _CAPABILITY_NAMES.split()
NAMESPACES: Mapping[str, int] = {
    "cgroup": 0x02000000, "ipc": 0x08000000, "net": 0x40000000, "mnt": 0x00020000, "pid": 0x20000000,
    "user": 0x10000000, "uts": 0x04000000,
}  # fmt: skip
FAMILIES: Mapping[str, int] = {  # linux/socket.h
    "AF_UNIX": 1, "AF_LOCAL": 1, "AF_INET": 2, "AF_AX25": 3, "AF_IPX": 4, "AF_APPLETALK": 5, "AF_NETROM": 6,
    "AF_BRIDGE": 7, "AF_ATMPVC": 8, "AF_X25": 9, "AF_INET6": 10, "AF_ROSE": 11, "AF_KEY": 15, "AF_NETLINK": 16,
    "AF_PACKET": 17, "AF_ECONET": 19, "AF_ATMSVC": 20, "AF_RDS": 21, "AF_IRDA": 23, "AF_PPPOX": 24, "AF_LLC": 26,
    "AF_IB": 27, "AF_MPLS": 28, "AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_RXRPC": 33, "AF_ISDN": 34,
    "AF_PHONET": 35, "AF_IEEE802154": 36, "AF_CAIF": 37, "AF_ALG": 38, "AF_NFC": 39, "AF_VSOCK": 40, "AF_KCM": 41,
    "AF_QIPCRTR": 42, "AF_SMC": 43, "AF_XDP": 44, "AF_MCTP": 45,
}  # fmt: skip


def _words_problem(known: Mapping[str, Any] | list[str], what: str) -> Any:
    def check(words: tuple[str, ...]) -> str | None:
        for number, word in enumerate(words):
            name = word.removeprefix("~") if number == 0 else word
            if name not in known:
                return f'found "{word}", which is no {what}; expected {_some(known)}'
        return None

    return {"check": check}


def _some(known: Mapping[str, Any] | list[str]) -> str:
    names = list(known)
    return ", ".join(names) if len(names) < 12 else f"names such as {', '.join(names[:3])}"


def _calls_problem(entries: tuple[str, ...]) -> str | None:
    return next((wrong for entry in entries if (wrong := call_problem(entry))), None)


def _architectures_problem(names: tuple[str, ...]) -> str | None:
    for name in names:
        if name != "native" and name not in ARCHITECTURES:
            return f'found "{name}", expected "native" or some of {", ".join(ARCHITECTURES)}'
    return None


def _code_problem(name: str) -> str | None:
    if name == "kill" or error_number(name) is not None:
        return None
    return f'found "{name}", expected the name of an error such as "EPERM", or "kill"'


def _namespaces_problem(value: bool | tuple[str, ...]) -> str | None:
    found: str | None = _words_problem(NAMESPACES, "namespace")["check"](value) if isinstance(value, tuple) else None
    return found


def _binds_problem(entries: tuple[str, ...]) -> str | None:
    for entry in entries:
        source, target, rest = [*entry.removeprefix("-").split(":", 2), "", ""][:3]
        if (
            not source.startswith("/")
            or (target and not target.startswith("/"))
            or rest not in ("", "rbind", "norbind")
        ):
            return f'found "{entry}", expected "/SOURCE" or "/SOURCE:/TARGET", with ":norbind" for that mount alone'
    return None


def _temporary_problem(entries: tuple[str, ...]) -> str | None:
    for entry in entries:
        path = entry.partition(":")[0]
        if not path.startswith("/") or path == "/":
            return f'found "{entry}", expected "/PATH" or "/PATH:OPTIONS" such as "/var:ro,size=10M"'
    return None


_PATHS: Mapping[str, Any] = {
    "pattern": r"-?\+?/[^\0]*",
    "what": 'an absolute path, with a "-" in front if it may be missing',
}
_PATH: Mapping[str, Any] = {"pattern": r"/[^\0]*", "what": "an absolute path"}


@dataclass(frozen=True, kw_only=True)
class SandboxSection:
    """``[sandbox]``. ``lenient``: a fence that this host cannot put up is left out, and the unit's log says so.

    In lists of names a "~" before the first turns them round: all but these.
    """

    no_new_privileges: bool = False
    capabilities: tuple[str, ...] | None = field(default=None, metadata=_words_problem(CAPABILITIES, "capability"))
    ambient_capabilities: tuple[str, ...] = field(default=(), metadata=_words_problem(CAPABILITIES, "capability"))
    read_only_root: bool | Literal["full", "strict"] = False
    protect_home: bool | Literal["read-only", "tmpfs"] = False
    private_tmp: bool = False
    private_devices: bool = False
    private_network: bool = False
    private_users: bool = False
    private_ipc: bool = False
    private_mounts: bool = False
    protect_hostname: bool = False
    protect_kernel_tunables: bool = False
    protect_kernel_modules: bool = False
    protect_kernel_logs: bool = False
    protect_control_groups: bool = False
    protect_clock: bool = False
    protect_proc: Literal["default", "noaccess", "invisible", "ptraceable"] = "default"
    proc_subset: Literal["all", "pid"] = "all"
    restrict_namespaces: bool | tuple[str, ...] = field(default=False, metadata={"check": _namespaces_problem})
    restrict_realtime: bool = False
    restrict_suid_sgid: bool = False
    lock_personality: bool = False
    memory_deny_write_execute: bool = False
    restrict_address_families: tuple[str, ...] | None = field(
        default=None, metadata=_words_problem({**FAMILIES, "none": 0}, "address family")
    )
    system_calls: tuple[str, ...] = field(default=(), metadata={"check": _calls_problem})
    system_call_error: str = field(default="kill", metadata={"check": _code_problem})
    system_call_architectures: tuple[str, ...] = field(default=(), metadata={"check": _architectures_problem})
    writable_paths: tuple[str, ...] = field(default=(), metadata=_PATHS)
    readable_paths: tuple[str, ...] = field(default=(), metadata=_PATHS)  # and no more than that
    inaccessible_paths: tuple[str, ...] = field(default=(), metadata=_PATHS)
    exec_paths: tuple[str, ...] = field(default=(), metadata=_PATHS)
    no_exec_paths: tuple[str, ...] = field(default=(), metadata=_PATHS)
    bind_paths: tuple[str, ...] = field(default=(), metadata={"check": _binds_problem})
    bind_read_only_paths: tuple[str, ...] = field(default=(), metadata={"check": _binds_problem})
    temporary_file_system: tuple[str, ...] = field(default=(), metadata={"check": _temporary_problem})
    root_directory: str | None = field(default=None, metadata=_PATH)
    dynamic_user: bool = False
    lenient: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """Ambient capabilities have to be among those that may remain."""
        if self.capabilities is not None:
            lost = capability_mask(self.ambient_capabilities) & ~capability_mask(self.capabilities)
            if lost:
                names = ", ".join(name for bit, name in enumerate(CAPABILITIES) if lost >> bit & 1)
                yield "ambient_capabilities", f"found {names}, which capabilities does not keep"

    def hardened(self) -> SandboxSection:
        """With what a dynamic user brings along."""
        if not self.dynamic_user:
            return self
        from dataclasses import replace

        return replace(
            self, private_tmp=True, no_new_privileges=True, restrict_suid_sgid=True,
            read_only_root=self.read_only_root if self.read_only_root == "strict" else "strict",
            protect_home=self.protect_home or "read-only",
        )  # fmt: skip


ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1


def capability_mask(names: tuple[str, ...]) -> int:
    """As bits; "~" in front of the first: all but these."""
    mask = sum(1 << CAPABILITIES.index(name.removeprefix("~")) for name in dict.fromkeys(names))
    return ALL_CAPABILITIES & ~mask if names and names[0].startswith("~") else mask


def names_allowed(names: tuple[str, ...], known: Mapping[str, int]) -> frozenset[str]:
    """Which of the known names a list with or without "~" leaves."""
    plain = {name.removeprefix("~") for name in names}
    return frozenset(known) - plain if names and names[0].startswith("~") else frozenset(known) & plain
