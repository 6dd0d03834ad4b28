"""From files to runners: at the start, after a crash, and when the files changed."""

from __future__ import annotations

import trio

from appliance.errors import ApplianceError, CorruptError, UnavailableError
from appliance.units.lifecycle import State
from appliance.units.operations import STOPPED
from appliance.units.pictures import ReloadPlan
from appliance.units.register import Register
from appliance.units.reloading import Loaded, plan_reload
from appliance.units.runner import Runner
from appliance.units.settling import Settling
from appliance.units.unit_directory import instance_of, read_run_states, read_unit_files, unit_of_run_state
from appliance.units.unit_file import Unit

_KEEPER_SECONDS = 2.0  # how long the start of units waits to hear which ones a person stopped


class Loading:
    """Fills the register."""

    def __init__(self, register: Register, settling: Settling) -> None:
        self._register = register
        self._settling = settling

    def load(self) -> None:
        """All unit files."""
        register = self._register
        register.read_enablement()
        register.files = read_unit_files(register.directory, register.enablement.enabled)
        for unit in register.files.units.values():
            runner = register.runners[unit.name] = Runner(unit, register.ground)
            runner.standing.disabled = unit.name in register.enablement.disabled
        for name, unit in read_unit_files(register.transient_directory).units.items():
            register.runners.setdefault(name, Runner(unit, register.ground))
            register.passing.add(name)
        register.link()

    def adopt(self) -> None:
        """What an earlier supervisor left running."""
        register = self._register
        try:
            left = read_run_states(register.layout.run_units, register.ground.boot_id)
        except ApplianceError as exc:
            register.trouble("", exc.message)
            return
        for run in left:
            if run.name not in register.runners:
                unit = register.transient_of(run)
                if unit is None and (unit := instance_of(register.files, run.name)) is not None:
                    register.passing.add(run.name)
                runner = register.runners[run.name] = Runner(unit or unit_of_run_state(run), register.ground)
                if unit is None and run.name not in register.files.unreadable:
                    runner.vanished, runner.standing.desired = True, False
        register.link()
        for run in left:
            runner = register.runners[run.name]
            runner.standing.called = "it was up before"
            runner.adopt(run)
            self._settling.on_turn(runner)

    async def recall(self) -> None:
        """Which units a person stopped. Without the store they are not known, and the units run (law 2)."""
        register = self._register
        with trio.move_on_after(_KEEPER_SECONDS) as scope:
            while True:
                try:
                    found = await register.keeper.list("units/")
                    break
                except CorruptError as exc:
                    register.trouble("", f"cannot tell which units were stopped by hand: {exc.message}")
                    return
                except UnavailableError:
                    await trio.sleep(0.05)
        if scope.cancelled_caught:
            message = f"cannot tell which units were stopped by hand: no store within {_KEEPER_SECONDS:g} s"
            register.trouble("", message)
            return
        for key, value in found.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[2] == "desired" and value == STOPPED:
                register.stopped_by_hand.add(parts[1])
        for name in register.stopped_by_hand & register.runners.keys():
            register.runners[name].standing.desired = False
            self._hold_parts(name)

    def _hold_parts(self, whole: str) -> None:
        """They went down with it. One that is up was started since."""
        register = self._register
        for name in register.graph.parts.get(whole, ()):
            standing = register.runners[name].standing
            if standing.state is State.STOPPED and not standing.held:
                standing.held = f"it is part of {whole}, which is stopped"
                self._hold_parts(name)

    def reload(self, *, dry_run: bool) -> ReloadPlan:
        """Read the unit files again, and start, stop, restart what that asks for. Does not wait for the units."""
        register = self._register
        if not register.is_serving:
            raise UnavailableError("cannot reload the units: they are not running")
        register.read_enablement()
        found = read_unit_files(register.directory, (*register.enablement.enabled, *register.passing))
        loaded = {
            name: Loaded(runner.standing, runner.digest if runner.state.is_active else runner.unit.digest, runner.unit)
            for name, runner in register.runners.items()
            if not runner.vanished
            and name not in register.transients
            and not runner.unit.file.startswith(f"{register.transient_directory}/")
        }
        plan = plan_reload(
            loaded, found.units, unreadable=found.unreadable, stopped_by_hand=frozenset(register.stopped_by_hand),
            findings=found.findings, on_demand=register.on_demand_of(found),
        )  # fmt: skip
        if dry_run:
            return plan
        register.files = found
        for name, unit in found.units.items():
            runner = register.runners.get(name)
            if runner is None:
                runner = register.runners[name] = Runner(unit, register.ground)
                runner.standing.desired = name not in register.stopped_by_hand
                runner.standing.disabled = name in register.enablement.disabled
            else:
                self._redefine(runner, unit)
        for name in plan.restart:
            register.runners[name].standing.restarting = True
        for name in plan.start:
            register.runners[name].standing.skipped = ""
            register.runners[name].try_again("its file changed")
        for name in plan.stop:
            register.runners[name].vanished, register.runners[name].standing.desired = True, False
        register.link()
        self._settling.mark(register.runners)
        register.publish("unit", "", reloaded=len(found.units), findings=len(found.findings))
        return plan

    def _redefine(self, runner: Runner, unit: Unit) -> None:
        register = self._register
        runner.unit = unit
        runner.journal.keep(register.limits_of(unit))
        if runner.vanished:  # it went, and came back before it was down
            runner.vanished, runner.standing.desired = False, unit.name not in register.stopped_by_hand
