"""A lock that others share: only so many hosts of a group switch at one time. The shape, and how one holds it.

Being asked for it is kept before the asking, giving it back is kept after that: whoever is killed between gives back
what it may hold. So both must do no harm when done twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from appliance.update.settings import UpdateSettings


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Where a lock is, and as whom we ask for it."""

    url: str
    group: str
    id: str
    ca_file: str = ""
    timeout: float = 30.0


class ClusterLock(Protocol):
    """FleetLock's two words. Each may be said again and again."""

    async def take(self, claim: Claim) -> None:
        """Ours now. Raises NotYetError (others hold it), UnavailableError (nobody answers)."""

    async def give_back(self, claim: Claim) -> None:
        """Not ours any more. Raises UnavailableError."""


def claim_of(settings: UpdateSettings, identity: str) -> Claim | None:
    """None: no lock is asked for."""
    if settings.strategy != "lock":
        return None
    lock = settings.lock
    return Claim(
        url=lock.url.rstrip("/"), group=lock.group, id=lock.id or identity, ca_file=lock.ca_file, timeout=lock.timeout
    )


def claim_to_json(claim: Claim) -> dict[str, Any]:
    """Plain values."""
    return asdict(claim)


def parse_claim(value: object) -> Claim | None:
    """What was kept; None when that is nothing."""
    try:
        return Claim(**value) if isinstance(value, dict) and value.get("url") else None
    except TypeError:
        return None
