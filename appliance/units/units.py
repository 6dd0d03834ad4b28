"""The units of this host: what the rest of the appliance may ask of them, and the service that keeps them up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import trio

from appliance.errors import UnavailableError
from appliance.host import bpf, clock, files, users
from appliance.host.cgroups import find_cgroup_root
from appliance.host.group_usage import Usage, usage
from appliance.host.holder import Holder
from appliance.host.kernel import device_majors, device_of, interface_of, kernel, node_of
from appliance.host.layout import Layout
from appliance.host.process_tree import ProcessPicture, processes_of
from appliance.host.processes import Processes
from appliance.host.wallclock import WallClock
from appliance.schema import Finding
from appliance.units.administration import Administration
from appliance.units.alarms import Alarms
from appliance.units.calling import NOTHING
from appliance.units.cgroup_programs import CgroupPrograms
from appliance.units.decisions import is_asked, why_not
from appliance.units.dynamic_users import DynamicUsers
from appliance.units.fences import Fences
from appliance.units.ground import Ground
from appliance.units.handling import Handling
from appliance.units.health_watch import HealthWatch
from appliance.units.lifecycle import State
from appliance.units.loading import Loading
from appliance.units.log_query import Entry, LogQuery
from appliance.units.operations import Operations
from appliance.units.pictures import (
    Goal,
    LogLine,
    Publish,
    ReloadPlan,
    StateKeeper,
    UnitPicture,
    UnitsSettings,
    Waited,
)
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.settling import Settling
from appliance.units.timers import Clocks
from appliance.units.transaction import Transaction, Verb
from appliance.units.triggers import Triggers
from appliance.units.unit_logs import UnitLogs
from appliance.units.unit_section import plain_name
from appliance.units.upholding import Upholding

_LATER_SECONDS = 1.0  # first things first
_STORE_IS_SLOW_SECONDS = 0.1  # while units wait for it, others may go on


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
        self._detached = False
        self._begun = trio.Event()  # in this process, however often ``run`` begins
        self._begin()

    def _begin(self) -> None:
        """As if nothing had been: also after a fault in ``run``, which adopts what the one before left."""
        self._alarms = Alarms()
        self._holder = Holder(self._layout.holder_socket, self._processes.spawn_program, self._processes.poller)
        register = self._register = Register(
            layout=self._layout,
            settings=self._settings,
            keeper=self._keeper,
            publish=self._publish,
            directory=self._settings.directory or self._layout.units,
        )
        watch = HealthWatch(register, self._processes)
        self._operations = Operations(register)
        self._triggers = Triggers(
            register,
            self._clocks(),
            call=self._operations.call,
            mark=lambda names: self._settling.mark(names),
            host=clock.machine_id(),
        )
        self._logs = UnitLogs(self._layout, self._settings, register, self._triggers.connections.journal_of)
        register.limits_of = self._logs.limits_of
        register.transient_of = self._triggers.connections.adopt

        def turned(runner: Runner) -> None:
            watch.turned(runner)
            self._triggers.turned(runner)

        self._settling = Settling(register, watch=turned, call=self._operations.call)
        upholding = Upholding(register, self._operations.call)

        def looked(runner: Runner) -> None:
            self._triggers.looked(runner)
            upholding.looked(runner)

        self._settling.look = looked
        self._settling.begun = self._begun
        register.on_link = self._triggers.sync
        self._operations.settling = self._settling
        self._loading = Loading(register, self._settling)
        self._handling = Handling(register, self._operations)
        self._administration = Administration(register, self._operations, self._loading)
        register.ground = Ground(
            processes=self._processes,
            cgroups=None,
            alarms=self._alarms,
            run_directory=self._layout.run_units,
            journal=self._logs.journal_of,
            boot_id=clock.boot_id(),
            is_wanted=self._settling.is_wanted,
            on_turn=self._settling.on_turn,
            on_trouble=register.trouble,
            holder=self._holder,
            below=self._layout.below,
        )
        fences = self.fences = Fences(
            kernel(), self._controllers, self._layout.below, device_of,
            DynamicUsers(f"{self._layout.run_units}/.dynamic-users", users.has_account, users.uids_in_use),
            f"{self._layout.state}/private-tmp",
        )  # fmt: skip
        ground = register.ground
        ground.private_directory = fences.private_directory
        ground.spawn_words, ground.cgroup_values = fences.spawn_words, fences.cgroup_values
        self._programs = CgroupPrograms(self._why_no_programs, node_of, device_majors, interface_of)
        ground.programs_of = self._programs.of
        ground.service_of, ground.delegated = fences.service_of, fences.delegated

    def _controllers(self) -> frozenset[str]:
        cgroups = self._register.ground.cgroups
        return cgroups.controllers() if cgroups is not None else frozenset()

    def _why_no_programs(self) -> str:
        return bpf.why_not() if self._register.ground.cgroups is not None else "units have no cgroup v2 here"

    def _clocks(self) -> Clocks:
        wall = WallClock(self._processes.poller)
        return Clocks(wall=wall, alarms=self._alarms, boot_id=clock.boot_id())

    # -- the service ------------------------------------------------------------------------------------------------

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt, start what should run, keep it up; on ``stopping`` stop all in reverse order unless detached.

        Ready (``task_status``) once every unit was adopted or its start was decided, not once all are up.
        """
        self._begin()
        register = self._register
        register.ground.cgroups = find_cgroup_root(self._layout.root, self._processes.poller)
        try:
            async with trio.open_nursery() as nursery:
                register.nursery = nursery
                nursery.start_soon(self._alarms.run)
                self._loading.load()
                self._loading.adopt()
                waits = self._alarms.after(_STORE_IS_SLOW_SECONDS, self._begun.set)
                await self._loading.recall()
                if waits is not None:
                    waits.cancel()
                self._triggers.begin()
                self._alarms.after(_LATER_SECONDS, self._begin_later)
                self._settling.mark(register.runners)
                nursery.start_soon(self._settling.run)
                task_status.started()
                await stopping.wait()
                if not self._detached:
                    await self._stop_all()
                    if register.ground.cgroups is not None:
                        register.ground.cgroups.remove()
                    self._holder.end()
                nursery.cancel_scope.cancel()
        except BaseException:  # cancelled: the nursery gives it as a group
            if stopping.is_set() and not self._detached:  # the grace is over
                for runner in register.runners.values():
                    runner.force()
            raise
        finally:
            self._logs.end()
            self._triggers.end(detached=self._detached or not stopping.is_set())
            register.nursery = None
            self._processes.wait_spawned()  # so that the next supervisor is told of every process
            for runner in register.runners.values():
                runner.release()
                runner.turned.unpark_all()
            self._holder.close()

    def _begin_later(self) -> None:
        register = self._register
        self._logs.begin(self._processes.poller)
        if (cgroups := register.ground.cgroups) is not None:
            lives = [runner.life for runner in register.runners.values()]
            cgroups.sweep({life.group.path or "" for life in lives if life is not None and life.group is not None})

    async def wait_begun(self) -> None:
        """Until all that could start at once was started, or adopted; or it is the store that they wait for."""
        await self._begun.wait()

    def detach(self) -> None:
        """From now on the end of ``run`` leaves every unit running, for the next supervisor to adopt."""
        self._detached = True

    async def _stop_all(self) -> None:
        register = self._register
        register.going_down = True
        self._settling.mark(register.runners)
        for runner in list(register.runners.values()):
            while runner.state is not State.STOPPED:
                await runner.turned.park()

    # -- looking ----------------------------------------------------------------------------------------------------

    def pictures(self) -> tuple[UnitPicture, ...]:
        """All units, by name."""
        return tuple(self.picture(name) for name in sorted(self._register.runners))

    def picture(self, name: str) -> UnitPicture:
        """Raises NotFoundError."""
        register = self._register
        runner = register.runner(name)
        picture = replace(
            runner.picture(),
            triggers=self._triggers.pictures(runner.name),
            enabled=register.enabled_word(runner.name),
            called=runner.standing.called if runner.standing.on_demand else "",
            drop_ins=tuple(one.file for one in runner.unit.drop_ins),
        )
        if runner.state is not State.STOPPED or not runner.standing.desired:
            return picture
        if runner.standing.per_connection:
            return replace(picture, reason="runs once for each connection")
        if why := why_not(runner.name, register.graph, register.runners):
            return replace(picture, reason=why)
        return picture

    def usages(self, names: Iterable[str] | None = None) -> Mapping[str, Usage]:
        """What the units use that have processes (those, or all); read now, never while nobody asks."""
        runners = self._register.runners
        found = {}
        for name in sorted(runners) if names is None else names:
            runner = self._register.runner(name)
            group = runner.life.group if runner.life is not None else None
            counts_ip = runner.unit.document.resources.ip_accounting
            if group is not None:
                found[name] = usage(group.path, group.pids(), counts_ip=counts_ip)
        return found

    def problems(self) -> tuple[Finding, ...]:
        """What is wrong with unit files, and between them; and what could not be done lately."""
        register = self._register
        units = [runner.unit for _, runner in sorted(register.runners.items())]
        fences = (*self.fences.findings(units), *self._programs.findings(units))
        return (*register.findings, *register.troubles, *fences)

    def health(self) -> Mapping[str, bool]:
        """Of every unit that should be up: whether it is ready, and healthy if it has a check."""
        register = self._register
        return {
            name: runner.state.is_up and (runner.unit.document.health is None or runner.health is True)
            for name, runner in register.runners.items()
            if runner.standing.desired and is_asked(name, register.graph, register.runners)
        }

    def file_text(self, name: str) -> str:
        """The unit file as it is on disk now. Raises NotFoundError."""
        register = self._register
        name = plain_name(name)
        runner = register.runners.get(name)
        path = runner.unit.file if runner is not None else f"{register.directory}/{name}.toml"
        if runner is None and name not in register.files.unreadable:
            raise register.unknown(name)
        drop_ins = runner.unit.drop_ins if runner is not None else ()
        texts = [f"# {one.file}\n{getattr(one, 'original', one.text)}" for one in drop_ins]
        return "\n".join([files.read_text(path), *texts])

    def graph_text(self, names: Sequence[str] = (), *, as_picture: bool = False) -> str:
        """How these units (or all) are tied: DOT, or SVG. Raises NotFoundError."""
        register = self._register
        from appliance.units.drawing import near, to_dot, to_svg

        some = near(register.graph, [register.runner(name).name for name in names])
        states = {name: runner.state.value for name, runner in register.runners.items()}
        return (to_svg if as_picture else to_dot)(register.graph, some, states)

    def processes(self, name: str) -> tuple[ProcessPicture, ...]:
        """All that run in that unit now."""
        life = self._register.runner(name).life
        return processes_of(life.group.pids() if life is not None and life.group is not None else ())

    def logs(
        self, name: str, *, lines: int | None = None, since: float | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """Its output, oldest first; ``since`` in seconds since 1970. Raises NotFoundError at once."""
        return self._logs.lines(name, lines=lines, since=since, follow=follow)

    def search_logs(
        self, names: Sequence[str], query: LogQuery, *, kernel: bool = False
    ) -> AsyncGenerator[list[Entry], None]:
        """Lines of several units (patterns; none: of all) by time, a few at once. Raises NotFoundError at once.

        ``kernel``: the kernel's too. An empty list tells, once, that what follows is new.
        """
        return self._logs.search(names, query, kernel=kernel)

    # -- asking -----------------------------------------------------------------------------------------------------

    def call(self, name: str, reason: str, told: Mapping[str, str] = NOTHING) -> None:
        """A trigger wants that unit up, and what it pulls in. Returns at once; trouble is told as a problem."""
        self._operations.call(name, reason, told)

    async def start(self, name: str, *, wait: bool = True) -> UnitPicture:
        """And what it requires and wants; returns once it is ready. Raises UnavailableError when that fails."""
        return await self._do("start", name, wait)

    async def stop(self, name: str, *, wait: bool = True) -> UnitPicture:
        """And those that require it; returns once it is down. Remembered until ``start``."""
        return await self._do("stop", name, wait)

    async def restart(self, name: str, *, wait: bool = True) -> UnitPicture:
        """Stop, then start with the definition that is loaded now."""
        return await self._do("restart", name, wait)

    async def _do(self, verb: Verb, name: str, wait: bool) -> UnitPicture:
        runner = self._register.resolve(name)
        await self._operations.run(verb, [name], wait=wait)
        return self.picture(name) if self._register.runners.get(runner.name) is runner else runner.picture()

    async def transact(
        self, verb: Verb, names: Sequence[str], *, wait: bool = True, dry_run: bool = False
    ) -> Transaction:
        """Start, stop or restart several in one transaction; ``dry_run``: only compute it."""
        if dry_run:
            return self._operations.plan(verb, names)
        return await self._operations.run(verb, names, wait=wait)

    async def enable(self, verb: str, names: Sequence[str], *, now: bool = False) -> tuple[UnitPicture, ...]:
        """enable, disable, mask, unmask; ``now``: and start or stop them."""
        await self._administration.enable(verb, names, now=now)
        register = self._register
        return tuple(self.picture(name) for name in map(plain_name, names) if name in register.runners)

    async def wait(self, name: str, goal: Goal, *, timeout: float) -> Waited:
        """Until the unit is ready, healthy, over, stopped."""
        return await self._administration.wait(name, goal, timeout=timeout)

    async def write_file(
        self, name: str, text: str, *, drop_in: bool = False, digest: str | None = None, dry_run: bool = False
    ) -> tuple[Finding, ...]:
        """Save a unit file that has no errors; ``unit reload`` applies it. The findings."""
        if dry_run:
            return self._administration.check_file(name, text, drop_in=drop_in)
        return await self._administration.write_file(name, text, drop_in=drop_in, digest=digest)

    async def run_transient(
        self, data: Mapping[str, Any], *, name: str = ""
    ) -> tuple[UnitPicture, AsyncIterator[LogLine], Callable[[], UnitPicture]]:
        """Run a command as a unit: its picture, its output until it is over, and then how it ended."""
        since = clock.wall_seconds()
        runner = await self._administration.run_transient(data, name=name)
        return runner.picture(), self._administration.output_of(runner, since), runner.picture

    async def reload_unit(self, name: str) -> UnitPicture:
        """Ask the unit itself to read its configuration again. Raises InputError when it has no way to."""
        register = self._register
        runner = register.runner(name)
        self._operations.reload(runner, "reloaded by hand")
        await register.wait(runner, lambda: runner.state is not State.RELOADING)
        if runner.reload_fault:
            raise UnavailableError(f"cannot reload {name}: {runner.reload_fault}", where=runner.unit.file)
        return self.picture(name)

    async def reload_or_restart(self, name: str) -> UnitPicture:
        """Reload it if it can, else restart it; start it if it is down."""
        if self._register.resolve(name).can_reload:
            return await self.reload_unit(name)
        return await self.restart(name)

    async def try_restart(self, name: str) -> UnitPicture:
        """Restart it, but only if it is up."""
        return (await self._handling.try_restart(name)).picture()

    async def kill(self, name: str, signal: str = "SIGTERM", *, whom: str = "all") -> UnitPicture:
        """Send a signal to all of its processes, or to the main one, or to the command around it."""
        self._handling.kill(name, signal, whom=whom)
        return self.picture(name)

    async def freeze(self, name: str, *, on: bool = True) -> UnitPicture:
        """Stop its processes where they are; ``on`` False: let them go on."""
        self._handling.freeze(name, on=on)
        return self.picture(name)

    async def thaw(self, name: str) -> UnitPicture:
        """Let its processes go on."""
        return await self.freeze(name, on=False)

    async def clean(self, name: str, what: Sequence[str] = ()) -> tuple[str, ...]:
        """Remove its directories: runtime and cache, or those kinds. The paths."""
        return self._handling.clean(name, what)

    async def reset_failed(self, name: str) -> UnitPicture:
        """Forget its failures; if it had been given up it is tried again."""
        self._operations.reset_failed(name)
        self._triggers.reset(plain_name(name))
        return self.picture(name)

    async def reload(self, *, dry_run: bool = False) -> ReloadPlan:
        """Read the unit files again, and start, stop, restart what that asks for. Does not wait for the units."""
        return self._loading.reload(dry_run=dry_run)
