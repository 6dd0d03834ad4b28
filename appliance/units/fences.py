"""What holds a unit: the options of spawn for its sandbox and limits, the values for its cgroup. Pure.

What a host cannot do is refused with the reason when the unit starts; with ``sandbox.lenient`` it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from appliance.errors import UnavailableError
from appliance.host.kernel import Kernel
from appliance.schema import Finding, parse_size
from appliance.units.directories import directory_names
from appliance.units.mount_plan import mount_words
from appliance.units.resource_sections import IoLimitTable, LimitsSection, ResourcesSection, numbers_in, percent
from appliance.units.sandbox_section import (
    ALL_CAPABILITIES,
    CAPABILITIES,
    NAMESPACES,
    SandboxSection,
    capability_mask,
)
from appliance.units.service_section import ServiceSection
from appliance.units.unit_file import Unit, UnitDocument

_NOTHING = UnitDocument().resources  # the one of all units that set none
_POLICIES = {"other": 0, "fifo": 1, "rr": 2, "batch": 3, "idle": 5}
_RESET_ON_FORK = 0x40000000
_IO_CLASSES = {"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
_RLIMIT_NPROC = 6
_READ_AND_EXECUTE, _EVERYTHING = "800d", "ffff"  # of Landlock
_OWN_DIRECTORIES = {
    "runtime_directory": "/run", "state_directory": "/var/lib", "cache_directory": "/var/cache",
    "logs_directory": "/var/log",
}  # fmt: skip
NO_CONTROLLERS = (
    "this host has no cgroup v2 controllers (its cgroup hierarchy is a hybrid or an old one): limits in [resources] "
    "are not in force; boot with systemd.unified_cgroup_hierarchy=1, or mount no v1 controllers"
)


def _fenced(document: UnitDocument) -> tuple[object, ...]:
    return document.sandbox, document.limits, document.resources


_ALL_OPEN = _fenced(UnitDocument())  # as nearly all units are


class DynamicUsers(Protocol):
    """Who gives numbers to units with ``dynamic_user``."""

    def uid_of(self, name: str) -> int | None:
        """The number of that unit; None when an account of that name exists: then it is used."""


@dataclass(frozen=True)
class Fences:
    """What this host can do, asked for each unit that starts."""

    kernel: Kernel
    controllers: Callable[[], frozenset[str]]  # of cgroup v2 that can be had here
    directory_of: Callable[[str], str] = str  # a path of the host, below the appliance's root
    device_of: Callable[[str], str] = str  # the numbers of the disk that a path is on
    users: DynamicUsers | None = None
    private_root: str = ""  # below it lie the temporary directories of units with private_tmp

    def service_of(self, unit: Unit) -> ServiceSection:
        """What runs, as whom it really runs: a dynamic user is a number that nobody else has."""
        service = unit.service
        if not unit.document.sandbox.dynamic_user or self.users is None or not self.kernel.is_root:
            return service
        uid = self.users.uid_of(service.user or unit.name)
        return service if uid is None else replace(service, user=str(uid), group=str(uid))

    def private_directory(self, unit: Unit) -> str:
        """Where its temporary directories lie; empty when they are not its own."""
        is_private = unit.document.sandbox.hardened().private_tmp
        return f"{self.private_root}/{unit.name}" if is_private and self.private_root else ""

    def spawn_words(self, document: UnitDocument, private: str = "") -> tuple[str, ...]:
        """Options for spawn. Raises UnavailableError for a fence that this host has not."""
        if all(here is plain for here, plain in zip(_fenced(document), _ALL_OPEN, strict=True)):
            return ()
        sandbox = document.sandbox.hardened()
        if not self.kernel.is_root:
            sandbox = self._without_root(sandbox)
        filter_ = self._filter_word(sandbox)
        mounts = mount_words(sandbox, tuple(self._own_directories(document)), private)
        paths: tuple[str, ...] = ()
        if not self.kernel.is_root and not sandbox.private_users:
            paths, mounts = self._landlock_words(sandbox, mounts, document), ()
        words = [*_priority_words(document.limits), *self._limit_words(document)]
        if sandbox.lenient:
            words += ["--lenient", "1"]
        if flags := _namespace_flags(sandbox):
            words += ["--namespaces", f"{flags:x}"]
        bounding = _bounding(sandbox)
        if bounding != ALL_CAPABILITIES and self.kernel.is_root:
            unknown = (1 << 64) - 1 - ALL_CAPABILITIES if _keeps_unknown(sandbox) else 0
            words += ["--bounding", f"{bounding | unknown:x}"]
        if sandbox.ambient_capabilities:
            words += ["--ambient", f"{capability_mask(sandbox.ambient_capabilities):x}"]
        may_gain_nothing = not self.kernel.is_root and (filter_ or paths or bounding != ALL_CAPABILITIES)
        if sandbox.no_new_privileges or may_gain_nothing:
            words += ["--no-new-privileges", "1"]
        words += [*mounts, *paths]
        if filter_:
            words += ["--seccomp", filter_]
        return tuple(words)

    def cgroup_values(self, document: UnitDocument) -> tuple[tuple[str, str], ...]:
        """File in the cgroup and what to write there. Raises UnavailableError when it is strict and cannot be held."""
        resources = document.resources
        wanted = resources.controllers()
        if not wanted:
            return ()
        missing = sorted(set(wanted) - self.controllers())
        if missing and resources.strict:
            reason = NO_CONTROLLERS if not self.controllers() else "the kernel or whoever delegates does not give it"
            raise UnavailableError(
                f"cannot hold [resources] without the cgroup v2 controller{'s' * (len(missing) > 1)} "
                f"{', '.join(missing)} (resources.strict): {reason}"
            )
        values = cgroup_values(resources, self.kernel, self.device_of)
        return tuple((file, value) for file, value in values if file.partition(".")[0] not in missing)

    def delegated(self, document: UnitDocument, uid: int | None, gid: int | None) -> tuple[tuple[str, str], ...]:
        """For a unit that manages groups of its own: whose its group becomes, and which controllers it is given."""
        delegate = document.resources.delegate
        if delegate is False:
            return ()
        names = self.controllers() if delegate is True else frozenset(delegate) & self.controllers()
        return (("delegate", f"{uid or 0}:{gid or 0}:{','.join(sorted(names))}"),)

    def findings(self, units: Iterable[Unit]) -> tuple[Finding, ...]:
        """Once for all units: what of their limits is not in force on this host. Not for those that are strict."""
        wanting = [unit for unit in units if unit.document.resources is not _NOTHING]
        if not wanting:
            return ()
        here = self.controllers()
        missing: dict[str, str] = {}
        names = []
        for unit in wanting:
            lost = set(unit.document.resources.controllers()) - here
            if lost and not unit.document.resources.strict:
                missing |= dict.fromkeys(sorted(lost), unit.file)
                names.append(unit.name)
        if not names:
            return ()
        shown = f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        why = NO_CONTROLLERS if not here else "they are not given to us: limits by them are not in force"
        message = f"no cgroup v2 controller {', '.join(sorted(missing))} for {shown}: {why}"
        return (Finding(next(iter(missing.values())), 1, 1, "resources", message, "warning"),)

    def _filter_word(self, sandbox: SandboxSection) -> str:
        from appliance.units.sandbox_filter import filter_of
        from appliance.units.system_calls import LOCAL, compile_filter

        filter_ = filter_of(sandbox)
        if filter_.is_empty:
            return ""
        if self.kernel.machine not in LOCAL:
            if sandbox.lenient:
                return ""
            raise UnavailableError(f"cannot filter system calls on a {self.kernel.machine}: this version knows it not")
        return compile_filter(filter_, self.kernel.machine).hex()

    def _limit_words(self, document: UnitDocument) -> Iterator[str]:
        has_processes = document.limits.nproc is not None
        for number, soft, hard in document.limits.resource_limits():
            yield from ("--limit", f"{number}:{soft}:{hard}")
        tasks = document.resources.tasks_max
        is_alone = document.sandbox.dynamic_user  # nobody else is that user: a limit by user is one by unit
        if tasks not in (None, "infinity") and is_alone and not has_processes and "pids" not in self.controllers():
            most = _tasks(tasks, self.kernel)
            yield from ("--limit", f"{_RLIMIT_NPROC}:{most}:{most}")

    def _own_directories(self, document: UnitDocument) -> Iterator[str]:
        for key, above in _OWN_DIRECTORIES.items():
            for name, _ in directory_names(getattr(document.service, key, ()) or ()):
                yield self.directory_of(f"{above}/{name}")

    def _without_root(self, sandbox: SandboxSection) -> SandboxSection:
        if sandbox.dynamic_user:
            raise UnavailableError("cannot become a dynamic user: the appliance itself is not root")
        if sandbox.ambient_capabilities:
            if not sandbox.lenient:
                raise UnavailableError("cannot give ambient_capabilities: the appliance itself is not root")
            return replace(sandbox, ambient_capabilities=())
        return sandbox

    def _landlock_words(
        self, sandbox: SandboxSection, mounts: tuple[str, ...], document: UnitDocument
    ) -> tuple[str, ...]:
        """Without root no mounts, but what is written where can be fenced."""
        for_landlock = ("read_only_root", "writable_paths")
        blank = SandboxSection(
            **{key: value for key, value in vars(sandbox).items() if key in for_landlock and key != "writable_paths"}
        )
        beyond = mount_words(sandbox) != () and (
            sandbox.read_only_root is True
            or sandbox.read_only_root == "full"
            or _kinds(mounts) - _kinds(mount_words(blank)) - {"keep"}
            or _count(mounts, "set") > _count(mount_words(blank), "set")
        )
        if _namespace_flags(sandbox) or beyond or sandbox.root_directory is not None:
            if sandbox.lenient:
                return ()
            raise UnavailableError(
                "cannot make namespaces for [sandbox]: the appliance itself is not root; without root, "
                'read_only_root = "strict" with writable_paths holds (Landlock), and with private_users = true the rest'
            )
        if sandbox.read_only_root != "strict":
            return ()
        if not self.kernel.landlock_version:
            if sandbox.lenient:
                return ()
            raise UnavailableError("cannot fence paths without root: this kernel has no Landlock")
        words = ["--landlock", f"{_READ_AND_EXECUTE}:/"]
        for path in (*sandbox.writable_paths, "-/dev", "-/proc", *self._own_directories(document)):
            optional = "-" if path.startswith("-") else ""
            words += ["--landlock", f"{_EVERYTHING}:{optional}{path.removeprefix('-').removeprefix('+')}"]
        return tuple(words)


def _kinds(words: Iterable[str]) -> set[str]:
    return {word.partition(":")[0] for word in words if word.count(":") >= 2}


def _count(words: Iterable[str], kind: str) -> int:
    return sum(word.startswith(f"{kind}:") for word in words)


def _namespace_flags(sandbox: SandboxSection) -> int:
    wanted = {
        "net": sandbox.private_network, "ipc": sandbox.private_ipc, "uts": sandbox.protect_hostname,
        "user": sandbox.private_users,
    }  # fmt: skip
    return sum(NAMESPACES[name] for name, is_wanted in wanted.items() if is_wanted)


def _bounding(sandbox: SandboxSection) -> int:
    mask = ALL_CAPABILITIES if sandbox.capabilities is None else capability_mask(sandbox.capabilities)
    lost = {
        "CAP_SYS_MODULE": sandbox.protect_kernel_modules, "CAP_SYSLOG": sandbox.protect_kernel_logs,
        "CAP_SYS_TIME": sandbox.protect_clock, "CAP_WAKE_ALARM": sandbox.protect_clock,
        "CAP_MKNOD": sandbox.private_devices, "CAP_SYS_RAWIO": sandbox.private_devices,
    }  # fmt: skip
    for name, is_lost in lost.items():
        if is_lost:
            mask &= ~(1 << CAPABILITIES.index(name))
    return mask


def _keeps_unknown(sandbox: SandboxSection) -> bool:
    """A list of what to drop drops nothing that it does not name, on a kernel that has more of them too."""
    return sandbox.capabilities is None or (bool(sandbox.capabilities) and sandbox.capabilities[0].startswith("~"))


def _priority_words(limits: LimitsSection) -> Iterator[str]:
    if limits.oom_score_adjust is not None:
        yield from ("--oom-score-adjust", str(limits.oom_score_adjust))
    if limits.nice is not None:
        yield from ("--nice", str(limits.nice))
    if limits.cpu_scheduling is not None or limits.cpu_scheduling_reset_on_fork:
        name = limits.cpu_scheduling or "other"
        priority = limits.cpu_scheduling_priority or (1 if name in ("fifo", "rr") else 0)
        policy = _POLICIES[name] | (_RESET_ON_FORK if limits.cpu_scheduling_reset_on_fork else 0)
        yield from ("--scheduling", f"{policy}:{priority}")
    if limits.io_scheduling is not None or limits.io_scheduling_priority is not None:
        io_class = limits.io_scheduling or "best-effort"
        level = limits.io_scheduling_priority if limits.io_scheduling_priority is not None else 4
        yield from ("--io-scheduling", f"{_IO_CLASSES[io_class]}:{0 if io_class in ('idle', 'none') else level}")
    if limits.cpu_affinity is not None:
        yield from ("--cpus", ",".join(map(str, numbers_in(limits.cpu_affinity))))


def cgroup_values(
    resources: ResourcesSection, kernel: Kernel, device_of: Callable[[str], str] = str
) -> Iterator[tuple[str, str]]:
    """Every file of the cgroup that the section sets, and its text."""
    for key in ("min", "low", "high", "max", "swap_max", "zswap_max"):
        value = getattr(resources, f"memory_{key}")
        if value is not None:
            yield f"memory.{key.replace('_', '.')}", memory_text(value, kernel)
    if resources.oom_group:
        yield "memory.oom.group", "1"
    if resources.cpu_weight is not None:
        yield ("cpu.idle", "1") if resources.cpu_weight == "idle" else ("cpu.weight", str(resources.cpu_weight))
    if resources.cpu_quota is not None:
        period = round(resources.cpu_quota_period * 1_000_000)
        share = percent(str(resources.cpu_quota))
        yield "cpu.max", f"{'max' if share is None else max(1000, round(period * share / 100))} {period}"
    if resources.cpus is not None:
        yield "cpuset.cpus", ",".join(map(str, numbers_in(resources.cpus)))
    if resources.memory_nodes is not None:
        yield "cpuset.mems", ",".join(map(str, numbers_in(resources.memory_nodes)))
    if resources.tasks_max is not None:
        yield "pids.max", _tasks(resources.tasks_max, kernel)
    if resources.io_weight is not None:
        yield "io.weight", f"default {resources.io_weight}"
    for one in resources.io_max:
        yield "io.max", _io_text(one, kernel, device_of)


def memory_text(value: int | str, kernel: Kernel) -> str:
    """What memory.max and its like read."""
    if isinstance(value, int):
        return str(value)
    if value == "infinity":
        return "max"
    share = percent(value)
    return str(parse_size(value) if share is None else int(kernel.memory_bytes * share / 100) & ~4095)


def _tasks(value: int | str | None, kernel: Kernel) -> str:
    if isinstance(value, int):
        return str(value)
    share = percent(value or "infinity")
    return "max" if share is None else str(max(1, math.floor(kernel.tasks_max * share / 100)))


def _io_text(one: IoLimitTable, kernel: Kernel, device_of: Callable[[str], str]) -> str:
    device = device_of(one.device) if one.device.startswith("/") else one.device
    parts = {
        "rbps": memory_text(one.read_bytes, kernel), "wbps": memory_text(one.write_bytes, kernel),
        "riops": str(one.read_operations or "max"), "wiops": str(one.write_operations or "max"),
    }  # fmt: skip
    return " ".join((device, *(f"{key}={value}" for key, value in parts.items())))
