"""A piece of work whose bug ends nothing but itself: one request, where a service would take all others along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from appliance.errors import ApplianceError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Bug:
    """What ended it."""

    fault: Exception


async def contain(work: Callable[[], Awaitable[Result]]) -> Result | Bug:
    """What ``work`` returns, or the bug that ended it. Our own errors and a cancel pass."""
    try:
        return await work()
    except ApplianceError:
        raise
    except Exception as fault:  # noqa: BLE001 - as in supervisor.py, and for the same reason
        return Bug(fault)
