"""A start that went well gives its boot entry the tries back that the boot loader counted down.

Well means: every essential service ready, and still so after the settle time; or an end that somebody asked for, of a
machine that had been ready.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from appliance.errors import ApplianceError


class GoodStart:
    """``wait_ready`` returns when all is ready; ``keep`` blocks, for a moment, in a thread."""

    def __init__(
        self,
        *,
        wait_ready: Callable[[], Awaitable[None]],
        is_ready: Callable[[], bool],
        settle: Callable[[], float],
        keep: Callable[[], None],
        publish: Callable[..., None],
    ) -> None:
        self.settled = trio.Event()
        self._wait_ready = wait_ready
        self._is_ready = is_ready
        self._settle = settle
        self._keep = keep
        self._publish = publish
        self._was_ready = False

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """The service."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prove)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()
        if self._was_ready and not self.settled.is_set():
            await self._give_back()

    async def _prove(self) -> None:
        while not self.settled.is_set():
            await self._wait_ready()
            self._was_ready = True
            await trio.sleep(self._settle())
            self._was_ready = self._is_ready()
            if self._was_ready:
                await self._give_back()
                self.settled.set()

    async def _give_back(self) -> None:
        try:
            await trio.to_thread.run_sync(self._keep)
        except ApplianceError as exc:
            self._publish("boot", "entry", state="failed", reason=exc.message)
