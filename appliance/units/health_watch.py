"""Health checks of the units that are up: one task for each that declares one."""

from __future__ import annotations

import functools

import trio

from appliance.host.processes import Processes
from appliance.units.command_lines import CommandTable
from appliance.units.health import check_health
from appliance.units.life import Life
from appliance.units.phases import Phase
from appliance.units.register import Register
from appliance.units.runner import Runner

_FIRST_LOOK_SECONDS = 0.25  # between the first health checks of a life, doubled each time, within the first interval
_WATCHED = (Phase.PROVE, Phase.RUN, Phase.RELOAD)


class HealthWatch:
    """Follows the turns of units: begins when one is ready, or waits to be found well, ends when it goes down."""

    def __init__(self, register: Register, processes: Processes) -> None:
        self._register = register
        self._processes = processes
        self._checks: dict[str, tuple[Life, trio.CancelScope]] = {}

    def turned(self, runner: Runner) -> None:
        """That unit came into another state, or phase."""
        life, nursery = runner.life, self._register.nursery
        wants = life is not None and life.phase in _WATCHED and runner.unit.document.health is not None
        there = self._checks.get(runner.name)
        if there is not None and (not wants or there[0] is not life):
            del self._checks[runner.name]
            there[1].cancel()
            runner.health, runner.health_reason, there = None, "", None
        if wants and there is None and life is not None and nursery is not None:
            scope = trio.CancelScope()
            self._checks[runner.name] = life, scope
            nursery.start_soon(self._watch, runner, life, scope)

    async def _watch(self, runner: Runner, life: Life, scope: trio.CancelScope) -> None:
        health, publish = runner.unit.document.health, self._register.publish
        assert health is not None
        command = functools.partial(life.spawning.besides, CommandTable(command=health.command or ()))
        failed, soon = 0, min(_FIRST_LOOK_SECONDS, health.interval)
        grace_end = trio.current_time() + (health.start_period or health.interval)
        with scope:
            while True:
                wrong = await check_health(health, self._processes, command)
                runner.health_reason = wrong
                unproved = life.phase is Phase.PROVE
                if wrong and runner.health is None and (unproved or trio.current_time() + soon < grace_end):
                    await trio.sleep(soon)  # it has only just started: hold nothing against it
                    soon = min(soon * 2, health.interval)
                    continue
                failed = failed + 1 if wrong else 0
                if not wrong or failed >= health.threshold:
                    if runner.health is not (not wrong):
                        publish("unit", runner.name, state=runner.state.value, healthy=not wrong, reason=wrong)
                    runner.health = not wrong
                    runner.turned.unpark_all()
                if not wrong:
                    life.prove()
                if failed >= health.threshold and health.on_failure == "restart":
                    fault = f"unhealthy, {failed} times in a row: {wrong}"
                    runner.ask_stop(fault, fault=fault)
                await trio.sleep(health.interval)
