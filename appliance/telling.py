"""What the process says on stderr: lines with the time, what changed in the settings, the trace of a bug."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Mapping
from typing import Any

from appliance.errors import ApplianceError
from appliance.host import clock, process_self

LINES_KEPT = 300
_said: deque[str] = deque(maxlen=LINES_KEPT)


def say(line: str) -> None:
    """For people: on stderr, with the time."""
    stamped = f"{clock.timestamp(clock.wall_seconds())} {line}"
    _said.append(stamped)
    process_self.say(stamped)


def said_lately() -> tuple[str, ...]:
    """The last lines, for a console."""
    return tuple(_said)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "") -> tuple[str, ...]:
    """What differs between two documents, a line for each: "update.channel: stable -> beta". Pure."""
    lines: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{at}{name}.")
        elif before != after and _has_tables(before) | _has_tables(after):
            lines += _of_tables(_by_name(before), _by_name(after), f"{at}{name}")
        elif before != after:
            lines.append(f"{at}{name}: {_shown(before)} -> {_shown(after)}")
    return tuple(lines)


def _of_tables(before: Mapping[str, Any], after: Mapping[str, Any], at: str) -> list[str]:
    """Tables in a row, such as bundles: each by its name, or its place."""
    lines: list[str] = []
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            lines.append(f"{at}[{name}]: removed")
        elif name not in before:
            lines.append(f"{at}[{name}]: added")
        else:
            lines += differences(before[name], after[name], f"{at}[{name}].")
    return lines


def _has_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _by_name(tables: Any) -> dict[str, Any]:
    return {str(one.get("name") or number): one for number, one in enumerate(tables or (), 1)}


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "nothing"
    return "nothing" if value is None or value == "" else str(value)


def tell_fault(service: str, fault: Exception) -> None:
    """The trace of a bug; what our own errors say is in the service's reason already."""
    if not _is_ours(fault):
        for line in "".join(traceback.format_exception(fault)).splitlines():
            say(f"service {service}: {line}")


def _is_ours(fault: BaseException) -> bool:
    if isinstance(fault, BaseExceptionGroup):
        return all(_is_ours(member) for member in fault.exceptions)
    return isinstance(fault, ApplianceError)
