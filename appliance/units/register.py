"""What is loaded: a runner for each unit, the graph between them, and what is wrong with either."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import trio

from appliance.errors import ApplianceError, InputError, NotFoundError, UnavailableError
from appliance.host.layout import Layout
from appliance.schema import Finding, did_you_mean
from appliance.units.enablement import Enablement, enablement_file, read_enablement
from appliance.units.graph import Graph, build_graph
from appliance.units.ground import Ground
from appliance.units.journal import LogLimits
from appliance.units.pictures import Publish, StateKeeper, UnitsSettings
from appliance.units.run_state import RunState
from appliance.units.runner import Runner
from appliance.units.ties import is_only_named, other_names
from appliance.units.unit_directory import (
    UnitFiles,
    graph_findings,
    graph_of,
    instance_of,
    link_units,
    read_new_unit,
)
from appliance.units.unit_file import Unit
from appliance.units.unit_section import plain_name

_TROUBLES_MAX = 50


@dataclass(kw_only=True)
class Register:
    """One life of the units service: made anew when ``run`` begins."""

    layout: Layout
    settings: UnitsSettings
    keeper: StateKeeper
    publish: Publish
    directory: str
    ground: Ground = field(init=False)  # set once, by whoever made this one
    runners: dict[str, Runner] = field(default_factory=dict)
    graph: Graph = field(default_factory=lambda: build_graph({}))
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of units
    files: UnitFiles = field(default_factory=lambda: UnitFiles({}, frozenset(), ()))
    findings: tuple[Finding, ...] = ()
    troubles: deque[Finding] = field(default_factory=lambda: deque(maxlen=_TROUBLES_MAX))
    stopped_by_hand: set[str] = field(default_factory=set)
    enablement: Enablement = field(default_factory=Enablement)
    passing: set[str] = field(default_factory=set)  # forgotten once they are at rest and nobody names them
    transients: set[str] = field(default_factory=set)  # units of connections, gone when they are over
    going_down: bool = False
    nursery: trio.Nursery | None = None
    transient_of: Callable[[RunState], Unit | None] = lambda run: None  # one without a file that lives on
    limits_of: Callable[[Unit], LogLimits] = field(init=False)  # how much of a unit's log is kept
    on_link: Callable[[], None] = lambda: None  # units came, went or changed

    @property
    def is_serving(self) -> bool:
        """Whether anything asked of the units will still happen."""
        return self.nursery is not None and not self.going_down

    def link(self) -> None:
        """Make the graph anew, after units came or went or changed."""
        units = {name: runner.unit for name, runner in self.runners.items()}
        graph = self.graph = link_units(units, self.files.unreadable, self.files.masked, self.enablement.disabled)
        self.aliases = other_names(units)
        called = {one for edges in (graph.on_failure, graph.on_success) for names in edges.values() for one in names}
        called.update(self.transients, *(unit.calls_on_demand for unit in units.values()))
        for name, runner in self.runners.items():
            runner.standing.lasts = runner.unit.service.type == "oneshot" or runner.unit.stays_when_done
            runner.standing.per_connection = runner.unit.is_per_connection
            runner.standing.masked = name in self.enablement.masked
            only_named = is_only_named(runner.unit, called, units) or name in self.files.implied or name in self.passing
            self._set_on_demand(
                runner,
                runner.unit.triggers_itself
                or runner.unit.document.unit.stop_when_unneeded
                or runner.standing.disabled
                or runner.standing.masked
                or (only_named and name not in self.enablement.enabled),
            )
        self.findings = (*self.files.findings, *graph_findings(self.graph, units))
        self.on_link()

    def on_demand_of(self, found: UnitFiles) -> frozenset[str]:
        """Units of these files that would not start by themselves."""
        graph, wish = graph_of(found), self.enablement
        called = {one for edges in (graph.on_failure, graph.on_success) for names in edges.values() for one in names}
        called.update(*(unit.calls_on_demand for unit in found.units.values()))
        called = {name for name, unit in found.units.items() if is_only_named(unit, called, found.units)}
        called |= found.implied
        itself = {
            name
            for name, unit in found.units.items()
            if unit.triggers_itself or unit.document.unit.stop_when_unneeded
        }
        return frozenset((called - wish.enabled) | itself | wish.disabled | wish.masked)

    def _set_on_demand(self, runner: Runner, on_demand: bool) -> None:
        standing = runner.standing
        if on_demand and not standing.on_demand and (standing.state.is_active or standing.state.is_up):
            standing.called = "it was up before"
        standing.on_demand = on_demand

    def runner(self, name: str) -> Runner:
        """Raises NotFoundError, InputError (its file is not valid)."""
        plain = plain_name(name)
        runner = self.runners.get(name) or self.runners.get(plain) or self.runners.get(self.aliases.get(plain, ""))
        if runner is None:
            raise self.unknown(name)
        return runner

    def resolve(self, name: str) -> Runner:
        """As ``runner``; an instance of a template comes into being when it is first named."""
        plain = plain_name(name)
        unit = instance_of(self.files, plain) if not {name, plain} & self.runners.keys() else None
        if unit is not None:
            self.admit(unit)
        elif self.aliases.get(plain, plain) not in self.runners and name not in self.runners:
            self._admit_new(plain)
        return self.runner(name)

    def _admit_new(self, name: str) -> None:
        """Its file was written since the last reload: as in systemd, who names it need not say so. InputError."""
        if name in self.files.unreadable or (found := read_new_unit(self.directory, name)) is None:
            return
        unit, findings = found
        if unit is None:
            first = next(one for one in findings if one.severity == "error")
            raise InputError(f"cannot read unit {name}: {first}", where=first.file)
        self.files = replace(self.files, units={**self.files.units, unit.name: unit})
        runner = self.runners[unit.name] = Runner(unit, self.ground)
        runner.standing.desired = unit.name not in self.stopped_by_hand
        runner.standing.disabled = unit.name in self.enablement.disabled
        self.link()

    def admit(self, unit: Unit) -> Runner:
        """One that is there only while it is of use: an instance without a file, or a transient unit."""
        runner = self.runners[unit.name] = Runner(unit, self.ground)
        self.passing.add(unit.name)
        self.link()
        return runner

    @property
    def enablement_file(self) -> str:
        """What a person enabled, disabled, masked."""
        return enablement_file(self.layout)

    @property
    def transient_directory(self) -> str:
        """Files of units that ``unit run`` made."""
        return f"{self.layout.run}/transient"

    def enabled_word(self, name: str) -> str:
        """enabled, disabled, masked, static; transient of one that ``unit run`` made."""
        if self.runners[name].unit.file.startswith(f"{self.transient_directory}/"):
            return "transient"
        return self.enablement.word(name, implied=name in self.files.implied or name in self.passing)

    def read_enablement(self) -> None:
        """Which units start by themselves. Unreadable: as if nobody had said anything."""
        try:
            self.enablement = read_enablement(self.enablement_file)
        except ApplianceError as exc:
            self.trouble("", f"{exc.message}; all units count as enabled")

    def unknown(self, name: str) -> ApplianceError:
        """Why there is no such unit."""
        if plain_name(name) in self.files.unreadable:
            return InputError(f"cannot find unit {name}: its file is not valid, see appliance unit verify")
        if name.endswith("@") and name in self.files.templates:
            return InputError(f"cannot use {name}: it is a template; name an instance of it, such as {name}x")
        plain = plain_name(name)
        guess = did_you_mean(plain, list(self.runners))
        message = f"cannot find unit {plain}: no file {self.directory}/{plain}.toml{guess and '; ' + guess}"
        return NotFoundError(message, where=self.directory)

    def trouble(self, name: str, message: str) -> None:
        """Something could not be done about that unit (or, with an empty name, about any)."""
        runner = self.runners.get(name)
        where = runner.unit.file if runner is not None else self.directory
        finding = Finding(where, 1, 1, "", message, "warning")
        if finding in self.troubles:  # a timer meets the same one again and again
            self.troubles.remove(finding)
        self.troubles.append(finding)
        self.publish("unit", name, trouble=message)

    async def wait(self, runner: Runner, condition: Callable[[], bool]) -> None:
        """Until it holds; looked at whenever that unit turns. Raises UnavailableError when it goes away."""
        while True:
            if condition():
                return
            if not self.is_serving or self.runners.get(runner.name) is not runner:
                raise UnavailableError(f"cannot wait for {runner.name}: it is going away")
            await runner.turned.park()
