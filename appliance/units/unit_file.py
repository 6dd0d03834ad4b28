"""Unit files: ``web.toml`` declares unit ``web`` (design 3.5). Strict: every problem is found, with its place. Pure.

What the design promises for later versions is refused by name here, never silently ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from appliance.schema import Document, Duration, DurationOrInfinity, Finding, Size, read

SUFFIX = ".toml"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_WHAT_NAME = "the name of a unit: letters, digits, dots, dashes and underscores"
_NAMES: Mapping[str, Any] = {"pattern": _NAME, "what": _WHAT_NAME}
_PATH: Mapping[str, Any] = {"pattern": r"/[^\0]*", "what": "an absolute path"}
_USER: Mapping[str, Any] = {"pattern": r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", "what": "the name or number of an account"}
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset({"INVOCATION_ID", "NOTIFY_SOCKET", "MAINPID"})
NOT_YET = frozenset(
    {
        "unit.binds_to", "unit.part_of", "unit.conflicts", "unit.on_failure", "unit.on_success",
        "service.pre_start", "service.post_start", "service.stop", "service.post_stop", "service.reload",
        "service.pid_file", "service.remain_after_exit", "service.kill_signal", "service.kill_mode",
        "service.success_exit_codes", "service.watchdog_timeout", "service.environment_file",
        "container", "timer", "socket", "path", "resources", "sandbox", "limits", "placement",
        "restart.jitter", "health.start_period", "logs.rate", "logs.age",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UnitSection:
    """``[unit]``: who it is, and its order among the others (systemd's meanings)."""

    description: str = ""
    requires: tuple[str, ...] = field(default=(), metadata=_NAMES)
    wants: tuple[str, ...] = field(default=(), metadata=_NAMES)
    after: tuple[str, ...] = field(default=(), metadata=_NAMES)
    before: tuple[str, ...] = field(default=(), metadata=_NAMES)


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


@dataclass(frozen=True, kw_only=True)
class LogsSection:
    """``[logs]``."""

    limit: Size | None = field(default=None, metadata={"min": 64 << 10})


@dataclass(frozen=True, kw_only=True)
class UnitDocument:
    """A whole unit file."""

    unit: UnitSection = UnitSection()
    service: ServiceSection
    restart: RestartSection = RestartSection()
    health: HealthSection | None = None
    logs: LogsSection = LogsSection()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Rules between the tables."""
        if self.service.type == "oneshot" and self.restart.policy == "always":
            yield "restart.policy", 'found "always" for a oneshot, expected "on-failure" or "no"'
        if self.service.type == "oneshot" and self.health is not None:
            yield "health", "found a health check of a oneshot, which is not running once it is ready"


@dataclass(frozen=True)
class Unit:
    """A unit that can be run: its name, what its file says, and the text it was read from."""

    name: str
    document: UnitDocument
    text: str = field(repr=False)
    file: str = ""

    @property
    def digest(self) -> str:
        """Changes when the file does."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def restart_policy(self) -> str:
        """As written; else a oneshot is not repeated, and a service is when it fails."""
        return self.document.restart.policy or ("no" if self.document.service.type == "oneshot" else "on-failure")


@dataclass(frozen=True)
class ParsedUnit:
    """The unit, or None with at least one finding of severity "error"."""

    name: str
    unit: Unit | None
    findings: tuple[Finding, ...]


def unit_name(file_name: str) -> str | None:
    """``web`` of ``web.toml``; None of a file that declares no unit (another suffix, or hidden)."""
    return file_name.removesuffix(SUFFIX) if file_name.endswith(SUFFIX) and not file_name.startswith(".") else None


def parse_unit(text: str, file: str) -> ParsedUnit:
    """Read one unit file; ``file`` is its path, for its name and for the findings. Never raises."""
    file_name = file.rpartition("/")[2]
    name = unit_name(file_name) or file_name
    findings: list[Finding] = []
    if "@" in name:
        findings.append(Finding(file, 1, 1, "", "templates (NAME@.toml) are not supported yet in this version"))
    elif not re.fullmatch(_NAME, name):
        message = f'the file name gives the unit the name "{name}", expected {_WHAT_NAME}'
        findings.append(Finding(file, 1, 1, "", message))
    elif unit_name(file_name) is None:
        findings.append(Finding(file, 1, 1, "", f"a unit file is called NAME{SUFFIX}"))
    document = read(text, file, UnitDocument)
    findings += [_say_not_yet(one, document) for one in document.findings if not _is_for_container(one, document)]
    value = document.value
    if value is not None:
        findings += _self_references(name, value.unit, document)
    if value is None or any(one.severity == "error" for one in findings):
        return ParsedUnit(name, None, tuple(sorted(set(findings))))
    return ParsedUnit(name, Unit(name, value, text, file), tuple(findings))


def _say_not_yet(finding: Finding, document: Document[UnitDocument]) -> Finding:
    if finding.path in NOT_YET and finding.message.startswith("unknown key"):
        return dataclasses.replace(finding, message="not supported yet in this version")
    service = document.data.get("service")
    if finding.path == "service.type" and isinstance(service, dict) and service.get("type") == "forking":
        return dataclasses.replace(finding, message='"forking" is not supported yet in this version; use "exec"')
    if finding.path == "service" and finding.message.startswith("missing"):
        return dataclasses.replace(finding, message="missing; expected a table [service] with at least a command")
    return finding


def _is_for_container(finding: Finding, document: Document[UnitDocument]) -> bool:
    """A container has no [service]; that it lacks one is no news."""
    return "container" in document.data and finding.path == "service" and finding.message.startswith("missing")


def _self_references(name: str, section: UnitSection, document: Document[UnitDocument]) -> Iterator[Finding]:
    for key in ("requires", "wants", "after", "before"):
        if name in getattr(section, key):
            yield Finding(*document.place(f"unit.{key}"), f"unit.{key}", f'names the unit itself, "{name}"')
