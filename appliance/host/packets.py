"""UDP below an interface that has no address yet: a packet socket for DHCP (packet(7), RFC 791, RFC 768)."""

from __future__ import annotations

import ctypes
import socket
import struct
from ipaddress import IPv4Address

from appliance.errors import UnavailableError

_ETH_P_IP, _SO_ATTACH_FILTER, _UDP = 0x0800, 26, 17
_BROADCAST = b"\xff" * 6
# Only whole UDP datagrams to port 68 wake us: everything else is let go in the kernel.
_FILTER = (
    (0x30, 0, 0, 9), (0x15, 0, 6, _UDP), (0x28, 0, 0, 6), (0x45, 4, 0, 0x1FFF), (0xB1, 0, 0, 0), (0x48, 0, 0, 2),
    (0x15, 0, 1, 68), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
)  # fmt: skip


class DhcpSocket:
    """Datagrams from port 68 of one interface to port 67, and what comes back."""

    def __init__(self, index: int, name: str) -> None:
        try:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self.socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IP))
            program = b"".join(struct.pack("=HBBI", *step) for step in _FILTER)
            held = ctypes.create_string_buffer(program)
            wanted = struct.pack("HL", len(_FILTER), ctypes.addressof(held))
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, wanted)
            self.socket.bind((name, _ETH_P_IP))
        except OSError as exc:
            raise UnavailableError(f"cannot listen for DHCP on {name}: {exc.strerror}") from exc
        self._name, self._index = name, index

    def send(self, source: IPv4Address, target: IPv4Address, data: bytes) -> None:
        """To everybody on the link: who has no address cannot be asked for his. Raises UnavailableError."""
        length = 8 + len(data)
        udp = struct.pack("!HHHH", 68, 67, length, 0)
        pseudo = source.packed + target.packed + struct.pack("!BBH", 0, _UDP, length)
        udp = struct.pack("!HHHH", 68, 67, length, _checksum(pseudo + udp + data) or 0xFFFF)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0x10, 20 + length, 0, 0, 64, _UDP, 0, source.packed, target.packed)
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
        try:
            self.socket.sendto(ip + udp + data, (self._name, _ETH_P_IP, 0, 0, _BROADCAST))
        except OSError as exc:
            raise UnavailableError(f"cannot ask for an address on {self._name}: {exc.strerror}") from exc

    def receive(self) -> bytes | None:
        """What the next datagram holds; None when there is none, or it is damaged."""
        try:
            packet = self.socket.recv(4096)
        except OSError:
            return None
        if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != _UDP:
            return b""
        start = (packet[0] & 15) * 4
        if len(packet) < start + 8:
            return b""
        length = int.from_bytes(packet[start + 4 : start + 6], "big")
        return packet[start + 8 : start + length]

    def close(self) -> None:
        """Once."""
        self.socket.close()


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
