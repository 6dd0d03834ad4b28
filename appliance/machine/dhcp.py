"""A DHCP client, sans I/O: what to send, and what an answer means (RFC 2131, options of RFC 2132). Pure.

``Client`` is fed answers and the time, and says what to send and when it wants to be woken.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

_COOKIE = b"\x63\x82\x53\x63"
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_MASK, _ROUTER, _DNS, _HOST, _DOMAIN, _MTU, _WANTED, _LEASE, _KIND, _SERVER, _ASKED, _T1, _T2, _CLIENT = (
    1, 3, 6, 12, 15, 26, 50, 51, 53, 54, 55, 58, 59, 61,
)  # fmt: skip
_ROUTES = 121  # classless static routes, RFC 3442
_DISCOVER, _OFFER, _REQUEST, _DECLINE, _ACK, _NAK, _RELEASE = 1, 2, 3, 4, 5, 6, 7
_FIRST_WAIT, _LONGEST_WAIT, _LEASE_MIN = 2.0, 64.0, 30.0
_DESIRED = bytes((_MASK, _ROUTER, _DNS, _HOST, _DOMAIN, _MTU, _LEASE, _T1, _T2, _ROUTES))
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
NOWHERE = ipaddress.IPv4Address("0.0.0.0")


class Phase(enum.Enum):
    """RFC 2131, figure 5."""

    SELECTING = "selecting"
    REQUESTING = "requesting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


@dataclass(frozen=True)
class Lease:
    """What a server gave us. Seconds count from when it was asked for."""

    address: ipaddress.IPv4Interface
    server: ipaddress.IPv4Address
    routers: tuple[ipaddress.IPv4Address, ...]
    routes: tuple[tuple[str, ipaddress.IPv4Address], ...]
    dns: tuple[str, ...]
    domain: str
    host: str
    mtu: int
    seconds: float
    renew: float
    rebind: float


@dataclass(frozen=True)
class Send:
    """One datagram, from port 68 to port 67."""

    source: ipaddress.IPv4Address
    target: ipaddress.IPv4Address
    data: bytes


@dataclass(frozen=True)
class Answer:
    """A server's datagram, understood."""

    kind: int
    transaction: int
    yours: ipaddress.IPv4Address
    options: dict[int, bytes]


@dataclass
class Client:
    """``wake``: on the caller's monotonic clock. ``jitter``: 0..1, anew each time."""

    hardware: bytes
    name: str
    transaction: int
    phase: Phase = Phase.SELECTING
    lease: Lease | None = None
    wake: float = 0.0
    _asked: float = 0.0
    _began: float = 0.0
    _wait: float = _FIRST_WAIT
    _offer: Answer | None = field(default=None, repr=False)

    def due(self, now: float, jitter: float) -> tuple[Send, ...]:
        """Called at ``wake``: what to send now. A lease that ran out is gone afterwards (``lease`` is None)."""
        lease = self.lease
        if lease is not None and now >= self._asked + lease.seconds:
            self._begin()
        elif lease is not None and now >= self._asked + lease.rebind:
            self.phase = Phase.REBINDING
        elif lease is not None and now >= self._asked + lease.renew:
            self.phase = Phase.RENEWING
        elif lease is not None:
            self.wake = self._asked + lease.renew
            return ()
        if self.phase is Phase.REQUESTING and self._wait >= _LONGEST_WAIT:
            self._begin()
        if self.phase in (Phase.SELECTING, Phase.REQUESTING):
            self._began = now if self.phase is Phase.SELECTING else self._began
            self.wake = now + self._wait + 2 * jitter - 1
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            return (self._ask(),)
        assert self.lease is not None
        self._began = now
        end = self._asked + (self.lease.rebind if self.phase is Phase.RENEWING else self.lease.seconds)
        self.wake = min(end, now + max(60.0, (end - now) / 2))
        return (self._ask(),)

    def hear(self, data: bytes, now: float) -> tuple[Send, ...]:
        """An answer came. ``lease`` may be new, or gone, afterwards; what is not for us changes nothing."""
        answer = parse_answer_untrusted(data, self.hardware)
        if answer is None or answer.transaction != self.transaction:
            return ()
        if answer.kind == _OFFER and self.phase is Phase.SELECTING and _server(answer) is not None:
            self._offer, self.phase, self._wait = answer, Phase.REQUESTING, _FIRST_WAIT
            self.wake = now + self._wait
            return (self._ask(),)
        if answer.kind == _NAK and self.phase is not Phase.SELECTING:
            self._begin()
            self.wake = now + 1.0
        elif answer.kind == _ACK and self.phase in (Phase.REQUESTING, Phase.RENEWING, Phase.REBINDING):
            lease = lease_of(answer)
            if lease is not None:
                self.lease, self.phase, self._asked = lease, Phase.BOUND, self._began
                self.wake = self._asked + lease.renew
        return ()

    def release(self) -> tuple[Send, ...]:
        """We leave in order."""
        if self.lease is None:
            return ()
        options = [(_SERVER, self.lease.server.packed)]
        data = self._message(_RELEASE, self.lease.address.ip, options)
        return (Send(self.lease.address.ip, self.lease.server, data),)

    def _begin(self) -> None:
        self.phase, self.lease, self._offer, self._wait = Phase.SELECTING, None, None, _FIRST_WAIT
        self.transaction = (self.transaction * 1664525 + 1013904223) & 0xFFFFFFFF

    def _ask(self) -> Send:
        if self.phase is Phase.SELECTING:
            return Send(NOWHERE, BROADCAST, self._message(_DISCOVER, NOWHERE, []))
        if self.phase is Phase.REQUESTING:
            assert self._offer is not None
            options = [(_WANTED, self._offer.yours.packed), (_SERVER, self._offer.options[_SERVER])]
            return Send(NOWHERE, BROADCAST, self._message(_REQUEST, NOWHERE, options))
        assert self.lease is not None
        target = self.lease.server if self.phase is Phase.RENEWING else BROADCAST
        own = self.lease.address.ip
        return Send(own, target, self._message(_REQUEST, own, []))

    def _message(self, kind: int, own: ipaddress.IPv4Address, options: Iterable[tuple[int, bytes]]) -> bytes:
        none = NOWHERE.packed
        fixed = _FIXED.pack(
            1, 1, 6, 0, self.transaction, 0, 0, own.packed, none, none, none, self.hardware.ljust(16, b"\0"), b"", b""
        )
        said = [(_KIND, bytes((kind,))), (_CLIENT, b"\x01" + self.hardware), *options]
        if kind in (_DISCOVER, _REQUEST):
            said += [(_HOST, self.name.encode()[:63]), (_ASKED, _DESIRED), (57, struct.pack("!H", 1400))]
        body = b"".join(bytes((number, len(value))) + value for number, value in said if value)
        return (fixed + _COOKIE + body + b"\xff").ljust(300, b"\0")


