"""Health checks of the units that are up: one task for each that declares one."""

from __future__ import annotations

import trio

from appliance.host.processes import Processes
from appliance.units.health import check_health
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.runner import Runner

_FIRST_LOOK_SECONDS = 0.25  # between the first health checks of a life, doubled each time, within the first interval


class HealthWatch:
    """Follows the turns of units: begins when one is ready, ends when it is not."""

    def __init__(self, register: Register, processes: Processes) -> None:
        self._register = register
        self._processes = processes
        self._checks: dict[str, trio.CancelScope] = {}

    def turned(self, runner: Runner) -> None:
        """That unit came into another state."""
        scope = self._checks.pop(runner.name, None)
        if scope is not None:
            scope.cancel()
            runner.health, runner.health_reason = None, ""
        nursery = self._register.nursery
        if runner.state is State.READY and runner.unit.document.health is not None and nursery is not None:
            self._checks[runner.name] = trio.CancelScope()
            nursery.start_soon(self._watch, runner, self._checks[runner.name])

    async def _watch(self, runner: Runner, scope: trio.CancelScope) -> None:
        health, publish = runner.unit.document.health, self._register.publish
        assert health is not None
        failed, soon, first_look = 0, _FIRST_LOOK_SECONDS, trio.current_time()
        with scope:
            while True:
                wrong = await check_health(health, self._processes, runner.unit.service)
                if wrong and runner.health is None and trio.current_time() + soon < first_look + health.interval:
                    runner.health_reason = wrong  # it has only just started: hold nothing against it
                    await trio.sleep(soon)
                    soon *= 2
                    continue
                failed = failed + 1 if wrong else 0
                runner.health_reason = wrong
                if not wrong or failed >= health.threshold:
                    if runner.health is not (not wrong):
                        publish("unit", runner.name, state=runner.state.value, healthy=not wrong, reason=wrong)
                    runner.health = not wrong
                if failed >= health.threshold and health.on_failure == "restart":
                    fault = f"unhealthy, {failed} times in a row: {wrong}"
                    runner.ask_stop(fault, fault=fault)
                await trio.sleep(health.interval)
