"""A trial as it is lived: look, decide, wait a little, until the gate has a verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import trio

from appliance.errors import ApplianceError
from appliance.host.processes import Processes
from appliance.host.slots import network_environment
from appliance.update import health as gate
from appliance.update.health import HealthSource, Verdict
from appliance.update.probe import failed_checks
from appliance.update.settings import HealthSettings

_LOOK_SECONDS = 1.0


class Proving:
    """One trial. ``missing`` is what still is wrong, for ``update status``."""

    def __init__(self, health: HealthSource, processes: Processes, limits: HealthSettings, *, started: float) -> None:
        self._health = health
        self._processes = processes
        self._limits = limits
        self._trial = gate.Trial(started, limits.settle, limits.deadline)

    @property
    def missing(self) -> tuple[str, ...]:
        """In words."""
        return self._trial.missing

    async def prove(
        self,
        healthy_before: Callable[[], Awaitable[tuple[Sequence[str], str]]],
        bless: Callable[[], Awaitable[None]],
    ) -> str:
        """Until blessed: empty; or until the deadline: why not.

        ``healthy_before`` gives the units that were well, and why that cannot be said. ``bless`` may fail (a full
        disk): it is tried again while there is time.
        """
        limits = self._limits
        while True:
            units, unknown = await healthy_before()
            wrong = await failed_checks(limits.check, self._run_check)
            seen = gate.look(
                services=self._health.services_ready(), units=self._health.unit_health(), healthy_before=units,
                ignore=limits.ignore_units, failed_checks=(*wrong, unknown) if unknown else wrong,
            )  # fmt: skip
            self._trial, verdict = gate.step(self._trial, seen, trio.current_time())
            if verdict is Verdict.HEALTHY:
                try:
                    await bless()
                    return ""
                except ApplianceError as exc:
                    self._trial = replace(self._trial, missing=(exc.message,))
                    verdict = Verdict.UNHEALTHY if trio.current_time() >= self._trial.deadline else Verdict.SETTLING
            if verdict is Verdict.UNHEALTHY:
                missing = "; ".join(self.missing) or f"it was not well for {limits.settle:g} s in a row"
                return f"not healthy within {limits.deadline:g} s: {missing}"
            await trio.sleep(min(_LOOK_SECONDS, max(0.05, limits.settle / 4)))

    async def _run_check(self, argv: Sequence[str], timeout: float) -> str:
        finished = await self._processes.run_command(argv, timeout=timeout, environment=network_environment())
        if finished.timed_out:
            return f"no end in {timeout:g} s"
        said = finished.stderr.decode(errors="replace").strip()[-200:]
        return "" if finished.exit.code == 0 else f"{finished.exit}{': ' + said if said else ''}"
