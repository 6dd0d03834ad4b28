"""The two services of the API: who may come in by which door."""

from __future__ import annotations

import trio

from appliance.api.subjects import Subjects


class Api:
    """Two service mains over one table of routes."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects

    async def control(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Serve the control socket until ``stopping``."""
        task_status.started()
        await stopping.wait()

    async def status(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Serve the status endpoint until ``stopping``; with listen = "off" do nothing until then."""
        task_status.started()
        await stopping.wait()
