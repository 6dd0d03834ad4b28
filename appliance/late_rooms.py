"""Rooms that nobody's units need: loaded by the services that use them, when the units are on their way, or later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from typing import Any

import trio

from appliance.host.sockets import Listener
from appliance.supervisor import Main


class OnUse:
    """Stands for a room's object until somebody asks something of it: then it is made."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


def late(
    main: Callable[[], Callable[..., Awaitable[None]]],
    wait: Callable[[], Awaitable[object]],
    seconds: float,
    doors: Callable[[], Iterable[Listener]] | None = None,
) -> Main:
    """A service whose room is loaded, by ``main()``, after that wait, or when it has lasted too long.

    Its ``doors`` are open before, and handed to it as ``listeners``: who comes early waits in line, and is not refused.
    """

    async def run(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        with ExitStack() as to_close:
            given: dict[str, list[Listener]] = {}
            if doors is not None:
                listeners = given["listeners"] = []
                for listener in doors():
                    to_close.callback(listener.close)
                    listeners.append(listener)
            with trio.move_on_after(seconds):
                await wait()
            await main()(stopping=stopping, task_status=task_status, **given)

    return run


def last(main: Callable[[], Main], wait: Callable[[], Awaitable[object]]) -> Main:
    """The same for one that others do not wait for: as it has nothing to do at first, it is ready at once.

    Only the first time: when it comes up again after a failure, it is ready when it is.
    """
    first = True

    async def run(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        nonlocal first
        if first:
            first = False
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await _either(stopping.wait, wait)
        if not stopping.is_set():
            await main()(stopping=stopping, task_status=task_status)

    return run


async def _either(one: Callable[[], Awaitable[object]], other: Callable[[], Awaitable[object]]) -> None:
    async def until(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until, one)
        nursery.start_soon(until, other)
