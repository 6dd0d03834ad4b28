"""Plain file descriptors that others gave us."""

from __future__ import annotations

import contextlib
import os


def close(fd: int) -> None:
    """One that is closed already is fine."""
    with contextlib.suppress(OSError):
        os.close(fd)


def close_all(fds: list[int]) -> None:
    """What came with a message and nobody wants."""
    for fd in fds:
        close(fd)


def is_same(one: int, other: int) -> bool:
    """Whether both lead to the same file, socket or pipe, opened in the same way."""
    try:
        here, there = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return (here.st_dev, here.st_ino, here.st_mode) == (there.st_dev, there.st_ino, there.st_mode)
