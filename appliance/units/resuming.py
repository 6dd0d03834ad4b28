"""A life that an earlier supervisor began is gone on with, whatever it was doing when that one died.

A process that is there is followed. Of one that ended unseen nobody can say how: before the main process was started,
all begins again, as after a reboot; of the main process it counts as a failure; a reload is over; a stop goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from appliance.host import clock, entropy, files
from appliance.host.processes import Child, Exit
from appliance.host.sessions import Session
from appliance.units.life import UNSEEN, Life
from appliance.units.lifecycle import State
from appliance.units.phases import BEFORE_MAIN, COMMANDS, DYING, STATE_OF, Phase, Turn
from appliance.units.remembering import BACKOFF
from appliance.units.results import LastExit, Result
from appliance.units.run_state import RunState

if TYPE_CHECKING:
    from appliance.units.runner import Runner

_OLD_PHASES = {"starting": Phase.START, "ready": Phase.RUN}  # of versions that knew no phases


def resume(runner: Runner, run: RunState) -> None:
    """Called once, before anything else happens to that runner."""
    runner.digest, runner.since, runner.invocation = run.digest, run.since, run.invocation
    old = run.since_boot < 0  # the first version said only what the wall clock was
    runner.since_boot = clock.boot_seconds() - max(0.0, clock.wall_seconds() - run.since) if old else run.since_boot
    runner.failures, runner.restarts = run.failures, run.restarts
    runner.last_exit, runner.status_text, runner.reason = run.last_exit, run.status_text, run.reason
    code = None if run.exit_code < 0 else run.exit_code
    runner.last = LastExit(code, run.exit_signal, run.exit_core, run.exit_oom)
    runner.result = _result(run.result)
    runner.starts.extend(run.starts)
    runner.restart_times.extend(run.restart_times)
    runner.up_since = run.up_since if run.up_since >= 0 else None
    if run.phase == BACKOFF:
        runner.standing.state, runner.standing.tried, runner.due = State.BACKOFF, True, run.due
        runner.fd_store.recall()
        runner.wait_for_restart(f"restart {run.restarts}")
        return
    phase = _phase(run)
    runner.standing.state = STATE_OF[phase] if phase is not None else State(run.state)
    if phase is None or not runner.unit.has_process:
        runner.standing.tried = runner.state is State.FAILED
        return
    if runner.up_since is None and runner.state.is_up:
        runner.up_since = clock.monotonic_seconds() - max(0.0, clock.wall_seconds() - run.since)
    runner.fd_store.recall()
    _Resumed(runner, run, phase).go_on()


def _phase(run: RunState) -> Phase | None:
    """None: it had no process to go on with."""
    if run.phase:
        return next((phase for phase in Phase if phase.value == run.phase), Phase.TERM)
    return _OLD_PHASES.get(run.state)


def _result(word: str) -> Result:
    return next((result for result in Result if result.value == word), Result.EXIT_CODE)


class _Resumed:
    """The life, with what is left of its processes."""

    def __init__(self, runner: Runner, run: RunState, phase: Phase) -> None:
        self._runner = runner
        self._run = run
        life = self._life = runner.life = Life(runner, runner.ground, runner.directory, run.invocation)
        life.phase, life.step = phase, run.step
        life.result, life.fault, life.asked = _result(run.result), run.fault, run.asked
        life.last, life.last_exit = runner.last, run.last_exit
        life.main_result = _result(run.main_result) if run.main_result else None
        life.follows_group = run.follows_group
        life.watchdog_seconds = life.service.watchdog_timeout or 0.0
        life.group = life.make_group(run.cgroup)
        life.group.lead(run.pid, run.start_ticks)
        life.frozen = bool(run.cgroup) and _is_frozen(run.cgroup)

    def go_on(self) -> None:
        """From the phase that it was in."""
        life, run = self._life, self._run
        self._listen()
        life.main = self._child(run.pid, run.start_ticks)
        life.control = self._child(run.control_pid, run.control_start_ticks)
        lost_main = life.main is None and run.pid != 0
        if life.phase in BEFORE_MAIN or (life.phase is Phase.START and run.pid == 0):
            self._go_on_before_main()
        elif life.phase in DYING or life.phase is Phase.END:
            self._go_on_dying()
        elif life.phase in COMMANDS:
            self._go_on_with_command()
            if lost_main and life.phase in COMMANDS:
                life.main_over(Exit(), UNSEEN)
        else:
            self._go_on_with_main(lost_main)

    def _listen(self) -> None:
        life = self._life
        try:
            voice = life.voice  # its file may have changed since: a pipe that it writes into is read
            voice.open_output(apart=life.service.tells_errors_apart or files.exists(voice.errors_path), adopted=True)
            if life.service.notices_from() != "none":
                life.voice.open_notify(adopted=True)
        except ApplianceError as exc:
            life.ground.on_trouble(self._runner.name, exc.message)

    def _child(self, pid: int, start_ticks: int) -> Child | None:
        return self._life.ground.processes.adopt(pid, start_ticks) if pid else None

    def _go_on_before_main(self) -> None:
        life = self._life
        if life.control is not None and life.phase in COMMANDS:
            life.arm(life.service.start_seconds_max())
            life.steps.follow()
            return
        # It is started from the beginning, under another name; what is left of this start goes first.
        fresh = Life(self._runner, life.ground, life.directory, entropy.token(16))
        life.voice.close(for_good=False)
        self._runner.life = fresh

        def begin() -> None:
            if self._runner.life is fresh and fresh.phase is Phase.CLEAR and fresh.group is None:
                fresh.begin()

        Session(self._run.invocation, life.ground.processes.poller).clear(begin)

    def _go_on_dying(self) -> None:
        life = self._life
        for child, follow in ((life.main, life.follow_main), (life.control, life.steps.follow)):
            if child is not None:
                follow()
        if life.phase is Phase.END:
            life.enter(Phase.END, life.fault)
        elif life.phase in DYING:  # neither ended at once
            life.dying.begin()

    def _go_on_with_command(self) -> None:
        life = self._life
        if life.main is not None:
            life.follow_main()
        stops = life.phase in (Phase.STOP, Phase.POST_STOP)
        if life.control is not None:
            life.arm(life.service.stop_timeout if stops else life.service.start_seconds_max())
            life.steps.follow()
        elif life.phase is Phase.RELOAD:
            life.turn(Turn.DONE, "it was reloading when the appliance died")
        elif life.phase is Phase.POST_START:
            life.steps.run()
        else:
            life.turn(Turn.BAD, f"{COMMANDS[life.phase]}: {UNSEEN}")

    def _go_on_with_main(self, lost: bool) -> None:
        life = self._life
        if lost:
            if life.phase is Phase.START and life.service.type == "forking":
                life.main_over(Exit(code=0))  # it forks and ends: whom it left, we can still find out
            else:
                life.main_over(Exit(), UNSEEN)
            return
        if life.main is not None:
            life.follow_main()
        if life.phase is Phase.RUN and (life.main is not None or life.follows_group):
            up = self._runner.up_since
            life.upkeep.begin(seconds_up=max(0.0, clock.monotonic_seconds() - up) if up is not None else 0.0)
        elif life.phase is Phase.RUN:
            life.enter(Phase.RUN, life.last_exit)
        elif life.phase is Phase.PROVE:
            life.arm(life.service.start_seconds_max())
        elif life.phase is Phase.START and life.main is not None:
            if life.service.type in ("simple", "idle", "exec"):
                life.turn(Turn.DONE, f"started, pid {life.main.pid}")
            else:
                life.wait_ready()


def _is_frozen(cgroup: str) -> bool:
    try:
        return files.read_text(f"{cgroup}/cgroup.freeze").strip() == "1"
    except ApplianceError:  # a kernel before 5.2
        return False
