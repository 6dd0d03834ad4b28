"""Links, addresses and routes by rtnetlink(7): what a machine of ours needs of it, in 250 lines.

pyroute2 does all of it and more, for 24 MB and 190 ms in the one process that must stay small; so this is our own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.errors import UnavailableError

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HEADER, _LINK, _ADDRESS = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")
_NEWLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _DELROUTE = 16, 18, 20, 21, 22, 24, 25
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE, _DUMP = 1, 4, 0x100, 0x200, 0x400, 0x300
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_INFO_KIND, _INFO_DATA, _VLAN_ID, _BOND_MODE, _BOND_MIIMON = 1, 2, 1, 1, 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_CACHEINFO = 1, 2, 8, 6
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_UP, _RUNNING = 1, 0x40
_GROUP_LINK = 1
_FOREVER = 0xFFFFFFFF  # seconds
BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")


@dataclass(frozen=True)
class Link:
    """A network interface as the kernel sees it."""

    index: int
    name: str
    hardware: bytes  # MAC address
    up: bool
    carrier: bool  # a cable with somebody at its other end
    mtu: int
    kind: str  # "" of hardware; vlan, bond, bridge ...
    master: int


def links() -> tuple[Link, ...]:
    """All of them, in the order of their numbers. Raises UnavailableError."""
    return tuple(_parse_link(body) for body in _ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), _DUMP))


def set_link(index: int, *, up: bool, mtu: int = 0, master: int | None = None) -> None:
    """Raises UnavailableError."""
    attributes = _attribute(_IFLA_MTU, struct.pack("=I", mtu)) if mtu else b""
    if master is not None:
        attributes += _attribute(_IFLA_MASTER, struct.pack("=I", master))
    _ask(_NEWLINK, _LINK.pack(0, 0, index, _UP if up else 0, _UP) + attributes, _ACK, f"set interface {index}")


def make_link(name: str, kind: str, *, parent: int = 0, vlan: int = 0, mode: str = "") -> None:
    """A vlan, bond or bridge; existing is fine. Raises UnavailableError."""
    data = b""
    if kind == "vlan":
        data = _attribute(_VLAN_ID, struct.pack("=H", vlan))
    elif kind == "bond":
        data = _attribute(_BOND_MODE, struct.pack("=B", BOND_MODES.index(mode or "active-backup")))
        data += _attribute(_BOND_MIIMON, struct.pack("=I", 100))
    info = _attribute(_INFO_KIND, kind.encode()) + (_attribute(_INFO_DATA, data) if data else b"")
    body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    body += _attribute(_IFLA_LINK, struct.pack("=I", parent)) if parent else b""
    body += _attribute(_IFLA_LINKINFO, info)
    if not any(link.name == name for link in links()):
        _ask(_NEWLINK, body, _ACK | _CREATE | _EXCLUSIVE, f"make the {kind} {name}")


def addresses(index: int) -> tuple[Interface, ...]:
    """Of that interface, link-local ones too. Raises UnavailableError."""
    found: list[Interface] = []
    for body in _ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), _DUMP):
        _, prefix, _, _, own = _ADDRESS.unpack_from(body)
        values = dict(_attributes(body[_ADDRESS.size :]))
        raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if own == index and raw is not None:
            found.append(ipaddress.ip_interface((raw, prefix)))
    return tuple(found)


def add_address(index: int, address: Interface, *, valid_seconds: int | None = None) -> None:
    """Or renew it; without ``valid_seconds`` it stays. Raises UnavailableError."""
    body = _address_body(index, address, valid_seconds)
    _ask(_NEWADDR, body, _ACK | _CREATE | _REPLACE, f"set the address {address}")


def delete_address(index: int, address: Interface) -> None:
    """Raises UnavailableError."""
    _ask(_DELADDR, _address_body(index, address, None), _ACK, f"remove the address {address}")


def add_route(index: int, to: str, via: Address | None, *, metric: int = 0, source: Address | None = None) -> None:
    """``to``: "default" or a network. Raises UnavailableError."""
    body = _route_body(index, to, via, metric, source)
    _ask(_NEWROUTE, body, _ACK | _CREATE | _REPLACE, f"set the route to {to} via {via}")


def delete_route(index: int, to: str, via: Address | None, *, metric: int = 0) -> None:
    """Raises UnavailableError."""
    _ask(_DELROUTE, _route_body(index, to, via, metric, None), _ACK, f"remove the route to {to} via {via}")


@contextlib.contextmanager
def link_changes() -> Iterator[socket.socket]:
    """Readable whenever a link comes, goes, or gets or loses its carrier; read it empty with ``drain``."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0) as told:
        told.bind((0, _GROUP_LINK))
        yield told


