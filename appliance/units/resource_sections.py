"""``[resources]`` and ``[limits]`` of a unit file: what it may use, by cgroup and by setrlimit(2). Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.errors import InputError
from appliance.schema import Duration, parse_duration, parse_size

_PERCENT = re.compile(r"(\d{1,7}(?:\.\d{1,2})?)%")
_CPUS = re.compile(r"\d{1,4}(-\d{1,4})?([, ]+\d{1,4}(-\d{1,4})?)*")
_INTERFACE = re.compile(r"[^\s/:~]{1,15}")
_MEMORY_EXAMPLES = '"512M", "20%" or "infinity"'
NETWORKS_MAX = 1000
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def memory_problem(value: int | str) -> str | None:
    """Bytes, a size, a share of the host's memory, or "infinity"."""
    if isinstance(value, int):
        return None if value >= 0 else f"found {value}, expected a size such as {_MEMORY_EXAMPLES}"
    if value == "infinity":
        return None
    if percent(value) is not None:
        return None if percent(value, 100) is not None else f'found "{value}", expected at most 100%'
    try:
        parse_size(value)
    except InputError:
        return f'found "{value}", expected a size such as {_MEMORY_EXAMPLES}'
    return None


def percent(text: str, most: float = math.inf) -> float | None:
    """20 of "20%"; None when it is no share, or a larger one than that."""
    found = _PERCENT.fullmatch(text)
    return float(found[1]) if found and float(found[1]) <= most else None


def _quota_problem(value: int | str) -> str | None:
    if value == "infinity" or (isinstance(value, str) and percent(value)):
        return None
    return f'found "{value}", expected a share of one CPU such as "20%" or "250%", or "infinity"'


def _tasks_problem(value: int | str) -> str | None:
    good = value > 0 if isinstance(value, int) else value == "infinity" or bool(percent(value, 100))
    return None if good else f'found "{value}", expected a number, a share such as "10%", or "infinity"'


def _weight_problem(value: int | str) -> str | None:
    if value == "idle" or (isinstance(value, int) and 1 <= value <= 10000):
        return None
    return f'found "{value}", expected a number from 1 to 10000 (100 is what every unit has), or "idle"'


def _controllers_problem(value: bool | tuple[str, ...]) -> str | None:
    for one in value if isinstance(value, tuple) else ():
        if one not in CONTROLLERS:
            return f'found "{one}", expected controllers: {", ".join(CONTROLLERS)}'
    return None


def _devices_problem(entries: tuple[str, ...]) -> str | None:
    from appliance.units.device_program import entries_problem

    return entries_problem(entries)


def _networks_problem(words: tuple[str, ...]) -> str | None:
    from appliance.units.packet_program import networks_problem

    return networks_problem(words)


def _binds_problem(rules: tuple[str, ...]) -> str | None:
    from appliance.units.bind_program import rules_problem

    return rules_problem(rules)


def _interfaces_problem(names: tuple[str, ...]) -> str | None:
    for number, name in enumerate(names):
        if not _INTERFACE.fullmatch(name.removeprefix("~") if number == 0 else name):
            return f'found "{name}", expected names of network interfaces such as "eth0"'
    return None


def _cpus_problem(value: str) -> str | None:
    return None if _CPUS.fullmatch(value) else f'found "{value}", expected numbers and ranges such as "0-3,8"'


_MEMORY: Mapping[str, Any] = {"check": memory_problem, "example": _MEMORY_EXAMPLES}
_CPU_LIST: Mapping[str, Any] = {"check": _cpus_problem}
_NETWORKS: Mapping[str, Any] = {"check": _networks_problem}
_BINDS: Mapping[str, Any] = {"check": _binds_problem}
_DEVICE: Mapping[str, Any] = {"pattern": r"/[^\0]*|\d+:\d+", "what": "a path, or the numbers of a device such as 8:0"}


