"""The health gate: when a new version has proved itself. Pure; it is told the time and what was seen."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


class HealthSource(Protocol):
    """What the gate asks the rest of the house."""

    def services_ready(self) -> tuple[bool, tuple[str, ...]]:
        """Whether every essential service is ready, and what is missing."""

    def unit_health(self) -> Mapping[str, bool]:
        """Per unit that exists, whether it is well."""


@dataclass(frozen=True)
class Seen:
    """One look at the house: everything that is wrong with it, in words."""

    missing: tuple[str, ...]


class Verdict(enum.Enum):
    """What the gate says."""

    SETTLING = "settling"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Trial:
    """One run of the gate. All times are of one monotonic clock, in seconds."""

    started: float
    settle_seconds: float
    deadline_seconds: float
    well_since: float | None = None
    missing: tuple[str, ...] = ("nothing was looked at yet",)

    @property
    def deadline(self) -> float:
        """The moment at which not being healthy becomes being unhealthy."""
        return self.started + self.deadline_seconds


def look(
    *,
    services: tuple[bool, tuple[str, ...]],
    units: Mapping[str, bool],
    healthy_before: Sequence[str],
    ignore: Sequence[str],
    failed_checks: Sequence[str],
) -> Seen:
    """Put together what is wrong: services, units that were well before, declared checks."""
    missing = list(services[1] if not services[0] else ())
    if not services[0] and not missing:
        missing.append("not every essential service is ready")
    for name in healthy_before:
        if name in ignore or units.get(name, False):
            continue
        state = "is not healthy" if name in units else "is gone"
        missing.append(f"unit {name}, healthy before the update, {state}")
    missing.extend(failed_checks)
    return Seen(tuple(missing))


def step(trial: Trial, seen: Seen, now: float) -> tuple[Trial, Verdict]:
    """The gate after one look. Healthy means: nothing missing, in every look, for the whole settle time."""
    if not seen.missing:
        since = now if trial.well_since is None else trial.well_since
        trial = replace(trial, well_since=since, missing=())
        if now - since >= trial.settle_seconds:
            return trial, Verdict.HEALTHY
    else:
        trial = replace(trial, well_since=None, missing=seen.missing)
    if now >= trial.deadline:
        return trial, Verdict.UNHEALTHY
    return trial, Verdict.SETTLING
