"""Our own process: who it is, what it says on stderr, and what being PID 1 asks of it."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import sys
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

_LINE_BYTES_MAX = select.PIPE_BUF  # so much a ready pipe takes without waiting (pipe(7))
_unsaid = 0


def pid() -> int:
    """Our process id."""
    return os.getpid()


def is_init() -> bool:
    """Whether we are PID 1 of this host or PID namespace."""
    return os.getpid() == 1


def environment() -> MutableMapping[str, str]:
    """Ours, live."""
    return os.environ


def settle_as_init() -> None:
    """What a PID 1 that the kernel or ``unshare`` started lacks: a session, a sane umask, a path, a directory."""
    with contextlib.suppress(OSError):
        os.setsid()
    os.umask(0o022)
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    with contextlib.suppress(OSError):
        os.chdir("/")


def say(line: str) -> None:
    """One line on stderr, unless whoever reads it does not: a full pipe or a gone terminal holds nobody up."""
    global _unsaid
    try:
        poller = select.poll()
        poller.register(2, select.POLLOUT)
        if not any(event & select.POLLOUT for _, event in poller.poll(0)):
            _unsaid += 1
            return
        told = f"({_unsaid} lines were not read) {line}" if _unsaid else line
        os.write(2, told.encode(errors="replace")[: _LINE_BYTES_MAX - 1] + b"\n")
        _unsaid = 0
    except OSError:
        _unsaid += 1


def raise_file_limit() -> None:
    """As many descriptors as we may have: ten thousand connections are ten thousand of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pause_garbage_collection() -> None:
    """While the start makes only objects that last (notes/packaging.md: 9-13 % less CPU)."""
    gc.disable()


def know_libraries() -> None:
    """Trio asks where libpthread is, and ``ctypes`` would run the host's ldconfig, or even its compiler, to tell."""
    import ctypes

    found: Any = ModuleType("ctypes.util")  # the real one would load tempfile, shutil, decompressors
    found.find_library = lambda name: "libpthread.so.0" if name == "pthread" else None
    sys.modules["ctypes.util"] = ctypes.util = found  # type: ignore[attr-defined]


def settle_garbage() -> None:
    """What the start made lasts for ever: never look at it again, and collect as usual from here on.

    To collect first would take a tenth of the start, and give back half a megabyte.
    """
    gc.freeze()
    gc.enable()
