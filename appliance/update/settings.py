"""[update] in the settings file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.host.zones import find_zone
from appliance.schema import Duration, Size
from appliance.update.product import name_problem
from appliance.update.windows import LENGTH_MAX, Window, window_of

CHANNELS = ("alpha", "beta", "stable")
_SECRET = re.compile(r"://[^/@\s]*@")


def _repository_problem(value: Any) -> str | None:
    scheme, found, rest = str(value).partition("://")
    if found and scheme not in ("http", "https", "file"):
        return f"has the scheme {scheme!r}; allowed are http, https, file, or a plain path"
    if (found and not rest) or (not found and value and not str(value).startswith("/")):
        return "must be http(s)://..., file:///... or an absolute path"
    return None


def _proxy_problem(value: Any) -> str | None:
    if value in ("", "none") or re.fullmatch(r"http://[^/\s]+/?", str(value)):
        return None
    return 'must be http://host:port, "none", or empty for what the environment says'


def _rate_problem(value: Any) -> str | None:
    return None if value == 0 or value >= 8192 else "must be 0 (no limit) or at least 8K"


def _path_problem(value: Any) -> str | None:
    return None if not value or str(value).startswith("/") else "must be an absolute path"


def _mirror_problem(value: Any) -> str | None:
    if re.fullmatch(r"https?://[^/\s]+(/\S*)?", str(value)) or str(value).startswith(("file:///", "/")):
        return None
    return "must be http(s)://..., file:///... or an absolute path"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server is reached; what is said here is told to that server only."""

    proxy: str = field(default="", metadata={"check": _proxy_problem})
    ca_file: str = field(default="", metadata={"check": _path_problem})
    client_certificate: str = field(default="", metadata={"check": _path_problem})
    client_key: str = field(default="", metadata={"check": _path_problem})
    user: str = field(default="", metadata={"pattern": r"[^:\s]*"})
    password_file: str = field(default="", metadata={"check": _path_problem})
    token_file: str = field(default="", metadata={"check": _path_problem})

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        if self.token_file and self.user:
            yield "token_file", "cannot be used together with user"
        if self.password_file and not self.user:
            yield "password_file", "needs user"
        if self.client_key and not self.client_certificate:
            yield "client_key", "needs client_certificate"


