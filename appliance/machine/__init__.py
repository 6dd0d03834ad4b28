"""The machine itself, when it runs our own image: what must be there before anything else, and how it ends.

Only the first process of a machine that packaging/image/init/ has started is here; on any other host these are the
matters of its own init.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.machine.machine_settings import MachineSettings
from appliance.machine.network_settings import NetworkSettings

if TYPE_CHECKING:
    from appliance.machine.boot_facts import BootFacts, read_boot_facts
    from appliance.machine.good_start import GoodStart
    from appliance.machine.hardening import MOUNTS, SYSCTL
    from appliance.machine.installing import Installed, install, parts_of_image, parts_of_machine
    from appliance.machine.machine import Machine
    from appliance.machine.network import InterfacePicture, Network
    from appliance.machine.provisioning import read_files
    from appliance.machine.scrub import Scrub
    from appliance.machine.starting import Started, start_machine
    from appliance.machine.timekeeping import TimeKeeper

__all__ = [
    "MOUNTS",
    "SYSCTL",
    "BootFacts",
    "GoodStart",
    "Installed",
    "InterfacePicture",
    "Machine",
    "MachineSettings",
    "Network",
    "NetworkSettings",
    "Scrub",
    "Started",
    "TimeKeeper",
    "install",
    "parts_of_image",
    "parts_of_machine",
    "read_boot_facts",
    "read_files",
    "start_machine",
]
_PLACES = {
    "BootFacts": "boot_facts", "read_boot_facts": "boot_facts", "Machine": "machine", "Network": "network",
    "GoodStart": "good_start", "Scrub": "scrub", "InterfacePicture": "network", "Started": "starting",
    "start_machine": "starting",
    "TimeKeeper": "timekeeping", "Installed": "installing", "install": "installing", "parts_of_image": "installing",
    "parts_of_machine": "installing", "read_files": "provisioning",
    "MOUNTS": "hardening", "SYSCTL": "hardening",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """On first use: settings are read on hosts that need nothing else of this."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"appliance.machine.{_PLACES[name]}"), name)
    raise AttributeError(name)
