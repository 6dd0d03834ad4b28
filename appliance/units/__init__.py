"""Keeps units up: files, order, processes, readiness, restarts, logs; adopts what a dead supervisor left running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.units.enablement import change_enablement, enablement_file, read_enablement
from appliance.units.graph import Graph, build_graph, start_order
from appliance.units.log_query import Entry, LogQuery, fields_of, parse_clause, parse_priority
from appliance.units.pictures import (
    GOALS,
    STATES,
    TYPES,
    LogLine,
    Publish,
    ReloadPlan,
    StateKeeper,
    UnitMoment,
    UnitPicture,
    UnitsSettings,
    Waited,
)
from appliance.units.systemd_files import converted_text
from appliance.units.transaction import Step, Transaction, plan, standings_of
from appliance.units.unit_directory import (
    UnitFiles,
    check_unit_text,
    draw_files,
    enabled_with,
    file_to_edit,
    graph_findings,
    graph_of,
    read_unit_file,
    read_unit_files,
)
from appliance.units.unit_file import ParsedUnit, Unit, UnitDocument, parse_unit

if TYPE_CHECKING:
    from appliance.units.log_reading import read_log_files
    from appliance.units.own_children import fences_of_child
    from appliance.units.security import assess
    from appliance.units.units import Units

__all__ = [
    "GOALS",
    "STATES",
    "TYPES",
    "Entry",
    "Graph",
    "LogLine",
    "LogQuery",
    "ParsedUnit",
    "Publish",
    "ReloadPlan",
    "StateKeeper",
    "Step",
    "Transaction",
    "Unit",
    "UnitDocument",
    "UnitFiles",
    "UnitMoment",
    "UnitPicture",
    "Units",
    "UnitsSettings",
    "Waited",
    "assess",
    "build_graph",
    "change_enablement",
    "check_unit_text",
    "converted_text",
    "draw_files",
    "enabled_with",
    "enablement_file",
    "fences_of_child",
    "fields_of",
    "file_to_edit",
    "graph_findings",
    "graph_of",
    "parse_clause",
    "parse_priority",
    "parse_unit",
    "plan",
    "read_enablement",
    "read_log_files",
    "read_unit_file",
    "read_unit_files",
    "standings_of",
    "start_order",
]


def __getattr__(name: str) -> Any:
    """On first use: the command line verifies files without loading trio, or tables of system calls."""
    if name == "Units":
        from appliance.units.units import Units

        return Units
    if name == "read_log_files":
        from appliance.units.log_reading import read_log_files

        return read_log_files
    if name == "assess":
        from appliance.units.security import assess

        return assess
    if name == "fences_of_child":
        from appliance.units.own_children import fences_of_child

        return fences_of_child
    raise AttributeError(name)
