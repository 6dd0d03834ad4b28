"""How a unit's processes are told to go, and made to: kill modes and signals (systemd.kill(5))."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance.host import failpoint
from appliance.units.phases import DYING, Phase, Turn, takes
from appliance.units.signal_names import signal_of

if TYPE_CHECKING:
    from appliance.units.life import Life

_SIGHUP, _SIGABRT, _SIGKILL, _SIGTERM, _SIGCONT = 1, 6, 9, 15, 18
_KILL_SECONDS = 60.0  # after that a process that SIGKILL does not end is left to the kernel


class Dying:
    """Of one life; at work in the phases of ``DYING``."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._off: Callable[[], None] | None = None

    def signal_number(self) -> int:
        """What is sent in this phase."""
        life, service = self._life, self._life.service
        if life.phase is Phase.ABORT:
            return signal_of(service.watchdog_signal) or _SIGABRT
        if life.phase in (Phase.KILL, Phase.FINAL_KILL):
            return signal_of(service.final_kill_signal) or _SIGKILL
        if service.restart_kill_signal is not None and life.owner.is_coming_back():
            return signal_of(service.restart_kill_signal) or _SIGTERM
        return signal_of(service.kill_signal) or _SIGTERM

    def begin(self) -> None:
        """The phase has just begun: send what is to be sent, wait for the end of those it was sent to."""
        life, service = self._life, self._life.service
        mode, hard = service.kill_mode, life.phase in (Phase.KILL, Phase.FINAL_KILL)
        if hard:
            life.arm(_KILL_SECONDS)
        elif life.phase is Phase.ABORT and service.abort_timeout is not None:
            life.arm(service.abort_timeout)
        else:
            life.arm(service.stop_timeout)
        life.owner.remember()
        failpoint.reach(f"in-{life.phase.value}")
        if mode != "none" and not (life.leaves and life.phase is Phase.TERM):
            self._send(self.signal_number(), to_all=mode == "control-group" or (mode == "mixed" and hard))
            if not hard:
                self._send(_SIGCONT, to_all=mode == "control-group")  # one that is stopped would not notice
                if service.send_sighup and life.phase is Phase.TERM:
                    self._send(_SIGHUP, to_all=mode == "control-group")
        phase = life.phase
        if life.group is not None and (mode == "control-group" or (mode == "mixed" and hard)):
            off = life.group.when_empty(self.look)
            if life.phase is not phase:  # it was empty at once
                off()
                return
            self._off = off
        self.look()

    def cancel(self) -> None:
        """The phase is over."""
        if self._off is not None:
            off, self._off = self._off, None
            off()

    def look(self) -> None:
        """Whether all that was signalled is gone."""
        life = self._life
        if life.phase not in DYING:
            return
        mode = life.service.kill_mode
        if mode == "none":
            life.turn(Turn.DONE)
            return
        if life.pending or life.main is not None or life.control is not None:
            return
        if mode == "process" or life.group is None or life.group.empty():
            life.turn(Turn.DONE)
        elif mode == "mixed" and takes(life.phase, Turn.REST):
            life.turn(Turn.REST if life.service.send_sigkill else Turn.DONE)

    def _send(self, number: int, *, to_all: bool) -> None:
        life = self._life
        own = [child for child in (life.main, life.control) if child is not None]
        for child in own:
            life.signal(child, number)
        if to_all and life.group is not None:
            if number == _SIGKILL:
                life.group.kill()
            else:
                life.group.signal(number, but=tuple(child.pid for child in own))
