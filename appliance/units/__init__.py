"""Keeps units up: files, order, processes, readiness, restarts, logs; adopts what a dead supervisor left running."""

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
