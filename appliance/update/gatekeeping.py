"""The gates between a fetched version and its switch."""

from __future__ import annotations

from appliance.update.rollout import Goal


class Gatekeeper:
    """All open."""

    async def go_through(self, goal: Goal, version: str) -> None:
        """Raises NotYetError."""

    async def settle(self) -> None:
        """Nothing is under way any more."""

    def forget_waiting(self) -> None:
        """A new attempt begins."""

    def know_time(self, seconds: float) -> None:
        """It is at least that late."""
