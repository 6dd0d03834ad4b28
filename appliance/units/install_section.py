"""``[install]`` of a unit file: which others take it along once it is enabled, and its other names. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.systemd import NOT_REACHED, REACHED
from appliance.units.unit_section import NAME, WHAT_NAME

_NAMES: Mapping[str, Any] = {"pattern": NAME + "@?", "what": WHAT_NAME}
_INSTANCE: Mapping[str, Any] = {"pattern": r"[A-Za-z0-9_.:\\-]+", "what": "the name of an instance"}
PULLED_BY = {"wanted_by": "wants", "required_by": "requires", "upheld_by": "upholds"}


@dataclass(frozen=True, kw_only=True)
class InstallSection:
    """A unit whose file is in the directory is enabled unless somebody says otherwise; this is what follows then.

    One that is wanted by a target that every host reaches (multi-user.target) starts by itself; one that only others
    want starts with these.
    """

    wanted_by: tuple[str, ...] = field(default=(), metadata=_NAMES)
    required_by: tuple[str, ...] = field(default=(), metadata=_NAMES)
    upheld_by: tuple[str, ...] = field(default=(), metadata=_NAMES)
    also: tuple[str, ...] = field(default=(), metadata=_NAMES)
    alias: tuple[str, ...] = field(default=(), metadata=_NAMES)
    default_instance: str | None = field(default=None, metadata=_INSTANCE)

    @property
    def pulled_by(self) -> tuple[str, ...]:
        """All that take it along."""
        return (*self.wanted_by, *self.required_by, *self.upheld_by)

    @property
    def is_at_boot(self) -> bool:
        """It starts by itself, even where a timer or a socket starts it too."""
        return any(name in REACHED for name in self.pulled_by)

    def waits_for(self, others: Container[str]) -> bool:
        """It starts only with units that there are, or never by itself."""
        named = self.pulled_by
        known = any(name in others for name in named)
        return bool(named) and not self.is_at_boot and (known or all(name in NOT_REACHED for name in named))
