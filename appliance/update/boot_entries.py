"""Names of our boot entries on the ESP, and which one systemd-boot takes. Pure.

``appliance_2.0.0+3.efi`` is a version on trial with three tries left; systemd-boot renames it before each start to
``+2-1``, ``+1-2``, ``+0-3`` (systemd.io/AUTOMATIC_BOOT_ASSESSMENT). ``appliance_2.0.0.good+3.efi`` has proved itself.
It is counted, too, and gets its three tries back at each start that went well: else a kernel image that rots on the
disk after it was blessed would be started for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PREFIX, SUFFIX, GOOD = "appliance_", ".efi", ".good"
DIRECTORY = "EFI/Linux"
GOOD_TRIES = 3
_COUNT = r"(\+(?P<left>\d+)(-(?P<done>\d+))?)?"
_NAME = re.compile(rf"appliance_(?P<version>.+?)(?P<good>\.good)?{_COUNT}\.efi", re.IGNORECASE)


@dataclass(frozen=True)
class BootEntry:
    """``left`` None: not counted."""

    version: str
    good: bool
    left: int | None
    done: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        count = "" if self.left is None else f"+{self.left}" + (f"-{self.done}" if self.done else "")
        return f"{PREFIX}{self.version}{GOOD * self.good}{count}{SUFFIX}"

    @property
    def is_rotten(self) -> bool:
        """It proved itself once, and was started in vain since. One that was only set back has no tries either."""
        return self.good and self.left == 0 and self.done > 0

    @property
    def may_start(self) -> bool:
        """Whether it comes before those that have no tries left."""
        return self.left != 0


def entry_version(version: str) -> str:
    """As it stands in a file name: "+" begins the counter there."""
    return version.replace("+", "_")


def parse_entry(name: str) -> BootEntry | None:
    """None of a file that is not ours, or not finished (``.tmp``)."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    left = None if found["left"] is None else int(found["left"])
    # An image as it is first written to a disk is good from the start: nothing else is there to go back to.
    good = bool(found["good"]) or left is None
    return BootEntry(found["version"], good, left, int(found["done"] or 0))


def parse_entries(names: Iterable[str]) -> tuple[BootEntry, ...]:
    """Ours among those files."""
    return tuple(entry for name in names if (entry := parse_entry(name)) is not None)


def release_text(version: str) -> str:
    """As IMAGE_VERSION, by which systemd-boot sorts: what comes before a release has a "~" there (UAPI.10)."""
    head, dash, tail = version.partition("-")
    return f"{head}~{tail}" if dash else head
