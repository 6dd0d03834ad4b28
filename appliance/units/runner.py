"""One unit's process, from the start to the last of what it left: the shell around the table.

Nothing here waits. Things happen to a runner (its process ends, an alarm rings, somebody decides), it feeds the table,
acts, and tells ``on_turn``; what its turn means for others is decided in ``units.py``. An idle unit is no task.
"""

from __future__ import annotations

import functools
from collections import deque

import trio

from appliance.errors import ApplianceError
from appliance.host import clock, entropy, failpoint, files, pipes, procfs
from appliance.host.cgroups import Cgroup
from appliance.host.datagrams import NotifySocket
from appliance.host.processes import Child
from appliance.host.sessions import Session
from appliance.units.alarms import Alarm
from appliance.units.decisions import Standing
from appliance.units.ground import Ground, Group
from appliance.units.launch import command_of
from appliance.units.lifecycle import Event, State, step
from appliance.units.notices import parse_notice_untrusted
from appliance.units.pictures import UnitMoment, UnitPicture
from appliance.units.restarts import decide_outcome, is_forgiven
from appliance.units.results import Result
from appliance.units.run_state import RunState
from appliance.units.unit_file import Unit

_SIGKILL, _SIGTERM, _SIGCONT = 9, 15, 18
_HISTORY_MAX = 20
_STATE_FILE = "state.json"


