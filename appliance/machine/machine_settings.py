"""``[machine]``: what only the init of our own OS image looks at; elsewhere it changes nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

_NAME = {"pattern": r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?", "what": "a name or an address of an NTP server"}
_HASH = {"pattern": r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", "what": "a password hashed by bcrypt (htpasswd -nBC 12 name)"}


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Without a password there is no recovery console: who stands before the screen may look, and no more."""

    console: Literal["status", "off"] = "status"
    recovery_password_hash: str | None = field(default=None, metadata=_HASH)
    ntp: tuple[str, ...] = field(default=(), metadata=_NAME)
