"""[update] in the settings file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.schema import Duration

CHANNELS = ("alpha", "beta", "stable")
_SECRET = re.compile(r"://[^/@\s]*@")


def _repository_problem(value: Any) -> str | None:
    scheme, found, rest = str(value).partition("://")
    if found and scheme not in ("http", "https", "file"):
        return f"has the scheme {scheme!r}; allowed are http, https, file, or a plain path"
    if (found and not rest) or (not found and value and not str(value).startswith("/")):
        return "must be http(s)://..., file:///... or an absolute path"
    return None


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


@dataclass(frozen=True, kw_only=True)
class UpdateSettings:
    """Where new versions come from and when they are taken."""

    repository: str = field(default="", metadata={"check": _repository_problem})
    channel: Literal["alpha", "beta", "stable"] = "stable"
    interval: Duration = field(default=600.0, metadata={"min": 1.0})
    strategy: Literal["immediate", "manual"] = "immediate"
    health: HealthSettings = field(default_factory=HealthSettings)


def without_secret(text: str) -> str:
    """The text with ``user:password@`` in URLs hidden: a repository's name is shown in many places."""
    return _SECRET.sub("://(redacted)@", text)
