"""What else a person does to a unit: signals, a break, a restart if it is up, its directories swept."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.units.directories import remove_directories
from appliance.units.lifecycle import State
from appliance.units.operations import Operations
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.signal_names import signal_of, signal_problem

WHOM = ("all", "main", "control")
SWEPT = ("runtime", "state", "cache", "logs", "configuration")
_USUALLY = ("runtime", "cache")  # as systemctl clean


class Handling:
    """Acts on the register's runners."""

    def __init__(self, register: Register, operations: Operations) -> None:
        self._register = register
        self._operations = operations

    def kill(self, name: str, signal: str = "SIGTERM", *, whom: str = "all") -> None:
        """Send it that signal. Raises NotFoundError, InputError (no such signal, or nobody to send it to)."""
        number = signal_of(signal)
        if number is None:
            raise InputError(f"cannot send {signal}: {signal_problem(signal)}", where="signal")
        if whom not in WHOM:
            raise InputError(f"cannot send {signal}: found {whom!r}, expected one of {', '.join(WHOM)}", where="whom")
        life = self._register.runner(name).life
        child = None if life is None else {"main": life.main, "control": life.control}.get(whom)
        if life is not None and whom != "all" and child is not None:
            child.send(number)
        elif life is not None and whom == "all" and life.group is not None and life.group.pids():
            life.group.signal(number)
        else:
            what = "no process" if whom == "all" else f"no {whom} process"
            raise InputError(f"cannot send {signal} to {name}: it has {what}")

    def freeze(self, name: str, *, on: bool) -> None:
        """Stop all of its processes where they are, or let them go on. Raises UnavailableError, InputError."""
        verb, runner = "freeze" if on else "thaw", self._register.runner(name)
        if runner.life is None or runner.life.group is None or runner.state is State.STOPPING:
            raise InputError(f"cannot {verb} {name}: it has no process")
        if runner.life.group.kind == "session":
            raise UnavailableError(f"cannot {verb} {name}: units have no cgroup v2 here")
        runner.life.freeze(on=on)

    def clean(self, name: str, what: Sequence[str] = ()) -> tuple[str, ...]:
        """Remove its directories of those kinds; the paths. Raises InputError, ConflictError (it is up)."""
        runner = self._register.runner(name)
        kinds = SWEPT if "all" in what else tuple(what) or _USUALLY
        for one in kinds:
            if one not in SWEPT:
                raise InputError(
                    f"cannot clean {name}: found {one!r}, expected one of {', '.join(SWEPT)}, all", where="what"
                )
        if runner.life is not None or runner.state not in (State.STOPPED, State.EXITED, State.FAILED):
            raise ConflictError(f"cannot clean {name}: it is {runner.state.value}; stop it first")
        service = self._register.ground.service_of(runner.unit)
        return remove_directories(service, self._register.ground.below, kinds)

    async def try_restart(self, name: str) -> Runner:
        """Restart it if it is up, or on its way there."""
        runner = self._register.runner(name)
        if runner.state.is_active or runner.state in (State.WAITING, State.BACKOFF):
            await self._operations.run("restart", [name])
        return runner