def parse_answer_untrusted(data: bytes, hardware: bytes) -> Answer | None:
    """None of what is no answer to that hardware address."""
    if len(data) < _FIXED.size + 4 or data[_FIXED.size : _FIXED.size + 4] != _COOKIE:
        return None
    op, _, _, _, transaction, _, _, _, yours, _, _, theirs, _, _ = _FIXED.unpack_from(data)
    if op != 2 or theirs[:6] != hardware[:6]:
        return None
    options: dict[int, bytes] = {}
    at = _FIXED.size + 4
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        if at + 1 >= len(data) or at + 2 + data[at + 1] > len(data):
            return None
        options[data[at]] = options.get(data[at], b"") + data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    kind = options.get(_KIND, b"")
    return Answer(kind[0], transaction, ipaddress.IPv4Address(yours), options) if len(kind) == 1 else None


def lease_of(answer: Answer) -> Lease | None:
    """None when it lacks what a lease must have."""
    server, seconds = _server(answer), _seconds(answer, _LEASE)
    if server is None or seconds is None or answer.yours.is_unspecified:
        return None
    mask = answer.options.get(_MASK, b"")
    try:
        prefix = ipaddress.IPv4Network(f"0.0.0.0/{ipaddress.IPv4Address(mask)}").prefixlen if len(mask) == 4 else 32
    except ValueError:
        return None
    seconds = max(seconds, _LEASE_MIN)
    renew = _seconds(answer, _T1) or seconds / 2
    rebind = _seconds(answer, _T2) or seconds * 7 / 8
    if not renew < rebind < seconds:
        renew, rebind = seconds / 2, seconds * 7 / 8
    mtu = answer.options.get(_MTU, b"")
    return Lease(
        ipaddress.IPv4Interface((answer.yours, prefix)), server, _addresses(answer.options.get(_ROUTER, b"")),
        _parse_routes(answer.options.get(_ROUTES, b"")),
        tuple(str(one) for one in _addresses(answer.options.get(_DNS, b""))), _text(answer.options.get(_DOMAIN, b"")),
        _text(answer.options.get(_HOST, b"")), struct.unpack("!H", mtu)[0] if len(mtu) == 2 else 0,
        seconds, renew, rebind,
    )  # fmt: skip


def routes_of(lease: Lease) -> tuple[tuple[str, ipaddress.IPv4Address | None], ...]:
    """What to set, in this order; None: straight onto the link.

    A router beyond our own network gets a way of its own first: clouds give an address with the mask /32.
    """
    told = lease.routes or tuple(("default", router) for router in lease.routers[:1])
    direct = [to for to, via in told if via.is_unspecified]
    near = [lease.address.network, *(ipaddress.IPv4Network(to) for to in direct if to != "default")]
    for _, via in told:
        if not via.is_unspecified and "default" not in direct and not any(via in network for network in near):
            direct.append(f"{via}/32")
            near.append(ipaddress.IPv4Network(via))
    return (*((to, None) for to in direct), *((to, via) for to, via in told if not via.is_unspecified))


def _server(answer: Answer) -> ipaddress.IPv4Address | None:
    raw = answer.options.get(_SERVER, b"")
    return ipaddress.IPv4Address(raw) if len(raw) == 4 else None


def _seconds(answer: Answer, option: int) -> float | None:
    raw = answer.options.get(option, b"")
    return float(struct.unpack("!I", raw)[0]) if len(raw) == 4 else None


def _addresses(raw: bytes) -> tuple[ipaddress.IPv4Address, ...]:
    return tuple(ipaddress.IPv4Address(raw[at : at + 4]) for at in range(0, len(raw) - 3, 4))


def _text(raw: bytes) -> str:
    """Only what may be a host or domain name."""
    text = raw.rstrip(b"\0").decode("ascii", "replace")
    return text if text and all(one.isalnum() or one in ".-_" for one in text) and len(text) < 254 else ""


def _parse_routes(raw: bytes) -> tuple[tuple[str, ipaddress.IPv4Address], ...]:
    found, at = [], 0
    while at < len(raw):
        prefix = raw[at]
        size = (prefix + 7) // 8
        if prefix > 32 or at + 1 + size + 4 > len(raw):
            return ()
        network = raw[at + 1 : at + 1 + size].ljust(4, b"\0")
        via = ipaddress.IPv4Address(raw[at + 1 + size : at + 5 + size])
        to = ipaddress.IPv4Network((network, prefix), strict=False)
        found.append(("default" if prefix == 0 else str(to), via))
        at += 5 + size
    return tuple(found)
