"""``[service]``, ``[restart]`` and ``[health]`` of a unit file: what runs, what follows its end, is it well. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.schema import Duration, DurationOrInfinity

_PATH: Mapping[str, Any] = {"pattern": r"/[^\0]*", "what": "an absolute path"}
_USER: Mapping[str, Any] = {"pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "what": "the name or number of an account"}
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset({"INVOCATION_ID", "NOTIFY_SOCKET", "MAINPID"})


def _check_command(argv: tuple[str, ...]) -> str | None:
    if not argv[0]:
        return "found an empty program name, expected a path or a name to look up in PATH"
    if "/" in argv[0] and not argv[0].startswith("/"):
        return f'found the relative path "{argv[0]}", expected an absolute path or a bare name to look up in PATH'
    return None


def _check_environment(environment: Mapping[str, str]) -> str | None:
    for name in environment:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            return f'found the variable name "{name}", expected letters, digits and underscores'
        if name in _OURS:
            return f"found {name}, which the appliance sets itself"
    return None


_COMMAND: Mapping[str, Any] = {"min": 1, "split": True, "check": _check_command, "example": '["/usr/bin/sleep", "1h"]'}


@dataclass(frozen=True, kw_only=True)
class ServiceSection:
    """``[service]``: what runs, as whom, and when it counts as ready."""

    command: tuple[str, ...] = field(metadata=_COMMAND)
    type: Literal["simple", "exec", "oneshot", "notify"] = "simple"
    environment: Mapping[str, str] = field(default_factory=dict, metadata={"check": _check_environment})
    working_directory: str = field(default="/", metadata=_PATH)
    user: str | None = field(default=None, metadata=_USER)
    group: str | None = field(default=None, metadata=_USER)
    umask: str = field(default="0022", metadata={"pattern": "0?[0-7]{3}", "what": 'an octal mask such as "0022"'})
    start_timeout: DurationOrInfinity | None = None
    stop_timeout: DurationOrInfinity = 10.0

    def start_seconds_max(self) -> float:
        """A oneshot may take its time unless told otherwise."""
        if self.start_timeout is not None:
            return self.start_timeout
        return math.inf if self.type == "oneshot" else 90.0


@dataclass(frozen=True, kw_only=True)
class LimitTable:
    """``[restart] limit``: that many starts within the interval and it is given up."""

    burst: int = field(metadata={"min": 1, "max": 1000})
    interval: Duration = field(metadata={"min": 0.001})


@dataclass(frozen=True, kw_only=True)
class RestartSection:
    """``[restart]``: what follows an end that nobody asked for. The delay doubles up to ``delay_max``."""

    policy: Literal["always", "on-failure", "no"] | None = None
    delay: Duration = 1.0
    delay_max: Duration = 60.0
    limit: LimitTable | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """``delay_max`` may not be the smaller one."""
        if self.delay_max < self.delay:
            yield "delay_max", "is smaller than delay"


_URL = {"pattern": r"http://[^/\s]+(/\S*)?", "what": "an address such as http://127.0.0.1:8080/healthz"}
_ADDRESS = {"pattern": r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}", "what": "an address such as 127.0.0.1:8080"}


@dataclass(frozen=True, kw_only=True)
class HealthSection:
    """``[health]``: one check, from outside, again and again."""

    http: str | None = field(default=None, metadata=_URL)
    tcp: str | None = field(default=None, metadata=_ADDRESS)
    command: tuple[str, ...] | None = field(default=None, metadata=_COMMAND)
    interval: Duration = field(default=10.0, metadata={"min": 0.1})
    timeout: Duration = field(default=5.0, metadata={"min": 0.01})
    threshold: int = field(default=3, metadata={"min": 1, "max": 1000})
    on_failure: Literal["restart", "ignore"] = "restart"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Exactly one kind of check."""
        given = [name for name in ("http", "tcp", "command") if getattr(self, name) is not None]
        if not given:
            yield "", "says nothing to check, expected one of http, tcp, command"
        elif len(given) > 1:
            yield given[1], f"found {given[0]} and {given[1]}, expected only one of http, tcp, command"
