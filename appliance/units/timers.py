"""Timers: when each unit with a ``[timer]`` is due. One alarm by the wall clock and one by the running time, for all.

What a timer remembers lies in a file of the run directory, so that a killed daemon's successor goes on with the same
times; of persistent ones the last run is kept where it lasts too, so that what was missed can be made up for.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from appliance.errors import ApplianceError
from appliance.host import clock, entropy
from appliance.units.alarms import Alarm, Alarms
from appliance.units.calendar import earliest_after
from appliance.units.calling import CallUnit, told_by_timer
from appliance.units.pictures import TriggerPicture
from appliance.units.timer_memory import Memory, TimerFiles
from appliance.units.trigger_sections import TimerSection, words

_ONCE = ("on_boot", "on_startup", "on_active")


class Wall(Protocol):
    """The wall clock with its alarm (``host.wallclock``)."""

    on_ring: Callable[[], None]
    on_jump: Callable[[], None]

    def seconds(self) -> float: ...  # noqa: D102
    def ring_at(self, seconds: float | None) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(kw_only=True)
class Clocks:
    """Time as the timers see it."""

    wall: Wall
    alarms: Alarms
    running: Callable[[], float] = clock.monotonic_seconds
    boot_id: str = ""


def due_by_calendar(section: TimerSection, since: float) -> float | None:
    """The next time later than that, in seconds since 1970. Pure."""
    found = earliest_after(section.calendars(), datetime.fromtimestamp(since, UTC))
    return None if found is None else found.timestamp()


def due_by_running_time(section: TimerSection, memory: Memory, startup: float) -> float | None:
    """The earliest of its times that count from something, on the clock that only goes forward. Pure."""
    last_start = max(memory.started, memory.triggered)
    since = {
        "every": last_start or memory.active,
        "on_boot": 0.0,
        "on_startup": startup,
        "on_active": memory.active,
        "on_unit_active": last_start or None,
        "on_inactive": max(memory.rested, memory.triggered) or None,
    }
    found = []
    for name, seconds in section.monotonic():
        begin = since[name]
        if seconds is None or begin is None:
            continue
        if name in _ONCE and memory.triggered and begin + seconds <= memory.triggered:
            continue  # it was
        found.append(begin + seconds)
    return min(found, default=None)


class Timer:
    """One of them. ``wall_due`` and ``running_due`` hold the random delay already."""

    def __init__(self, name: str, target: str, section: TimerSection, timers: Timers) -> None:
        self.name = name
        self.target = target
        self.section = section
        self.wall_due: float | None = None
        self.running_due: float | None = None
        self.memory = Memory()
        self._timers = timers
        self._busy = False  # the unit is up: the next time counts from its end on
        self._armed = False
        self._delay = 0.0
        self._asked = False  # it was called, and did not start yet

    def arm(self, state: str) -> None:
        """Begin to count; ``state`` is that of the unit it starts."""
        if self._armed:
            return
        self._armed = True
        clocks, files = self._timers.clocks, self._timers.files
        wall, running = clocks.wall.seconds(), clocks.running()
        known = files.read(self.name, clocks.boot_id)
        self.memory = known or Memory(active=running, active_wall=wall)
        if self.section.persistent and (last := files.last_run(self.name)) is not None:
            self.memory.last = max(self.memory.last, last)
        elif self.section.persistent:
            self._save(stamp=wall)  # nothing is made up for that was due before the timer was there
        self._draw()
        self._busy = is_busy(state)
        if self._busy and not self.memory.started:
            self.memory.started = running
        if self._busy:
            self.memory.pending = 0.0
        self._save()
        self._plan()

    def disarm(self) -> None:
        """Count no more, and forget when it began."""
        if self._armed:
            self._armed = False
            self.wall_due = self.running_due = None
            self._timers.files.forget(self.name)
            self._timers.changed()

    def turned(self, state: str) -> None:
        """The unit it starts came into that state."""
        if not self._armed:
            return
        running, was_busy = self._timers.clocks.running(), self._busy
        self._busy = is_busy(state)
        if state == "starting":
            self.memory.started = running
            self._answered()
        elif was_busy and not self._busy:
            self.memory.rested = running
            self._save()
        elif was_busy == self._busy:
            return
        self._plan()

    def look(self) -> None:
        """Is it due?"""
        clocks = self._timers.clocks
        wall, running = clocks.wall.seconds(), clocks.running()
        by_wall = self.wall_due is not None and self.wall_due <= wall
        if not by_wall and (self.running_due is None or self.running_due > running):
            return
        self.memory.triggered, self.memory.last = running, wall
        self.memory.pending = 1.0  # so that a successor of ours calls again, should we die before it starts
        self._asked = True
        self._draw()
        self._save()
        reason = f"timer {self.name}" if self.name != self.target else "its timer"
        self._timers.call(self.target, reason, told_by_timer(self.name, wall, running))
        if not self._timers.is_called(self.target):  # it cannot be, as was said: the next time counts
            self._answered()
        self._plan()

    def again(self) -> None:
        """The clock was set: when is it due by the new time?"""
        self._plan()

    def _draw(self) -> None:
        if self.section.jitter_fixed:
            seed = hashlib.sha256(f"{self._timers.host}/{self.name}".encode()).digest()
            self._delay = self.section.jitter * int.from_bytes(seed[:8], "big") / 2**64
        else:
            self._delay = entropy.uniform(0.0, self.section.jitter) if self.section.jitter else 0.0

    def _plan(self) -> None:
        """While the unit is up, it cannot be started: what falls due meanwhile is one start, when it is over."""
        self.wall_due = self.running_due = None
        if self._armed and not self._busy and not self._asked:
            wall = self._timers.clocks.wall.seconds()
            if words(self.section.calendar):
                since = self.memory.last or self.memory.active_wall
                due = due_by_calendar(self.section, min(since, wall))  # a clock that was set back
                self.wall_due = None if due is None else due + self._delay
            running = due_by_running_time(self.section, self.memory, self._timers.startup)
            self.running_due = None if running is None else running + self._delay
            if self.memory.pending:  # of a daemon that was killed
                self.running_due = self._timers.clocks.running()
        self._timers.changed()

    def rested(self) -> None:
        """What it asked for did not come up: the next time counts."""
        if self._asked and not self._busy:
            self._answered()
            self._plan()

    def _answered(self) -> None:
        stamp = self.memory.last if self.memory.pending else None
        self._asked, self.memory.pending = False, 0.0
        self._save(stamp=stamp)

    def _save(self, *, stamp: float | None = None) -> None:
        try:
            self._timers.files.write(self.name, self.memory, self._timers.clocks.boot_id)
            if stamp is not None and self.section.persistent:
                self._timers.files.stamp(self.name, stamp)
        except ApplianceError as exc:
            self._timers.trouble(self.name, f"{exc.message}; after a restart the timer may run again, or late")

    def picture(self) -> TriggerPicture:
        """For whoever looks."""
        clocks, section = self._timers.clocks, self.section
        wall = clocks.wall.seconds()
        dues = [] if self.wall_due is None else [self.wall_due]
        if self.running_due is not None:
            dues.append(wall + self.running_due - clocks.running())
        said = [f"{name} {_text(seconds)}" for name, seconds in section.monotonic() if seconds is not None]
        return TriggerPicture(
            kind="timer",
            name=self.name,
            unit=self.target,
            state="off" if not self._armed else "running" if self._busy else "waiting" if dues else "elapsed",
            about="; ".join((*words(section.calendar), *said)),
            next=min(dues, default=None),
            last=self.memory.last or None,
        )


class Timers:
    """All of them, by name."""

    def __init__(
        self,
        *,
        clocks: Clocks,
        files: TimerFiles,
        call: CallUnit,
        is_called: Callable[[str], bool],
        trouble: Callable[[str, str], None],
        host: str = "",
    ) -> None:
        self.clocks = clocks
        self.files = files
        self.call = call
        self.is_called = is_called
        self.trouble = trouble
        self.host = host
        self.startup = files.startup(clocks.boot_id, clocks.running())
        self._timers: dict[str, Timer] = {}
        self._alarm: Alarm | None = None
        self._set: tuple[float | None, float | None] = (None, None)
        self._batch = False
        clocks.wall.on_ring = self._look
        clocks.wall.on_jump = self._jumped

    def add(self, name: str, target: str, section: TimerSection) -> Timer:
        """It counts once it is armed."""
        timer = self._timers[name] = Timer(name, target, section, self)
        return timer

    def remove(self, timer: Timer) -> None:
        """Its file is gone, or says something else now."""
        if self._timers.get(timer.name) is timer:
            del self._timers[timer.name]
        self.changed()

    def close(self, *, forget: bool) -> None:
        """No more alarms. ``forget``: the appliance stops in order, and what falls due meanwhile is not made up for."""
        if forget:
            for timer in self._timers.values():
                self.files.forget(timer.name)
            self.files.forget_startup()
        self._timers.clear()
        self.changed()
        self.clocks.wall.close()

    def changed(self) -> None:
        """Some times are new: set the two alarms, unless they stand right already."""
        if self._batch:
            return
        wall = running = math.inf
        for timer in self._timers.values():
            if timer.wall_due is not None:
                wall = min(wall, timer.wall_due + timer.section.accuracy)
            if timer.running_due is not None:
                running = min(running, timer.running_due + timer.section.accuracy)
        if (wall, running) == self._set:
            return
        old_wall, old_running = self._set
        self._set = (wall, running)
        if wall != old_wall:
            try:
                self.clocks.wall.ring_at(None if wall == math.inf else wall)
            except ApplianceError as exc:
                self.trouble("", f"{exc.message}: calendar timers do not run")
        if running != old_running:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self.clocks.alarms.after(max(0.0, running - self.clocks.running()), self._look)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Many changes, and the alarms are set once."""
        outer, self._batch = self._batch, True
        try:
            yield
        finally:
            self._batch = outer
        self.changed()

    def _look(self) -> None:
        self._set = (None, None)  # an alarm that rang is none any more
        with self.batch():
            for timer in list(self._timers.values()):
                timer.look()

    def _jumped(self) -> None:
        with self.batch():
            for timer in self._timers.values():
                timer.again()
        self._look()


def is_busy(state: str) -> bool:
    """Whether a start would change nothing now."""
    return state not in ("", "stopped", "failed")


def _text(seconds: float) -> str:
    from appliance.schema import format_duration

    return format_duration(seconds)
