"""The machine itself, when it runs our own image: what must be there before anything else, and how it ends.

Only the first process of a machine that packaging/image/init.c has started is here; on any other host these are the
matters of its own init.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from appliance.machine.boot_facts import BOOT_FILE, BootFacts, parse_boot_facts, read_boot_facts
from appliance.machine.starting import Started, start_machine

if TYPE_CHECKING:
    from appliance.machine.machine import Machine

__all__ = ["BOOT_FILE", "BootFacts", "Machine", "Started", "parse_boot_facts", "read_boot_facts", "start_machine"]


def __getattr__(name: str) -> Any:
    """``Machine`` on first use: it loads trio, the first steps of the machine do without."""
    if name == "Machine":
        from appliance.machine.machine import Machine

        return Machine
    raise AttributeError(name)
