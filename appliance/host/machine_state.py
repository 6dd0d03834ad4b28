"""Small facts of a machine that we are the init of: host name, clock, random seed, kernel settings, loopback."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import time
from collections.abc import Mapping

from appliance.errors import UnavailableError

_RNDADDENTROPY = 0x40085203
_SEED_BYTES = 512
_ADJ_MAXERROR, _ADJ_STATUS, _ADJ_OFFSET_SINGLESHOT = 0x0004, 0x0010, 0x8001
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def set_host_name(name: str) -> None:
    """Raises UnavailableError."""
    try:
        socket.sethostname(name)
    except OSError as exc:
        raise UnavailableError(f"cannot set the host name to {name}: {exc.strerror}") from exc


def set_clock(seconds: float) -> None:
    """Since 1970. Raises UnavailableError."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, seconds)
    except OSError as exc:
        raise UnavailableError(f"cannot set the clock: {exc.strerror}") from exc


def stir_entropy(seed: bytes) -> None:
    """Give the kernel a seed kept from the last life, counted as random. Raises UnavailableError (random(4))."""
    try:
        with open("/dev/urandom", "wb", buffering=0) as file:
            fcntl.ioctl(file, _RNDADDENTROPY, struct.pack("<ii", len(seed) * 8, len(seed)) + seed)
    except OSError as exc:
        raise UnavailableError(f"cannot seed the random numbers: {exc.strerror}") from exc


def new_seed() -> bytes:
    """For the next life."""
    return os.getrandom(_SEED_BYTES, os.GRND_NONBLOCK)


def set_sysctl(values: Mapping[str, str]) -> tuple[str, ...]:
    """"kernel.kptr_restrict" -> "2"; what this kernel does not take is returned."""
    refused = []
    for name, value in values.items():
        try:
            with open(f"/proc/sys/{name.replace('.', '/')}", "w", encoding="ascii") as file:
                file.write(value)
        except OSError as exc:
            refused.append(f"{name} = {value}: {exc.strerror}")
    return tuple(refused)


def loopback_up() -> None:
    """127.0.0.1 and ::1 work from here on. Raises UnavailableError (netdevice(7))."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
            request = struct.pack("16sH14x", b"lo", 0)
            flags = struct.unpack("16sH14x", fcntl.ioctl(asker, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(asker, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    except OSError as exc:
        raise UnavailableError(f"cannot bring loopback up: {exc.strerror}") from exc


def make_directories(*paths: str, mode: int = 0o755) -> None:
    """With parents; what cannot be made shows where it is used."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.makedirs(path, mode=mode, exist_ok=True)


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2), on 64 bits."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("constant", ctypes.c_long),
        ("precision", ctypes.c_long), ("tolerance", ctypes.c_long), ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long), ("tick", ctypes.c_long), ("rest", ctypes.c_long * 30),
    )  # fmt: skip


def slew_clock(offset: float) -> None:
    """Let it run a little faster or slower until ``offset`` seconds are made up, and say that it is kept right.

    The kernel then writes the machine's own clock every eleven minutes. Raises UnavailableError.
    """
    adjust = ctypes.CDLL(None, use_errno=True).adjtimex
    right = _Timex(modes=_ADJ_STATUS | _ADJ_MAXERROR, status=0, maxerror=int(abs(offset) * 1e6) + 100_000)
    for request in (right, _Timex(modes=_ADJ_OFFSET_SINGLESHOT, offset=int(offset * 1e6))):
        if adjust(ctypes.byref(request)) < 0:
            raise UnavailableError(f"cannot adjust the clock: {os.strerror(ctypes.get_errno())}")
