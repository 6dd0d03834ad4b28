"""One alarm clock for all units: one task, asleep until the nearest deadline, or for ever when there is none."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import trio


class Alarm:
    """A callback that is due at a time, until it is cancelled."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """It will not ring. Twice, or after it rang, is fine."""
        self.callback = None

    def __lt__(self, other: Alarm) -> bool:
        return self.due < other.due


class Alarms:
    """Callbacks are synchronous and run in the task of ``run``."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._sooner = trio.Event()

    def after(self, seconds: float, callback: Callable[[], None]) -> Alarm | None:
        """Ring in that many seconds; never, and None, when that is infinity."""
        if seconds == math.inf:
            return None
        alarm = Alarm(trio.current_time() + seconds, callback)
        heapq.heappush(self._heap, alarm)
        if self._heap[0] is alarm:
            self._sooner.set()
        return alarm

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            while self._heap and self._heap[0].callback is None:
                heapq.heappop(self._heap)
            with trio.move_on_at(self._heap[0].due if self._heap else math.inf):
                await self._sooner.wait()
            self._sooner = trio.Event()
            now = trio.current_time()
            while self._heap and self._heap[0].due <= now:
                alarm = heapq.heappop(self._heap)
                if alarm.callback is not None:
                    callback, alarm.callback = alarm.callback, None
                    callback()
