"""From the sandbox's settings to what its system call filter refuses. Pure."""

from __future__ import annotations

import errno

from appliance.units.filter_program import KILL, Argument, refuse_with
from appliance.units.sandbox_section import FAMILIES, NAMESPACES, SandboxSection, names_allowed
from appliance.units.system_calls import Filter, Rule, calls_of, error_number, read_calls

_ALL_BITS = 0xFFFFFFFF
_SCHED_RESET_ON_FORK = 0x40000000
_SCHED_ORDINARY = (0, 3, 5)  # other, batch, idle
_WRITE_AND_EXECUTE, _EXECUTE, _SHM_EXECUTE = 0x6, 0x4, 0o100000
_SETUID, _SETGID, _CREATE, _TEMPORARY = 0o4000, 0o2000, 0o100, 0o20000000
_MODES = (  # call, which argument is the mode
    ("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("mkdir", 1), ("mkdirat", 2), ("mknod", 1),
    ("mknodat", 2), ("creat", 1),
)  # fmt: skip
_OPENS = (("open", 1, 2), ("openat", 2, 3), ("open_by_handle_at", 2, 3))
_PERM = refuse_with(errno.EPERM)


def filter_of(sandbox: SandboxSection) -> Filter:
    """Everything that the settings refuse, system_calls included."""
    it = Filter()
    if sandbox.restrict_address_families is not None:
        _families(it, sandbox.restrict_address_families)
    if sandbox.restrict_namespaces is not False:
        _namespaces(it, sandbox.restrict_namespaces)
    if sandbox.restrict_realtime:
        policies = tuple(Argument(1, _ALL_BITS & ~_SCHED_RESET_ON_FORK, one, is_not=True) for one in _SCHED_ORDINARY)
        it.rules.append(Rule("sched_setscheduler", _PERM, policies))
        it.refuse(["sched_setattr"])
    if sandbox.restrict_suid_sgid:
        _modes(it)
    if sandbox.lock_personality:
        other = (Argument(0, _ALL_BITS, 0, is_not=True), Argument(0, _ALL_BITS, _ALL_BITS, is_not=True))
        it.rules.append(Rule("personality", _PERM, other))
    if sandbox.memory_deny_write_execute:
        _memory(it)
    if sandbox.protect_kernel_modules:
        it.refuse(calls_of("@module"))
    if sandbox.protect_kernel_logs:
        it.refuse(["syslog"])
    if sandbox.protect_kernel_tunables:
        it.refuse(["_sysctl"])
    if sandbox.protect_clock:
        it.refuse(calls_of("@clock"))
    if sandbox.protect_hostname:
        it.refuse(["sethostname", "setdomainname"])
    if sandbox.private_devices:
        it.refuse(calls_of("@raw-io"))
    if sandbox.system_call_architectures:
        it.architectures = sandbox.system_call_architectures
    code = error_number(sandbox.system_call_error)
    read_calls(sandbox.system_calls, it, KILL if code is None else refuse_with(code))
    return it


def _families(it: Filter, names: tuple[str, ...]) -> None:
    answer = refuse_with(errno.EAFNOSUPPORT)
    if names and names[0].startswith("~"):
        for name in sorted(frozenset(FAMILIES) - names_allowed(names, FAMILIES)):
            it.rules.append(Rule("socket", answer, (Argument(0, _ALL_BITS, FAMILIES[name]),)))
    else:
        allowed = sorted({FAMILIES[name] for name in names_allowed(names, FAMILIES)})
        it.rules.append(Rule("socket", answer, tuple(Argument(0, _ALL_BITS, one, is_not=True) for one in allowed)))
    it.refuse(["socketcall"], errno.EAFNOSUPPORT)  # of 32-bit x86: what it does is behind a pointer


def _namespaces(it: Filter, allowed: bool | tuple[str, ...]) -> None:
    left = names_allowed(allowed, NAMESPACES) if isinstance(allowed, tuple) else frozenset[str]()
    for name in sorted(frozenset(NAMESPACES) - left):
        flag = NAMESPACES[name]
        for call, index in (("clone", 0), ("unshare", 0), ("setns", 1)):
            it.rules.append(Rule(call, _PERM, (Argument(index, flag, flag),)))
    if left != frozenset(NAMESPACES):
        it.rules.append(Rule("setns", _PERM, (Argument(1, _ALL_BITS, 0),)))  # whichever the descriptor is of
        it.refuse(["clone3"], errno.ENOSYS)  # its flags are behind a pointer; all programs then take clone


def _modes(it: Filter) -> None:
    for bit in (_SETUID, _SETGID):
        for call, index in _MODES:
            it.rules.append(Rule(call, _PERM, (Argument(index, bit, bit),)))
        for call, flags, mode in _OPENS:
            for creates in (_CREATE, _TEMPORARY):
                it.rules.append(Rule(call, _PERM, (Argument(flags, creates, creates), Argument(mode, bit, bit))))
    it.refuse(["openat2"], errno.ENOSYS)  # its mode is behind a pointer


def _memory(it: Filter) -> None:
    both = (Argument(2, _WRITE_AND_EXECUTE, _WRITE_AND_EXECUTE),)
    it.rules += [Rule("mmap", _PERM, both), Rule("mmap2", _PERM, both)]
    it.rules += [Rule(call, _PERM, (Argument(2, _EXECUTE, _EXECUTE),)) for call in ("mprotect", "pkey_mprotect")]
    it.rules.append(Rule("shmat", _PERM, (Argument(2, _SHM_EXECUTE, _SHM_EXECUTE),)))
