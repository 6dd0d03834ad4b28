"""What the machine and its kernel can do for fences: read once."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1
_MEMORY_UNKNOWN = 1 << 30


@dataclass(frozen=True)
class Kernel:
    """Facts, not wishes."""

    machine: str  # of uname(2)
    is_root: bool
    landlock_version: int  # 0: none
    memory_bytes: int
    tasks_max: int


@cache
def kernel() -> Kernel:
    """Of this host."""
    return Kernel(
        machine=os.uname().machine,
        is_root=os.geteuid() == 0,
        landlock_version=max(0, ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)),
        memory_bytes=_memory_bytes(),
        tasks_max=min(_number("/proc/sys/kernel/pid_max", 32768), _number("/proc/sys/kernel/threads-max", 32768)),
    )


def device_of(path: str) -> str:
    """MAJOR:MINOR of a block device, or of the disk that a file is on. OSError is left to the caller's start."""
    import stat

    from appliance.errors import NotFoundError

    try:
        it = os.stat(path)
    except OSError as exc:
        raise NotFoundError(f"cannot find device {path}: {exc.strerror}", where=path) from exc
    number = it.st_rdev if stat.S_ISBLK(it.st_mode) else it.st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def node_of(path: str) -> tuple[str, int, int] | None:
    """"char" or "block", MAJOR and MINOR of the device at that path; None: there is none."""
    import stat

    try:
        it = os.stat(path)
    except OSError:
        return None
    kind = "char" if stat.S_ISCHR(it.st_mode) else "block" if stat.S_ISBLK(it.st_mode) else ""
    return (kind, os.major(it.st_rdev), os.minor(it.st_rdev)) if kind else None


def device_majors() -> list[tuple[str, str, int]]:
    """"char" or "block", the name of the driver, and a MAJOR of it; it may have several."""
    found: list[tuple[str, str, int]] = []
    kind = "char"
    try:
        with open("/proc/devices") as file:
            for line in file:
                number, _, name = line.strip().partition(" ")
                if number.isdecimal():
                    found.append((kind, name.strip(), int(number)))
                elif number:
                    kind = "block" if number == "Block" else "char"
    except OSError:
        pass
    return found


def interface_of(name: str) -> int | None:
    """Its number; None: there is no such network interface."""
    import socket

    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return _MEMORY_UNKNOWN


def _number(path: str, otherwise: int) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return otherwise
