"""Small facts of a machine that we are the init of: host name, clock, random seed, kernel settings, loopback."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Mapping

from appliance.errors import UnavailableError

_RNDADDENTROPY = 0x40085203
_SEED_BYTES = 512
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
