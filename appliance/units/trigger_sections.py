"""``[timer]``, ``[[socket]]`` and ``[path]`` of a unit file: what starts a unit that is not up all the time. Pure.

Such a table stands in the file of the unit that it starts, or in a file without [service] and names it: ``unit``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from typing import Any, Literal

from appliance.errors import InputError
from appliance.host.zones import find_zone
from appliance.schema import Duration, Size
from appliance.units.calendar import Calendar, parse_calendar
from appliance.units.unit_section import NAME, WHAT_NAME

UNIX_PATH_MAX = 107
_NAMED: Mapping[str, Any] = {"pattern": NAME + "@?", "what": WHAT_NAME}
_MODE: Mapping[str, Any] = {"pattern": "0?[0-7]{3}", "what": 'an octal mode such as "0660"'}
_USER: Mapping[str, Any] = {"pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "what": "the name or number of an account"}


def words(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One is as good as a list of one."""
    return (value,) if isinstance(value, str) else value


def _check_calendar(value: str | tuple[str, ...]) -> str | None:
    for text in words(value):
        try:
            parse_calendar(text, find_zone)
        except InputError as exc:
            return exc.message
    return None


def _check_zone(name: str) -> str | None:
    return None if find_zone(name) is not None else f'there is no time zone "{name}", expected one like "Europe/Berlin"'


_CALENDAR: Mapping[str, Any] = {"check": _check_calendar, "example": '"daily" or "Mon..Fri 09:00"'}


@dataclass(frozen=True, kw_only=True)
class TimerSection:
    """``[timer]``: when a unit is started. All times that are given count."""

    calendar: str | tuple[str, ...] = field(default=(), metadata=_CALENDAR)
    timezone: str | None = field(default=None, metadata={"check": _check_zone})
    every: Duration | None = field(default=None, metadata={"min": 0.01})  # since its last start
    on_boot: Duration | None = None  # since the host came up
    on_startup: Duration | None = None  # since the appliance came up
    on_active: Duration | None = None  # since the timer did
    on_unit_active: Duration | None = None  # as every, but never by itself the first time
    on_inactive: Duration | None = None  # since the unit was last over
    jitter: Duration = 0.0  # a random delay, up to that
    jitter_fixed: bool = False  # always the same one on this host
    accuracy: Duration = 0.0  # as much later is as good, if fewer wake-ups come of it
    persistent: bool = False  # what was missed while the host was down is made up for, once
    unit: str | None = field(default=None, metadata=_NAMED)

    def problems(self) -> Iterator[tuple[str, str]]:
        """It must say some time."""
        if not words(self.calendar) and not any(value is not None for _, value in self.monotonic()):
            yield "", 'says no time, expected calendar = "daily", every = "15m" or another one'

    def monotonic(self) -> tuple[tuple[str, float | None], ...]:
        """The times that count from something, not from the calendar."""
        names = ("every", "on_boot", "on_startup", "on_active", "on_unit_active", "on_inactive")
        return tuple((name, getattr(self, name)) for name in names)

    def calendars(self, find: Any = find_zone) -> tuple[Calendar, ...]:
        """The expressions, read."""
        found: tuple[Calendar, ...] = tuple(
            parse_calendar(text, find, zone=self.timezone) for text in words(self.calendar)
        )
        return found

    def zone(self) -> tzinfo | None:
        """In which its times are shown, unless it is the host's own."""
        return find_zone(self.timezone) if self.timezone else None


@dataclass(frozen=True, kw_only=True)
class TriggerLimitTable:
    """``trigger_limit``: more starts than that within the interval, and the trigger gives up."""

    burst: int = field(metadata={"min": 0, "max": 100_000})  # 0: no limit
    interval: Duration = field(metadata={"min": 0.001})


@dataclass(frozen=True, kw_only=True)
class SocketOptionsTable:
    """``options`` of a socket: what does not mean anything to its kind is passed."""

    keep_alive_time: Duration | None = field(default=None, metadata={"min": 1.0})
    keep_alive_interval: Duration | None = field(default=None, metadata={"min": 1.0})
    keep_alive_probes: int | None = field(default=None, metadata={"min": 1, "max": 127})
    defer_accept: Duration | None = field(default=None, metadata={"min": 1.0})
    congestion: str | None = field(default=None, metadata={"pattern": r"[a-z0-9_-]{1,15}", "what": "such as bbr"})
    bind_to_device: str | None = field(default=None, metadata={"pattern": r"[^/\s]{1,15}", "what": "an interface"})
    priority: int | None = field(default=None, metadata={"min": 0, "max": 1 << 30})
    mark: int | None = field(default=None, metadata={"min": 0, "max": (1 << 31) - 1})
    tos: int | None = field(default=None, metadata={"min": 0, "max": 255})
    ttl: int | None = field(default=None, metadata={"min": 1, "max": 255})
    pass_credentials: bool = False
    pass_security: bool = False
    pass_packet_info: bool = False
    pipe_bytes: Size | None = field(default=None, metadata={"min": 1, "max": 1 << 30})

    def numbers(self) -> dict[str, int | str]:
        """Those that are set, as the kernel takes them."""
        given = ((one.name, getattr(self, one.name)) for one in fields(self))
        found = {name: value for name, value in given if value is not None and value is not False}
        return {name: value if isinstance(value, str) else int(value) for name, value in found.items()}


