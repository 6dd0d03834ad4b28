"""``[health]`` of a unit file: is it well, seen from outside. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.schema import Duration
from appliance.units.command_lines import COMMAND

_URL: Mapping[str, Any] = {
    "pattern": r"http://[^/\s]+(/\S*)?",
    "what": "an address such as http://127.0.0.1:8080/healthz",
}
_ADDRESS: Mapping[str, Any] = {
    "pattern": r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}",
    "what": "an address such as 127.0.0.1:8080",
}
_HOST: Mapping[str, Any] = {"pattern": r"[^\s/]+", "what": "the name of a host"}


def _check_status(codes: tuple[int, ...]) -> str | None:
    bad = next((code for code in codes if not 100 <= code <= 599), None)
    return None if bad is None else f"found the status {bad}, expected 100 to 599"


@dataclass(frozen=True, kw_only=True)
class HealthSection:
    """One check, again and again. Failures within ``start_period`` of the start do not count; a success ends it."""

    http: str | None = field(default=None, metadata=_URL)
    tcp: str | None = field(default=None, metadata=_ADDRESS)
    command: tuple[str, ...] | None = field(default=None, metadata=COMMAND)
    host: str | None = field(default=None, metadata=_HOST)  # of http: another Host header than the address
    status: tuple[int, ...] = field(default=(), metadata={"check": _check_status})  # of http: else 200 to 399
    expected: str | None = field(default=None, metadata={"min": 1})  # of http: text in the body
    start_period: Duration = 0.0
    interval: Duration = field(default=10.0, metadata={"min": 0.1})
    timeout: Duration = field(default=5.0, metadata={"min": 0.01})
    threshold: int = field(default=3, metadata={"min": 1, "max": 1000})
    on_failure: Literal["restart", "ignore"] = "restart"
    ready: bool = False  # the unit is ready only once it was found healthy

    def problems(self) -> Iterator[tuple[str, str]]:
        """Exactly one kind of check."""
        given = [name for name in ("http", "tcp", "command") if getattr(self, name) is not None]
        if not given:
            yield "", "says nothing to check, expected one of http, tcp, command"
        elif len(given) > 1:
            yield given[1], f"found {given[0]} and {given[1]}, expected only one of http, tcp, command"
        if self.http is None:
            for key in ("host", "status", "expected"):
                if getattr(self, key):
                    yield key, "is only for a check by http"
