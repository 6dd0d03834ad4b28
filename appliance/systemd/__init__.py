"""Unit files of systemd, read as they are and turned into ours. Pure."""

from appliance.systemd.conversion import Converted, commented, convert
from appliance.systemd.lines import Assignment
from appliance.systemd.names import (
    NOT_REACHED,
    REACHED,
    drop_in_directories,
    is_built_in,
    is_systemds_own,
    kind_of,
    unit_of_file,
)

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
