"""Keeps units up: files, order, processes, readiness, restarts, logs; adopts what a dead supervisor left running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.units.pictures import (
    LogLine,
    Publish,
    ReloadPlan,
    StateKeeper,
    UnitMoment,
    UnitPicture,
    UnitsSettings,
)
from appliance.units.unit_file import ParsedUnit, Unit, UnitDocument, parse_unit

if TYPE_CHECKING:
    from appliance.units.units import Units

__all__ = [
    "LogLine",
    "ParsedUnit",
    "Publish",
    "ReloadPlan",
    "StateKeeper",
    "Unit",
    "UnitDocument",
    "UnitMoment",
    "UnitPicture",
    "Units",
    "UnitsSettings",
    "parse_unit",
]


def __getattr__(name: str) -> Any:
    """Load ``Units`` when asked for: the command line reads settings and unit files without trio (PEP 562)."""
    if name != "Units":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from appliance.units.units import Units

    return Units
