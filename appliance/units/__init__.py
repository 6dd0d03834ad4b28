"""Keeps units up: files, order, processes, readiness, restarts, logs; adopts what a dead supervisor left running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.units.graph import Graph, build_graph, start_order
from appliance.units.pictures import (
    LogLine,
    Publish,
    ReloadPlan,
    StateKeeper,
    UnitMoment,
    UnitPicture,
    UnitsSettings,
)
from appliance.units.unit_directory import UnitFiles, graph_findings, graph_of, read_unit_file, read_unit_files
from appliance.units.unit_file import ParsedUnit, Unit, UnitDocument, parse_unit

if TYPE_CHECKING:
    from appliance.units.security import assess
    from appliance.units.units import Units

__all__ = [
    "Graph",
    "LogLine",
    "ParsedUnit",
    "Publish",
    "ReloadPlan",
    "StateKeeper",
    "Unit",
    "UnitDocument",
    "UnitFiles",
    "UnitMoment",
    "UnitPicture",
    "Units",
    "UnitsSettings",
    "assess",
    "build_graph",
    "graph_findings",
    "graph_of",
    "parse_unit",
    "read_unit_file",
    "read_unit_files",
    "start_order",
]


def __getattr__(name: str) -> Any:
    """On first use: the command line verifies files without loading trio, or tables of system calls."""
    if name == "Units":
        from appliance.units.units import Units

        return Units
    if name == "assess":
        from appliance.units.security import assess

        return assess
    raise AttributeError(name)
