"""What the initramfs found out and left in /run/appliance/boot (packaging/image/init/). Pure but for one read."""

from __future__ import annotations

from dataclasses import dataclass, fields

from appliance.errors import NotFoundError
from appliance.host import files

BOOT_FILE = "/run/appliance/boot"


@dataclass(frozen=True, kw_only=True)
class BootFacts:
    """Device names without /dev/; ``entry``: the file name of our boot entry, tries left in it as they are now."""

    version: str = ""
    slot: str = ""
    roothash: str = ""
    disk: str = ""
    esp: str = ""
    root_a: str = ""
    root_b: str = ""
    state: str = ""
    entry: str = ""
    seconds_kernel: str = ""
    seconds_drivers: str = ""
    seconds_verity: str = ""


def parse_boot_facts(text: str) -> BootFacts:
    """Keys of a newer version are left out."""
    known = {field.name for field in fields(BootFacts)}
    pairs = (line.partition("=") for line in text.splitlines())
    return BootFacts(**{key: value for key, _, value in pairs if key in known})


def read_boot_facts() -> BootFacts | None:
    """None on a host that is not our own image."""
    try:
        return parse_boot_facts(files.read_text(BOOT_FILE))
    except NotFoundError:
        return None
