"""What a service is, as data; and what one can be told about it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from appliance.supervisor.restart import Restart


class Main(Protocol):
    """Serves until ``stopping`` is set or it is cancelled; says ``started()`` once it can serve.

    Returning by itself is a failure. It must be callable again after it went down.
    """

    def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> Awaitable[None]:
        """One life."""
        ...


@dataclass(frozen=True, kw_only=True)
class Service:
    """One part of the process. It starts after all it ``needs`` are ready, and stops before them."""

    name: str
    main: Main
    needs: frozenset[str] = frozenset()
    restart: Restart = field(default_factory=Restart)
    start_timeout: float = 30.0
    stop_grace: float = 10.0
    essential: bool = True  # readiness counts on it; giving it up ends the process


@dataclass(frozen=True)
class Moment:
    """When it came into which state, and why."""

    time: float  # wall clock
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ServicePicture:
    """One service as it is now."""

    name: str
    state: str
    since: float  # wall clock
    failures: int  # in a row
    reason: str
    essential: bool
    needs: tuple[str, ...]
    history: tuple[Moment, ...]  # oldest first, bounded
