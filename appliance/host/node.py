"""What this host is: its name, kernel, machine, and how loaded it is."""

from __future__ import annotations

import os
import socket


def hostname() -> str:
    """The kernel's name for this host; "localhost" when it has none."""
    return socket.gethostname() or "localhost"


def kernel() -> tuple[str, str]:
    """Release and machine, as ``uname -r`` and ``uname -m`` say."""
    it = os.uname()
    return it.release, it.machine