def _check_listen(text: str) -> str | None:
    if text.startswith("/"):
        return None if len(text.encode()) <= UNIX_PATH_MAX else f"found a path longer than {UNIX_PATH_MAX} bytes"
    if text.startswith("@"):
        return None if 1 < len(text.encode()) <= UNIX_PATH_MAX else f'found "{text}", expected a name behind the @'
    wanted = 'expected an address such as "127.0.0.1:80" or "[::]:80", a path such as "/run/web.sock", or "@name"'
    if text.isdigit():
        return (
            f'found the port "{text}" alone, and nobody can tell which addresses are meant; write "[::]:{text}" for all'
        )
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return f'found "{text}", {wanted}'
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return f'found "{text}", an IPv6 address stands in brackets; {wanted}'
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f'found "{text}", {wanted}'
    return None


@dataclass(frozen=True, kw_only=True)
class SocketSection:
    """One of ``[[socket]]``: where somebody may call, and what becomes of the call (LISTEN_FDS, sd_listen_fds(3))."""

    listen: str = field(metadata={"check": _check_listen, "example": '"127.0.0.1:80"'})
    type: Literal["stream", "dgram", "seqpacket", "fifo"] = "stream"
    name: str | None = field(
        default=None, metadata={"pattern": r"[!-9;-~]{1,255}", "what": "a name without blanks and colons"}
    )
    unit: str | None = field(default=None, metadata=_NAMED)
    accept: bool = False  # a process for each connection, with the connection as its stdin and stdout
    on_demand: bool = True  # false: the unit is up at boot, not first when somebody calls
    backlog: int = field(default=4096, metadata={"min": 0, "max": 1 << 20})
    mode: str = field(default="0666", metadata=_MODE)
    directory_mode: str = field(default="0755", metadata=_MODE)
    user: str | None = field(default=None, metadata=_USER)
    group: str | None = field(default=None, metadata=_USER)
    reuse_port: bool = False
    keep_alive: bool = False
    no_delay: bool = False
    free_bind: bool = False
    transparent: bool = False
    v6only: bool | None = None
    receive_buffer: int | None = field(default=None, metadata={"min": 1, "max": 1 << 30})
    send_buffer: int | None = field(default=None, metadata={"min": 1, "max": 1 << 30})
    options: SocketOptionsTable | None = None
    links: tuple[str, ...] = field(default=(), metadata={"pattern": r"/[^\0]*", "what": "an absolute path"})
    remove_on_stop: bool = False
    max_connections: int = field(default=64, metadata={"min": 1, "max": 100_000})
    max_connections_per_source: int = field(default=0, metadata={"min": 0, "max": 100_000})  # 0: no limit
    trigger_limit: TriggerLimitTable | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not go together."""
        is_path = self.listen.startswith("/")
        if self.type == "fifo" and not is_path:
            yield "listen", f'found "{self.listen}", expected the path of a fifo'
        if self.type == "seqpacket" and not is_path and not self.listen.startswith("@"):
            yield "type", "found seqpacket, which only unix sockets know"
        if self.accept and self.type in ("dgram", "fifo"):
            yield "accept", f"found accept for {self.type}, which knows no connections"
        if self.accept and not self.on_demand:
            yield "on_demand", "found false for a socket with accept, whose processes come with the connections"
        if self.links and not is_path:
            yield "links", "counts only for paths"
        for key in ("user", "group"):
            if getattr(self, key) is not None and not is_path:
                yield key, "counts only for paths"


def _check_paths(value: str | tuple[str, ...]) -> str | None:
    for text in words(value):
        if not text.startswith("/") or "\0" in text:
            return f'found "{text}", expected an absolute path'
    return None


_PATHS: Mapping[str, Any] = {"check": _check_paths, "example": '"/var/spool/mail"'}


@dataclass(frozen=True, kw_only=True)
class PathSection:
    """``[path]``: files that start a unit."""

    path_exists: str | tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_exists_glob: str | tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_changed: str | tuple[str, ...] = field(default=(), metadata=_PATHS)  # written and closed
    path_modified: str | tuple[str, ...] = field(default=(), metadata=_PATHS)  # and at each write
    directory_not_empty: str | tuple[str, ...] = field(default=(), metadata=_PATHS)
    make_directory: bool = False
    directory_mode: str = field(default="0755", metadata=_MODE)
    unit: str | None = field(default=None, metadata=_NAMED)
    trigger_limit: TriggerLimitTable | None = None

    def conditions(self) -> tuple[tuple[str, str], ...]:
        """(kind, path) of each."""
        kinds = ("path_exists", "path_exists_glob", "path_changed", "path_modified", "directory_not_empty")
        return tuple((kind, path.rstrip("/") or "/") for kind in kinds for path in words(getattr(self, kind)))

    def problems(self) -> Iterator[tuple[str, str]]:
        """It must name some path."""
        if not self.conditions():
            yield "", "names no path, expected path_exists, path_changed, directory_not_empty or another one"
