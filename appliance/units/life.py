"""One start of a unit, from clearing the ground to the last of what it left: the shell around the table of phases.

Nothing here waits. Things happen (a process ends, an alarm rings, the unit says something, somebody asks), the table
says which phase follows, and ``enter`` begins it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Protocol

from appliance.errors import ApplianceError
from appliance.host import clock, failpoint, files
from appliance.host.cgroups import Cgroup
from appliance.host.processes import Child, Exit
from appliance.host.sessions import Session
from appliance.units.alarms import Alarm
from appliance.units.command_lines import CommandTable
from appliance.units.credentials import make_credentials
from appliance.units.directories import make_directories, make_private
from appliance.units.dying import Dying
from appliance.units.fd_store import FdStore
from appliance.units.ground import Ground, Group
from appliance.units.launch import who_of
from appliance.units.phases import (
    COMMANDS,
    DYING,
    STATE_OF,
    WAITS_FOR_COMMANDS,
    Phase,
    Turn,
    next_phase,
    takes,
)
from appliance.units.results import LastExit, Result, last_exit_of, result_of, variables_of
from appliance.units.service_section import ServiceSection
from appliance.units.spawning import Spawning
from appliance.units.steps import Steps
from appliance.units.unit_file import Unit
from appliance.units.upkeep import Upkeep
from appliance.units.voice import Voice

_SIGKILL = 9
UNSEEN = "it ended while no appliance watched"


class Owner(Protocol):
    """The unit whose life it is."""

    unit: Unit
    fd_store: FdStore
    status_text: str
    told: Mapping[str, str]

    def on_phase(self, phase: Phase, reason: str) -> None: ...  # noqa: D102
    def on_end(self) -> None: ...  # noqa: D102
    def on_notice(self, sender: int, data: bytes, fds: list[int]) -> None: ...  # noqa: D102
    def log(self, data: bytes, stream: str) -> None: ...  # noqa: D102
    def remember(self) -> None: ...  # noqa: D102
    def is_coming_back(self) -> bool: ...  # noqa: D102


class Life:
    """Made for a start, or for what an earlier supervisor left of one (``resuming``)."""

    def __init__(self, owner: Owner, ground: Ground, directory: str, invocation: str) -> None:
        self.owner = owner
        self.ground = ground
        self.invocation = invocation
        self.phase = Phase.CLEAR
        self.step = 0
        self.result = Result.SUCCESS
        self.fault = ""  # what first went wrong
        self.asked = False  # it goes down because somebody asked, and that is no failure
        self.main: Child | None = None
        self.control: Child | None = None
        self.main_result: Result | None = None  # once its main process is over
        self.follows_group = False  # no main process is known: it lives as long as anything of it does
        self.last = LastExit()
        self.last_exit = ""
        self.reload_fault = ""
        self.reloads_itself = False
        self.leaves = False  # it said STOPPING=1: no signal is needed for now
        self.watchdog_seconds = 0.0
        self.frozen = False
        self.group: Group | None = None
        self.directory = directory
        self.voice = Voice(owner.unit.name, directory, ground, owner.log, owner.on_notice)
        self.spawning = Spawning(self)
        self.steps = Steps(self)
        self._alarm: Alarm | None = None
        self._due = 0.0  # monotonic; of the alarm
        self.ticket = 0  # of the phase and step; what was asked for in an earlier one is stale
        self.pending = 0  # processes that the kernel is making
        self.dying = Dying(self)
        self.upkeep = Upkeep(self)

    @property
    def service(self) -> ServiceSection:
        """As defined now."""
        return self.ground.service_of(self.owner.unit)

    # -- from phase to phase ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first phase: its state is STARTING already."""
        try:
            files.make_directory(self.directory)
            self.group = self.make_group()
        except ApplianceError as exc:
            self.fail(Result.RESOURCES, exc.message)
            self.turn(Turn.BAD, exc.message)
            return
        self.watchdog_seconds = self.service.watchdog_timeout or 0.0
        if self.service.kill_mode in ("process", "none"):
            self._cleared()  # what it leaves behind is to live on
        else:  # what an earlier life left, should one have been cut short unseen, goes first: never two at a time
            self.group.clear(self._cleared)

    def _cleared(self) -> None:
        if self.phase is not Phase.CLEAR or self.ticket:
            return
        self.ticket += 1
        try:
            self._prepare()
        except ApplianceError as exc:
            self.fail(Result.RESOURCES, exc.message)
            self.turn(Turn.BAD, exc.message)
            return
        self.turn(Turn.DONE)

    def _prepare(self) -> None:
        assert self.group is not None
        self.group.renew()
        self.group.attach(self.ground.programs_of(self.owner.unit.document))
        self.group.limit(self.ground.cgroup_values(self.owner.unit.document))
        who = who_of(self.service)
        self.group.limit(self.ground.delegated(self.owner.unit.document, who.uid, who.gid))
        make_directories(self.service, self.ground.below, uid=who.uid, gid=who.gid)
        if (private := self.ground.private_directory(self.owner.unit)) != "":
            make_private(private, keep=self.service.runtime_directory_preserve != "no")
        make_credentials(self.service, self.owner.unit.name, self.ground.below, uid=who.uid)
        self.voice.open_output(apart=self.service.tells_errors_apart)
        if self.service.notices_from() != "none":
            self.voice.open_notify()
        if self.group.kind == "session" or self.service.kill_mode in ("process", "none"):
            self.owner.remember()  # only the mark would lead the next daemon to what is started now

    def turn(self, what: Turn, reason: str = "") -> None:
        """That happened."""
        self.enter(next_phase(self.phase, what, self._is_idle), reason)

    def enter(self, phase: Phase, reason: str) -> None:
        """Begin that phase."""
        self._cancel()
        if self.frozen and STATE_OF[phase] is STATE_OF[Phase.STOP]:
            self.freeze(on=False)  # or no signal would reach it
        if phase is Phase.RUN and self.main is None and not self.follows_group:
            phase, reason = self.after_main(), self.last_exit or reason
        self.phase, self.step = phase, 0
        self.owner.on_phase(phase, reason)
        failpoint.reach(f"phase-{phase.value}")
        match phase:
            case Phase.END:
                self._over()
            case Phase.START:
                self.start_main()
            case Phase.PROVE:
                self.arm(self.service.start_seconds_max())
                self.owner.remember()
            case Phase.RUN:
                self.upkeep.begin()
            case Phase.REMAIN:
                pass
            case _ if phase in DYING:
                self.dying.begin()
            case _:
                self.steps.run()

    def after_main(self) -> Phase:
        """What follows RUN when its main process is over: at once, in a oneshot."""
        if self.main_result not in (None, Result.SUCCESS):
            self.fail(self.main_result or Result.SUCCESS, self.last_exit)
            return next_phase(Phase.RUN, Turn.MAIN_BADLY, self._is_idle)
        turn = Turn.DONE if self.service.remain_after_exit else Turn.MAIN_WELL
        return next_phase(Phase.RUN, turn, self._is_idle)

    def _is_idle(self, phase: Phase) -> bool:
        if phase is Phase.RELOAD or phase not in (*COMMANDS, Phase.PROVE, Phase.TERM, Phase.FINAL_TERM):
            return False
        if phase in COMMANDS:
            return self.group is None or not self.service.lines(COMMANDS[phase])
        if phase is Phase.PROVE:
            health = self.owner.unit.document.health
            return health is None or not health.ready
        if self.pending or self.main is not None or self.control is not None:
            return self.service.kill_mode == "none"
        return self.group is None or self.service.kill_mode in ("process", "none") or self.group.empty()

    def fail(self, result: Result, fault: str) -> None:
        """Something went wrong; only the first counts."""
        if self.result is Result.SUCCESS and result is not Result.SUCCESS:
            self.result, self.fault = result, fault

    def _late(self) -> None:
        """The alarm of this phase."""
        self._alarm = None
        key = COMMANDS.get(self.phase, "")
        if self.phase is Phase.RELOAD:
            fault = f"reload: not done within {self.service.start_seconds_max():g} s (service.start_timeout)"
            self.reload_fault = fault
        elif STATE_OF[self.phase] is STATE_OF[Phase.START]:
            seconds = self.service.start_seconds_max()
            fault = f"not ready within {seconds:g} s (service.start_timeout)" + (f": {key} runs" if key else "")
            self.fail(Result.TIMEOUT, fault)
        else:
            fault = f"{key or 'stop'}: not done within {self.service.stop_timeout:g} s (service.stop_timeout)"
            if self.phase not in (Phase.FINAL_TERM, Phase.FINAL_KILL):
                self.fail(Result.TIMEOUT, fault)
        if self.phase in DYING and not self.service.send_sigkill:
            self.turn(Turn.DONE, fault)
            return
        if self.phase is Phase.RELOAD and self.control is not None:  # the unit itself goes on
            self.signal(self.control, _SIGKILL)
        self.turn(Turn.LATE, fault)

    # -- its main process -------------------------------------------------------------------------------------------

    def start_main(self) -> None:
        """The next command of those that make it up; all but a oneshot have one."""
        lines = self.service.lines("command")
        if self.step >= len(lines):
            self.turn(Turn.DONE, self.last_exit)
            return
        self.ticket += 1
        self.pending += 1
        self.spawning.main(lines[self.step], functools.partial(self._main_told, self.ticket))

    def _main_told(self, ticket: int, child: Child | ApplianceError) -> None:
        self.pending -= 1
        if isinstance(child, ApplianceError):
            if ticket == self.ticket:
                self.fail(Result.RESOURCES, child.message)
                self.turn(Turn.BAD, child.message)
            else:
                self.dying.look()
            return
        assert self.group is not None
        self.main = child
        self.group.lead(child.pid, child.start_ticks)
        failpoint.reach("unit-spawned")
        if ticket != self.ticket:  # asked to stop while the kernel was making it
            self.follow_main()
            self.signal(child, self.dying.signal_number())
            return
        if self.service.type in ("simple", "idle"):
            self.follow_main()
            self.turn(Turn.DONE, f"started, pid {child.pid}")
            return
        self.owner.remember()
        failpoint.reach("in-start")
        self.wait_ready()
        self.follow_main()

    def wait_ready(self) -> None:
        """For what makes it ready, as long as it may take."""
        self.arm(self.service.start_seconds_max())
        if self.service.type == "exec" and self.main is not None:
            self.main.on_exec(functools.partial(self._executed, self.main))

    def follow_main(self) -> None:
        """Hear of its end."""
        assert self.main is not None
        self.main.on_exit(functools.partial(self._main_ended, self.main))

    def _executed(self, child: Child) -> None:
        if self.phase is Phase.START and child is self.main and not child.spawn_failure:
            self.turn(Turn.DONE, f"started, pid {child.pid}")

    def _main_ended(self, child: Child) -> None:
        if child is not self.main:
            return
        self.main = None
        assert child.exit is not None
        self.main_over(child.exit, f"cannot {child.spawn_failure}" if child.spawn_failure else "")

    def main_over(self, how: Exit, words: str = "") -> None:
        """It is over. ``words``: how, where its exit says less than we know."""
        oom = self.group is not None and how.signal == _SIGKILL and self.group.oom_killed()
        self.last = last_exit_of(how, oom=oom)
        self.last_exit = words or f"{how}{' (out of memory)' if self.last.oom else ''}"
        result = Result.EXIT_CODE if words else result_of(how, self.service, oom=oom)
        line = self._main_line()
        if line is not None and line.ignore_failure:
            result = Result.SUCCESS
        self.main_result = result
        if self._goes_on(result):
            return
        if STATE_OF[self.phase] is STATE_OF[Phase.STOP]:
            self.fail(result, self.last_exit)
        if self.phase in DYING:
            self.dying.look()
        elif self.phase in WAITS_FOR_COMMANDS:
            if self.phase is Phase.RELOAD and self.control is None:  # it reloads itself, or did
                self.turn(Turn.DONE, self.last_exit)
        elif self.phase is Phase.START:
            self._over_while_starting(result)
        elif result is not Result.SUCCESS:
            self.fail(result, self.last_exit)
            self.turn(Turn.MAIN_BADLY, self.last_exit)
        elif self.phase is Phase.RUN and self.service.remain_after_exit:
            self.turn(Turn.DONE, self.last_exit)
        elif takes(self.phase, Turn.MAIN_WELL):
            self.turn(Turn.MAIN_WELL, self.last_exit)

    def _goes_on(self, result: Result) -> bool:
        """Whether the rest of it is what counts, now that its main process has ended well (exit_type = "cgroup")."""
        if self.service.exit_type != "cgroup" or result is not Result.SUCCESS or self.group is None:
            return False
        if self.phase not in (Phase.POST_START, Phase.PROVE, Phase.RUN, Phase.RELOAD) or self.group.empty():
            return False
        self.follows_group = True
        if self.phase is Phase.RUN:
            self.upkeep.watch_group()
            self.owner.remember()
        return True

    def _over_while_starting(self, result: Result) -> None:
        if result is not Result.SUCCESS:
            self.fail(result, self.last_exit)
            self.turn(Turn.MAIN_BADLY, self.last_exit)
        elif self.service.type == "oneshot":
            self.step += 1
            self.start_main()
        elif self.service.type == "forking":
            self.spawning.find_main()
        else:
            reason = f"{self.last_exit} before it said that it is ready"
            self.fail(Result.PROTOCOL, reason)
            self.turn(Turn.MAIN_WELL, reason)

    def _main_line(self) -> CommandTable | None:
        lines = self.service.lines("command")
        return lines[min(self.step, len(lines) - 1)] if lines else None

    def follow(self, pid: int) -> None:
        """It says that this one of its processes is the main one."""
        self.spawning.follow(pid)

    def take_main(self, child: Child) -> None:
        """Another of its processes is the main one from now on."""
        if self.main is not None:
            self.main.on_exit(lambda: None)
        self.main, self.main_result, self.follows_group = child, None, False
        if self.phase is not Phase.START:
            self.owner.remember()
        self.follow_main()

    # -- up ---------------------------------------------------------------------------------------------------------

    def prove(self) -> None:
        """Its health check was good for the first time."""
        if self.phase is Phase.PROVE:
            self.turn(Turn.DONE, f"healthy, pid {self.main.pid}" if self.main else "healthy")

    def reload(self, reason: str, *, itself: bool = False) -> None:
        """``itself``: it began by its own, and says when it is done."""
        self.reload_fault, self.reloads_itself = "", itself
        self.turn(Turn.RELOAD, reason)

    # -- going down -------------------------------------------------------------------------------------------------

    def ask_stop(self, reason: str, *, fault: str = "", result: Result = Result.UNHEALTHY) -> None:
        """``fault``: it counts as a failure."""
        if fault:
            self.fail(result, fault)
        else:
            self.asked = True
        if takes(self.phase, Turn.STOP):
            self.turn(Turn.STOP, reason)

    def leave(self) -> None:
        """It says that it ends: it has ``stop_timeout`` for that."""
        if takes(self.phase, Turn.LEAVES):
            self.leaves = True
            self.turn(Turn.LEAVES, "it says that it stops")

    def freeze(self, *, on: bool) -> None:
        """None of its processes runs until it is let go. Raises the error of ours that says why that cannot be."""
        if self.group is not None and self.frozen is not on:
            self.group.limit((("cgroup.freeze", "1" if on else "0"),))
            self.frozen = on

    def force(self) -> None:
        """SIGKILL to all of it."""
        if self.group is not None:
            self.group.kill()
        for child in (self.main, self.control):
            if child is not None:
                self.signal(child, _SIGKILL)

    def _over(self) -> None:
        for child in (self.main, self.control):
            if child is not None:
                child.on_exit(lambda: None)
        self.voice.drain()
        self.owner.on_end()

    # -- small parts ------------------------------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What the commands of this phase are told."""
        told: dict[str, str] = {}
        if self.main is not None:
            told["MAINPID"] = str(self.main.pid)
        if self.phase in (Phase.STOP, Phase.POST_STOP):
            told |= variables_of(self.result, self.last)
        return told

    def extend(self, seconds: float) -> None:
        """It needs more time: for its start, its stop, or its whole run."""
        due = clock.monotonic_seconds() + seconds
        if self._alarm is not None and due > self._due:
            self.arm(seconds)
        else:
            self.upkeep.extend(seconds)

    def release(self) -> None:
        """Let go without touching the unit: the next supervisor adopts it."""
        self._cancel()
        for child in (self.main, self.control):
            if child is not None:
                child.on_exit(lambda: None)
        self.voice.close(for_good=False)

    def make_group(self, path: str = "") -> Group:
        """A new one, or that cgroup."""
        poller = self.ground.processes.poller
        if path:
            return Cgroup(path, poller)
        if self.ground.cgroups is not None:
            return self.ground.cgroups.group(self.owner.unit.name)
        return Session(self.invocation, poller)

    def arm(self, seconds: float) -> None:
        """So long this phase, or its next step, may take."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._due = clock.monotonic_seconds() + seconds
        self._alarm = self.ground.alarms.after(seconds, self._late)

    def _cancel(self) -> None:
        """What the phase that ends had going."""
        self.ticket += 1
        self.spawning.cancel()
        self.upkeep.cancel()
        self.dying.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def signal(self, child: Child, number: int) -> None:
        """Send it; what the kernel refuses is said."""
        try:
            child.send(number)
        except ApplianceError as exc:
            self.ground.on_trouble(self.owner.unit.name, exc.message)
