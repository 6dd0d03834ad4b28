"""Unit files of systemd in the units directory: ``web.service`` with its drop-ins, read as if it were ``web.toml``.

As systemd does, what is wrong with one value costs that value alone, with a warning; but for what decides what runs
and as whom: there nothing is guessed, and the unit is not valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from appliance.host import files
from appliance.schema import Finding, Source, to_toml
from appliance.systemd import drop_in_directories, kind_of, unit_of_file
from appliance.units.unit_file import SAMPLE, ParsedUnit, PlacedSource, parse_unit

if TYPE_CHECKING:
    from appliance.systemd import Assignment, Converted

_FILE_BYTES_MAX = 1 << 20
_STEP = re.compile(r'([A-Za-z0-9_-]+|"(?:[^"\\\\]|\\\\.)*")|\[(\d+)\]')
_FATAL = re.compile(
    r"service\.(command|commands|condition|pre_start|post_start|reload|stop|post_stop|user|group|working_directory|type)"
    r"($|[.\[])|sandbox\.root_directory|restart\.policy"
)
_ROUNDS_MAX = 20


def systemd_sources(path: str, name: str = "") -> list[Source]:
    """The file and its drop-ins, in the order in which they count. Raises ApplianceError.

    As in systemd they are in the order of their own names, whichever directory they lie in; of two of one name the
    one in the more specific directory counts, and one that is a link to /dev/null takes all of that name away.
    ``web.service.wants`` and ``web.service.requires`` are directories of names.
    """
    directory, _, file_name = path.rpartition("/")
    directory = directory or "."
    kind = kind_of(file_name)
    real = f"{name.removesuffix(kind)}{kind}" if name else file_name
    found: dict[str, str] = {}
    for below in drop_in_directories(real):
        for drop_in in _names_in(f"{directory}/{below}"):
            if drop_in.endswith(".conf") and not drop_in.startswith("."):
                found[drop_in] = f"{directory}/{below}/{drop_in}"
    more = [found[one] for one in sorted(found) if not files.points_to_dev_null(found[one])]
    sources = [Source(one, files.read_text(one, size_max=_FILE_BYTES_MAX)) for one in (path, *more)]
    for key in ("Wants", "Requires"):
        names: dict[str, bool] = {}  # and whether a link to /dev/null takes it away; the most specific one counts
        for below in drop_in_directories(real):
            place = f"{directory}/{below.removesuffix('.d')}.{key.lower()}"
            for one in filter(kind_of, _names_in(place)):
                names[one] = not files.points_to_dev_null(f"{place}/{one}")
        if good := [one for one, is_there in names.items() if is_there]:
            place = f"{directory}/{real}.{key.lower()}"
            sources.append(Source(place, f"[Unit]\n{key}={' '.join(good)}\n"))
    return sources


def _names_in(directory: str) -> list[str]:
    """None when it is no directory at all, as in systemd."""
    return files.list_directory(directory) if files.is_directory(directory) else []


def parse_systemd_unit(
    sources: Sequence[Source],
    *,
    name: str = "",
    drop_ins: Sequence[Source] = (),
    host: Mapping[str, str] = MappingProxyType({}),
) -> ParsedUnit:
    """``drop_ins``: of our own kind, which change what was read. Never raises."""
    from appliance.systemd import convert

    file = sources[0].file
    file_name = file.rpartition("/")[2]
    name = name or unit_of_file(file_name)
    converted = convert(sources, kind_of(file_name) or ".service")
    data = converted.data
    warnings = list(converted.findings)
    places = _by_file(converted, sources)
    conf = [PlacedSource(one.file, "", places[one.file], one.text) for one in sources[1:]]
    for _ in range(_ROUNDS_MAX):
        text = to_toml(data)
        parsed = parse_unit(text, file, name=name, drop_ins=(*conf, *drop_ins), host=host, places=places[file])
        errors = [one for one in parsed.findings if one.severity == "error"]
        mended = _Mending(data, converted.places, host).mend(errors)
        if not mended:
            break
        warnings += mended
    findings = [*warnings, *(_said_of(one, converted.places) for one in parsed.findings)]
    if any(one.severity == "error" and one.path == "Service.ExecStart" for one in findings):
        findings = [one for one in findings if one.path != "service.command"]  # it is not missing, it is wrong
    bad = any(one.severity == "error" for one in findings)
    order = {source.file: number for number, source in enumerate(sources)}
    findings.sort(key=lambda one: (order.get(one.file, len(order)), one.line, one.column, one.path))
    return ParsedUnit(name, None if bad else parsed.unit, tuple(dict.fromkeys(findings)))


def converted_text(path: str) -> tuple[str, str, tuple[Finding, ...]]:
    """For ``unit convert``: name of the unit, its file as TOML with comments, findings. Raises ApplianceError."""
    from appliance.host.facts import host_facts
    from appliance.systemd import commented, convert

    sources = systemd_sources(path)
    file_name = path.rpartition("/")[2]
    parsed = parse_systemd_unit(sources, host=host_facts())
    converted = convert(sources, kind_of(file_name) or ".service")
    if parsed.unit is not None:
        from appliance.schema import merged_data

        converted = replace(converted, data=merged_data([Source(path, parsed.unit.text)]))
    return unit_of_file(file_name), commented(converted, path), parsed.findings


def _by_file(converted: Converted, sources: Sequence[Source]) -> dict[str, dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = {one.file: {} for one in sources}
    for path, at in converted.places.items():
        found[at.file][path] = (at.line, at.column)
    return found


def _said_of(finding: Finding, places: Mapping[str, Assignment]) -> Finding:
    """In systemd's words: the directive that the key was made of."""
    at = _place_of(finding.path, places)
    return replace(finding, path=at.path) if at is not None and at.line == finding.line else finding


