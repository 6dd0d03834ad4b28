"""What a person, a trigger or another unit may ask of a unit: start, stop, restart, reset; and the memory of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from appliance.errors import CorruptError, InputError, UnavailableError
from appliance.units.decisions import why_not
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.settling import Settling

STOPPED = b"stopped"


class Operations:
    """Says what is wanted; ``Settling`` makes it so."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self.settling: Settling | None = None

    async def start(self, name: str, *, reason: str = "started by hand") -> None:
        """And what it requires and wants; returns once it is ready. Raises UnavailableError when that fails."""
        runner = self._register.runner(name)
        await self._remember(self._call(runner, reason))
        await self._register.wait(runner, functools.partial(self._has_started, runner))
        standing = runner.standing
        if not standing.state.is_up and not (standing.came_up and standing.state is State.STOPPED):
            why = why_not(runner.name, self._register.graph, self._register.runners) or runner.reason
            raise UnavailableError(f"cannot start {runner.name}: {why}", where=runner.unit.file)

    def call(self, name: str, reason: str) -> None:
        """As ``start``, without waiting for anything. What goes wrong is said as a trouble."""
        register = self._register
        if not register.is_serving:
            return
        try:
            changed = self._call(register.runner(name), reason)
        except (InputError, UnavailableError) as exc:
            register.trouble(name, exc.message)
            return
        assert register.nursery is not None
        if changed:
            register.nursery.start_soon(self._remember, changed)

    def _call(self, runner: Runner, reason: str) -> tuple[str, ...]:
        """Units whose lasting wish this changes."""
        register = self._register
        name = runner.name
        if name in register.graph.refused:
            raise InputError(f"cannot start {name}: {register.graph.refused[name]}", where=runner.unit.file)
        started = [name, *(other for other in register.graph.pulled_in((name,)) if other in register.runners)]
        changed: list[str] = []
        for other in started:
            it = register.runners[other]
            done = it.state is State.EXITED and it.unit.service.type == "oneshot"
            if not it.state.is_up or (it.state is State.EXITED and not done and other == name):
                it.try_again(reason)
            it.standing.called = reason if other == name else f"{name} pulls it in"
            it.standing.came_up = it.state.is_up
            changed += self._wish(it, up=True)
        self._mark(started)
        return tuple(changed)

    def _has_started(self, runner: Runner) -> bool:
        """Or failed to, for now."""
        standing = runner.standing
        if standing.restarting or standing.state in (State.WAITING, State.STARTING, State.STOPPING):
            return False
        return standing.state is not State.STOPPED or not self._settle().is_wanted(runner.name)

    async def stop(self, name: str) -> None:
        """And those that require it; returns once it is down. Remembered until ``start``."""
        runner = self._register.runner(name)
        changed = self._wish(runner, up=False)
        self._mark((runner.name,))
        await self._remember(changed)
        await self._register.wait(runner, lambda: runner.state is State.STOPPED or runner.standing.desired)

    async def restart(self, name: str) -> None:
        """Stop, then start with the definition that is loaded now."""
        runner = self._register.runner(name)
        if runner.state.is_active or runner.state is State.EXITED:
            runner.failures = 0
            runner.standing.restarting = True
        await self.start(name, reason="restarted by hand")

    def reset_failed(self, name: str) -> None:
        """Forget its failures; if it had been given up it is tried again."""
        runner = self._register.runner(name)
        if runner.state in (State.FAILED, State.BACKOFF):
            runner.try_again("failures forgotten")
        else:
            runner.failures = 0

    # -- what lasts -------------------------------------------------------------------------------------------------

    def _wish(self, runner: Runner, *, up: bool, unwanted: str = "") -> tuple[str, ...]:
        """Its name, when the store has to be told: units on demand are not up after a reboot anyway."""
        runner.standing.desired, runner.standing.unwanted = up, unwanted
        by_hand = self._register.stopped_by_hand
        if (runner.name not in by_hand) is up:
            return ()
        if up:
            by_hand.discard(runner.name)
        elif runner.standing.on_demand:
            return ()
        else:
            by_hand.add(runner.name)
        return (runner.name,)

    async def _remember(self, names: Iterable[str]) -> None:
        register = self._register
        for name in names:
            down = name in register.stopped_by_hand
            try:
                if down:
                    await register.keeper.put(f"units/{name}/desired", STOPPED)
                else:
                    await register.keeper.delete(f"units/{name}/desired")
            except (UnavailableError, CorruptError) as exc:
                verb = "stopped" if down else "started"
                register.trouble(name, f"cannot remember that {name} was {verb} by hand: {exc.message}")

    def _settle(self) -> Settling:
        assert self.settling is not None
        return self.settling

    def _mark(self, names: Iterable[str]) -> None:
        self._settle().mark(names)
