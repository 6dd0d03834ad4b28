"""``[unit]`` of a unit file: who it is, and what it has to do with the others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.units.conditions import ConditionsSection

NAME = r"(?=.{1,100}\Z)[A-Za-z0-9][A-Za-z0-9_.:\\-]*(@[A-Za-z0-9_.:\\-]+)?"
WHAT_NAME = "the name of a unit: letters, digits, dots, dashes and underscores"
_NAMES: Mapping[str, Any] = {"pattern": NAME, "what": WHAT_NAME}
RELATIONS = (
    "requires", "requisite", "wants", "binds_to", "part_of", "upholds", "conflicts", "after", "before",
    "on_failure", "on_success", "propagates_stop_to", "stop_propagated_from", "propagates_reload_to",
    "reload_propagated_from",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class UnitSection:
    """``[unit]``. Each key means what systemd's of that name means; order comes only of after and before."""

    description: str = ""
    conditions: ConditionsSection | None = None  # one that does not hold: skipped
    asserts: ConditionsSection | None = None  # one that does not hold: failed
    specifiers: bool | None = None  # whether % stands for something; None: in templates and their instances
    requires: tuple[str, ...] = field(default=(), metadata=_NAMES)
    requisite: tuple[str, ...] = field(default=(), metadata=_NAMES)
    wants: tuple[str, ...] = field(default=(), metadata=_NAMES)
    binds_to: tuple[str, ...] = field(default=(), metadata=_NAMES)
    part_of: tuple[str, ...] = field(default=(), metadata=_NAMES)
    upholds: tuple[str, ...] = field(default=(), metadata=_NAMES)
    conflicts: tuple[str, ...] = field(default=(), metadata=_NAMES)
    after: tuple[str, ...] = field(default=(), metadata=_NAMES)
    before: tuple[str, ...] = field(default=(), metadata=_NAMES)
    on_failure: tuple[str, ...] = field(default=(), metadata=_NAMES)
    on_success: tuple[str, ...] = field(default=(), metadata=_NAMES)
    propagates_stop_to: tuple[str, ...] = field(default=(), metadata=_NAMES)
    stop_propagated_from: tuple[str, ...] = field(default=(), metadata=_NAMES)
    propagates_reload_to: tuple[str, ...] = field(default=(), metadata=_NAMES)
    reload_propagated_from: tuple[str, ...] = field(default=(), metadata=_NAMES)
    stop_when_unneeded: bool = False
    refuse_manual_start: bool = False
    refuse_manual_stop: bool = False


def plain_name(name: str) -> str:
    """``web`` of ``web.service``: as systemd's files call it. Other endings are part of the name."""
    return name.removesuffix(".service") or name
