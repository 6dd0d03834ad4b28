"""Unit files of systemd, read as they are and turned into ours. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.systemd.names import (
    NOT_REACHED,
    REACHED,
    drop_in_directories,
    is_built_in,
    is_systemds_own,
    kind_of,
    unit_of_file,
)

if TYPE_CHECKING:
    from appliance.systemd.conversion import Converted, commented, convert
    from appliance.systemd.lines import Assignment

__all__ = [
    "NOT_REACHED",
    "REACHED",
    "Assignment",
    "Converted",
    "commented",
    "convert",
    "drop_in_directories",
    "is_built_in",
    "is_systemds_own",
    "kind_of",
    "unit_of_file",
]


def __getattr__(name: str) -> Any:
    """On first use: who has no such files loads no tables of directives."""
    if name in ("Converted", "commented", "convert"):
        from appliance.systemd import conversion

        return getattr(conversion, name)
    if name == "Assignment":
        from appliance.systemd.lines import Assignment

        return Assignment
    raise AttributeError(name)
