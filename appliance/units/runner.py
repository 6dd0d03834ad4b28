"""One unit: where it is, how it came there, and what follows when a start of it is over.

Nothing here waits. Things happen to a runner or to its ``Life``, it feeds the table of states, acts, and tells
``on_turn``; what its turn means for others is decided elsewhere. An idle unit is no task.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping

import trio

from appliance.errors import ApplianceError, InputError
from appliance.host import clock, entropy
from appliance.units.alarms import Alarm
from appliance.units.calling import NOTHING
from appliance.units.credentials import credentials_directory, remove_credentials
from appliance.units.decisions import Standing
from appliance.units.directories import remove_private, remove_runtime_directories
from appliance.units.fd_store import FdStore
from appliance.units.ground import Ground
from appliance.units.hearing import hear
from appliance.units.life import Life
from appliance.units.lifecycle import Event, State, step
from appliance.units.phases import STATE_OF, Phase, event_between
from appliance.units.pictures import UnitMoment, UnitPicture
from appliance.units.remembering import forget, picture_of, remember
from appliance.units.restarts import decide_outcome, is_forgiven
from appliance.units.results import LastExit, Result
from appliance.units.resuming import resume
from appliance.units.run_state import RunState
from appliance.units.signal_names import holds, signal_of
from appliance.units.unit_file import Unit

_HISTORY_MAX = 20
_RESTARTS_KEPT = 100
_DOWN = (State.STOPPED, State.EXITED, State.FAILED)


class Runner:
    """One unit. ``unit`` is the definition for the next start; ``digest`` that of the process that runs."""

    def __init__(self, unit: Unit, ground: Ground) -> None:
        self.unit = unit
        self.standing = Standing()
        self.digest = ""
        self.invocation = ""  # of its last start
        self.reason = ""
        self.since = clock.wall_seconds()
        self.since_boot = clock.boot_seconds()
        self.failures = 0
        self.restarts = 0
        self.last = LastExit()
        self.last_exit = ""
        self.result = Result.SUCCESS
        self.status_text = ""
        self.told: Mapping[str, str] = NOTHING  # variables of whoever called for this start
        self.error_number = 0  # what it said itself (ERRNO=)
        self.health: bool | None = None
        self.health_reason = ""
        self.vanished = False  # its file is gone; forget it when it is down
        self.life: Life | None = None  # of the start that is under way, or up
        self.fd_store = FdStore(unit.name, ground)
        self.journal = ground.journal(unit)
        self.history: deque[UnitMoment] = deque(maxlen=_HISTORY_MAX)
        self.starts: deque[float] = deque(maxlen=1000)
        self.restart_times: deque[float] = deque(maxlen=_RESTARTS_KEPT)
        self.up_since: float | None = None  # monotonic; None: not up since its last start
        self.due = 0.0  # monotonic; of the restart
        self.turned = trio.lowlevel.ParkingLot()  # whoever waits for its next turn
        self.ground = ground
        self.directory = f"{ground.run_directory}/{unit.name}"
        self._alarm: Alarm | None = None  # of the restart

    @property
    def name(self) -> str:
        """Of the unit."""
        return self.unit.name

    @property
    def state(self) -> State:
        """Where it is."""
        return self.standing.state

    @property
    def pid(self) -> int | None:
        """Of its main process."""
        return self.life.main.pid if self.life is not None and self.life.main is not None else None

    # -- turns ------------------------------------------------------------------------------------------------------

    def feed(self, event: Event, reason: str) -> None:
        """The only way to another state."""
        before, after = self.state, step(self.state, event)
        self.standing.state, self.reason = after, reason
        self.since, self.since_boot = clock.wall_seconds(), clock.boot_seconds()
        self.history.append(UnitMoment(time=self.since, state=after.value, reason=reason))
        if after.is_up:
            self.standing.tried = False
            if not before.is_up:
                self.up_since = clock.monotonic_seconds()
        elif after in (State.BACKOFF, State.FAILED):
            self.standing.tried = True
        elif after is State.STOPPED:
            self.standing.tried, self.told = False, NOTHING
            self.failures = self.restarts = 0
        if after in _DOWN and (self.life is None or self.life.phase is Phase.END):
            self._put_away()
        elif after.is_up:
            self.remember()  # before anybody hears of it
        self.ground.on_turn(self)
        self.turned.unpark_all()

    def begin(self, reason: str) -> None:
        """Get in line."""
        self.feed(Event.WANTED, reason)

    def start(self) -> None:
        """From waiting."""
        self.status_text, self.up_since, self.error_number = "", None, 0
        self.digest = self.unit.digest
        self.starts.append(clock.monotonic_seconds())
        if not self.unit.has_process:
            self.feed(Event.NEEDS_MET, "starting")
            self.feed(Event.CAME_UP, "reached")
            return
        self.invocation = entropy.token(16)
        self.life = Life(self, self.ground, self.directory, self.invocation)
        self.feed(Event.NEEDS_MET, "starting")
        self.life.begin()

    def refuse(self, reason: str) -> None:
        """From waiting: it may not start, and that is a failure."""
        self.digest, self.result = self.unit.digest, Result.ASSERT
        for event in (Event.NEEDS_MET, Event.ENDING, Event.GAVE_UP):
            self.feed(event, reason)

    def ask_stop(self, reason: str, *, fault: str = "") -> None:
        """Down, by its stop commands and signals. ``fault``: it counts as a failure."""
        if self.life is not None:
            self.life.ask_stop(reason, fault=fault)
        elif self.state.is_active:  # a target
            self.feed(Event.ENDING, reason)
            self.feed(Event.GONE, reason)

    def force(self) -> None:
        """SIGKILL to all of it."""
        if self.life is not None:
            self.life.force()

    def try_again(self, reason: str) -> None:
        """A person asks: its failures are forgotten and its delay is over."""
        self.failures = self.restarts = 0
        self.starts.clear()
        self._cancel_alarm()
        if self.state is State.BACKOFF:
            self.feed(Event.RESTART_DUE, reason)
        elif self.state in (State.FAILED, State.EXITED):
            self.drop(reason)

    def drop(self, reason: str) -> None:
        """It has no process, and is not wanted any more."""
        self._cancel_alarm()
        if self.life is not None:  # it remained up without its main process: it has to be stopped
            self.life.ask_stop(reason)
        else:
            self.feed(Event.DROPPED, reason)

    @property
    def can_reload(self) -> bool:
        """Whether ``reload`` would do something now."""
        has_way = bool(self.unit.service.reload) or self.unit.service.signal_of_reload is not None
        return has_way and self.life is not None and self.life.phase in (Phase.RUN, Phase.REMAIN)

    def reload(self, reason: str) -> None:
        """Ask it to read its configuration again. Raises InputError when it is not up, or has no way to."""
        service = self.unit.service
        if not service.reload and service.signal_of_reload is None:
            cause = "its file says neither service.reload nor service.reload_signal; restart it"
        elif self.life is None or self.life.phase not in (Phase.RUN, Phase.REMAIN):
            cause = f"it is {self.state.value}"
        else:
            self.life.reload(reason)
            return
        raise InputError(f"cannot reload {self.name}: {cause}", where=self.unit.file)

    @property
    def reload_fault(self) -> str:
        """What went wrong with its last reload."""
        return self.life.reload_fault if self.life is not None else self.reason

    # -- what its life tells ----------------------------------------------------------------------------------------

    def on_phase(self, phase: Phase, reason: str) -> None:
        """It came into that phase."""
        event = event_between(self.state, STATE_OF[phase])
        if event is not None:
            self.feed(event, reason)
        elif phase is Phase.PROVE:
            self.reason = "started; it waits for its first good health check"
            self.ground.on_turn(self)

    def on_notice(self, sender: int, data: bytes, fds: list[int]) -> None:
        """It said something of itself."""
        assert self.life is not None
        notice = hear(self.life, self.fd_store, sender, data, fds)
        if notice is not None:
            self.status_text = self.status_text if notice.status is None else notice.status
            self.error_number = self.error_number if notice.error is None else notice.error

    def log(self, data: bytes, stream: str) -> None:
        """It wrote something."""
        self.journal.append(data, stream=stream, invocation=self.invocation)

    def is_coming_back(self) -> bool:
        """Whether it goes down to come up again."""
        return self.standing.restarting

    def on_end(self) -> None:
        """Nothing of its life is left."""
        life = self.life
        assert life is not None
        self.journal.settle()
        self.last, self.last_exit, self.result = life.last, life.last_exit, life.result
        if life.asked or not self.ground.is_wanted(self.name):
            words = [word for word in (life.fault, life.last_exit) if word and word not in self.reason]
            self.feed(Event.GONE, "; ".join((self.reason, *dict.fromkeys(words))))
            return
        if life.fault.startswith("cannot enter cgroup") and self.ground.cgroups is not None:
            self.ground.cgroups = None  # writable, yet of no use: sessions will have to do
            self.ground.on_trouble(self.name, f"{life.fault}; its processes are tracked by session from now on")
            self._go_back(life.fault, 0.0, "again, without a cgroup")
            return
        restart, now = self.unit.document.restart, clock.monotonic_seconds()
        if self.up_since is not None and is_forgiven(restart, now - self.up_since):
            self.failures = self.restarts = 0
        self.failures += 1
        outcome = decide_outcome(
            restart, self.unit.restart_policy, result=life.result, reason=life.fault or self.reason,
            failures=self.failures, starts=self.starts, now=now, forced=self._forced(),
            chance=entropy.uniform(0.0, 1.0) if restart.jitter else 0.0,
        )  # fmt: skip
        if outcome.event is not Event.GONE_BADLY:
            self.feed(outcome.event, outcome.reason)
            return
        self.restarts += 1
        self.restart_times.append(now)
        self._go_back(outcome.reason, outcome.delay_seconds, f"restart {self.restarts}")

    def _forced(self) -> bool | None:
        service, end = self.unit.service, {"code": self.last.code, "signal": signal_of(self.last.signal)}
        if self.result is Result.CONDITION:
            return None
        if holds(service.restart_prevent_exit_codes, **end):
            return False
        return True if holds(service.restart_force_exit_codes, **end) else None

    def _go_back(self, reason: str, delay_seconds: float, again: str) -> None:
        self._end_life(for_good=False)
        self.due = clock.monotonic_seconds() + delay_seconds
        self.feed(Event.GONE_BADLY, reason)
        self.wait_for_restart(again)

    def wait_for_restart(self, again: str) -> None:
        """In line once more when it is due."""
        due = functools.partial(self.feed, Event.RESTART_DUE, again)
        left = self.due - clock.monotonic_seconds()
        if left > 0:
            self.remember()
            self._alarm = self.ground.alarms.after(left, due)
        else:
            due()

    # -- over the life of the daemon --------------------------------------------------------------------------------

    def adopt(self, run: RunState) -> None:
        """Take over what an earlier supervisor started; called once, before anything else."""
        resume(self, run)

    def release(self) -> None:
        """Let go of everything without touching the unit: the next supervisor adopts it."""
        self._cancel_alarm()
        self.fd_store.close()
        if self.life is not None:
            self.life.release()

    def picture(self) -> UnitPicture:
        """For whoever looks."""
        return picture_of(self)

    def remember(self) -> None:
        """On disk, for the next supervisor."""
        remember(self)

    def _put_away(self) -> None:
        """It is down: what was kept for its next moment goes."""
        again = self.standing.restarting
        self._end_life(for_good=True)
        if not again:
            self.fd_store.clear()
        keep = self.unit.service.runtime_directory_preserve
        if not (keep == "yes" or (keep == "restart" and again)):
            self._remove_runtime_directories()
        if self.state is State.STOPPED:
            forget(self)
        else:
            self.remember()

    def _end_life(self, *, for_good: bool) -> None:
        life, self.life = self.life, None
        if life is not None:
            life.voice.close(for_good=for_good)
            if life.group is not None:
                life.group.remove()
            if not for_good and self.unit.service.runtime_directory_preserve == "no":
                self._remove_runtime_directories()

    def _remove_runtime_directories(self) -> None:
        try:
            remove_runtime_directories(self.unit.service, self.ground.below)
            if credentials_directory(self.unit.service, self.name, self.ground.below):
                remove_credentials(self.name, self.ground.below)
            if (private := self.ground.private_directory(self.unit)) != "":
                remove_private(private)
        except ApplianceError as exc:
            self.ground.on_trouble(self.name, exc.message)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
