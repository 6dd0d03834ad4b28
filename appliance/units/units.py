"""The units of this host: what the rest of the appliance may ask of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import trio

from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.schema import Finding
from appliance.units.pictures import LogLine, Publish, ReloadPlan, StateKeeper, UnitPicture, UnitsSettings


class Units:
    """``run`` is the service. Every other method may be called at any time from any task of the same trio loop."""

    def __init__(
        self,
        *,
        layout: Layout,
        settings: UnitsSettings,
        processes: Processes,
        keeper: StateKeeper,
        bus: Publish,
    ) -> None:
        raise NotImplementedError

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt, start what should run, keep it up; on ``stopping`` stop all in reverse order unless detached.

        Ready (``task_status``) once every unit was adopted or its start was decided, not once all are up.
        """
        raise NotImplementedError

    def detach(self) -> None:
        """From now on the end of ``run`` leaves every unit running, for the next supervisor to adopt."""
        raise NotImplementedError

    def pictures(self) -> tuple[UnitPicture, ...]:
        """All units, by name."""
        raise NotImplementedError

    def picture(self, name: str) -> UnitPicture:
        """Raises NotFoundError."""
        raise NotImplementedError

    def problems(self) -> tuple[Finding, ...]:
        """What is wrong with unit files, and between them."""
        raise NotImplementedError

    def health(self) -> Mapping[str, bool]:
        """Of every unit that should be up: whether it is ready, and healthy if it has a check."""
        raise NotImplementedError

    def file_text(self, name: str) -> str:
        """The unit file as it is on disk now. Raises NotFoundError."""
        raise NotImplementedError

    async def start(self, name: str) -> UnitPicture:
        """And what it requires and wants; returns once it is ready. Raises UnavailableError when that fails."""
        raise NotImplementedError

    async def stop(self, name: str) -> UnitPicture:
        """And those that require it; returns once it is down. Remembered until ``start``."""
        raise NotImplementedError

    async def restart(self, name: str) -> UnitPicture:
        """Stop, then start with the definition that is loaded now."""
        raise NotImplementedError

    async def reload_unit(self, name: str) -> UnitPicture:
        """Ask the unit itself to read its configuration again. Raises InputError when it has no way to."""
        raise NotImplementedError

    async def reset_failed(self, name: str) -> UnitPicture:
        """Forget its failures; if it had been given up it is tried again."""
        raise NotImplementedError

    async def reload(self, *, dry_run: bool = False) -> ReloadPlan:
        """Read the unit files again, and start, stop, restart what that asks for. Does not wait for the units."""
        raise NotImplementedError

    def logs(
        self, name: str, *, lines: int | None = None, since: float | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """Its output, oldest first; ``since`` in seconds since 1970. Raises NotFoundError at once."""
        raise NotImplementedError
