"""While a unit is up: its watchdog, its longest time, and the end of a group that has no main process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance.host import clock
from appliance.units.alarms import Alarm
from appliance.units.phases import Phase, Turn, takes
from appliance.units.results import Result

if TYPE_CHECKING:
    from appliance.units.life import Life


class Upkeep:
    """Of one life."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._watchdog: Alarm | None = None
        self._heard = 0.0
        self._runtime: Alarm | None = None
        self._runtime_due = math.inf
        self._off: Callable[[], None] | None = None

    def begin(self, *, seconds_up: float = 0.0) -> None:
        """It is up: its watchdog and its longest time begin to count."""
        life = self._life
        life.voice.release_notify()
        left = life.service.runtime_max - seconds_up
        self._runtime = life.ground.alarms.after(max(0.0, left), self._ran_too_long)
        self._runtime_due = clock.monotonic_seconds() + left
        self.heard()
        self._arm_watchdog()
        self.watch_group()

    def watch_group(self) -> None:
        """Hear of the end of its last process, where no main one is followed."""
        life = self._life
        if life.follows_group and life.main is None and life.group is not None and self._off is None:
            self._off = life.group.when_empty(self._group_empty)

    def cancel(self) -> None:
        """It is not up any more."""
        for alarm in (self._watchdog, self._runtime):
            if alarm is not None:
                alarm.cancel()
        self._watchdog = self._runtime = None
        if self._off is not None:
            off, self._off = self._off, None
            off()

    def extend(self, seconds: float) -> None:
        """It needs more time than ``runtime_max``."""
        due = clock.monotonic_seconds() + seconds
        if self._runtime is not None and due > self._runtime_due:
            self._runtime.cancel()
            self._runtime, self._runtime_due = self._life.ground.alarms.after(seconds, self._ran_too_long), due

    def heard(self) -> None:
        """It gave a sign of life."""
        self._heard = clock.monotonic_seconds()

    def watch(self, seconds: float) -> None:
        """It asks for another watchdog."""
        self._life.watchdog_seconds = seconds
        self.heard()
        if self._life.phase is Phase.RUN:
            self._arm_watchdog()

    def silent(self, fault: str) -> None:
        """It hangs, or says itself that it is unwell."""
        if takes(self._life.phase, Turn.SILENT):
            self._life.fail(Result.WATCHDOG, fault)
            self._life.turn(Turn.SILENT, fault)

    def _arm_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        seconds = self._life.watchdog_seconds
        if seconds > 0:
            left = self._heard + seconds - clock.monotonic_seconds()
            self._watchdog = self._life.ground.alarms.after(max(0.0, left), self._watchdog_rings)

    def _watchdog_rings(self) -> None:
        seconds = self._life.watchdog_seconds
        if self._heard + seconds > clock.monotonic_seconds():
            self._arm_watchdog()  # one alarm a period, however often it is heard
        else:
            self.silent(f"its watchdog heard nothing for {seconds:g} s (service.watchdog_timeout)")

    def _ran_too_long(self) -> None:
        life = self._life
        fault = f"it ran for {life.service.runtime_max:g} s, its longest time (service.runtime_max)"
        life.fail(Result.TIMEOUT, fault)
        life.turn(Turn.STOP, fault)

    def _group_empty(self) -> None:
        life = self._life
        if life.phase is Phase.RUN and life.main is None:
            life.main_result, life.follows_group, life.last_exit = Result.SUCCESS, False, "its last process ended"
            life.enter(life.after_main(), life.last_exit)
