"""From the texts of a unit file of systemd and its drop-ins to the tables of a unit file of ours. Pure.

What has no equal here is a warning, never an error; a value that cannot be read is left out with a warning, as in
systemd. Whoever reads the tables may find more that is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.errors import InputError
from appliance.schema import Finding, Source, did_you_mean, to_toml
from appliance.systemd.draft import Draft, Handlers
from appliance.systemd.exec_keys import EXEC, finish_exec
from appliance.systemd.lines import Assignment, read_lines
from appliance.systemd.resource_keys import RESOURCES
from appliance.systemd.sandbox_keys import SANDBOX
from appliance.systemd.service_keys import SERVICE, finish_service
from appliance.systemd.trigger_keys import PATH, SOCKET, TIMER, finish_path, finish_socket
from appliance.systemd.unit_keys import INSTALL, UNIT

_EVERYWHERE: Mapping[str, Handlers] = {"Unit": UNIT, "Install": INSTALL}
_OWN: Mapping[str, Mapping[str, Handlers]] = {
    ".service": {"Service": {**RESOURCES, **SANDBOX, **EXEC, **SERVICE}},
    ".timer": {"Timer": TIMER},
    ".socket": {"Socket": SOCKET},
    ".path": {"Path": PATH},
    ".target": {},
}
_OF_SOCKET_PROCESSES = frozenset(RESOURCES) | frozenset(SANDBOX) | frozenset(EXEC)
_SPECIFIER = re.compile(r"%(.?)", re.DOTALL)
_KNOWN = frozenset("aAbBCdDEfgGhHiIjJlLmMnNopPqsStTuUvVwWyY%")
_FATAL = frozenset({"User", "Group", "WorkingDirectory", "RootDirectory", "Type"})  # a wrong one keeps it from running


@dataclass(frozen=True)
class Converted:
    """The tables, where each value stands, what was found, and what has no equal (with why, if it is worth a word)."""

    kind: str
    data: dict[str, Any]
    places: Mapping[str, Assignment] = field(repr=False)
    findings: tuple[Finding, ...] = ()
    lost: tuple[tuple[Assignment, str], ...] = ()

    def toml(self) -> str:
        """As text."""
        return to_toml(self.data)


def convert(sources: Sequence[Source], kind: str) -> Converted:
    """``sources``: the file and its drop-ins, in the order in which they count. Never raises."""
    known = {**_EVERYWHERE, **_OWN[kind]}
    draft = Draft(kind)
    for source in sources:
        lines = read_lines(source.text, source.file, frozenset(known))
        draft.findings += lines.findings
        for assignment in lines.assignments:
            _take(draft, assignment, known[assignment.section])
    _finish(draft)
    data = draft.data()
    if kind == ".socket":
        data.setdefault("socket", [])
    data = {"unit": data.pop("unit", {}), **data}
    data, has_specifiers = _with_specifiers(data, kind)
    if has_specifiers:
        data["unit"]["specifiers"] = True
    if not data["unit"] and len(data) > 1:
        del data["unit"]
    return Converted(kind, data, draft.places, tuple(draft.findings), tuple(draft.lost))


def _take(draft: Draft, at: Assignment, handlers: Handlers) -> None:
    handler = handlers.get(at.key)
    if handler is None:
        if at.key.startswith("X-"):
            return
        if draft.kind == ".socket" and at.key in _OF_SOCKET_PROCESSES:
            draft.lose(at, "no process belongs to a socket here, ignored")
            return
        guess = did_you_mean(at.key, list(handlers))
        draft.lose(at, f"unknown directive, ignored{f'; {guess}' if guess else ''}")
        return
    try:
        handler(draft, at)
    except InputError as error:
        is_fatal = at.key in _FATAL and at.section == "Service"
        draft.findings.append(at.finding(error.message + ("" if is_fatal else "; ignored"), is_error=is_fatal))


def _finish(draft: Draft) -> None:
    if draft.kind == ".service":
        finish_exec(draft)
        finish_service(draft)
    elif draft.kind == ".socket":
        finish_socket(draft)
    elif draft.kind == ".path":
        finish_path(draft)
    elif draft.kind == ".timer":
        draft.tables.setdefault("timer", {})
    for name in [name for name, table in draft.tables.items() if not table and name not in ("path", "timer")]:
        del draft.tables[name]
    draft.tables.setdefault("unit", {})
    for name, table in draft.tables.items():
        for key in [key for key, value in table.items() if value == [] and key not in ("capabilities",)]:
            del draft.tables[name][key]


def _with_specifiers(value: Any, kind: str) -> tuple[Any, bool]:
    """What stands for nothing is a plain percent sign, as in systemd; ``%n`` ends with the kind of unit."""
    if isinstance(value, str) and "%" in value:
        return _SPECIFIER.sub(lambda found: _specifier(found[1], kind), value), True
    if isinstance(value, dict):
        pairs = {key: _with_specifiers(one, kind) for key, one in value.items()}
        return {key: one for key, (one, _) in pairs.items()}, any(some for _, some in pairs.values())
    if isinstance(value, list):
        items = [_with_specifiers(one, kind) for one in value]
        return [one for one, _ in items], any(some for _, some in items)
    return value, False


def _specifier(letter: str, kind: str) -> str:
    if letter == "n" and kind == ".service":
        return "%n.service"
    return f"%{letter}" if letter in _KNOWN and letter else f"%%{letter}"


def commented(converted: Converted, file_name: str) -> str:
    """As ``unit convert`` prints it: what has no equal stands above, as comments."""
    head = [f"# Made of {_one_line(file_name)} by appliance unit convert."]
    if converted.lost:
        head.append("# Without an equal here:")
        head += [f"#   {_comment(at, why)}" for at, why in converted.lost]
    return "\n".join((*head, "", converted.toml()))


def _comment(at: Assignment, why: str) -> str:
    return _one_line(
        f"[{at.section}] {at.key}={at.value}  ({at.file.rpartition('/')[2]}:{at.line}{why and f': {why}'})"
    )


def _one_line(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