@dataclass(frozen=True, kw_only=True)
class IoLimitTable:
    """``[[resources.io_max]]``: how much a second from and to one disk; a path means the disk that it is on."""

    device: str = field(metadata=_DEVICE)
    read_bytes: int | str = field(default="infinity", metadata=_MEMORY)
    write_bytes: int | str = field(default="infinity", metadata=_MEMORY)
    read_operations: int | None = field(default=None, metadata={"min": 1})
    write_operations: int | None = field(default=None, metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class ResourcesSection:
    """``[resources]``: the unit's cgroup (v2). ``strict``: it is not started where one of them cannot be had."""

    memory_max: int | str | None = field(default=None, metadata=_MEMORY)
    memory_high: int | str | None = field(default=None, metadata=_MEMORY)
    memory_low: int | str | None = field(default=None, metadata=_MEMORY)
    memory_min: int | str | None = field(default=None, metadata=_MEMORY)
    memory_swap_max: int | str | None = field(default=None, metadata=_MEMORY)
    memory_zswap_max: int | str | None = field(default=None, metadata=_MEMORY)
    oom_group: bool = False  # out of memory: all of it is killed, not one process
    cpu_weight: int | str | None = field(default=None, metadata={"check": _weight_problem})
    cpu_quota: int | str | None = field(default=None, metadata={"check": _quota_problem})
    cpu_quota_period: Duration = field(default=0.1, metadata={"min": 0.001, "max": 1.0})
    cpus: str | None = field(default=None, metadata=_CPU_LIST)
    memory_nodes: str | None = field(default=None, metadata=_CPU_LIST)
    tasks_max: int | str | None = field(default=None, metadata={"check": _tasks_problem})
    io_weight: int | None = field(default=None, metadata={"min": 1, "max": 10000})
    io_max: tuple[IoLimitTable, ...] = ()
    delegate: bool | tuple[str, ...] = field(default=False, metadata={"check": _controllers_problem})
    device_policy: Literal["auto", "closed", "strict"] = "auto"
    device_allow: tuple[str, ...] = field(default=(), metadata={"check": _devices_problem})
    ip_address_allow: tuple[str, ...] = field(default=(), metadata=_NETWORKS)
    ip_address_deny: tuple[str, ...] = field(default=(), metadata=_NETWORKS)
    ip_accounting: bool = False
    restrict_network_interfaces: tuple[str, ...] = field(default=(), metadata={"check": _interfaces_problem})
    socket_bind_allow: tuple[str, ...] = field(default=(), metadata=_BINDS)
    socket_bind_deny: tuple[str, ...] = field(default=(), metadata=_BINDS)
    strict: bool = False

    def problems(self) -> Iterator[tuple[str, str]]:
        """The addresses become one program, and the kernel takes none that is too long."""
        count = len(self.ip_address_allow) + len(self.ip_address_deny)
        if count > NETWORKS_MAX:
            yield "ip_address_deny", f"found {count} addresses in both lists, expected at most {NETWORKS_MAX}"

    def controllers(self) -> tuple[str, ...]:
        """Which controllers of the kernel it takes to hold this."""
        memory = (
            self.memory_max, self.memory_high, self.memory_low, self.memory_min, self.memory_swap_max,
            self.memory_zswap_max, self.oom_group or None,
        )  # fmt: skip
        wanted = {
            "cpu": self.cpu_weight is not None or self.cpu_quota is not None,
            "cpuset": self.cpus is not None or self.memory_nodes is not None,
            "io": self.io_weight is not None or bool(self.io_max),
            "memory": any(one is not None for one in memory),
            "pids": self.tasks_max is not None,
        }
        given = self.delegate if isinstance(self.delegate, tuple) else ()
        return tuple(name for name in CONTROLLERS if wanted[name] or name in given)


_BYTES = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")
NUMBERS: Mapping[str, int] = {  # linux/resource.h, the same on all machines we run on
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9,
    "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip


def limit_values(name: str, value: int | str) -> tuple[str, str]:
    """Soft and hard limit, as spawn reads them. Raises InputError."""
    soft, colon, hard = str(value).partition(":")
    first = _limit_number(name, soft)
    return first, _limit_number(name, hard) if colon else first


def _limit_number(name: str, text: str) -> str:
    if text == "infinity":
        return text
    if name == "nice" and text[:1] in ("+", "-") and text[1:].isdecimal() and -20 <= int(text) <= 19:
        return str(20 - int(text))
    if text.isdecimal() and len(text) < 20:
        return text
    if name in _BYTES:
        return str(parse_size(text))
    if name in ("cpu", "rttime"):
        return str(math.ceil(parse_duration(text) * (1 if name == "cpu" else 1_000_000)))
    raise InputError('expected a number, "infinity", or "SOFT:HARD"')


def _limit_problem(name: str) -> Mapping[str, Any]:
    def check(value: int | str) -> str | None:
        try:
            soft, hard = limit_values(name, value)
        except InputError as error:
            return f'found "{value}", {error.message}'
        if hard != "infinity" and (soft == "infinity" or int(soft) > int(hard)):
            return f'found "{value}", expected a soft limit that is not above the hard one'
        return None

    return {"check": check}


def _a_limit(name: str) -> Any:
    return field(default=None, metadata=_limit_problem(name))


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """``[limits]``: setrlimit(2) by its names ("SOFT:HARD" or both in one), and how urgent the unit is."""

    as_: int | str | None = _a_limit("as")
    core: int | str | None = _a_limit("core")
    cpu: int | str | None = _a_limit("cpu")
    data: int | str | None = _a_limit("data")
    fsize: int | str | None = _a_limit("fsize")
    locks: int | str | None = _a_limit("locks")
    memlock: int | str | None = _a_limit("memlock")
    msgqueue: int | str | None = _a_limit("msgqueue")
    nice_max: int | str | None = _a_limit("nice")  # RLIMIT_NICE: how far it may raise itself; "+5" or "-5" as nice
    nofile: int | str | None = _a_limit("nofile")
    nproc: int | str | None = _a_limit("nproc")
    rss: int | str | None = _a_limit("rss")
    rtprio: int | str | None = _a_limit("rtprio")
    rttime: int | str | None = _a_limit("rttime")
    sigpending: int | str | None = _a_limit("sigpending")
    stack: int | str | None = _a_limit("stack")
    nice: int | None = field(default=None, metadata={"min": -20, "max": 19})
    oom_score_adjust: int | None = field(default=None, metadata={"min": -1000, "max": 1000})
    cpu_scheduling: Literal["other", "batch", "idle", "fifo", "rr"] | None = None
    cpu_scheduling_priority: int | None = field(default=None, metadata={"min": 0, "max": 99})
    cpu_scheduling_reset_on_fork: bool = False
    cpu_affinity: str | None = field(default=None, metadata=_CPU_LIST)
    io_scheduling: Literal["none", "realtime", "best-effort", "idle"] | None = None
    io_scheduling_priority: int | None = field(default=None, metadata={"min": 0, "max": 7})

    def problems(self) -> Iterator[tuple[str, str]]:
        """A priority belongs to the real-time policies, and these need one."""
        real_time = self.cpu_scheduling in ("fifo", "rr")
        if real_time and self.cpu_scheduling_priority == 0:
            yield "cpu_scheduling_priority", f'found 0, expected 1 to 99 with cpu_scheduling = "{self.cpu_scheduling}"'
        if not real_time and self.cpu_scheduling_priority:
            yield "cpu_scheduling_priority", 'found a priority, expected one only with cpu_scheduling "fifo" or "rr"'

    def resource_limits(self) -> Iterator[tuple[int, str, str]]:
        """Number, soft and hard limit of each that is set."""
        for name, number in NUMBERS.items():
            value = getattr(self, {"as": "as_", "nice": "nice_max"}.get(name, name))
            if value is not None:
                yield (number, *limit_values(name, value))


def numbers_in(cpus: str) -> tuple[int, ...]:
    """0, 1, 2, 8 of "0-2,8"."""
    found: set[int] = set()
    for part in re.split("[, ]+", cpus):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
