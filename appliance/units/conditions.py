"""``[unit.conditions]``: what must be so on the host when a unit's turn comes; else it is skipped. Pure.

``[unit.asserts]`` knows the same keys; a unit that one of those does not hold for has failed.

As systemd's: all must hold; ``!`` before a value turns it round; of those with a ``|`` before them one is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

_PATHS: dict[str, Any] = {"pattern": r"\|?!?/[^\0]*", "what": 'an absolute path, perhaps with "!" or "|" before it'}
_WORDS: dict[str, Any] = {"pattern": r"\|?!?[^\0]+", "what": 'some text, perhaps with "!" or "|" before it'}
_BOOLEANS: dict[str, Any] = {
    "pattern": r"\|?!?(?i:1|0|yes|no|y|n|true|false|t|f|on|off)",
    "what": '"yes" or "no", perhaps with "!" or "|" before it',
}
_SIZES: dict[str, Any] = {
    "pattern": r"\|?!?(<|<=|=|==|!=|>=|>)?\s*\d+[KMGT]?",
    "what": 'a number to compare with, such as ">= 4"',
}


@dataclass(frozen=True, kw_only=True)
class ConditionsSection:
    """Lists of values that must hold when the unit starts."""

    path_exists: tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_exists_glob: tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_is_directory: tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_is_symbolic_link: tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_is_mount_point: tuple[str, ...] = field(default=(), metadata=_PATHS)
    path_is_read_write: tuple[str, ...] = field(default=(), metadata=_PATHS)
    directory_not_empty: tuple[str, ...] = field(default=(), metadata=_PATHS)
    file_not_empty: tuple[str, ...] = field(default=(), metadata=_PATHS)
    file_is_executable: tuple[str, ...] = field(default=(), metadata=_PATHS)
    kernel_command_line: tuple[str, ...] = field(default=(), metadata=_WORDS)
    kernel_version: tuple[str, ...] = field(default=(), metadata=_WORDS)
    virtualization: tuple[str, ...] = field(default=(), metadata=_WORDS)
    host: tuple[str, ...] = field(default=(), metadata=_WORDS)
    architecture: tuple[str, ...] = field(default=(), metadata=_WORDS)
    user: tuple[str, ...] = field(default=(), metadata=_WORDS)
    group: tuple[str, ...] = field(default=(), metadata=_WORDS)
    environment: tuple[str, ...] = field(default=(), metadata=_WORDS)
    memory: tuple[str, ...] = field(default=(), metadata=_SIZES)
    capability: tuple[str, ...] = field(default=(), metadata=_WORDS)
    ac_power: tuple[str, ...] = field(default=(), metadata=_BOOLEANS)
    security: tuple[str, ...] = field(default=(), metadata=_WORDS)
    first_boot: tuple[str, ...] = field(default=(), metadata=_BOOLEANS)
    needs_update: tuple[str, ...] = field(default=(), metadata=_PATHS)
    control_group_controller: tuple[str, ...] = field(default=(), metadata=_WORDS)
    cpu_feature: tuple[str, ...] = field(default=(), metadata=_WORDS)
    os_release: tuple[str, ...] = field(default=(), metadata=_WORDS)
    credential: tuple[str, ...] = field(default=(), metadata=_WORDS)
    firmware: tuple[str, ...] = field(default=(), metadata=_WORDS)
    cpus: tuple[str, ...] = field(default=(), metadata=_SIZES)


def unmet(section: ConditionsSection | None, holds: Callable[[str, str], bool]) -> str:
    """The first condition that does not hold, in words; empty when all is well."""
    if section is None:
        return ""
    one_of: list[str] = []
    enough = False
    for one in fields(section):
        for text in getattr(section, one.name):
            is_trigger, is_not = text.startswith("|"), text.removeprefix("|").startswith("!")
            value = text.removeprefix("|").removeprefix("!")
            good = holds(one.name, value) is not is_not
            if is_trigger:
                one_of.append(f"{one.name} {text.removeprefix('|')}")
                enough = enough or good
            elif not good:
                return f"{one.name} {text} does not hold"
    return f"none of these holds: {', '.join(one_of)}" if one_of and not enough else ""
