"""Unit files: ``web.toml`` declares unit ``web`` (design 3.5). Strict: every problem is found, with its place. Pure.

What the design promises for later versions is refused by name here, never silently ignored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from appliance.schema import Document, Finding, Source, merged_data, read_merged, to_toml
from appliance.systemd import kind_of, unit_of_file
from appliance.units.health_section import HealthSection
from appliance.units.install_section import InstallSection
from appliance.units.log_section import LogsSection
from appliance.units.resource_sections import LimitsSection, ResourcesSection
from appliance.units.restart_section import RestartSection
from appliance.units.sandbox_section import SandboxSection
from appliance.units.service_section import ServiceSection
from appliance.units.specifiers import expander, instance_name, is_template
from appliance.units.trigger_sections import PathSection, SocketSection, TimerSection
from appliance.units.unit_section import NAME, RELATIONS, WHAT_NAME, UnitSection, plain_name

SUFFIX = ".toml"
SAMPLE = "instance"  # the instance as which a template is checked
NOT_YET = frozenset(
    {
        "container", "placement",
    }
)  # fmt: skip
_STANDS_ALONE = frozenset({"unit", "container", "timer", "socket", "path"})  # a file with one of them declares a unit
_OF_A_SERVICE = ("restart", "health", "logs", "resources", "sandbox", "limits")


# One of each for all units that set nothing.
_NO_RESOURCES, _NO_SANDBOX, _NO_LIMITS = ResourcesSection(), SandboxSection(), LimitsSection()
_NO_INSTALL = InstallSection()
_READ_BEFORE_MAX = 64
_read_before: dict[str, Unit] = {}  # by text: of a thousand files that say the same, one is read, and kept in memory
Places = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class PlacedSource(Source):
    """A text that was made of another one, of systemd's kind: where its keys stand in that one, ``original``."""

    places: Places = field(default_factory=dict)
    original: str = ""

    @cached_property
    def positions(self) -> Places:
        """As of every source."""
        return self.places


