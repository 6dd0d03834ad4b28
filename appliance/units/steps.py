"""The commands around a unit's main process, one after another: condition, pre_start, post_start, reload, stop, ..."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError
from appliance.host import failpoint
from appliance.host.processes import Child, signal_name
from appliance.units.phases import COMMANDS, Phase, Turn
from appliance.units.results import Result, result_of
from appliance.units.signal_names import signal_of

if TYPE_CHECKING:
    from appliance.units.life import Life

_SIGHUP = 1
_SKIP_CODES = range(1, 255)  # of a condition: not now, and that is no failure


class Steps:
    """Of one life; at work in the phases of ``COMMANDS``."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def run(self) -> None:
        """The next command of this phase, or the signal that stands for it."""
        life = self._life
        lines = life.service.lines(COMMANDS[life.phase])
        if life.phase is Phase.RELOAD and (life.reloads_itself or not lines):
            self._reload_by_signal()
        elif life.step >= len(lines):
            life.turn(Turn.DONE, f"started, pid {life.main.pid}" if life.main else life.last_exit)
        else:
            stops = life.phase in (Phase.STOP, Phase.POST_STOP)
            life.arm(life.service.stop_timeout if stops else life.service.start_seconds_max())
            life.ticket += 1
            life.pending += 1
            life.control = None
            if life.phase is Phase.POST_STOP and self._renew():
                return
            life.spawning.control(lines[life.step], functools.partial(self._told, life.ticket))

    def _renew(self) -> bool:
        """A cgroup that was killed would kill this one at birth, too. True: that went wrong, and the phase is over."""
        life = self._life
        assert life.group is not None
        try:
            if life.group.empty():
                life.group.renew()
        except ApplianceError as exc:
            life.pending -= 1
            self._failed(Result.RESOURCES, exc.message)
            return True
        return False

    def _told(self, ticket: int, child: Child | ApplianceError) -> None:
        life = self._life
        life.pending -= 1
        if isinstance(child, ApplianceError):
            if ticket == life.ticket:
                self._failed(Result.RESOURCES, child.message)
            else:
                life.dying.look()
            return
        life.control = child
        failpoint.reach("control-spawned")
        if ticket != life.ticket:  # asked to stop while the kernel was making it
            self.follow()
            life.signal(child, life.dying.signal_number())
            return
        life.owner.remember()
        failpoint.reach(f"in-{life.phase.value}")
        self.follow()

    def follow(self) -> None:
        """Hear of the end of the command that runs."""
        control = self._life.control
        assert control is not None
        control.on_exit(functools.partial(self._ended, control))

    def _ended(self, child: Child) -> None:
        life = self._life
        if child is not life.control:
            return
        life.control = None
        if life.phase not in COMMANDS:
            life.dying.look()
            return
        assert child.exit is not None
        lines = life.service.lines(COMMANDS[life.phase])
        line = lines[life.step] if life.step < len(lines) else None
        result = Result.EXIT_CODE if child.spawn_failure else result_of(child.exit, life.service)
        if result is Result.SUCCESS or (line is not None and line.ignore_failure):
            life.step += 1
            self.run()
            return
        program = line.command[0] if line is not None else "command"
        words = f"cannot {child.spawn_failure}" if child.spawn_failure else f"{program} {child.exit}"
        if life.phase is Phase.CONDITION and child.exit.code in _SKIP_CODES and not child.spawn_failure:
            result, words = Result.CONDITION, f"its condition does not hold: {words}"
        self._failed(result, words)

    def _failed(self, result: Result, words: str) -> None:
        life = self._life
        fault = words if result is Result.CONDITION else f"{COMMANDS[life.phase]}: {words}"
        if life.phase is Phase.RELOAD:
            life.reload_fault = fault
        else:
            life.fail(result, fault)
        life.turn(Turn.BAD, fault)

    def _reload_by_signal(self) -> None:
        life = self._life
        life.arm(life.service.start_seconds_max())
        life.owner.remember()
        failpoint.reach("in-reload")
        if life.reloads_itself:
            return
        number = signal_of(life.service.signal_of_reload or "") or _SIGHUP
        if life.main is not None:
            life.signal(life.main, number)
        if life.service.type != "notify-reload":
            life.turn(Turn.DONE, f"{signal_name(number)} sent")
