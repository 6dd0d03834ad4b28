"""The loop that takes every decision that is due: the only place where a unit is begun, started, stopped, dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from appliance.host import files
from appliance.host.conditions import holds
from appliance.systemd import kind_of
from appliance.units.calling import CallUnit, told_by_end
from appliance.units.conditions import unmet
from appliance.units.decisions import Decision, comes_back, decide, is_wanted, why_not
from appliance.units.lifecycle import State
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.transaction import called_along
from appliance.units.unit_directory import named_by

_OF_NO_USE = "nobody needs it any more"
_AT_REST = (State.STOPPED, State.EXITED, State.FAILED)


class Settling:
    """Told of what turned, it looks again at everything whose fate hangs on that."""

    def __init__(
        self, register: Register, *, watch: Callable[[Runner], None], call: CallUnit
    ) -> None:
        self._register = register
        self._watch = watch
        self._call = call
        self.look: Callable[[Runner], None] = lambda runner: None  # told when the fate of one was decided
        self._marked: dict[str, None] = {}
        self._bell = trio.Event()
        self.begun = trio.Event()  # the first round is over

    def mark(self, names: Iterable[str]) -> None:
        """Look at these again, and at all whose fate hangs on them."""
        first = list(names)
        self._marked.update(dict.fromkeys((*first, *self._register.graph.dependants(first))))
        self._bell.set()

    async def run(self) -> None:
        """Take every decision that is due, until the next turn."""
        register = self._register
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            while self._marked:
                name = next(iter(self._marked))
                del self._marked[name]
                runner = register.runners.get(name)
                if runner is None:
                    continue
                decision = decide(name, register.graph, register.runners, going_down=register.going_down)
                self._act(runner, decision)
                self.look(runner)
                if decision in (Decision.GO, Decision.STOP):
                    await trio.lowlevel.checkpoint()  # a thousand starts in a row must not hold up the API
            self.begun.set()

    def _act(self, runner: Runner, decision: Decision | None) -> None:
        match decision:
            case None:
                if runner.state is not State.STOPPED:
                    return
                if runner.vanished or self._has_passed(runner):
                    self._remove(runner)
                elif runner.standing.called and not self._comes_back(runner):
                    runner.standing.called = ""  # it cannot be: the next call is a new one
                    runner.turned.unpark_all()
            case Decision.BEGIN:
                runner.standing.came_up = False
                self._pull_in(runner)
                runner.standing.planned = False
                self._let_parts_go(runner.name)
                runner.begin("in line to start")
            case Decision.GO:
                section = runner.unit.document.unit
                if why := unmet(section.conditions, holds):
                    runner.standing.skipped, runner.standing.called = why, ""
                    runner.drop(f"skipped: {why}")
                elif why := unmet(section.asserts, holds):
                    runner.refuse(f"assertion: {why}")
                else:
                    runner.start()
            case Decision.STOP | Decision.DROP:
                why = self.why_down(runner.name)
                if runner.state is State.EXITED and why == _OF_NO_USE:
                    why = runner.reason  # it is done
                if not self._comes_back(runner):
                    runner.standing.called = ""
                if decision is Decision.STOP:
                    runner.ask_stop(why)
                else:
                    runner.drop(why)

    def _has_passed(self, runner: Runner) -> bool:
        register = self._register
        if runner.name not in register.passing or runner.standing.called or not register.is_serving:
            return False
        return not any(runner.name in named_by(one.unit) for one in register.runners.values())

    def _remove(self, runner: Runner) -> None:
        del self._register.runners[runner.name]
        self._register.passing.discard(runner.name)
        if runner.unit.file.startswith(f"{self._register.transient_directory}/"):
            files.remove(runner.unit.file)
        self._register.link()
        self._register.publish("unit", runner.name, state="removed", reason=runner.reason)
        runner.turned.unpark_all()

    def _pull_in(self, runner: Runner) -> None:
        """Units on demand that it needs or wants are called with it."""
        register = self._register
        for other in called_along(runner.name, register.graph, register.runners):
            register.runners[other].standing.called = f"{runner.name} pulls it in"
            self.mark((other,))

    def _let_parts_go(self, name: str) -> None:
        """Units that went down as parts of this one may be up again."""
        for other in self._register.graph.parts.get(name, ()):
            if self._register.runners[other].standing.held:
                self._register.runners[other].standing.held = ""
                self.mark((other,))

    def _comes_back(self, runner: Runner) -> bool:
        """Whether it goes down only for a moment: it, or what it requires, is restarted; or the appliance is."""
        register = self._register
        return register.going_down or comes_back(runner.name, register.graph, register.runners)

    def why_down(self, name: str) -> str:
        """Why that unit is taken down, for people."""
        register = self._register
        runner = register.runners[name]
        if register.going_down:
            return "the appliance stops"
        if runner.vanished:
            return "its file is gone"
        if runner.standing.restarting:
            return "restart"
        if not runner.standing.desired:
            return runner.standing.unwanted or "stopped by hand"
        return why_not(name, register.graph, register.runners) or _OF_NO_USE

    def is_wanted(self, name: str) -> bool:
        """Whether it should be up now."""
        register = self._register
        return is_wanted(name, register.graph, register.runners, going_down=register.going_down)

    def on_turn(self, runner: Runner) -> None:
        """That unit came into another state."""
        register = self._register
        standing = runner.standing
        standing.came_up |= standing.state.is_up
        if standing.on_demand and (
            standing.state is State.FAILED or (standing.state is State.EXITED and not runner.unit.stays_when_done)
        ):
            standing.called = ""
        self._marked.update(dict.fromkeys(register.graph.neighbours(runner.name)))
        self.mark((runner.name,))
        register.publish("unit", runner.name, state=standing.state.value, reason=runner.reason)
        self._watch(runner)
        self._stop_others(runner)
        self._call_others(runner)
        if standing.state is State.STOPPED:
            standing.restarting = False

    def _stop_others(self, runner: Runner) -> None:
        """Units that go down with it, however it ended (PropagatesStopTo=)."""
        others = self._register.graph.stops.get(runner.name, ())
        if not others or self._register.going_down or runner.standing.restarting or not _is_over(runner):
            return
        for other in others:
            standing = self._register.runners[other].standing
            if standing.state not in (State.STOPPED, State.FAILED) and not standing.held:
                standing.held = f"it is stopped with {runner.name}"
                self.mark((other,))

    def _call_others(self, runner: Runner) -> None:
        graph, name = self._register.graph, runner.name
        before = runner.history[-2].state if len(runner.history) > 1 else ""
        if self._register.going_down or runner.state not in _AT_REST:
            return
        if runner.state is State.FAILED:
            for other in graph.on_failure.get(name, ()):
                self._call(other, f"{name} failed", _told_of(runner))
        elif before == State.STOPPING.value and not runner.standing.restarting:
            for other in graph.on_success.get(name, ()):
                self._call(other, f"{name} is done", _told_of(runner))


def _is_over(runner: Runner) -> bool:
    if runner.state is State.EXITED:
        return not runner.standing.lasts
    return runner.state in (State.STOPPED, State.FAILED)


def _told_of(runner: Runner) -> Mapping[str, str]:
    name = runner.name if kind_of(runner.name) else f"{runner.name}.service"
    return told_by_end(name, runner.invocation, runner.result, runner.last)
