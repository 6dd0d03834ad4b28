"""Many connections on one epoll, which sleeps inside trio as a single file descriptor.

A trio task per connection costs twice the processor time at a thousand connections (measured), and one pass over all
that is ready is also what fills a batch of the store. What the bytes mean is the machine's business (``Machine``).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from appliance.errors import UnavailableError
from appliance.host.sockets import Listener

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_RECEIVE_SIZE = 65536
_ACCEPTS_PER_PASS = 256
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FULL_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 0.1


class Machine(Protocol):
    """The protocol of one connection, without I/O."""

    closing: bool  # send what is left, then close

    def receive(self, data: bytes) -> None:
        """Bytes came."""

    def take(self) -> bytes:
        """All that may be sent now; it will be."""

    def resume(self) -> None:
        """All that was taken is sent."""

    def lost(self) -> None:
        """The connection is over. Twice is fine."""

    @property
    def patient(self) -> bool:
        """Whether all it has to say may wait a moment, to go out with what comes next: a send costs more than that."""

    def waits_on(self) -> bool:
        """That moment went by: whether it waits for another one; else what it has to say is sent now."""

    @property
    def established(self) -> bool:
        """Whether the peer has said something whole; until then it has ``young_seconds`` to do so."""

    def settled(self) -> Machine:
        """Once established: who goes on with the connection (itself, or one that knows the peer's protocol)."""


Begin = Callable[[Callable[[], None]], Machine]


class _Link:
    """A socket and its machine."""

    __slots__ = ("descriptor", "dirty", "machine", "raw", "receive", "send", "unsent", "watched", "young")

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.receive, self.send = raw.recv, raw.send
        self.young = True  # nothing whole was said yet
        self.descriptor = raw.fileno()
        self.machine: Machine
        self.unsent = b""  # the kernel took no more
        self.dirty = False  # in the list of those with something to send
        self.watched = _READ


class Loop:
    """``run`` serves the listeners.

    A machine calls its ``wake`` when it has something to send. A peer that reads nothing for ``stalled_seconds`` while
    we have something to say, or says nothing whole for ``young_seconds`` after it came, is hung up on.
    """

    def __init__(
        self, *, young_seconds: float = 30, stalled_seconds: float = 120,
        before: Callable[[], None] | None = None, after: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """``before`` and ``after`` are called around each pass over all that is ready."""
        self._epoll = select.epoll()
        self._links: dict[int, _Link] = {}
        self._listeners: dict[int, Begin] = {}
        self._dirty: list[_Link] = []
        self._passing = False
        self._before, self._after = before, after
        self._flusher = trio.lowlevel.ParkingLot()
        self._patience = {"young": young_seconds, "stalled": stalled_seconds}
        self._deadlines: dict[str, dict[_Link, float]] = {"young": {}, "stalled": {}}  # each in order of time
        self._deadline_set = trio.Event()
        self._patient: dict[_Link, None] = {}
        self._some_patient = trio.Event()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def listen(self, listener: Listener, begin: Begin) -> None:
        """Serve this one too; ``begin(wake)`` makes the machine of each connection.

        It stays the caller's to close, after ``stop_listening``.
        """
        self._listeners[listener.fileno()] = begin
        self._epoll.register(listener.fileno(), _READ)

    def stop_listening(self) -> None:
        """No new connections."""
        for descriptor in self._listeners:
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
        self._listeners.clear()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; every connection is closed then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flush_when_woken)
                nursery.start_soon(self._hang_up_on_the_slow)
                nursery.start_soon(self._send_for_the_patient)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    paused = self._pass()
                    if paused:
                        nursery.start_soon(self._listen_again, paused)
        finally:
            for link in list(self._links.values()):
                self._close(link)
            self._epoll.close()

    def machines(self) -> list[Machine]:
        """Of all open connections."""
        return [link.machine for link in self._links.values()]

    def flush(self) -> None:
        """Send what machines have to say."""
        while self._dirty:
            dirty, self._dirty = self._dirty, []
            for link in dirty:
                link.dirty = False
                self._send(link)

    def flush_now(self) -> None:
        """The same, unless we are amid a pass: it ends with a flush anyway."""
        if not self._passing:
            self.flush()

    # One pass over what is ready

    def _pass(self) -> list[int]:
        paused: list[int] = []
        self._passing = True
        if self._before is not None:
            self._before()
        try:
            for descriptor, ready in self._epoll.poll(0):
                link = self._links.get(descriptor)
                if link is None:
                    if descriptor in self._listeners and not self._accept(descriptor):
                        self._epoll.unregister(descriptor)
                        paused.append(descriptor)
                    continue
                if ready & _WRITE:
                    self._send(link)
                if ready & ~_WRITE and link.descriptor in self._links:
                    self._receive(link)
        finally:
            try:
                if self._after is not None:
                    self._after()
                self.flush()
            finally:
                self._passing = False
        return paused

    def _accept(self, descriptor: int) -> bool:
        """False when the process has no descriptors left."""
        listener = socket.socket(fileno=descriptor)
        try:
            for _ in range(_ACCEPTS_PER_PASS):
                try:
                    raw, _ = listener.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno in _FULL:
                        return False
                    continue  # this one left before we came
                self._open(raw, self._listeners[descriptor])
        finally:
            listener.detach()
        return True

    def _open(self, raw: socket.socket, begin: Begin) -> None:
        raw.setblocking(False)
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(raw)

        def wake() -> None:
            if not link.dirty:
                link.dirty = True
                self._dirty.append(link)
                if not self._passing:
                    self._flusher.unpark()

        link.machine = begin(wake)
        self._links[link.descriptor] = link
        self._epoll.register(link.descriptor, _READ)
        self._expect(link, "young")

    def _receive(self, link: _Link) -> None:
        try:
            data = link.receive(_RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(link)
            return
        machine = link.machine
        machine.receive(data)
        if link.young and machine.established:
            link.young = False
            self._deadlines["young"].pop(link, None)
            machine = link.machine = machine.settled()
        if link.unsent:
            return
        if machine.patient:
            if not self._patient:
                self._some_patient.set()
            self._patient[link] = None
        else:
            self._send(link)

    def _send(self, link: _Link) -> None:
        if self._links.get(link.descriptor) is not link:
            return
        machine = link.machine
        while True:
            data = link.unsent or machine.take()
            if not data:
                break
            try:
                sent = link.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(link)
                return
            if sent < len(data):
                if sent or link.watched == _READ:
                    self._expect(link, "stalled")
                link.unsent = data[sent:]
                self._watch(link, _WRITE)  # who does not read us is not read either
                return
            link.unsent = b""
            machine.resume()
        if link.watched != _READ:
            self._deadlines["stalled"].pop(link, None)
            self._watch(link, _READ)
        if machine.closing:
            self._close(link)

    def _watch(self, link: _Link, what: int) -> None:
        if link.watched != what:
            link.watched = what
            self._epoll.modify(link.descriptor, what)

    def _close(self, link: _Link) -> None:
        if self._links.pop(link.descriptor, None) is None:
            return
        link.machine.lost()
        for deadlines in self._deadlines.values():
            deadlines.pop(link, None)
        with contextlib.suppress(OSError):
            self._epoll.unregister(link.descriptor)
        with contextlib.suppress(OSError):
            link.raw.shutdown(socket.SHUT_WR)  # the peer reads our last words before it learns of its unread ones
        link.raw.close()

    # Waiting

    async def _flush_when_woken(self) -> None:
        while True:
            if not self._dirty:
                await self._flusher.park()
            else:
                await trio.lowlevel.checkpoint()
            self.flush()

    async def _send_for_the_patient(self) -> None:
        while True:
            await self._some_patient.wait()
            await trio.sleep(_PATIENCE_SECONDS)
            self._some_patient = trio.Event()
            patient, self._patient = self._patient, {}
            for link in patient:
                if link.machine.waits_on():
                    self._patient[link] = None
                else:
                    self._send(link)
            if self._patient:
                self._some_patient.set()

    def _expect(self, link: _Link, kind: str) -> None:
        deadlines = self._deadlines[kind]
        deadlines.pop(link, None)
        deadlines[link] = trio.current_time() + self._patience[kind]
        if len(deadlines) == 1:
            self._deadline_set.set()

    async def _hang_up_on_the_slow(self) -> None:
        while True:
            now = trio.current_time()
            nearest = float("inf")
            for deadlines in self._deadlines.values():
                while deadlines:
                    link, deadline = next(iter(deadlines.items()))
                    if deadline > now:
                        nearest = min(nearest, deadline)
                        break
                    self._close(link)
            with trio.move_on_at(nearest):
                await self._deadline_set.wait()
            self._deadline_set = trio.Event()

    async def _listen_again(self, descriptors: list[int]) -> None:
        await trio.sleep(_FULL_PAUSE_SECONDS)  # nothing tells when a descriptor is free again
        for descriptor in descriptors:
            if descriptor in self._listeners:
                try:
                    self._epoll.register(descriptor, _READ)
                except OSError as exc:
                    raise UnavailableError(f"cannot listen again: {exc.strerror or exc}") from exc
