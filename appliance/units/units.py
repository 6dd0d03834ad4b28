"""The units of this host: what the rest of the appliance may ask of them, and the loop that keeps them up."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace

import trio

from appliance.errors import ApplianceError, CorruptError, InputError, NotFoundError, UnavailableError
from appliance.host import clock, files
from appliance.host.cgroups import find_cgroup_root
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.schema import Finding
from appliance.units.alarms import Alarms
from appliance.units.decisions import Decision, decide, is_wanted, why_not
from appliance.units.graph import build_graph
from appliance.units.ground import Ground
from appliance.units.health import check_health
from appliance.units.journal import Journal, read_journal
from appliance.units.lifecycle import State
from appliance.units.pictures import LogLine, Publish, ReloadPlan, StateKeeper, UnitPicture, UnitsSettings
from appliance.units.reloading import Loaded, plan_reload
from appliance.units.runner import Runner
from appliance.units.unit_directory import (
    UnitFiles,
    graph_findings,
    read_run_states,
    read_unit_files,
    unit_of_run_state,
)
from appliance.units.unit_file import Unit

_KEEPER_SECONDS = 2.0  # how long the start of units waits to hear which ones a person stopped
_TROUBLES_MAX = 50
_FIRST_LOOK_SECONDS = 0.25  # between the first health checks of a life, doubled each time, within the first interval
_STOPPED = b"stopped"


class Units:
    """``run`` is the service. Every other method may be called at any time from any task of the same trio loop."""

    def __init__(
        self,
        *,
        layout: Layout,
        settings: UnitsSettings,
        processes: Processes,
        keeper: StateKeeper,
        bus: Publish,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._processes = processes
        self._keeper = keeper
        self._publish = bus
        self._directory = settings.directory or layout.units
        self._detached = False
        self._begin()

    def _begin(self) -> None:
        """As if nothing had been: also after a fault in ``run``, which adopts what the one before left."""
        self._going_down = False
        self._runners: dict[str, Runner] = {}
        self._graph = build_graph({})
        self._files = UnitFiles({}, frozenset(), ())
        self._findings: tuple[Finding, ...] = ()
        self._stopped_by_hand: set[str] = set()
        self._troubles: deque[Finding] = deque(maxlen=_TROUBLES_MAX)
        self._alarms = Alarms()
        self._marked: dict[str, None] = {}
        self._bell = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._checks: dict[str, trio.CancelScope] = {}
        self._ground = Ground(
            processes=self._processes,
            cgroups=None,
            alarms=self._alarms,
            run_directory=self._layout.run_units,
            journal=self._journal_of,
            boot_id=clock.boot_id(),
            is_wanted=self._is_wanted,
            on_turn=self._on_turn,
            on_trouble=self._on_trouble,
        )

    # -- the service ------------------------------------------------------------------------------------------------

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt, start what should run, keep it up; on ``stopping`` stop all in reverse order unless detached.

        Ready (``task_status``) once every unit was adopted or its start was decided, not once all are up.
        """
        self._begin()
        self._ground.cgroups = find_cgroup_root(self._layout.root, self._processes.poller)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._alarms.run)
                self._load()
                self._adopt()
                await self._recall()
                self._mark(self._runners)
                nursery.start_soon(self._settle)
                task_status.started()
                await stopping.wait()
                if not self._detached:
                    await self._stop_all()
                    if self._ground.cgroups is not None:
                        self._ground.cgroups.remove()
                nursery.cancel_scope.cancel()
        except BaseException:  # cancelled: the nursery gives it as a group
            if stopping.is_set() and not self._detached:  # the grace is over
                for runner in self._runners.values():
                    runner.force()
            raise
        finally:
            self._nursery = None
            self._processes.wait_spawned()  # so that the next supervisor is told of every process
            for runner in self._runners.values():
                runner.release()
                runner.turned.unpark_all()

    def detach(self) -> None:
        """From now on the end of ``run`` leaves every unit running, for the next supervisor to adopt."""
        self._detached = True

    async def _stop_all(self) -> None:
        self._going_down = True
        self._mark(self._runners)
        for runner in list(self._runners.values()):
            while runner.state is not State.STOPPED:
                await runner.turned.park()

    def _load(self) -> None:
        self._files = read_unit_files(self._directory)
        for unit in self._files.units.values():
            self._runners[unit.name] = Runner(unit, self._ground)
        self._link()

    def _link(self) -> None:
        sections = {name: runner.unit.document.unit for name, runner in self._runners.items()}
        self._graph = build_graph(sections, self._files.unreadable)
        units = {name: runner.unit for name, runner in self._runners.items()}
        self._findings = (*self._files.findings, *graph_findings(self._graph, units))

    def _adopt(self) -> None:
        try:
            left = read_run_states(self._layout.run_units, self._ground.boot_id)
        except ApplianceError as exc:
            self._on_trouble("", exc.message)
            return
        for run in left:
            if run.name not in self._runners:
                runner = self._runners[run.name] = Runner(unit_of_run_state(run), self._ground)
                if run.name not in self._files.unreadable:
                    runner.vanished, runner.standing.desired = True, False
        self._link()
        for run in left:
            self._runners[run.name].adopt(run)
            self._tell(self._runners[run.name])

    async def _recall(self) -> None:
        """Which units a person stopped. Without the store they are not known, and the units run (law 2)."""
        with trio.move_on_after(_KEEPER_SECONDS) as scope:
            while True:
                try:
                    found = await self._keeper.list("units/")
                    break
                except CorruptError as exc:
                    self._on_trouble("", f"cannot tell which units were stopped by hand: {exc.message}")
                    return
                except UnavailableError:
                    await trio.sleep(0.05)
        if scope.cancelled_caught:
            self._on_trouble("", f"cannot tell which units were stopped by hand: no store within {_KEEPER_SECONDS:g} s")
            return
        for key, value in found.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[2] == "desired" and value == _STOPPED:
                self._stopped_by_hand.add(parts[1])
        for name in self._stopped_by_hand & self._runners.keys():
            self._runners[name].standing.desired = False

    # -- deciding ---------------------------------------------------------------------------------------------------

    def _mark(self, names: Iterable[str]) -> None:
        """Look at these again, and at all whose fate hangs on them."""
        first = list(names)
        self._marked.update(dict.fromkeys((*first, *self._graph.dependants(first))))
        self._bell.set()

    async def _settle(self) -> None:
        """Take every decision that is due, until the next turn."""
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            while self._marked:
                name = next(iter(self._marked))
                del self._marked[name]
                runner = self._runners.get(name)
                if runner is None:
                    continue
                decision = decide(name, self._graph, self._runners, going_down=self._going_down)
                self._act(runner, decision)
                if decision in (Decision.GO, Decision.STOP):
                    await trio.lowlevel.checkpoint()  # a thousand starts in a row must not hold up the API

    def _act(self, runner: Runner, decision: Decision | None) -> None:
        match decision:
            case None:
                if runner.vanished and runner.state is State.STOPPED:
                    del self._runners[runner.name]
                    self._link()
                    self._publish("unit", runner.name, state="removed", reason=runner.reason)
            case Decision.BEGIN:
                runner.begin("in line to start")
            case Decision.GO:
                runner.start()
            case Decision.STOP:
                runner.ask_stop(self._why_down(runner.name))
            case Decision.DROP:
                runner.drop(self._why_down(runner.name))

    def _why_down(self, name: str) -> str:
        runner = self._runners[name]
        if self._going_down:
            return "the appliance stops"
        if runner.vanished:
            return "its file is gone"
        if runner.standing.restarting:
            return "restart"
        if not runner.standing.desired:
            return "stopped by hand"
        return why_not(name, self._graph, self._runners)

    def _is_wanted(self, name: str) -> bool:
        return is_wanted(name, self._graph, self._runners, going_down=self._going_down)

    def _on_turn(self, runner: Runner) -> None:
        self._marked[runner.name] = None
        for name in self._graph.neighbours(runner.name):
            self._marked[name] = None
        if runner.state in (State.FAILED, State.STOPPED):
            self._mark((runner.name,))
        self._bell.set()
        self._tell(runner)

    def _tell(self, runner: Runner) -> None:
        self._publish("unit", runner.name, state=runner.state.value, reason=runner.reason)
        scope = self._checks.pop(runner.name, None)
        if scope is not None:
            scope.cancel()
            runner.health, runner.health_reason = None, ""
        if runner.state is State.READY and runner.unit.document.health is not None and self._nursery is not None:
            self._checks[runner.name] = trio.CancelScope()
            self._nursery.start_soon(self._watch_health, runner, self._checks[runner.name])

    async def _watch_health(self, runner: Runner, scope: trio.CancelScope) -> None:
        health = runner.unit.document.health
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
                        self._publish("unit", runner.name, state=runner.state.value, healthy=not wrong, reason=wrong)
                    runner.health = not wrong
                if failed >= health.threshold and health.on_failure == "restart":
                    fault = f"unhealthy, {failed} times in a row: {wrong}"
                    runner.ask_stop(fault, fault=fault)
                await trio.sleep(health.interval)

    def _on_trouble(self, name: str, message: str) -> None:
        runner = self._runners.get(name)
        where = runner.unit.file if runner is not None else self._directory
        self._troubles.append(Finding(where, 1, 1, "", message, "warning"))
        self._publish("unit", name, trouble=message)

    def _journal_of(self, unit: Unit) -> Journal:
        limit = unit.document.logs.limit
        return Journal(
            f"{self._layout.journal}/{unit.name}", limit=limit if limit is not None else self._settings.log_limit
        )

    # -- looking ----------------------------------------------------------------------------------------------------

    def pictures(self) -> tuple[UnitPicture, ...]:
        """All units, by name."""
        return tuple(self.picture(name) for name in sorted(self._runners))

    def picture(self, name: str) -> UnitPicture:
        """Raises NotFoundError."""
        runner = self._runner(name)
        picture = runner.picture()
        if runner.state is State.STOPPED and (why := why_not(name, self._graph, self._runners)):
            return replace(picture, reason=why)
        return picture

    def problems(self) -> tuple[Finding, ...]:
        """What is wrong with unit files, and between them; and what could not be done lately."""
        return (*self._findings, *self._troubles)

    def health(self) -> Mapping[str, bool]:
        """Of every unit that should be up: whether it is ready, and healthy if it has a check."""
        return {
            name: runner.state.is_up and (runner.unit.document.health is None or runner.health is True)
            for name, runner in self._runners.items()
            if runner.standing.desired
        }

    def file_text(self, name: str) -> str:
        """The unit file as it is on disk now. Raises NotFoundError."""
        runner = self._runners.get(name)
        path = runner.unit.file if runner is not None else f"{self._directory}/{name}.toml"
        if runner is None and name not in self._files.unreadable:
            raise self._unknown(name)
        return files.read_text(path)

    def logs(
        self, name: str, *, lines: int | None = None, since: float | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """Its output, oldest first; ``since`` in seconds since 1970. Raises NotFoundError at once."""
        return read_journal(self._runner(name).journal, lines=lines, since=since, follow=follow)

    def _runner(self, name: str) -> Runner:
        runner = self._runners.get(name)
        if runner is None:
            raise self._unknown(name)
        return runner

    def _unknown(self, name: str) -> ApplianceError:
        if name in self._files.unreadable:
            return InputError(f"cannot find unit {name}: its file is not valid, see appliance unit verify")
        return NotFoundError(f"cannot find unit {name}: no file {self._directory}/{name}.toml", where=self._directory)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> UnitPicture:
        """And what it requires and wants; returns once it is ready. Raises UnavailableError when that fails."""
        runner = self._runner(name)
        if name in self._graph.refused:
            raise InputError(f"cannot start {name}: {self._graph.refused[name]}", where=runner.unit.file)
        pulled = [other for other in self._graph.pulled_in((name,)) if other in self._runners]
        for other in (name, *pulled):
            it = self._runners[other]
            done = it.state is State.EXITED and it.unit.service.type == "oneshot"
            if not it.state.is_up or (it.state is State.EXITED and not done and other == name):
                it.try_again("started by hand")
            await self._want(it, up=True)
        await self._wait(runner, lambda: self._has_started(runner))
        if not runner.state.is_up:
            why = why_not(name, self._graph, self._runners) or runner.reason
            raise UnavailableError(f"cannot start {name}: {why}", where=runner.unit.file)
        return self.picture(name)

    def _has_started(self, runner: Runner) -> bool:
        """Or failed to, for now."""
        if runner.standing.restarting or runner.state in (State.WAITING, State.STARTING, State.STOPPING):
            return False
        return runner.state is not State.STOPPED or not self._is_wanted(runner.name)

    async def stop(self, name: str) -> UnitPicture:
        """And those that require it; returns once it is down. Remembered until ``start``."""
        runner = self._runner(name)
        await self._want(runner, up=False)
        await self._wait(runner, lambda: runner.state is State.STOPPED or runner.standing.desired)
        return self.picture(name)

    async def restart(self, name: str) -> UnitPicture:
        """Stop, then start with the definition that is loaded now."""
        runner = self._runner(name)
        if runner.state.is_active or runner.state is State.EXITED:
            runner.failures = 0
            runner.standing.restarting = True
        return await self.start(name)

    async def reload_unit(self, name: str) -> UnitPicture:
        """Ask the unit itself to read its configuration again. Raises InputError when it has no way to."""
        runner = self._runner(name)
        raise InputError(
            f"cannot reload {name}: service.reload is not supported yet in this version; restart it",
            where=runner.unit.file,
        )

    async def reset_failed(self, name: str) -> UnitPicture:
        """Forget its failures; if it had been given up it is tried again."""
        runner = self._runner(name)
        if runner.state in (State.FAILED, State.BACKOFF):
            runner.try_again("failures forgotten")
        else:
            runner.failures = 0
        return self.picture(name)

    async def _want(self, runner: Runner, *, up: bool) -> None:
        was = runner.standing.desired
        runner.standing.desired = up
        self._mark((runner.name,))
        if was == up and (runner.name in self._stopped_by_hand) is not up:
            return
        key = f"units/{runner.name}/desired"
        try:
            if up:
                self._stopped_by_hand.discard(runner.name)
                await self._keeper.delete(key)
            else:
                self._stopped_by_hand.add(runner.name)
                await self._keeper.put(key, _STOPPED)
        except (UnavailableError, CorruptError) as exc:
            verb = "started" if up else "stopped"
            self._on_trouble(runner.name, f"cannot remember that {runner.name} was {verb} by hand: {exc.message}")

    async def _wait(self, runner: Runner, condition: Callable[[], bool]) -> None:
        while True:
            if self._nursery is None or self._going_down or self._runners.get(runner.name) is not runner:
                raise UnavailableError(f"cannot wait for {runner.name}: it is going away")
            if condition():
                return
            await runner.turned.park()

    # -- changed files ----------------------------------------------------------------------------------------------

    async def reload(self, *, dry_run: bool = False) -> ReloadPlan:
        """Read the unit files again, and start, stop, restart what that asks for. Does not wait for the units."""
        if self._nursery is None or self._going_down:
            raise UnavailableError("cannot reload the units: they are not running")
        found = read_unit_files(self._directory)
        loaded = {
            name: Loaded(runner.standing, runner.digest if runner.state.is_active else runner.unit.digest)
            for name, runner in self._runners.items()
            if not runner.vanished
        }
        plan = plan_reload(
            loaded, found.units, unreadable=found.unreadable, stopped_by_hand=frozenset(self._stopped_by_hand),
            findings=found.findings,
        )  # fmt: skip
        if dry_run:
            return plan
        self._files = found
        for name, unit in found.units.items():
            runner = self._runners.get(name)
            if runner is None:
                runner = self._runners[name] = Runner(unit, self._ground)
                runner.standing.desired = name not in self._stopped_by_hand
            else:
                self._redefine(runner, unit)
        for name in plan.restart:
            self._runners[name].standing.restarting = True
        for name in plan.start:
            self._runners[name].try_again("its file changed")
        for name in plan.stop:
            self._runners[name].vanished, self._runners[name].standing.desired = True, False
        self._link()
        self._mark(self._runners)
        self._publish("unit", "", reloaded=len(found.units), findings=len(found.findings))
        return plan

    def _redefine(self, runner: Runner, unit: Unit) -> None:
        runner.unit = unit
        runner.journal.limit = unit.document.logs.limit or self._settings.log_limit
        if runner.vanished:  # it went, and came back before it was down
            runner.vanished, runner.standing.desired = False, unit.name not in self._stopped_by_hand
