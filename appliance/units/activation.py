"""Sockets that start a unit: opened before it, kept over its restarts and our own death, handed to it at each start.

They stay open in the holder (``host.holder``) too: whoever connects while nobody listens waits in the kernel's queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from appliance.errors import ApplianceError, UnavailableError
from appliance.host import clock, listening, users
from appliance.host.holder import Holder
from appliance.host.listening import Call, Endpoint
from appliance.host.poller import Poller
from appliance.units.calling import CallUnit
from appliance.units.pictures import TriggerPicture
from appliance.units.timers import is_busy
from appliance.units.trigger_sections import SocketSection

_LIMIT_SECONDS = 2.0
_LIMIT_BURST, _LIMIT_BURST_ACCEPT = 20, 200  # systemd's
_CALLS_AT_ONCE = 16


@dataclass(kw_only=True)
class SocketGround:
    """What all of them stand on."""

    poller: Poller
    holder: Holder
    call: CallUnit
    is_called: Callable[[str], bool]  # whether that worked
    connect: Callable[[str, Call], bool]  # a unit for that connection; False: it could not be made
    connections: Callable[[str], tuple[int, dict[str, int]]]  # of that target: how many, and from where
    trouble: Callable[[str, str], None]


@dataclass
class _Open:
    section: SocketSection
    endpoint: Endpoint
    name: str
    fd: int


class Sockets:
    """All ``[[socket]]`` tables of one file that start the same unit."""

    def __init__(self, name: str, target: str, sections: tuple[SocketSection, ...], ground: SocketGround) -> None:
        self.name = name
        self.target = target
        self.sections = sections
        self.failed = ""
        self._ground = ground
        self._key = f"socket/{name}"
        self._open: list[_Open] = []
        self._busy = False
        self._watching = False
        self._last: float | None = None
        self._times: deque[float] = deque()

    @property
    def accepts(self) -> bool:
        """Whether each connection gets a process of its own."""
        return any(section.accept for section in self.sections)

    def arm(self, state: str) -> None:
        """Listen: on what an earlier daemon left open, else anew."""
        if self._open or self.failed:
            return
        try:
            self._listen()
        except ApplianceError as exc:
            self._fail(exc.message)
            return
        self._busy = is_busy(state) and not self.accepts
        self._watch()

    def disarm(self) -> None:
        """Listen no more. Who is served is served on."""
        self.failed = ""
        self._let_go()

    def turned(self, state: str) -> None:
        """The unit came into that state."""
        self._busy = is_busy(state) and not self.accepts
        self._watch()

    def rested(self) -> None:
        """What was asked for is not up, or did not come up: who called still waits."""
        self._busy = False
        self._watch()

    def reset(self) -> None:
        """A person says: try again."""
        self.failed = ""
        self._times.clear()

    def release(self) -> None:
        """We go, and what is open stays open in the holder."""
        self._unwatch()
        for one in self._open:
            listening.close(one.fd)
        self._open.clear()

    def descriptors(self) -> tuple[tuple[str, int], ...]:
        """For the program."""
        return () if self.accepts else tuple((one.name, one.fd) for one in self._open)

    def hold(self) -> None:
        """Give the holder copies: at first, and when there is a new one."""
        for one in self._open:
            self._ground.holder.put(self._key, one.name, one.fd)

    def picture(self) -> TriggerPicture:
        """For whoever looks."""
        state = "failed" if self.failed else "off" if not self._open else "running" if self._busy else "waiting"
        return TriggerPicture(
            kind="socket",
            name=self.name,
            unit=self.target,
            state=state,
            about=self.failed or ", ".join(_text(section) for section in self.sections),
            last=self._last,
            count=self._ground.connections(self.target)[0] if self.accepts else 0,
        )

    def _listen(self) -> None:
        left: list[int] = []
        try:
            left = [fd for _, fd in self._ground.holder.take(self._key)]
        except UnavailableError as exc:
            self._ground.trouble(self.name, exc.message)
        try:
            for section in self.sections:
                endpoint = endpoint_of(section)
                kept = next((fd for fd in left if listening.is_endpoint(fd, endpoint)), None)
                if kept is not None:
                    left.remove(kept)
                fd = kept if kept is not None else listening.open_endpoint(endpoint)
                self._open.append(_Open(section, endpoint, section.name or self._plain_name(), fd))
                if section.accept:
                    listening.set_blocking(fd, False)
        except ApplianceError:
            self._let_go()
            raise
        finally:
            for fd in left:
                listening.close(fd)
        try:
            if left:
                self._ground.holder.drop(self._key)  # what the file does not name any more
            self.hold()
        except UnavailableError as exc:
            self._ground.trouble(self.name, f"{exc.message}: its sockets would not outlive us")

    def _plain_name(self) -> str:
        return self.name if self.name.endswith(".socket") else f"{self.name}.socket"

    def _let_go(self) -> None:
        for one in self._open:
            if one.section.remove_on_stop:
                listening.remove_endpoint(one.endpoint)
        self.release()
        try:
            self._ground.holder.drop(self._key)
        except UnavailableError as exc:
            self._ground.trouble(self.name, exc.message)

    def _fail(self, why: str) -> None:
        self._let_go()
        self.failed = why
        self._ground.trouble(self.name, why)

    def _watch(self) -> None:
        """While the unit is up it looks itself."""
        if self._busy or not self._open:
            self._unwatch()
        elif not self._watching:
            self._watching = True
            for one in self._open:
                self._ground.poller.add(one.fd, self._ready_of(one))

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for one in self._open:
                self._ground.poller.remove(one.fd)

    def _ready_of(self, one: _Open) -> Callable[[], None]:
        return (lambda: self._accept(one)) if one.section.accept else (lambda: self._ready(one))

    def _ready(self, one: _Open) -> None:
        if not self._within_limit(_LIMIT_BURST):
            return
        self._busy = True  # it is told when the unit is over, or did not come up
        self._unwatch()
        self._ground.call(self.target, f"somebody called on {one.section.listen}")
        if not self._ground.is_called(self.target):
            self._fail(f"cannot serve who called on {one.section.listen}: {self.target} cannot be started")

    def _within_limit(self, burst: int) -> bool:
        limit = self.sections[0].trigger_limit
        seconds = limit.interval if limit is not None else _LIMIT_SECONDS
        burst = limit.burst if limit is not None else burst
        now = clock.monotonic_seconds()
        while self._times and self._times[0] <= now - seconds:
            self._times.popleft()
        self._times.append(now)
        self._last = clock.wall_seconds()
        if burst and len(self._times) > burst:
            self._fail(
                f"cannot go on: {self.target} was called more than {burst} times within {seconds:g} s "
                "(socket.trigger_limit); appliance unit reset-failed begins anew"
            )
            return False
        return True

    def _accept(self, one: _Open) -> None:
        for _ in range(_CALLS_AT_ONCE):
            try:
                call = listening.accept(one.fd)
            except UnavailableError as exc:
                self._fail(exc.message)
                return
            if call is None:
                return
            if not self._within_limit(_LIMIT_BURST_ACCEPT):
                listening.close(call.fd)
                return
            self._serve(one.section, call)

    def _serve(self, section: SocketSection, call: Call) -> None:
        count, sources = self._ground.connections(self.target)
        most = section.max_connections_per_source
        if count >= section.max_connections:
            self._ground.trouble(self.name, f"refused {call.remote}: {count} connections (socket.max_connections)")
        elif most and call.source and sources.get(call.source, 0) >= most:
            self._ground.trouble(
                self.name, f"refused {call.remote}: {most} connections from there (socket.max_connections_per_source)"
            )
        elif self._ground.connect(self.target, call):
            return
        listening.close(call.fd)


def endpoint_of(section: SocketSection) -> Endpoint:
    """With names looked up. Raises NotFoundError for an unknown user or group."""
    return Endpoint(
        listen=section.listen,
        type=section.type,
        backlog=section.backlog,
        mode=int(section.mode, 8),
        directory_mode=int(section.directory_mode, 8),
        uid=users.find_account(section.user).uid if section.user is not None else None,
        gid=users.find_group(section.group) if section.group is not None else None,
        reuse_port=section.reuse_port,
        keep_alive=section.keep_alive,
        no_delay=section.no_delay,
        free_bind=section.free_bind,
        transparent=section.transparent,
        v6only=section.v6only,
        receive_buffer=section.receive_buffer,
        send_buffer=section.send_buffer,
        options=section.options.numbers() if section.options is not None else {},
        links=section.links,
    )


def _text(section: SocketSection) -> str:
    kind = {"stream": "", "dgram": " (udp)"}.get(section.type, f" ({section.type})")
    if section.type == "dgram" and section.listen[0] in "/@":
        kind = " (dgram)"
    return f"{section.listen}{kind}"
