"""mount(2) and umount2(2), and what is mounted where. Only our own OS image calls it (see appliance/machine)."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from appliance.errors import NotFoundError, UnavailableError

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DIRECTORY_SYNC = 128  # MS_DIRSYNC
LAZY = 2  # umount2: MNT_DETACH


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    source: str
    target: str
    kind: str
    options: tuple[str, ...]


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Raises UnavailableError."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), target.encode(), kind.encode() or None)
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None):
        code = ctypes.get_errno()
        raise UnavailableError(f"cannot mount {source} on {target}: {os.strerror(code)}")


def unmount(target: str, *, lazy: bool = False) -> None:
    """Raises UnavailableError (something is still in use)."""
    if ctypes.CDLL(None, use_errno=True).umount2(target.encode(), LAZY if lazy else 0):
        raise UnavailableError(f"cannot unmount {target}: {os.strerror(ctypes.get_errno())}")


def mounts() -> tuple[Mount, ...]:
    """In the order in which they were made (proc_pid_mountinfo(5))."""
    found = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.rstrip("\n").partition(" - ")
                words, (kind, source, *_) = left.split(" "), right.split(" ")
                target = words[4].replace("\\040", " ")
                found.append(Mount(source, target, kind, tuple(words[5].split(","))))
    except OSError as exc:
        raise NotFoundError(f"cannot read what is mounted: {exc.strerror}") from exc
    return tuple(found)


def mounted_at(target: str) -> Mount | None:
    """The topmost mount on that very directory."""
    return next((one for one in reversed(mounts()) if one.target == target), None)
