"""A unit for each connection (``accept = true``): made when somebody calls, gone when its process is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance.host import listening
from appliance.host.listening import Call
from appliance.units.journal import Journal
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.restart_section import RestartSection
from appliance.units.run_state import RunState
from appliance.units.runner import Runner
from appliance.units.unit_directory import instance_of, unit_of_run_state
from appliance.units.unit_file import Unit
from appliance.units.unit_section import UnitSection

_AT_REST = (State.STOPPED, State.EXITED, State.FAILED)


@dataclass
class _Served:
    target: str
    source: str
    call: Call | None  # until its process has it


class Connections:
    """Those that are served now, by the name of their unit."""

    def __init__(self, register: Register, mark: Callable[[tuple[str, ...]], None]) -> None:
        self._register = register
        self._mark = mark
        self._served: dict[str, _Served] = {}
        self._counter = 0

    def connect(self, target: str, call: Call) -> bool:
        """A unit for it. False: there is nothing to make it from."""
        register = self._register
        ends = "-".join(filter(None, (call.local, call.remote)))
        name = f"{target.rstrip('@')}@{self._counter}-{ends}"
        while name in register.runners:
            self._counter += 1
            name = f"{target.rstrip('@')}@{self._counter}-{ends}"
        self._counter += 1
        model = self._model(target, name)
        if model is None or not model.has_process:
            register.trouble(target, f"cannot serve {call.remote}: there is no unit {target} with a [service]")
            return False
        self._served[name] = _Served(target, call.source, call)
        register.transients.add(name)
        runner = register.runners[name] = Runner(_unit_for(model, name, call.remote), register.ground)
        runner.standing.on_demand = True
        runner.standing.called = f"{call.remote} connected"
        self._mark((name,))
        return True

    def adopt(self, run: RunState) -> Unit | None:
        """The unit of a connection that an earlier daemon left running; None: it is none of ours."""
        name = run.name
        plain, at, _ = name.partition("@")
        wanted = (plain, plain + at)
        units = [runner.unit for runner in self._register.runners.values()] if at else []
        targets = [unit.target_of(one) for unit in units for one in unit.document.socket if one.accept]
        target = next((one for one in targets if one in wanted), None)
        if target is None:
            return None
        remote = name.rpartition("-")[2]
        self._served[name] = _Served(target, remote.rpartition(":")[0], None)
        self._register.transients.add(name)
        return _unit_for(self._model(target, name) or unit_of_run_state(run), name, remote)

    def _model(self, target: str, name: str) -> Unit | None:
        """What it is made from: a unit, or the template of that name."""
        if target.endswith("@"):
            return instance_of(self._register.files, name)
        runner = self._register.runners.get(target)
        return runner.unit if runner is not None else None

    def call_of(self, name: str) -> Call | None:
        """What its process is to be given."""
        served = self._served.get(name)
        return served.call if served is not None else None

    def journal_of(self, name: str) -> Journal | None:
        """All of them write where the unit they were made from does."""
        served = self._served.get(name)
        model = self._register.runners.get(served.target) if served is not None else None
        return model.journal if model is not None else None

    def count(self, target: str) -> tuple[int, dict[str, int]]:
        """How many there are of that unit, and from where."""
        sources: dict[str, int] = {}
        for served in self._served.values():
            if served.target == target:
                sources[served.source] = sources.get(served.source, 0) + 1
        return sum(sources.values()), sources

    def turned(self, runner: Runner) -> None:
        """Its process has the connection now, or never will."""
        served = self._served.get(runner.name)
        if served is not None and served.call is not None and runner.state not in (State.WAITING, State.STARTING):
            listening.close(served.call.fd)
            served.call = None

    def looked(self, runner: Runner) -> None:
        """What is over is forgotten."""
        if runner.name not in self._served or runner.state not in _AT_REST or runner.standing.called:
            return
        self.turned(runner)
        del self._served[runner.name]
        self._register.transients.discard(runner.name)
        if self._register.runners.pop(runner.name, None) is not None:
            self._register.publish("unit", runner.name, state="removed", reason=runner.reason)
        runner.turned.unpark_all()

    def end(self) -> None:
        """Close what nobody was given yet."""
        for served in self._served.values():
            if served.call is not None:
                listening.close(served.call.fd)
                served.call = None


def _unit_for(model: Unit, name: str, remote: str) -> Unit:
    document = replace(
        model.document,
        unit=UnitSection(description=f"{model.document.unit.description or model.name}, for {remote}"),
        restart=RestartSection(policy="no"),
        health=None,
        timer=None,
        socket=(),
        path=None,
    )
    return Unit(name, document, model.text, model.file)