def _place_of(path: str, places: Mapping[str, Assignment]) -> Assignment | None:
    while path:
        if (at := places.get(path)) is not None:
            return at
        path = re.sub(r"(\.?[^.\[\]]+|\[\d+\])$", "", path) if not path.endswith(".") else path[:-1]
    return None


class _Mending:
    """Takes out what is not valid."""

    def __init__(self, data: dict[str, Any], places: Mapping[str, Assignment], host: Mapping[str, str]) -> None:
        self._data = data
        self._places = places
        self._host = host

    def mend(self, errors: Sequence[Finding]) -> list[Finding]:
        """A warning for each thing that was left out."""
        said = []
        for error in sorted(errors, key=lambda one: one.path, reverse=True):
            at = _place_of(error.path, self._places)
            if at is None or _FATAL.match(error.path):
                continue
            left_out = self._take_out(_steps(error.path))
            if left_out:
                what = f" (of it: {left_out})" if left_out != "all" else ""
                said.append(at.finding(f"{error.message}; ignored{what}"))
        return said

    def _take_out(self, steps: list[str | int]) -> str:
        if len(steps) < 2:
            return ""
        if steps[0] == "socket" and (len(steps) == 2 or steps[2] in ("listen", "type")):
            return "all" if self._drop(self._data.get("socket"), steps[1]) else ""
        above: Any = self._data
        for step in steps[:-1]:
            above = _inside(above, step)
        last = steps[-1]
        if isinstance(above, list):
            return "all" if self._drop(above, last) else ""
        value = _inside(above, last)
        if value is None:
            return ""
        if isinstance(value, list) and len(value) > 1 and len(steps) == 2 and isinstance(value[0], str):
            bad = [one for one in value if not self._is_good(str(steps[0]), str(last), one, value)]
            if bad and len(bad) < len(value):
                self._without(value, bad)
                return " ".join(bad)
        if isinstance(value, list) and isinstance(value[0] if value else None, str) and last == "capabilities":
            turned = value[0].startswith("~")
            value.clear()
            if turned:
                del above[last]
            return "all"
        del above[last]
        return "all"

    @staticmethod
    def _drop(above: Any, at: str | int) -> bool:
        if not isinstance(above, list) or not isinstance(at, int) or at >= len(above):
            return False
        gone = above.pop(at)
        turned = at == 0 and isinstance(gone, str) and gone.startswith("~")
        if turned and above and isinstance(above[0], str) and not above[0].startswith("~"):
            above[0] = f"~{above[0]}"
        return True

    @staticmethod
    def _without(value: list[Any], bad: list[Any]) -> None:
        turned = isinstance(value[0], str) and value[0].startswith("~")
        value[:] = [one for one in value if one not in bad]
        if turned and value and not value[0].startswith("~"):
            value[0] = f"~{value[0]}"

    def _is_good(self, table: str, key: str, item: Any, whole: list[Any]) -> bool:
        """Whether it would be valid as the only one of its list."""
        data = {"service": {"command": ["/bin/true"]}} if table != "unit" else {}
        data.setdefault(table, {})[key] = [item]
        data.setdefault("unit", {})["specifiers"] = bool(_inside(_inside(self._data, "unit"), "specifiers"))  # type: ignore[assignment]
        parsed = parse_unit(to_toml(data), f"x@{SAMPLE}.toml", host=self._host)
        return not any(one.path.startswith(f"{table}.{key}") for one in parsed.findings)


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(value, dict) and isinstance(step, str):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _steps(path: str) -> list[str | int]:
    return [int(number) if number else name.strip('"') for name, number in _STEP.findall(path)]
