"""Telling our own parent how we are, as sd_notify(3) says. Nothing here waits or fails: it is a courtesy."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The parent's socket, if it gave one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes the variables out, so that what we start does not speak in our name."""
        self._environ = environ
        self._taken = {name: environ.pop(name) for name in _VARIABLES if name in environ}
        self._address = self._taken.get("NOTIFY_SOCKET", "")
        self.watchdog_seconds = self._watchdog()

    def _watchdog(self) -> float | None:
        """Within how many seconds the parent wants to hear from us each time; None: it does not."""
        wanted = self._taken.get("WATCHDOG_USEC", "")
        addressed = self._taken.get("WATCHDOG_PID") or str(os.getpid())
        if not self._address or not wanted.isdecimal() or addressed != str(os.getpid()) or int(wanted) == 0:
            return None
        return int(wanted) / 1e6

    def give_back(self) -> None:
        """Before exec: who we become is to talk to the same parent."""
        self._environ.update(self._taken)

    def take_again(self) -> None:
        """The exec failed."""
        for name in self._taken:
            self._environ.pop(name, None)

    def ready(self, status: str) -> None:
        """We serve; also the end of a reload. MAINPID because a guard may have started us."""
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        """One line for people."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """The settings are being read."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """For the parent's watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message, address)
