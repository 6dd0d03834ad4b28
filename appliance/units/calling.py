"""How triggers, and units that failed or are done, ask for another unit; and what that one is told of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from appliance.units.results import LastExit, Result, variables_of

NOTHING: Mapping[str, str] = MappingProxyType({})


class CallUnit(Protocol):
    """A start, without waiting for anything. ``told``: variables for its processes, until it is at rest again."""

    def __call__(self, name: str, reason: str, told: Mapping[str, str] = NOTHING) -> None: ...  # noqa: D102


def told_by_timer(name: str, wall: float, running: float) -> Mapping[str, str]:
    """``$TRIGGER_UNIT`` and its kin (systemd.exec(5)); the times are those of the ring, in seconds."""
    return {
        "TRIGGER_UNIT": name,
        "TRIGGER_TIMER_REALTIME_USEC": str(round(wall * 1e6)),
        "TRIGGER_TIMER_MONOTONIC_USEC": str(round(running * 1e6)),
    }


def told_by_path(name: str, path: str) -> Mapping[str, str]:
    """Which path it was, as it is written in the file of the unit; of a pattern the file that was found."""
    return {"TRIGGER_UNIT": name, "TRIGGER_PATH": path}


def told_by_end(name: str, invocation: str, result: Result, last: LastExit) -> Mapping[str, str]:
    """``$MONITOR_...``: how the unit ended that this one is started for."""
    told = {f"MONITOR_{key}": value for key, value in variables_of(result, last).items()}
    return {**told, "MONITOR_INVOCATION_ID": invocation, "MONITOR_UNIT": name}
