"""The host's side of updates: find, fetch, write to the other slot, switch, bless or roll back.

Names are loaded when asked for: the worker needs no trio, the command line needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.update.agent import Update
    from appliance.update.health import HealthSource
    from appliance.update.offer import PRODUCT, Offer, parse_offer, target_path
    from appliance.update.pack import FOOTER_SIZE, Footer, parse_footer
    from appliance.update.picture import Gate, HistoryEntry, SlotPicture, UpdatePicture
    from appliance.update.record import SlotEntry, SlotRecord, format_copy, parse_copy, read_record
    from appliance.update.settings import HealthCheck, HealthSettings, UpdateSettings
    from appliance.update.trust import Repository
    from appliance.update.version import Version, parse_version
    from appliance.update.worker import Task, download, work

_ROOMS = {
    "Update": "agent",
    "HealthSource": "health",
    "Offer": "offer",
    "PRODUCT": "offer",
    "target_path": "offer",
    "parse_offer": "offer",
    "Gate": "picture",
    "HistoryEntry": "picture",
    "SlotPicture": "picture",
    "UpdatePicture": "picture",
    "SlotEntry": "record",
    "SlotRecord": "record",
    "format_copy": "record",
    "parse_copy": "record",
    "read_record": "record",
    "HealthCheck": "settings",
    "HealthSettings": "settings",
    "UpdateSettings": "settings",
    "Repository": "trust",
    "Version": "version",
    "parse_version": "version",
    "Footer": "pack",
    "parse_footer": "pack",
    "FOOTER_SIZE": "pack",
    "Task": "worker",
    "download": "worker",
    "work": "worker",
}

__all__ = [
    "FOOTER_SIZE",
    "PRODUCT",
    "Footer",
    "Gate",
    "HealthCheck",
    "HealthSettings",
    "HealthSource",
    "HistoryEntry",
    "Offer",
    "Repository",
    "SlotEntry",
    "SlotPicture",
    "SlotRecord",
    "Task",
    "Update",
    "UpdatePicture",
    "UpdateSettings",
    "Version",
    "download",
    "format_copy",
    "parse_copy",
    "parse_footer",
    "parse_offer",
    "parse_version",
    "read_record",
    "target_path",
    "work",
]


def __getattr__(name: str) -> Any:
    """Load the module that holds the name (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
