"""The host's side of updates: find, fetch, write to the other slot, switch, bless or roll back.

Names are loaded when asked for: the worker needs no trio, the command line needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from appliance.update.agent import Update
    from appliance.update.bundles import Bundles
    from appliance.update.choosing import Choice, Held, choose
    from appliance.update.data_schema import go_back, settle
    from appliance.update.health import HealthSource
    from appliance.update.offer import Offer, newest_first, parse_offer, target_path
    from appliance.update.os_payload import HEADER_SIZE, decode_header
    from appliance.update.os_slots import OsSlots
    from appliance.update.pack import FOOTER_SIZE, Footer, parse_footer
    from appliance.update.picture import Gate, HistoryEntry, SlotPicture, UpdatePicture
    from appliance.update.policy import (
        POLICY_FIELD,
        Policy,
        Wave,
        format_time,
        parse_policy,
        parse_time,
        parse_waves,
        policy_to_json,
        waves_to_json,
        with_policy,
    )
    from appliance.update.product import KINDS, OURS, PRODUCT, Kind, Product, name_problem
    from appliance.update.record import SlotEntry, SlotRecord, format_copy, parse_copy, read_record
    from appliance.update.settings import BundleSettings, HealthCheck, HealthSettings, UpdateSection, UpdateSettings
    from appliance.update.transport import parse_transport
    from appliance.update.trust import METADATA_LENGTH_MAX, Repository
    from appliance.update.version import Version, parse_version
    from appliance.update.worker import Task, download, work

_ROOMS = {
    "Update": "agent",
    "settle": "data_schema",
    "go_back": "data_schema",
    "Bundles": "bundles",
    "BundleSettings": "settings",
    "UpdateSection": "settings",
    "Choice": "choosing",
    "Held": "choosing",
    "choose": "choosing",
    "HealthSource": "health",
    "Offer": "offer",
    "KINDS": "product",
    "Kind": "product",
    "HEADER_SIZE": "os_payload",
    "OsSlots": "os_slots",
    "decode_header": "os_payload",
    "OURS": "product",
    "PRODUCT": "product",
    "Product": "product",
    "name_problem": "product",
    "with_policy": "policy",
    "target_path": "offer",
    "newest_first": "offer",
    "parse_offer": "offer",
    "Gate": "picture",
    "HistoryEntry": "picture",
    "SlotPicture": "picture",
    "UpdatePicture": "picture",
    "POLICY_FIELD": "policy",
    "Policy": "policy",
    "Wave": "policy",
    "format_time": "policy",
    "parse_policy": "policy",
    "parse_time": "policy",
    "parse_waves": "policy",
    "policy_to_json": "policy",
    "waves_to_json": "policy",
    "SlotEntry": "record",
    "SlotRecord": "record",
    "format_copy": "record",
    "parse_copy": "record",
    "read_record": "record",
    "HealthCheck": "settings",
    "HealthSettings": "settings",
    "UpdateSettings": "settings",
    "METADATA_LENGTH_MAX": "trust",
    "Repository": "trust",
    "Version": "version",
    "parse_version": "version",
    "Footer": "pack",
    "parse_footer": "pack",
    "FOOTER_SIZE": "pack",
    "Task": "worker",
    "download": "worker",
    "work": "worker",
    "parse_transport": "transport",
}

__all__ = [
    "FOOTER_SIZE",
    "HEADER_SIZE",
    "KINDS",
    "METADATA_LENGTH_MAX",
    "OURS",
    "POLICY_FIELD",
    "PRODUCT",
    "BundleSettings",
    "Bundles",
    "Choice",
    "Footer",
    "Gate",
    "HealthCheck",
    "HealthSettings",
    "HealthSource",
    "Held",
    "HistoryEntry",
    "Kind",
    "Offer",
    "OsSlots",
    "Policy",
    "Product",
    "Repository",
    "SlotEntry",
    "SlotPicture",
    "SlotRecord",
    "Task",
    "Update",
    "UpdatePicture",
    "UpdateSection",
    "UpdateSettings",
    "Version",
    "Wave",
    "choose",
    "decode_header",
    "download",
    "format_copy",
    "format_time",
    "go_back",
    "name_problem",
    "newest_first",
    "parse_copy",
    "parse_footer",
    "parse_offer",
    "parse_policy",
    "parse_time",
    "parse_transport",
    "parse_version",
    "parse_waves",
    "policy_to_json",
    "read_record",
    "settle",
    "target_path",
    "waves_to_json",
    "with_policy",
    "work",
]


def __getattr__(name: str) -> Any:
    """Load the module that holds the name (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
