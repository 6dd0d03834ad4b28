"""Whom a unit may send to and hear from, as programs for its cgroup (systemd.resource-control(5)). Pure.

What is denied becomes a sorted list of ranges, and a program finds the one of an address as one finds a name in a book.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from appliance.units.bpf_code import LOAD_PACKET_BYTES, MAP_LOOKUP, STACK, Code

Direction = Literal["ingress", "egress"]

_WORDS = {
    "any": ("0.0.0.0/0", "::/0"), "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"), "multicast": ("224.0.0.0/4", "ff00::/8"),
}  # fmt: skip
_INTERFACE_AT, _PROTOCOL_AT = 40, 16  # of struct __sk_buff
_ADDRESS_AT = {("ingress", 4): 12, ("egress", 4): 16, ("ingress", 6): 8, ("egress", 6): 24}  # in the packet's header
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_BITS = {4: 32, 6: 128}
_SKB, _HIGH, _LOW = 6, 7, 8  # registers
_BELOW_STACK = -16

Segment = tuple[int, bool]  # the first address of a range, and whether it is denied


def networks_problem(words: tuple[str, ...]) -> str | None:
    """Of ``ip_address_allow`` and ``ip_address_deny``."""
    for word in words:
        try:
            networks(word)
        except ValueError:
            return f'found "{word}", expected an address such as 10.0.0.0/8 or ::1, or one of {", ".join(_WORDS)}'
    return None


def networks(word: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Of one entry. Raises ValueError."""
    return [ipaddress.ip_network(text, strict=False) for text in _WORDS.get(word, (word,))]


def segments(allow: Iterable[str], deny: Iterable[str], version: int) -> tuple[Segment, ...]:
    """The whole range of addresses, in parts from the first on. What is allowed is not denied, whatever its length."""
    allowed, denied = _ranges(allow, version), _ranges(deny, version)
    edges = sorted({0, *(edge for one in (*allowed, *denied) for edge in one)} - {1 << _BITS[version]})
    found: list[Segment] = []
    for edge in edges:
        is_denied = _within(edge, denied) and not _within(edge, allowed)
        if not found or found[-1][1] is not is_denied:
            found.append((edge, is_denied))
    return tuple(found)


def _ranges(words: Iterable[str], version: int) -> list[tuple[int, int]]:
    """Begins, and ends that are not part of them; none meets another."""
    own = [one for word in words for one in networks(word) if one.version == version]
    joined: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network] = ipaddress.collapse_addresses(own)  # type: ignore[type-var]
    return sorted((int(one.network_address), int(one.broadcast_address) + 1) for one in joined)


def _within(address: int, ranges: Sequence[tuple[int, int]]) -> bool:
    from bisect import bisect_right

    at = bisect_right(ranges, (address, 1 << 129)) - 1
    return at >= 0 and address < ranges[at][1]


def packet_program(
    direction: Direction,
    *,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    interfaces: frozenset[int] | None = None,
    are_denied: bool = False,
    counts: bool = False,
) -> bytes:
    """Over struct __sk_buff. ``interfaces``: the only ones, or those that ``are_denied``. ``counts``: what passes.

    Raises TooLongError.
    """
    code = Code()
    code.copy(_SKB, 1)
    if interfaces is not None:
        if not interfaces and not are_denied:
            code.answer(0)
            return code.assemble()
        good = code.new_mark()
        code.load(_HIGH, _SKB, _INTERFACE_AT)
        for index in sorted(interfaces):
            code.jump_if(_HIGH, "==", index, "deny" if are_denied else good)
        if not are_denied:
            code.jump("deny")
        code.mark(good)
    parts = {version: segments(allow, deny, version) for version in (4, 6)}
    if any(is_denied for part in parts.values() for _, is_denied in part):
        code.load(_HIGH, _SKB, _PROTOCOL_AT)
        for version, part in parts.items():
            as_loaded = int.from_bytes(_ETHERTYPES[version].to_bytes(2, "big"), sys.byteorder)
            where = f"version {version}" if len(part) > 1 else _leaf(part[0])
            code.jump_if(_HIGH, "==", as_loaded, where)
        code.jump("pass")
        for version, part in parts.items():
            if len(part) > 1:
                code.mark(f"version {version}")
                _load_address(code, _ADDRESS_AT[direction, version], version)
                _search(code, part, version)
    code.mark("pass")
    if counts:
        _count(code, direction)
    code.answer(1)
    if code.leads_to("deny"):
        code.mark("deny")
        code.answer(0)
    return code.assemble()


def _leaf(segment: Segment) -> str:
    return "deny" if segment[1] else "pass"


def _load_address(code: Code, offset: int, version: int) -> None:
    code.copy(1, _SKB)
    code.set(2, offset)
    code.copy(3, STACK)
    code.add(3, _BELOW_STACK)
    code.set(4, _BITS[version] // 8)
    code.call(LOAD_PACKET_BYTES)
    code.jump_if(0, "!=", 0, "deny")  # a packet without a whole header
    if version == 4:
        code.load(_HIGH, STACK, _BELOW_STACK)
        code.from_network(_HIGH, 32)
        return
    for register, place in ((_HIGH, _BELOW_STACK), (_LOW, _BELOW_STACK + 8)):
        code.load(register, STACK, place, size=8)
        code.from_network(register, 64)


def _search(code: Code, part: Sequence[Segment], version: int) -> None:
    if len(part) == 1:
        code.jump(_leaf(part[0]))
        return
    middle = len(part) // 2
    upper = code.new_mark()
    edge = part[middle][0]
    if version == 4:
        code.jump_if(_HIGH, ">=", edge, upper)
    else:
        high, low = edge >> 64, edge & (1 << 64) - 1
        code.set(1, high)
        if low:
            lower = code.new_mark()
            code.jump_if_register(_HIGH, ">", 1, upper)
            code.jump_if_register(_HIGH, "<", 1, lower)
            code.set(1, low)
            code.jump_if_register(_LOW, ">=", 1, upper)
            code.mark(lower)
        else:
            code.jump_if_register(_HIGH, ">=", 1, upper)
    _search(code, part[:middle], version)
    code.mark(upper)
    _search(code, part[middle:], version)


def _count(code: Code, direction: Direction) -> None:
    """Bytes and packets, at their place in the map."""
    code.store(STACK, -4, ("ingress", "egress").index(direction))
    code.set_map(1)
    code.copy(2, STACK)
    code.add(2, -4)
    code.call(MAP_LOOKUP)
    code.jump_if_null(0, "counted")
    code.load(1, _SKB, 0)
    code.add_at(0, 0, 1)
    code.set(1, 1)
    code.add_at(0, 8, 1)
    code.mark("counted")
