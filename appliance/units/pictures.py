"""What units look like from outside: frozen, plain, ready for JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance.schema import Duration, Finding, Size
from appliance.units.log_section import RATE


@dataclass(frozen=True, kw_only=True)
class UnitsSettings:
    """``[units]`` of the settings."""

    directory: str | None = None  # None: the layout's
    log_limit: Size = 16 << 20  # of a unit that says nothing in [logs], as are the next two
    log_age: Duration | None = field(default=None, metadata={"min": 60.0})
    log_rate: str = field(default="100000/10s", metadata=RATE)
    kernel_log: bool = True  # keep what the kernel says, as the log of "kernel"


class StateKeeper(Protocol):
    """Where facts about units that must last are kept: the store, below ``/appliance/``.

    Keys here are relative ("units/web/desired"). Any call may raise UnavailableError or CorruptError: units run on.
    """

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""

    async def put(self, key: str, value: bytes) -> None:
        """Durable on return."""

    async def delete(self, key: str) -> None:
        """A missing one is fine."""

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        """Whole keys that start so, with their values."""


class Publish(Protocol):
    """Tells whoever listens that something happened (``supervisor.EventBus.publish``)."""

    def __call__(self, kind: str, subject: str, **data: str | int | float | bool | None) -> object:
        """Never waits."""


@dataclass(frozen=True, kw_only=True)
class UnitMoment:
    """One step in the life of a unit."""

    time: float  # seconds since 1970
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TriggerPicture:
    """What starts a unit that is not up all the time."""

    kind: str  # timer, socket, path
    name: str  # of the unit in whose file it stands
    unit: str  # that it starts
    state: str  # waiting, running (the unit is), elapsed (it will not ring again), failed, off
    about: str
    next: float | None = None  # seconds since 1970
    last: float | None = None
    count: int = 0  # of the connections that are served now


@dataclass(frozen=True, kw_only=True)
class ExitPicture:
    """How the main process of its last start ended; without a code and a signal: it did not, or nobody saw."""

    result: str = "success"  # as $SERVICE_RESULT: exit-code, signal, core-dump, timeout, watchdog, oom-kill, ...
    code: int | None = None
    signal: str = ""  # "SIGKILL"
    core: bool = False
    oom: bool = False  # the kernel killed it for want of memory


@dataclass(frozen=True, kw_only=True)
class UnitPicture:
    """One unit, now."""

    name: str
    description: str
    type: str
    state: str  # waiting, starting, ready, reloading, exited, stopping, backoff, stopped, failed
    phase: str = ""  # what is being done: pre-start, start, run, reload, stop, term, ...; empty when nothing is
    reason: str
    since: float  # seconds since 1970
    seconds: float = 0.0  # for how long, whatever was done to the clock
    desired: str  # "up", or "down" when a person stopped it
    pid: int | None
    control_pid: int | None = None  # of the command of that phase
    restarts: int  # since it was last started by hand, at boot, or was long enough well
    flapping: bool = False  # three restarts or more within the last ten minutes
    restarts_lately: int = 0  # within those
    last_exit: str  # for people
    exit: ExitPicture = ExitPicture()
    status_text: str  # what it says of itself (sd_notify STATUS=)
    error_number: int = 0  # what it says of itself (ERRNO=)
    stored_descriptors: int = 0  # that it gave us to keep (FDSTORE=1)
    health: str  # "" (no check declared), "unknown", "healthy", "unhealthy"
    health_reason: str
    tracking: str  # "cgroup" or "session"
    lasts: bool = True  # it counts as up when its process is over: a oneshot, or remain_after_exit
    frozen: bool = False  # its processes do not run until it is thawed
    file: str
    changed: bool  # its file was changed since it was started; ``unit reload`` or a restart applies it
    requires: tuple[str, ...]
    wants: tuple[str, ...]
    after: tuple[str, ...]
    before: tuple[str, ...]
    log_bytes_dropped: int
    log_lines_dropped: int = 0  # written faster than the unit's rate
    last_lines: tuple[str, ...] = ()  # of its log, when it is flapping or failed
    history: tuple[UnitMoment, ...]
    triggers: tuple[TriggerPicture, ...] = ()
    enabled: str = "enabled"  # or disabled, masked, static (an instance that others only name), transient
    called: str = ""  # of one on demand: who wants it up
    drop_ins: tuple[str, ...] = ()
    invocation: str = ""  # the ID of its last start: INVOCATION_ID in its environment, and with each line of its log

    @property
    def kinds(self) -> frozenset[str]:
        """Words of ``TYPES`` that fit it."""
        more = () if self.type == "target" else ("service",)
        return frozenset((self.type, *more, *(one.kind for one in self.triggers)))


STATES = (
    "waiting", "starting", "ready", "reloading", "exited", "stopping", "backoff", "stopped", "failed",
)  # fmt: skip
TYPES = (
    "service", "target", "timer", "socket", "path", "simple", "exec", "oneshot", "notify", "notify-reload", "forking",
    "idle",
)  # fmt: skip
Goal = Literal["ready", "healthy", "exit", "stopped"]
GOALS: tuple[Goal, ...] = ("ready", "healthy", "exit", "stopped")


@dataclass(frozen=True, kw_only=True)
class Waited:
    """How a wait ended. ``met``: what was waited for is so; ``hopeless``: it will not be by itself."""

    met: bool
    hopeless: bool
    unit: UnitPicture


@dataclass(frozen=True, kw_only=True)
class KeyChange:
    """One key of a unit file that a reload changes; a value is as TOML would write it, empty where there is none."""

    unit: str
    key: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ReloadPlan:
    """What a reload of the unit files does, or would do."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # not running; the new file counts from the next start on
    unchanged: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    keys: tuple[KeyChange, ...] = ()


@dataclass(frozen=True)
class LogLine:
    """A line of a unit's output; ``time`` is RFC 3339 in UTC, when we read it."""

    time: str
    text: str
    unit: str = ""
    priority: int | None = None  # 0 to 7, of a line that began with "<3>" (sd-daemon(3))
    stream: str = ""  # "stdout" or "stderr", of a unit whose standard_error is "journal"
    invocation: str = ""  # which start of the unit wrote it: its INVOCATION_ID
