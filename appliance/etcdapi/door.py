"""Which protocol a new connection speaks: HTTP/2 says so with its first bytes, all else is HTTP/1.1. Pure.

We say nothing before the peer does: a client of ``/metrics`` would stumble over HTTP/2's greeting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from appliance.etcdapi.frames import PREFACE


class Machine(Protocol):
    """As host.epoll drives it."""

    closing: bool

    def receive(self, data: bytes) -> None:
        """Bytes came."""

    def take(self) -> bytes:
        """What to send."""

    def resume(self) -> None:
        """All was sent."""

    def lost(self) -> None:
        """It is over."""

    @property
    def established(self) -> bool:
        """Whether the peer is known to speak it."""

    @property
    def patient(self) -> bool:
        """Whether what it has to say can wait a little."""

    def waits_on(self) -> bool:
        """A little has gone by: whether it waits once more."""

    def settled(self) -> Machine:
        """Who goes on."""


class Door:
    """A connection of which too little is known yet."""

    def __init__(self, http2: Callable[[], Machine], http1: Callable[[], Machine]) -> None:
        self._http2 = http2
        self._http1 = http1
        self._machine: Machine | None = None
        self._first = b""
        self.closing = False

    @property
    def patient(self) -> bool:
        """Whether the machine has nothing urgent to say."""
        return self._machine is None or self._machine.patient

    def waits_on(self) -> bool:
        """The machine says so."""
        return self._machine is not None and self._machine.waits_on()

    @property
    def established(self) -> bool:
        """Whether the protocol is known, and spoken."""
        return self._machine is not None and self._machine.established

    def settled(self) -> Machine:
        """The protocol's own machine."""
        assert self._machine is not None
        return self._machine

    def receive(self, data: bytes) -> None:
        """Look, then hand over."""
        if self._machine is None:
            self._first += data
            if len(self._first) < 4 and PREFACE.startswith(self._first):
                return
            self._machine = self._http2() if self._first.startswith(PREFACE[:4]) else self._http1()
            data, self._first = self._first, b""
        self._machine.receive(data)
        self.closing = self._machine.closing

    def take(self) -> bytes:
        """What the machine says."""
        return self._machine.take() if self._machine is not None else b""

    def resume(self) -> None:
        """For the machine."""
        if self._machine is not None:
            self._machine.resume()
            self.closing = self._machine.closing

    def lost(self) -> None:
        """For the machine."""
        if self._machine is not None:
            self._machine.lost()