@dataclass(frozen=True, kw_only=True)
class MirrorSettings(ServerSettings):
    """Another place where the same repository lies."""

    url: str = field(metadata={"check": _mirror_problem})


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """One declared check of the gate; exactly one of http, tcp, command."""

    http: str | None = field(default=None, metadata={"pattern": r"http://.+"})
    tcp: str | None = field(default=None, metadata={"pattern": r".+:\d+"})
    command: tuple[str, ...] | None = None
    timeout: Duration = field(default=5.0, metadata={"min": 0.1, "max": 300.0})

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        given = [name for name in ("http", "tcp", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            yield "", f"must hold exactly one of http, tcp, command; it holds {', '.join(given) or 'none'}"
        if self.command is not None and not self.command:
            yield "command", "must not be empty"

    def describe(self) -> str:
        """How it is called in reasons and in ``explain``."""
        if self.http is not None:
            return f"http {self.http}"
        if self.tcp is not None:
            return f"tcp {self.tcp}"
        return "command " + " ".join(self.command or ())


@dataclass(frozen=True, kw_only=True)
class HealthSettings:
    """When a new version is blessed: all well for ``settle``, within ``deadline``, in ``tries`` starts."""

    settle: Duration = field(default=60.0, metadata={"min": 0.0})
    deadline: Duration = field(default=600.0, metadata={"min": 1.0, "max": 86400.0})
    tries: int = field(default=3, metadata={"min": 1, "max": 9})
    ignore_units: tuple[str, ...] = ()
    check: tuple[HealthCheck, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        if self.settle >= self.deadline:
            yield "settle", "must be shorter than deadline"


def _zone_problem(value: Any) -> str | None:
    return (
        None if find_zone(str(value)) is not None else f'found "{value}", which is no time zone such as "Europe/Berlin"'
    )


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """One of ``[[update.window]]``: on those days (none: every day), from ``start`` on for ``length``."""

    days: tuple[str, ...] = field(
        default=(),
        metadata={
            "pattern": r"(?i)(mon|tue|wed|thu|fri|sat|sun)(day|sday|nesday|rsday|urday)?",
            "what": 'a day such as "sat"', "example": '["sat", "sun"]',
        },
    )  # fmt: skip
    start: str = field(metadata={"pattern": r"([01]?\d|2[0-3]):[0-5]\d", "what": 'a time such as "02:00"'})
    length: Duration = field(metadata={"min": 60.0, "max": LENGTH_MAX})
    time_zone: str = field(default="", metadata={"check": _zone_problem})  # the host's own


def _lock_url_problem(value: Any) -> str | None:
    if not value or re.fullmatch(r"https?://[^/\s@]+(/\S*)?", str(value)):
        return None
    return "must be http(s)://host:port"


@dataclass(frozen=True, kw_only=True)
class LockSettings:
    """``[update.lock]``: a server that speaks FleetLock; ``id`` empty: made from the machine's."""

    url: str = field(default="", metadata={"check": _lock_url_problem})
    group: str = field(default="default", metadata={"pattern": r"[a-zA-Z0-9.-]+"})
    id: str = field(default="", metadata={"pattern": r"\S{0,256}"})
    ca_file: str = field(default="", metadata={"check": _path_problem})
    timeout: Duration = field(default=30.0, metadata={"min": 0.1, "max": 600.0})


@dataclass(frozen=True, kw_only=True)
class UpdateSettings(ServerSettings):
    """Where new versions come from and when they are taken."""

    repository: str = field(default="", metadata={"check": _repository_problem})
    channel: Literal["alpha", "beta", "stable"] = "stable"
    interval: Duration = field(default=600.0, metadata={"min": 1.0})
    strategy: Literal["immediate", "window", "lock", "manual"] = "immediate"
    window: tuple[WindowSettings, ...] = ()
    lock: LockSettings = field(default_factory=LockSettings)
    switches_a_day: int = field(default=10, metadata={"min": 1, "max": 1000})  # more: only by hand
    user_grace: Duration | None = field(default=None, metadata={"max": 86400.0})  # unset: 5m where a switch is a reboot
    wariness: float | None = field(default=None, metadata={"min": 0.0, "max": 1.0})  # first 0 ... 1 last in all waves
    health: HealthSettings = field(default_factory=HealthSettings)
    mirror: tuple[MirrorSettings, ...] = ()
    rate_limit: Size = field(default=0, metadata={"check": _rate_problem})  # bytes a second; 0: no limit
    idle_timeout: Duration = field(default=30.0, metadata={"min": 0.1, "max": 3600.0})
    minimum_rate: Size = 1024  # bytes a second, over a minute: a server that is slower is given up

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        yield from super().problems()
        if self.strategy == "window" and not self.window:
            yield "strategy", 'found "window", and there is no [[update.window]]'
        if self.strategy == "lock" and not self.lock.url:
            yield "lock.url", 'is missing: strategy = "lock" needs a server that gives the lock'

    def windows(self) -> tuple[Window, ...]:
        """With their zones as they are now."""
        made = (window_of(one.days, one.start, one.length, one.time_zone, find_zone) for one in self.window)
        return tuple(window for window in made if window is not None)


@dataclass(frozen=True, kw_only=True)
class BundleSettings(UpdateSettings):
    """One of ``[[update.bundle]]``: a tree of the user's, below ``/var/lib/appliance/bundles/NAME/current``."""

    name: str = field(metadata={"check": lambda value: name_problem(str(value), "bundle")})
    units: tuple[str, ...] = ()  # restarted after a switch, and well if it is to stay
    trust_root: str = field(default="", metadata={"check": _path_problem})  # the host's own

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        yield from super().problems()
        if not self.repository:
            yield "repository", "is missing: where does the bundle come from?"


@dataclass(frozen=True, kw_only=True)
class UpdateSection(UpdateSettings):
    """``[update]``: ours, and the users' bundles."""

    bundle: tuple[BundleSettings, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What the fields contradict among themselves."""
        yield from super().problems()
        names = [one.name for one in self.bundle]
        for number, name in enumerate(names):
            if name in names[:number]:
                yield f"bundle[{number}].name", f'found "{name}" a second time'


def without_secret(text: str) -> str:
    """The text with ``user:password@`` in URLs hidden: a repository's name is shown in many places."""
    return _SECRET.sub("://(redacted)@", text)
