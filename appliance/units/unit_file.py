"""Unit files: ``web.toml`` declares unit ``web`` (design 3.5). Strict: every problem is found, with its place. Pure.

What the design promises for later versions is refused by name here, never silently ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.schema import Document, Finding, read
from appliance.units.log_section import LogsSection
from appliance.units.service_section import HealthSection, RestartSection, ServiceSection

SUFFIX = ".toml"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_WHAT_NAME = "the name of a unit: letters, digits, dots, dashes and underscores"
_NAMES: Mapping[str, Any] = {"pattern": _NAME, "what": _WHAT_NAME}
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
_STANDS_ALONE = frozenset({"unit", "container", "timer", "socket", "path"})  # a file with one of them declares a unit
_OF_A_SERVICE = ("restart", "health", "logs", "resources", "sandbox", "limits")


@dataclass(frozen=True, kw_only=True)
class UnitSection:
    """``[unit]``: who it is, and its order among the others (systemd's meanings)."""

    description: str = ""
    requires: tuple[str, ...] = field(default=(), metadata=_NAMES)
    wants: tuple[str, ...] = field(default=(), metadata=_NAMES)
    after: tuple[str, ...] = field(default=(), metadata=_NAMES)
    before: tuple[str, ...] = field(default=(), metadata=_NAMES)


@dataclass(frozen=True, kw_only=True)
class UnitDocument:
    """A whole unit file."""

    unit: UnitSection = UnitSection()
    service: ServiceSection | None = None  # None: a target, or a trigger of another unit
    restart: RestartSection = field(default_factory=RestartSection)
    health: HealthSection | None = None
    logs: LogsSection = field(default_factory=LogsSection)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Rules between the tables."""
        is_oneshot = self.service is not None and self.service.type == "oneshot"
        if is_oneshot and self.restart.policy == "always":
            yield "restart.policy", 'found "always" for a oneshot, expected "on-failure" or "no"'
        if is_oneshot and self.health is not None:
            yield "health", "found a health check of a oneshot, which is not running once it is ready"


_NOTHING = ServiceSection(command=("/bin/true",), type="oneshot")


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
        return self.document.restart.policy or ("no" if self.service.type == "oneshot" else "on-failure")

    @property
    def service(self) -> ServiceSection:
        """What runs. Of a target, which runs nothing, one that is never started: ask ``has_process`` before."""
        return self.document.service or _NOTHING

    @property
    def has_process(self) -> bool:
        """False of a target, and of a file that only triggers another unit: up as soon as its turn comes."""
        return self.document.service is not None

    @property
    def triggers_itself(self) -> bool:
        """It has a process and a table that says when: it waits until that calls it."""
        return False


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
    findings += [_say_not_yet(one, document) for one in document.findings]
    value = document.value
    if value is not None and value.service is None:
        findings += _without_service(document)
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
    return finding


def _without_service(document: Document[UnitDocument]) -> Iterator[Finding]:
    if not document.data.keys() & _STANDS_ALONE:
        message = "missing; expected a table [service] with at least a command, or [unit] for a target"
        yield Finding(*document.place("service"), "service", message)
        return
    for table in _OF_A_SERVICE:
        if table in document.data:
            yield Finding(*document.place(table), table, "stands without a table [service]")


def _self_references(name: str, section: UnitSection, document: Document[UnitDocument]) -> Iterator[Finding]:
    for key in ("requires", "wants", "after", "before"):
        if name in getattr(section, key):
            yield Finding(*document.place(f"unit.{key}"), f"unit.{key}", f'names the unit itself, "{name}"')
