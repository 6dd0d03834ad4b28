"""Fences that are programs in the kernel, of the unit's cgroup: devices, addresses, network interfaces, ports.

They are put on before anything of the unit runs, and go with its cgroup. Where a host takes none, the unit runs without
and ``findings`` say so, unless it is strict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import UnavailableError
from appliance.host.bpf import Program
from appliance.schema import Finding
from appliance.units.resource_sections import ResourcesSection
from appliance.units.unit_file import Unit, UnitDocument

if TYPE_CHECKING:
    from appliance.units.device_program import Drivers, Node

_NAMES_SHOWN = 5
_SETTINGS = (
    "device_policy", "device_allow", "ip_address_allow", "ip_address_deny", "ip_accounting",
    "restrict_network_interfaces", "socket_bind_allow", "socket_bind_deny",
)  # fmt: skip
_PLAIN = UnitDocument().resources  # the one of all units that set none


def _no_cgroup() -> str:
    return "units have no cgroup v2 here"


def _no_node(path: str) -> Node | None:
    return None


def _no_interface(name: str) -> int | None:
    return None


@dataclass(frozen=True)
class CgroupPrograms:
    """What this host can do, and what it has; asked for each unit that starts."""

    why_not: Callable[[], str] = _no_cgroup  # empty: it takes such programs
    node_of: Callable[[str], Node | None] = _no_node
    drivers: Callable[[], Drivers] = tuple
    interface_of: Callable[[str], int | None] = _no_interface

    def of(self, document: UnitDocument) -> tuple[Program, ...]:
        """Those of a unit. Raises UnavailableError when it is strict and cannot have them."""
        resources, sandbox = document.resources, document.sandbox
        if resources is _PLAIN and not (sandbox.private_devices or sandbox.protect_clock):
            return ()  # nearly all of them
        wanted = _wanted(resources)
        closes_devices = has_devices_fenced(document)
        if not wanted and not closes_devices:
            return ()
        if why := self.why_not():
            if wanted and resources.strict:
                raise UnavailableError(f"cannot hold {', '.join(wanted)} (resources.strict): {why}")
            return ()
        devices = self._of_devices(document) if closes_devices else ()
        return (*devices, *self._of_packets(resources), *_of_binds(resources))

    def findings(self, units: Iterable[Unit]) -> Iterator[Finding]:
        """Once for all units: what is not in force on this host. Not for those that are strict."""
        some = [unit for unit in units if unit.document.resources is not _PLAIN and not unit.document.resources.strict]
        lost = [(unit, wanted) for unit in some if (wanted := _wanted(unit.document.resources))]
        if not lost or not (why := self.why_not()):
            return
        names = [unit.name for unit, _ in lost]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        settings = ", ".join(dict.fromkeys(word for _, wanted in lost for word in wanted))
        message = f"{settings} not in force for {', '.join(names[:_NAMES_SHOWN])}{more}: {why}"
        yield Finding(lost[0][0].file, 1, 1, "resources", message, "warning")

    def _of_devices(self, document: UnitDocument) -> Iterator[Program]:
        from appliance.units.device_program import STANDARD, device_program, path_of, rules_of

        entries = (*document.resources.device_allow, *(("char-rtc r",) if document.sandbox.protect_clock else ()))
        nodes = {path: node for path in map(path_of, entries) if path and (node := self.node_of(path)) is not None}
        drivers = self.drivers() if any(not entry.startswith("/") for entry in entries) else ()
        standard = () if document.resources.device_policy == "strict" else STANDARD
        yield Program("device", device_program((*standard, *rules_of(entries, nodes, drivers))))

    def _of_packets(self, resources: ResourcesSection) -> Iterator[Program]:
        words = resources.restrict_network_interfaces
        if not (words or resources.ip_address_deny or resources.ip_accounting):
            return
        from appliance.units.packet_program import packet_program

        are_denied = bool(words) and words[0].startswith("~")
        found = (self.interface_of(word.removeprefix("~")) for word in words)
        interfaces = frozenset(index for index in found if index is not None) if words else None
        for direction in ("ingress", "egress"):
            code = packet_program(
                direction, allow=resources.ip_address_allow, deny=resources.ip_address_deny, interfaces=interfaces,
                are_denied=are_denied, counts=resources.ip_accounting,
            )  # fmt: skip
            yield Program(direction, code, counts=resources.ip_accounting)


def has_devices_fenced(document: UnitDocument) -> bool:
    """As with systemd, what is allowed, a /dev of its own, and a protected clock close all other devices off."""
    resources, sandbox = document.resources, document.sandbox
    open_ = not (resources.device_allow or sandbox.private_devices or sandbox.protect_clock)
    return resources.device_policy != "auto" or not open_


def _of_binds(resources: ResourcesSection) -> Iterator[Program]:
    if not resources.socket_bind_deny:
        return
    from appliance.units.bind_program import bind_program

    allow, deny = resources.socket_bind_allow, resources.socket_bind_deny
    yield Program("bind4", bind_program(allow, deny, 4))
    yield Program("bind6", bind_program(allow, deny, 6))


def _wanted(resources: ResourcesSection) -> tuple[str, ...]:
    """What somebody set of these."""
    return tuple(key for key in _SETTINGS if getattr(resources, key) != getattr(_PLAIN, key))
