"""Options of a socket besides those that nearly everybody sets (socket(7), tcp(7), ip(7), unix(7), pipe(7))."""

from __future__ import annotations

import socket
from collections.abc import Mapping

_SO_PASSSEC, _SO_MARK, _SO_PRIORITY, _IP_TTL, _IPV6_UNICAST_HOPS = 34, 36, 12, 2, 16
_IP_PKTINFO = (socket.IPPROTO_IP, 8)
_IPV6_RECVPKTINFO = (socket.IPPROTO_IPV6, 49)
_SOL = socket.SOL_SOCKET
_TCP = socket.IPPROTO_TCP
PIPE_BYTES = "pipe_bytes"  # of a fifo
_TCP_ONLY: Mapping[str, int] = {
    "keep_alive_time": socket.TCP_KEEPIDLE, "keep_alive_interval": socket.TCP_KEEPINTVL,
    "keep_alive_probes": socket.TCP_KEEPCNT, "defer_accept": socket.TCP_DEFER_ACCEPT,
}  # fmt: skip
Options = Mapping[str, int | str]


def set_options(raw: socket.socket, options: Options) -> None:
    """Those that mean something to such a socket; the others are passed. Raises OSError."""
    is_internet, is_v6 = raw.family != socket.AF_UNIX, raw.family == socket.AF_INET6
    is_tcp = is_internet and raw.type == socket.SOCK_STREAM
    for name, value in sorted(options.items(), key=lambda pair: pair[0] == "priority"):  # the type of service sets it
        if isinstance(value, str):
            if name == "bind_to_device" and is_internet:
                raw.setsockopt(_SOL, socket.SO_BINDTODEVICE, value.encode())
            elif name == "congestion" and is_tcp:
                raw.setsockopt(_TCP, socket.TCP_CONGESTION, value.encode())
            continue
        if name in _TCP_ONLY:
            if is_tcp:
                raw.setsockopt(_TCP, _TCP_ONLY[name], value)
        elif name == "priority":
            raw.setsockopt(_SOL, _SO_PRIORITY, value)
        elif name == "mark":
            raw.setsockopt(_SOL, _SO_MARK, value)
        elif name == "tos" and is_internet:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
        elif name == "ttl" and is_internet:
            raw.setsockopt(socket.IPPROTO_IP, _IP_TTL, value)
            if is_v6:
                raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_HOPS, value)
        elif name == "pass_credentials" and not is_internet:
            raw.setsockopt(_SOL, socket.SO_PASSCRED, value)
        elif name == "pass_security" and not is_internet:
            raw.setsockopt(_SOL, _SO_PASSSEC, value)
        elif name == "pass_packet_info" and is_internet:
            raw.setsockopt(*(_IPV6_RECVPKTINFO if is_v6 else _IP_PKTINFO), value)