class Runner:
    """One unit. ``unit`` is the definition for the next start; ``digest`` that of the process that runs."""

    def __init__(self, unit: Unit, ground: Ground) -> None:
        self.unit = unit
        self.standing = Standing()
        self.digest = ""
        self.reason = ""
        self.since = clock.wall_seconds()
        self.failures = 0
        self.restarts = 0
        self.last_exit = ""
        self.status_text = ""
        self.health: bool | None = None
        self.health_reason = ""
        self.vanished = False  # its file is gone; forget it when it is down
        self.child: Child | None = None
        self.journal = ground.journal(unit)
        self.history: deque[UnitMoment] = deque(maxlen=_HISTORY_MAX)
        self.turned = trio.lowlevel.ParkingLot()  # whoever waits for its next turn
        self._ground = ground
        self._directory = f"{ground.run_directory}/{unit.name}"
        self._invocation = ""
        self._group: Group | None = None
        self._output: pipes.PipeReader | None = None
        self._notify: NotifySocket | None = None
        self._alarm: Alarm | None = None
        self._fault = ""  # why it goes down, when that counts as a failure
        self._ended_well = False
        self._up_since: float | None = None  # monotonic; None: not up since its last start
        self._starts: deque[float] = deque(maxlen=1000)

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
        return self.child.pid if self.child is not None else None

    # -- turns ------------------------------------------------------------------------------------------------------

    def feed(self, event: Event, reason: str) -> None:
        """The only way to another state."""
        after = step(self.state, event)
        self.standing.state, self.reason, self.since = after, reason, clock.wall_seconds()
        self.history.append(UnitMoment(time=self.since, state=after.value, reason=reason))
        if after.is_up:
            self.standing.tried = False
            self._up_since = clock.monotonic_seconds()
        elif after in (State.BACKOFF, State.FAILED):
            self.standing.tried = True
        elif after is State.STOPPED:
            self.standing.tried = False
            self.failures = self.restarts = 0
        if after in (State.READY, State.EXITED, State.FAILED):
            self._remember()
        elif after is State.STOPPED:
            self._forget()
        if after in (State.STOPPED, State.EXITED, State.FAILED):
            self._close()
        self._ground.on_turn(self)
        self.turned.unpark_all()

    def begin(self, reason: str) -> None:
        """Get in line."""
        self.feed(Event.WANTED, reason)

    def start(self) -> None:
        """From waiting."""
        self._fault, self._ended_well, self.status_text, self._up_since = "", False, "", None
        self._invocation = entropy.token(16)
        self.digest = self.unit.digest
        self._starts.append(clock.monotonic_seconds())
        if not self.unit.has_process:
            self.feed(Event.NEEDS_MET, "starting")
            self.feed(Event.CAME_UP, "reached")
            return
        try:
            files.make_directory(self._directory)
            self._group = self._make_group()
        except ApplianceError as exc:
            self.feed(Event.NEEDS_MET, "starting")
            self._down_without_process(exc.message)
            return
        self.feed(Event.NEEDS_MET, "starting")
        # What an earlier life left there, should one have been cut short unseen, goes first: never two at a time.
        self._group.clear(functools.partial(self._spawn, self._invocation))

    def ask_stop(self, reason: str, *, fault: str = "") -> None:
        """SIGTERM to the main process, after the timeout SIGKILL to all. ``fault``: it counts as a failure."""
        self._cancel_alarm()
        self._fault = fault
        self.feed(Event.ENDING, reason)
        if not self.unit.has_process and self._group is None:
            self.feed(Event.GONE, reason)
        elif self.child is not None:  # else it is not spawned yet: _spawn or _spawned will see
            self._terminate()

    def _terminate(self) -> None:
        self._alarm = self._ground.alarms.after(self.unit.service.stop_timeout, self.force)
        self._send(_SIGTERM)
        self._send(_SIGCONT)  # one that is stopped would not notice

    def force(self) -> None:
        """SIGKILL to all of it."""
        if self._group is not None:
            self._group.kill()
        self._send(_SIGKILL)

    def try_again(self, reason: str) -> None:
        """A person asks: its failures are forgotten and its delay is over."""
        self.failures = self.restarts = 0
        self._starts.clear()
        self._cancel_alarm()
        if self.state is State.BACKOFF:
            self.feed(Event.RESTART_DUE, reason)
        elif self.state in (State.FAILED, State.EXITED):
            self.feed(Event.DROPPED, reason)

    def drop(self, reason: str) -> None:
        """It has no process, and is not wanted any more."""
        self._cancel_alarm()
        self.feed(Event.DROPPED, reason)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _spawn(self, invocation: str) -> None:
        if invocation != self._invocation:
            return
        if self.state is State.STOPPING:
            self._all_gone()
            return
        service = self.unit.service
        assert self._group is not None
        try:
            self._group.renew()
            self._group.limit(self._ground.cgroup_values(self.unit.document))
            output = f"{self._directory}/output"
            pipes.make_pipe(output)
            self._open_output(output)
            if service.type == "notify":
                self._open_notify()
            if self._group.kind == "session":
                self._remember()  # without a cgroup only the mark would lead the next daemon to it
            command = command_of(
                service, invocation=invocation, cgroup=self._group.path, output=output,
                notify_address=self._notify.address if self._notify else "",
                options=self._ground.spawn_words(self.unit.document),
                descriptors=self._ground.descriptors_of(self.unit),
            )  # fmt: skip
        except ApplianceError as exc:
            self._down_without_process(exc.message)
            return
        self._ground.processes.spawn_soon(command, self._spawned)

    def _spawned(self, child: Child | ApplianceError) -> None:
        if isinstance(child, ApplianceError):
            self._down_without_process(child.message)
            return
        assert self._group is not None
        self.child = child
        self._group.lead(child.pid, child.start_ticks)
        failpoint.reach("unit-spawned")
        child.on_exit(self._ended)
        service = self.unit.service
        if self.state is State.STOPPING:  # asked while the kernel was making it
            self._terminate()
        elif service.type == "simple":
            self._came_up(f"started, pid {child.pid}")
        else:
            self._remember()
            self._alarm = self._ground.alarms.after(service.start_seconds_max(), self._start_timed_out)
            if service.type == "exec":
                child.on_exec(self._executed)

    def _down_without_process(self, fault: str) -> None:
        if self.state is not State.STOPPING:
            self._fault = fault
            self.feed(Event.ENDING, fault)
        self._all_gone()

    def _executed(self) -> None:
        if self.state is State.STARTING and self.child is not None and not self.child.spawn_failure:
            self._came_up(f"started, pid {self.child.pid}")

    def _came_up(self, reason: str) -> None:
        self._cancel_alarm()
        self.feed(Event.CAME_UP, reason)

    def _start_timed_out(self) -> None:
        seconds = self.unit.service.start_seconds_max()
        fault = f"not ready within {seconds:g} s (service.start_timeout)"
        self.ask_stop(fault, fault=fault)

    def _notified(self, sender: int, data: bytes) -> None:
        if self._group is None or not self._group.has(sender):
            return
        notice = parse_notice_untrusted(data)
        if notice.status is not None:
            self.status_text = notice.status
        if notice.main_pid is not None and self._group.has(notice.main_pid):
            self._follow(notice.main_pid)
        if notice.ready and self.state is State.STARTING:
            self._came_up(f"it says it is ready, pid {self.pid}")

    def _follow(self, pid: int) -> None:
        """The unit says that another of its processes is the main one (MAINPID=)."""
        stat = procfs.process_stat(pid)
        if self.child is None or pid == self.child.pid or stat is None:
            return
        child = self._ground.processes.adopt(pid, stat.start_ticks)
        if child is not None:
            self.child.on_exit(lambda: None)
            self.child = child
            child.on_exit(self._ended)
            self._remember()

    # -- ending -----------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """Its main process is over."""
        assert self.child is not None
        child, self.child = self.child, None
        assert child.exit is not None
        self.last_exit = f"cannot {child.spawn_failure}" if child.spawn_failure else str(child.exit)
        self._main_is_over(well=child.exit.clean and not child.spawn_failure)

    def _main_is_over(self, *, well: bool) -> None:
        self._cancel_alarm()
        if self.state is not State.STOPPING:
            reason = self.last_exit
            if self.state is State.STARTING and self.unit.service.type == "notify":
                well, reason = False, f"{reason} before it said that it is ready"
            self._ended_well, self._fault = well, "" if well else reason
            self.feed(Event.ENDING, reason)
        if self._group is None:
            self._all_gone()
        else:
            self._group.clear(self._all_gone)

    def _all_gone(self) -> None:
        if self._output is not None:
            self._output.drain()
        asked = not self._fault and not self._ended_well
        if asked or not self._ground.is_wanted(self.name):
            self.feed(
                Event.GONE, f"{self.reason}; {self.last_exit}" if self.last_exit not in self.reason else self.reason
            )
            return
        if self._fault.startswith("cannot enter cgroup") and self._ground.cgroups is not None:
            self._ground.cgroups = None  # writable, yet of no use: sessions will have to do
            self._ground.on_trouble(self.name, f"{self._fault}; its processes are tracked by session from now on")
            self.feed(Event.GONE_BADLY, self._fault)
            self.feed(Event.RESTART_DUE, "again, without a cgroup")
            return
        restart, now = self.unit.document.restart, clock.monotonic_seconds()
        if self._up_since is not None and is_forgiven(restart, now - self._up_since):
            self.failures = self.restarts = 0
        self.failures += 1
        outcome = decide_outcome(
            restart, self.unit.restart_policy,
            result=Result.SUCCESS if self._ended_well else Result.EXIT_CODE, reason=self._fault or self.reason,
            failures=self.failures, starts=self._starts, now=now,
        )  # fmt: skip
        self.feed(outcome.event, outcome.reason)
        if outcome.event is Event.GONE_BADLY:
            self.restarts += 1
            due = functools.partial(self.feed, Event.RESTART_DUE, f"restart {self.restarts}")
            if outcome.delay_seconds > 0:
                self._alarm = self._ground.alarms.after(outcome.delay_seconds, due)
            else:
                due()

    # -- over the life of the daemon --------------------------------------------------------------------------------

    def adopt(self, run: RunState) -> None:
        """Take over what an earlier supervisor started; called once, before anything else."""
        self.digest, self._invocation, self.since = run.digest, run.invocation, run.since
        self.failures, self.restarts = run.failures, run.restarts
        self.last_exit, self.status_text, self.reason = run.last_exit, run.status_text, run.reason
        self.standing.state = State(run.state)
        if not self.state.is_active or not self.unit.has_process:
            self.standing.tried = self.state is State.FAILED
            return
        self._group = self._make_group(run.cgroup)
        self._group.lead(run.pid, run.start_ticks)
        try:
            pipes.make_pipe(f"{self._directory}/output")
            self._open_output(f"{self._directory}/output")
            if self.unit.service.type == "notify":
                self._open_notify()
        except ApplianceError as exc:
            self._ground.on_trouble(self.name, exc.message)
        child = self._ground.processes.adopt(run.pid, run.start_ticks) if run.pid else None
        if child is None:
            self.last_exit = "it ended while no appliance watched"
            self._main_is_over(well=False)
            return
        self.child = child
        if self.state is State.READY:
            self._up_since = clock.monotonic_seconds() - max(0.0, clock.wall_seconds() - run.since)
        elif self.unit.service.type == "exec":
            self._came_up(f"started, pid {child.pid}")
        else:
            self._alarm = self._ground.alarms.after(self.unit.service.start_seconds_max(), self._start_timed_out)
        child.on_exit(self._ended)

    def release(self) -> None:
        """Let go of everything without touching the unit: the next supervisor adopts it."""
        self._cancel_alarm()
        if self.child is not None:
            self.child.on_exit(lambda: None)
        self._close()

    def picture(self) -> UnitPicture:
        """For whoever looks."""
        section, health = self.unit.document.unit, ""
        if self.unit.document.health is not None:
            health = "unknown" if self.health is None else "healthy" if self.health else "unhealthy"
        return UnitPicture(
            name=self.name,
            description=section.description,
            type=self.unit.service.type if self.unit.has_process else "target",
            state=self.state.value,
            reason=self.reason,
            since=self.since,
            desired="up" if self.standing.desired else "down",
            pid=self.pid,
            restarts=self.restarts,
            last_exit=self.last_exit,
            status_text=self.status_text,
            health=health,
            health_reason=self.health_reason,
            tracking=self._group.kind if self._group is not None else "",
            file=self.unit.file,
            changed=self.state.is_active and self.digest != self.unit.digest,
            requires=section.requires,
            wants=section.wants,
            after=section.after,
            before=section.before,
            log_bytes_dropped=self.journal.dropped,
            history=tuple(self.history),
        )

    def _remember(self) -> None:
        phase = {State.STOPPING: State.READY}.get(self.state, self.state)
        run = RunState(
            name=self.name,
            boot_id=self._ground.boot_id,
            state=phase.value,
            reason=self.reason,
            pid=self.child.pid if self.child else 0,
            start_ticks=self.child.start_ticks if self.child else 0,
            invocation=self._invocation,
            cgroup=(self._group.path or "") if self._group else "",
            since=self.since,
            failures=self.failures,
            restarts=self.restarts,
            last_exit=self.last_exit,
            status_text=self.status_text,
            digest=self.digest,
            file=self.unit.file,
            text=self.unit.text,
        )
        try:
            files.write_atomic(f"{self._directory}/{_STATE_FILE}", run.encode(), mode=0o600, durable=False)
        except ApplianceError as exc:
            self._ground.on_trouble(self.name, f"{exc.message}; were we killed now, the unit would be started anew")

    def _forget(self) -> None:
        try:
            files.remove(f"{self._directory}/{_STATE_FILE}")
        except ApplianceError as exc:
            self._ground.on_trouble(self.name, exc.message)
        if self._group is not None:
            self._group.remove()

    # -- small parts ------------------------------------------------------------------------------------------------

    def _make_group(self, path: str = "") -> Group:
        poller = self._ground.processes.poller
        if path:
            return Cgroup(path, poller)
        if self._ground.cgroups is not None:
            return self._ground.cgroups.group(self.name)
        return Session(self._invocation, poller)

    def _open_output(self, path: str) -> None:
        if self._output is None:
            self._output = pipes.PipeReader(path, self._ground.processes.poller, self.journal.append)

    def _open_notify(self) -> None:
        if self._notify is None:
            path = f"{self._directory}/notify"
            self._notify = NotifySocket(path, self._ground.processes.poller, self._notified)

    def _close(self) -> None:
        if self._output is not None:
            self._output.close()
        if self._notify is not None:
            self._notify.close()
        self._output = self._notify = None

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _send(self, number: int) -> None:
        try:
            if self.child is not None:
                self.child.send(number)
        except ApplianceError as exc:
            self._ground.on_trouble(self.name, exc.message)
