"""systemd-boot's choice among boot entries, as version 252 makes it: what has tries left, then by version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from appliance.update.boot_entries import BootEntry, parse_entries
from appliance.update.version import parse_version


def pick(names: Iterable[str], once: str = "") -> BootEntry | None:
    """``once``: LoaderEntryOneShot."""
    entries = sorted(parse_entries(names), key=lambda one: parse_version(one.version.replace("_", "+")), reverse=True)
    for entry in entries:
        if once and entry.name == once:
            return entry
    return next(iter(sorted(entries, key=lambda one: not one.may_start)), None)


def count(entry: BootEntry) -> BootEntry:
    """As it is called while it runs."""
    if entry.left is None:
        return entry
    return replace(entry, left=max(0, entry.left - 1), done=entry.done + 1)
