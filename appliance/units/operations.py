"""What a person, a trigger or another unit may ask of a unit: start, stop, restart, reset; and the memory of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from appliance.errors import ApplianceError, ConflictError, CorruptError, UnavailableError
from appliance.units.calling import NOTHING
from appliance.units.decisions import why_not
from appliance.units.graph import closure
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.settling import Settling
from appliance.units.transaction import Transaction, Verb, plan, rivals_of

STOPPED = b"stopped"
WITH = "is stopped with"  # as a transaction says it
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}


class Operations:
    """Says what is wanted; ``Settling`` makes it so."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self.settling: Settling | None = None

    async def run(self, verb: Verb, names: Sequence[str], *, wait: bool = True, reason: str = "") -> Transaction:
        """Plan it, do exactly that, and wait until those named are up (or down) unless told not to.

        Raises NotFoundError, InputError (it cannot be), UnavailableError (one named did not come up).
        """
        register = self._register
        runners = list(dict.fromkeys(register.resolve(name) for name in names))
        self._refuse(verb, runners)
        done = plan(verb, [runner.name for runner in runners], register.graph, register.runners)
        await self._remember(self._apply(done, reason or f"{_DONE[verb]} by hand"))
        if wait:
            faults = [fault for runner in runners if (fault := await self._wait(verb, runner))]
            if faults:
                raise UnavailableError("; ".join(faults), where=runners[0].unit.file)
        return done

    def _refuse(self, verb: Verb, runners: Iterable[Runner]) -> None:
        for runner in runners:
            section = runner.unit.document.unit
            if section.refuse_manual_start and verb != "stop":
                raise ConflictError(f"cannot {verb} {runner.name}: its file says unit.refuse_manual_start")
            if section.refuse_manual_stop and verb != "start":
                raise ConflictError(f"cannot {verb} {runner.name}: its file says unit.refuse_manual_stop")

    def plan(self, verb: Verb, names: Sequence[str]) -> Transaction:
        """What ``run`` would do now. Raises as it does."""
        register = self._register
        return plan(verb, [register.resolve(name).name for name in names], register.graph, register.runners)

    def call(self, name: str, reason: str, told: Mapping[str, str] = NOTHING) -> None:
        """As a start, without waiting for anything. What goes wrong is said as a trouble."""
        register = self._register
        if not register.is_serving:
            return
        try:
            runner = register.resolve(name)
            done = plan("start", [runner.name], register.graph, register.runners)
            changed = self._apply(done, reason)
            if runner.name in done.units("start"):
                runner.told = told
        except ApplianceError as exc:
            register.trouble(name, exc.message)
            return
        assert register.nursery is not None
        if changed:
            register.nursery.start_soon(self._remember, changed)

    def _apply(self, transaction: Transaction, reason: str) -> tuple[str, ...]:
        """Say what is wanted from now on; returns the units whose lasting wish this changes."""
        register = self._register
        runners, graph = register.runners, register.graph
        up, down = transaction.units("start"), transaction.units("stop")
        changed: list[str] = []
        for name in (*transaction.unchanged, *up) if transaction.verb != "stop" else ():
            it = runners[name]
            it.standing.called = reason if name in transaction.names else transaction.why(name, "start") or "pulled in"
            it.standing.planned = name in up
            it.standing.held = it.standing.skipped = ""
            changed += self._wish(it, up=True)
            if name in down:
                it.standing.restarting, it.failures = True, 0
            elif name in up:
                it.standing.came_up, it.told = False, NOTHING
                it.try_again(reason)
        if transaction.verb == "stop":
            for name in transaction.names:
                changed += self._wish(runners[name], up=False)
        else:
            for name, rival in list(rivals_of((*up, *transaction.unchanged), graph, runners)):
                changed += self._wish(runners[name], up=False, unwanted=f"it conflicts with {rival}")
        for name in down:
            whole = next((one for one in graph.part_of.get(name, ()) if one in down or one in transaction.names), "")
            if whole and name not in up and name not in transaction.names:
                runners[name].standing.held = f"it is part of {whole}, which is stopped"
            elif name not in up and name not in transaction.names and transaction.why(name, "stop").startswith(WITH):
                runners[name].standing.held = f"it {transaction.why(name, 'stop')}"
        self._mark((*transaction.names, *down, *up, *transaction.unchanged))  # names: their triggers, if nothing else
        return tuple(changed)

    async def _wait(self, verb: Verb, runner: Runner) -> str:
        """What went wrong, if anything."""
        register, standing = self._register, runner.standing
        if verb == "stop":
            await register.wait(runner, lambda: standing.state is State.STOPPED or standing.desired)
            return ""
        await register.wait(runner, lambda: self._has_started(runner))
        if standing.per_connection:
            return ""  # its sockets listen now
        if standing.state.is_up or (standing.came_up and standing.state is State.STOPPED) or standing.skipped:
            return ""
        why = why_not(runner.name, register.graph, register.runners) or runner.reason
        return f"cannot {verb} {runner.name}: {why}"

    def _has_started(self, runner: Runner) -> bool:
        """Or failed to, for now."""
        standing = runner.standing
        if standing.restarting or standing.state in (State.WAITING, State.STARTING, State.STOPPING):
            return False
        return standing.state is not State.STOPPED or not self._settle().is_wanted(runner.name)

    def reload(self, runner: Runner, reason: str) -> None:
        """Ask it to read its configuration again, and with it whoever that is propagated to. As ``Runner.reload``."""
        register = self._register
        runner.reload(reason)
        for name in closure((runner.name,), (register.graph.reloads,)):
            other = register.runners[name]
            if other.can_reload:
                other.reload(f"reloaded with {runner.name}")

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
