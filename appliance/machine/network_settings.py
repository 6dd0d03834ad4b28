"""``[network]``: interfaces of a machine that runs our own image; elsewhere the host's own tools set them up. Pure."""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_IP = r"[0-9A-Fa-f:.]+"
_ADDRESSES: Mapping[str, Any] = {"pattern": rf"{_IP}/\d{{1,3}}", "what": 'an address and prefix, as "192.0.2.7/24"'}
_SERVERS: Mapping[str, Any] = {"pattern": _IP, "what": "an IP address"}


@dataclass(frozen=True, kw_only=True)
class RouteTable:
    """``to``: a network, or "default"."""

    to: str
    via: str = field(metadata=_SERVERS)
    metric: int = field(default=0, metadata={"min": 0, "max": (1 << 31) - 1})

    def problems(self) -> Iterator[tuple[str, str]]:
        """Both must be of one family."""
        if self.to != "default":
            try:
                ipaddress.ip_network(self.to)
            except ValueError as exc:
                yield "to", f'found "{self.to}", expected "default" or a network: {exc}'
        if not _is_address(self.via):
            yield "via", f'found "{self.via}", expected an IP address'


@dataclass(frozen=True, kw_only=True)
class InterfaceTable:
    """``[[network.interface]]``: ``name`` may be a pattern ("en*"); with ``kind`` it is made."""

    name: str = field(metadata={"pattern": r"[A-Za-z0-9_.*?\[\]-]{1,15}", "what": "an interface's name or a pattern"})
    mac: str = field(default="", metadata={"pattern": r"|([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", "what": "a MAC address"})
    dhcp: bool | None = None
    ipv6: Literal["auto", "off"] = "auto"
    addresses: tuple[str, ...] = field(default=(), metadata=_ADDRESSES)
    gateway: str | None = field(default=None, metadata=_SERVERS)
    gateway6: str | None = field(default=None, metadata=_SERVERS)
    routes: tuple[RouteTable, ...] = ()
    dns: tuple[str, ...] = field(default=(), metadata=_SERVERS)
    mtu: int | None = field(default=None, metadata={"min": 68, "max": 65536})
    kind: Literal["vlan", "bond", "bridge"] | None = None
    parent: str | None = None
    id: int | None = field(default=None, metadata={"min": 1, "max": 4094})
    members: tuple[str, ...] = ()
    mode: Literal[
        "balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"
    ] | None = None

    @property
    def wants_dhcp(self) -> bool:
        """Asked for, or nothing else was."""
        return self.dhcp if self.dhcp is not None else not self.addresses

    def fits(self, name: str, mac: str) -> bool:
        """Whether this table is for that interface."""
        return fnmatch.fnmatchcase(name, self.name) and (not self.mac or self.mac.lower() == mac)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What belongs together."""
        for number, text in enumerate(self.addresses):
            try:
                ipaddress.ip_interface(text)
            except ValueError as exc:
                yield f"addresses[{number}]", f'found "{text}": {exc}'
        for key, version in (("gateway", 4), ("gateway6", 6)):
            text = getattr(self, key)
            if text is not None and (not _is_address(text) or ipaddress.ip_address(text).version != version):
                yield key, f'found "{text}", expected an IPv{version} address'
        if self.kind is not None and any(one in self.name for one in "*?["):
            yield "name", f'found the pattern "{self.name}", expected the name of the {self.kind} to make'
        if self.kind == "vlan" and (self.parent is None or self.id is None):
            yield "kind", 'found "vlan", which needs parent and id'
        if self.kind in ("bond", "bridge") and not self.members:
            yield "kind", f'found "{self.kind}", which needs members'
        if self.kind != "vlan" and (self.parent is not None or self.id is not None):
            yield "parent" if self.parent is not None else "id", 'found without kind = "vlan"'
        if self.kind not in ("bond", "bridge") and self.members:
            yield "members", 'found without kind = "bond" or "bridge"'
        if self.kind != "bond" and self.mode is not None:
            yield "mode", 'found without kind = "bond"'


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Without any, every cabled interface asks for an address by DHCP, and takes what routers announce by IPv6."""

    dhcp: bool = True
    dns: tuple[str, ...] = field(default=(), metadata=_SERVERS)
    search: tuple[str, ...] = ()
    interface: tuple[InterfaceTable, ...] = ()

    def table_for(self, name: str, mac: str) -> InterfaceTable | None:
        """The first that fits; None: leave it alone."""
        for table in self.interface:
            if table.fits(name, mac):
                return table
        member = any(name in table.members for table in self.interface)
        return InterfaceTable(name=name) if self.dhcp and not member else None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