def drain(told: socket.socket) -> None:
    """What it says is looked up anyway."""
    with contextlib.suppress(OSError):  # nothing left; or it overflowed, and then we look anyway
        while told.recv(1 << 16):
            pass


def _address_body(index: int, address: Interface, valid: int | None) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _ADDRESS.pack(family, address.network.prefixlen, 0, 0, index)
    body += _attribute(_IFA_LOCAL, address.ip.packed) + _attribute(_IFA_ADDRESS, address.ip.packed)
    if valid is not None:
        valid = min(valid, _FOREVER)
        body += _attribute(_IFA_CACHEINFO, struct.pack("=IIII", valid, valid, 0, 0))
    return body


def _route_body(index: int, to: str, via: Address | None, metric: int, source: Address | None) -> bytes:
    network = None if to == "default" else ipaddress.ip_network(to)
    version = via.version if via is not None else network.version if network is not None else 4
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = 0 if via is not None else 253
    prefix = network.prefixlen if network is not None else 0
    body = _ROUTE_HEADER.pack(family, prefix, 0, 0, 254, 4, scope, 1, 0)  # main table, static, unicast
    if network is not None:
        body += _attribute(_RTA_DST, network.network_address.packed)
    if via is not None:
        body += _attribute(_RTA_GATEWAY, via.packed)
    if metric:
        body += _attribute(_RTA_PRIORITY, struct.pack("=I", metric))
    if source is not None:
        body += _attribute(_RTA_PREFSRC, source.packed)
    return body + _attribute(_RTA_OIF, struct.pack("=I", index))


def _attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) // 4 * 4 :]


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    values: Mapping[int, bytes] = dict(_attributes(body[_LINK.size :]))
    info = dict(_attributes(values.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=index, name=values.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(), hardware=values.get(_IFLA_ADDRESS, b""),
        up=bool(flags & _UP), carrier=bool(flags & _RUNNING), mtu=_number(values.get(_IFLA_MTU)),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(), master=_number(values.get(_IFLA_MASTER)),
    )  # fmt: skip


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw, "little" if struct.pack("=H", 1) == b"\1\0" else "big") if raw else 0


def _ask(kind: int, body: bytes, flags: int, what: str = "read the network's state") -> Sequence[bytes]:
    """The bodies of the answers of that kind. Raises UnavailableError."""
    found: list[bytes] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as asker:
            asker.bind((0, 0))
            asker.sendall(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
            while True:
                data = asker.recv(1 << 18)
                while len(data) >= _HEADER.size:
                    length, answer, _, _, _ = _HEADER.unpack_from(data)
                    inner, data = data[_HEADER.size : length], data[(length + 3) // 4 * 4 :]
                    if answer == _DONE:
                        return found
                    if answer == _ERROR:
                        code = -struct.unpack_from("=i", inner)[0]
                        if code:
                            raise UnavailableError(f"cannot {what}: {os.strerror(code)}")
                        return found
                    found.append(inner)
    except OSError as exc:
        raise UnavailableError(f"cannot {what}: {exc.strerror}") from exc
