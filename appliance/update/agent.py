"""The update service (face; being written)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from appliance.host.layout import Layout
from appliance.update.health import HealthSource
from appliance.update.picture import Gate, HistoryEntry, UpdatePicture
from appliance.update.settings import UpdateSettings


class Keeper(Protocol):
    """What must last; the app gives the store's."""

    async def get(self, key: str) -> bytes | None:
        """The value."""

    async def put(self, key: str, value: bytes) -> None:
        """Durable when it returns."""


class Update:
    """One service: checks by itself, and does what a person asks."""

    def __init__(
        self,
        *,
        layout: Layout,
        settings: UpdateSettings,
        bundle: Any,  # noqa: ANN401
        processes: Any,  # noqa: ANN401
        keeper: Keeper,
        health: HealthSource,
        switch: Callable[[], Awaitable[None]],
        publish: Callable[..., None],
    ) -> None: ...

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """The service's main."""
        raise NotImplementedError

    def reconfigure(self, settings: UpdateSettings) -> None:
        """New settings after a reload."""
        raise NotImplementedError

    def picture(self) -> UpdatePicture:
        """``update status``."""
        raise NotImplementedError

    async def check(self) -> UpdatePicture:
        """Ask the repository; returns when it answered. Raises what it refused."""
        raise NotImplementedError

    async def download(self, version: str = "") -> UpdatePicture:
        """Check and fetch; returns when it is here."""
        raise NotImplementedError

    async def apply(self, version: str = "", *, force: bool = False) -> UpdatePicture:
        """Start to check, fetch, write, switch; returns at once, ``request`` is the id to look for in the history."""
        raise NotImplementedError

    async def rollback(self) -> UpdatePicture:
        """Start to go back to the other slot; returns at once as apply does."""
        raise NotImplementedError

    def explain(self) -> tuple[Gate, ...]:
        """Every gate and how it stands."""
        raise NotImplementedError

    def history(self) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        raise NotImplementedError