@dataclass(frozen=True, kw_only=True)
class UnitDocument:
    """A whole unit file."""

    unit: UnitSection = field(default_factory=UnitSection)
    install: InstallSection = _NO_INSTALL
    service: ServiceSection | None = None  # None: a target, or a trigger of another unit
    restart: RestartSection = field(default_factory=RestartSection)
    health: HealthSection | None = None
    logs: LogsSection = field(default_factory=LogsSection)
    resources: ResourcesSection = _NO_RESOURCES
    sandbox: SandboxSection = _NO_SANDBOX
    limits: LimitsSection = _NO_LIMITS
    timer: TimerSection | None = None
    socket: tuple[SocketSection, ...] = ()
    path: PathSection | None = None

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
    drop_ins: tuple[Source, ...] = field(default=(), repr=False)
    places: Places | None = field(default=None, repr=False)  # of what the text was made of, if of another one

    @property
    def digest(self) -> str:
        """Changes when the file, or a drop-in of it, does."""
        return hashlib.sha256(self.whole_text.encode()).hexdigest()[:32]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The file and its drop-ins."""
        return (_source(self.file, self.text, self.places), *self.drop_ins)

    @property
    def whole_text(self) -> str:
        """One text that means the same as the file with its drop-ins."""
        return to_toml(merged_data(self.sources)) if self.drop_ins else self.text

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
        return self.has_process and self.name in self.calls_on_demand

    @property
    def triggers(self) -> tuple[TimerSection | SocketSection | PathSection, ...]:
        """Its tables that say when a unit is started."""
        found = (self.document.timer, *self.document.socket, self.document.path)
        return tuple(one for one in found if one is not None)

    @property
    def triggers_of_others(self) -> tuple[str, ...]:
        """Units beside itself that its tables start."""
        return tuple(dict.fromkeys(one for one in map(self.target_of, self.triggers) if one != self.name))

    @property
    def calls_on_demand(self) -> frozenset[str]:
        """Units, perhaps itself, that are up only when a table of this file calls them."""
        return frozenset(self.target_of(one) for one in self.triggers if getattr(one, "on_demand", True))

    def target_of(self, section: TimerSection | SocketSection | PathSection) -> str:
        """The unit that this table of its file starts: as with systemd, ``web.timer`` starts ``web``."""
        if section.unit is not None:
            return plain_name(section.unit)
        if self.has_process:
            return self.name
        plain = re.sub(r"\.(timer|socket|path)$", "", self.name)
        return f"{plain}@" if getattr(section, "accept", False) else plain

    @property
    def is_per_connection(self) -> bool:
        """Its sockets make a unit of it for each connection; it never runs itself."""
        return any(one.accept and self.target_of(one) == self.name for one in self.document.socket)

    @property
    def stays_when_done(self) -> bool:
        """Whether one that was called counts as up when its process has ended well."""
        return bool(getattr(self.service, "remain_after_exit", False))


@dataclass(frozen=True)
class ParsedUnit:
    """The unit, or None with at least one finding of severity "error"."""

    name: str
    unit: Unit | None
    findings: tuple[Finding, ...]


def unit_name(file_name: str) -> str | None:
    """``web`` of ``web.toml``; None of a file that declares no unit (another suffix, or hidden).

    Files of systemd's kind have their own way here: systemd_files.py.
    """
    return file_name.removesuffix(SUFFIX) if file_name.endswith(SUFFIX) and not file_name.startswith(".") else None


def parse_unit(
    text: str,
    file: str,
    *,
    name: str = "",
    drop_ins: Sequence[Source] = (),
    host: Mapping[str, str] = MappingProxyType({}),
    places: Places | None = None,
) -> ParsedUnit:
    """Read one unit file; ``file`` is its path, for its name and for the findings. Never raises.

    ``name``: of the instance, when the file is its template. ``drop_ins``: later texts that change the first.
    ``host``: what the specifiers of this host stand for, by letter. ``places``: of a text that was made of another.
    """
    file_name = file.rpartition("/")[2]
    is_systemds = bool(kind_of(file_name))
    name = name or unit_name(file_name) or (unit_of_file(file_name) if is_systemds else file_name)
    findings: list[Finding] = []
    sample = instance_name(name, SAMPLE) if is_template(name) else name  # a template is read as an instance would be
    if not re.fullmatch(NAME, sample):
        message = f'the file name gives the unit the name "{name}", expected {WHAT_NAME}'
        findings.append(Finding(file, 1, 1, "", message))
    elif unit_name(file_name) is None and not is_systemds:
        findings.append(Finding(file, 1, 1, "", f"a unit file is called NAME{SUFFIX}"))
    known = None if findings or drop_ins or places is not None else _read_before.get(text)
    if known is not None and not any(sample in getattr(known.document.unit, key) for key in RELATIONS):
        return ParsedUnit(name, dataclasses.replace(known, name=name, file=file), ())
    sources = (_source(file, text, places), *drop_ins)
    rewrite = expander(sample, file, host) if "%" in "".join(one.text for one in sources) else None
    if rewrite is not None and not _has_specifiers(sample, sources):
        rewrite = None
    document = read_merged(sources, UnitDocument, rewrite=rewrite)
    findings += [_say_not_yet(one, document) for one in document.findings]
    value = document.value
    if value is not None and value.service is None:
        findings += _without_service(document)
        findings += _starts_nothing(name, document)
    if value is not None:
        value = dataclasses.replace(value, unit=_with_plain_names(value.unit))
        if value.install is not _NO_INSTALL:
            value = dataclasses.replace(value, install=_with_plain_installs(value.install))
        findings += _self_references(sample, value.unit, document)
    if value is None or any(one.severity == "error" for one in findings):
        return ParsedUnit(name, None, tuple(sorted(set(findings))))
    unit = Unit(name, value, text, file, tuple(drop_ins), places)
    if not (findings or drop_ins or "%" in text) and places is None and unit.has_process:
        if len(_read_before) >= _READ_BEFORE_MAX:
            del _read_before[next(iter(_read_before))]
        _read_before[text] = unit
    return ParsedUnit(name, unit, tuple(findings))


def _source(file: str, text: str, places: Places | None) -> Source:
    return Source(file, text) if places is None else PlacedSource(file, text, places)


def _has_specifiers(name: str, sources: Sequence[Source]) -> bool:
    section = merged_data(sources).get("unit")
    said = section.get("specifiers") if isinstance(section, dict) else None
    return said is True or (said is None and "@" in name)


def _say_not_yet(finding: Finding, document: Document[UnitDocument]) -> Finding:
    if finding.path in NOT_YET and finding.message.startswith("unknown key"):
        return dataclasses.replace(finding, message="not supported yet in this version")
    return finding


def _without_service(document: Document[UnitDocument]) -> Iterator[Finding]:
    if not document.data.keys() & _STANDS_ALONE:
        message = "missing; expected a table [service] with at least a command, or [unit] for a target"
        yield Finding(*document.place("service"), "service", message)
        return
    for table in _OF_A_SERVICE:
        if table in document.data:
            yield Finding(*document.place(table), table, "stands without a table [service]")


def _starts_nothing(name: str, document: Document[UnitDocument]) -> Iterator[Finding]:
    assert document.value is not None
    unit = Unit(name, document.value, "")
    for table, sections in (
        ("timer", (document.value.timer,)),
        ("path", (document.value.path,)),
        ("socket", document.value.socket),
    ):
        for number, section in enumerate(sections):
            if section is not None and unit.target_of(section) == name:
                key = f"socket[{number}]" if table == "socket" else table
                message = f'starts nothing: write a table [service], or {table}.unit = "NAME"'
                yield Finding(*document.place(key), key, message)


def _self_references(name: str, section: UnitSection, document: Document[UnitDocument]) -> Iterator[Finding]:
    for key in RELATIONS:
        if name in getattr(section, key):
            yield Finding(*document.place(f"unit.{key}"), f"unit.{key}", f'names the unit itself, "{name}"')


def _with_plain_installs(section: InstallSection) -> InstallSection:
    keys = ("wanted_by", "required_by", "upheld_by", "also", "alias")
    names: dict[str, Any] = {key: tuple(map(plain_name, getattr(section, key))) for key in keys}
    return dataclasses.replace(section, **names)


def _with_plain_names(section: UnitSection) -> UnitSection:
    names: dict[str, Any] = {key: tuple(dict.fromkeys(map(plain_name, getattr(section, key)))) for key in RELATIONS}
    return dataclasses.replace(section, **names)
