"""Units that others uphold: while one of those is up they are started again whenever they are down."""

from __future__ import annotations

import functools

from appliance.host import clock
from appliance.units.calling import CallUnit
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.runner import Runner

_LONG_ENOUGH_SECONDS = 10.0  # up so long, it begins anew with short waits
_SECONDS_MAX = 60.0
_DOWN = (State.STOPPED, State.EXITED, State.FAILED)


class Upholding:
    """Told whenever the fate of a unit was decided."""

    def __init__(self, register: Register, call: CallUnit) -> None:
        self._register = register
        self._call = call
        self._tries: dict[str, int] = {}
        self._waiting: set[str] = set()

    def looked(self, runner: Runner) -> None:
        """Start it again, soon: each time after twice as long."""
        name = runner.name
        if name not in self._register.graph.upheld_by or name in self._waiting or not self._by_whom(runner):
            return
        if runner.up_since is not None and clock.monotonic_seconds() - runner.up_since > _LONG_ENOUGH_SECONDS:
            self._tries.pop(name, None)
        tries = self._tries.get(name, 0)
        seconds = min(runner.unit.document.restart.delay * 2 ** min(tries, 20), _SECONDS_MAX)
        if self._register.ground.alarms.after(seconds, functools.partial(self._again, name)) is not None:
            self._waiting.add(name)
            self._tries[name] = tries + 1

    def _again(self, name: str) -> None:
        self._waiting.discard(name)
        runner = self._register.runners.get(name)
        if runner is not None and (who := self._by_whom(runner)):
            self._call(name, f"{who} upholds it")

    def _by_whom(self, runner: Runner) -> str:
        """Who wants it up though it is down, if anybody does and it may."""
        register, standing = self._register, runner.standing
        if runner.state not in _DOWN or (runner.state is State.EXITED and standing.lasts) or standing.restarting:
            return ""
        if not standing.desired or standing.masked or standing.skipped or register.going_down:
            return ""
        if runner.name in register.graph.refused:
            return ""
        above = register.graph.upheld_by.get(runner.name, ())
        return next((one for one in above if register.runners[one].state.is_up and self._holds(one)), "")

    def _holds(self, name: str) -> bool:
        """Not one that has only not been told yet that it is over."""
        runner = self._register.runners[name]
        return runner.state is not State.EXITED or runner.standing.lasts
