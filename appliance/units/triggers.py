"""What starts units that are not up all the time: timers, sockets and paths, all behind one door.

A trigger of a unit's own file works while nobody has stopped that unit by hand; one in a file of its own works while
that file's unit is up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from appliance.errors import ApplianceError
from appliance.host.holder import Holder
from appliance.host.inotify import Inotify
from appliance.units.activation import SocketGround, Sockets
from appliance.units.calling import CallUnit
from appliance.units.connections import Connections
from appliance.units.path_memory import PathMemory
from appliance.units.paths import PathGround, Paths
from appliance.units.pictures import TriggerPicture
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.timer_memory import TimerFiles
from appliance.units.timers import Clocks, Timer, Timers, is_busy
from appliance.units.trigger_sections import PathSection, SocketSection, TimerSection
from appliance.units.unit_file import Unit


class Trigger(Protocol):
    """One table, or all the sockets of one file, and the unit that it starts."""

    name: str
    target: str

    def arm(self, state: str) -> None: ...  # noqa: D102
    def disarm(self) -> None: ...  # noqa: D102
    def turned(self, state: str) -> None: ...  # noqa: D102
    def rested(self) -> None: ...  # noqa: D102
    def picture(self) -> TriggerPicture: ...  # noqa: D102


_Sections = tuple[TimerSection | SocketSection | PathSection, ...]


class Triggers:
    """Made anew with each life of the units service; nothing works before ``begin``."""

    def __init__(
        self,
        register: Register,
        clocks: Clocks,
        *,
        call: CallUnit,
        mark: Callable[[tuple[str, ...]], None],
        host: str = "",
    ) -> None:
        self._register = register
        self._begun = False
        self._own: dict[str, tuple[_Sections, list[Trigger]]] = {}
        self._of_target: dict[str, list[Trigger]] = {}
        layout = register.layout
        self._call = call
        self._sockets: SocketGround | None = None  # from begin on
        self._paths: PathGround | None = None
        self.connections = Connections(register, mark)
        self._timers = Timers(
            clocks=clocks,
            files=TimerFiles(f"{layout.run}/timers", f"{layout.state}/timers"),
            call=call,
            is_called=self._is_called,
            trouble=register.trouble,
            host=host,
        )

    def begin(self) -> None:
        """Units are loaded and adopted: from now on triggers work."""
        ground = self._register.ground
        assert ground.holder is not None
        ground.descriptors_of = self.descriptors_of
        ground.call_of = lambda unit: self.connections.call_of(unit.name)
        self._sockets = SocketGround(
            poller=ground.processes.poller,
            holder=ground.holder,
            call=self._call,
            is_called=self._is_called,
            connect=self.connections.connect,
            connections=self.connections.count,
            trouble=self._register.trouble,
        )
        memory = PathMemory(f"{self._register.layout.run}/paths")
        inotify = Inotify(ground.processes.poller)
        self._paths = PathGround(inotify=inotify, memory=memory, call=self._call, trouble=self._register.trouble)
        ground.holder.on_lost.append(self._hold_again)
        self._begun = True
        self.sync()
        self._drop_strays(ground.holder)

    def sync(self) -> None:
        """Units came, went or changed."""
        if not self._begun or self._register.going_down:
            return
        with self._timers.batch():
            for name in [name for name in self._own if name not in self._register.runners]:
                self._remove(name)
            for name, runner in self._register.runners.items():
                sections = runner.unit.triggers
                if self._own.get(name, ((), []))[0] != sections:
                    self._remove(name)
                    if sections:
                        self._add(runner.unit, sections)
                self._arm(runner)

    def turned(self, runner: Runner) -> None:
        """That unit came into another state."""
        state = runner.state.value
        self.connections.turned(runner)
        for trigger in self._of_target.get(runner.name, ()):
            trigger.turned(state)
        self._arm(runner)

    def looked(self, runner: Runner) -> None:
        """What is to become of that unit was decided."""
        if not runner.standing.called and not is_busy(runner.state.value):
            for trigger in self._of_target.get(runner.name, ()):
                trigger.rested()
        self.connections.looked(runner)
        self._arm(runner)

    def reset(self, name: str) -> None:
        """A person says that what failed may be tried again."""
        for trigger in (*self._own.get(name, ((), []))[1], *self._of_target.get(name, ())):
            if isinstance(trigger, Sockets | Paths):
                trigger.reset()
        self.sync()

    def descriptors_of(self, unit: Unit) -> tuple[tuple[str, int], ...]:
        """The sockets that this unit is started with."""
        named = [one for name in unit.service.sockets for one in self._own.get(name, ((), []))[1]]
        more = (one for one in named if getattr(one, "target", "") != unit.name)
        found = (one for one in (*self._of_target.get(unit.name, ()), *more) if isinstance(one, Sockets))
        return tuple(pair for one in found for pair in one.descriptors())

    def pictures(self, name: str) -> tuple[TriggerPicture, ...]:
        """Of the triggers in that unit's file, and of those elsewhere that start it."""
        own = self._own.get(name, ((), []))[1]
        others = [one for one in self._of_target.get(name, ()) if one not in own]
        return tuple(one.picture() for one in (*own, *others))

    def end(self, *, detached: bool) -> None:
        """The units service ends; ``detached``: another daemon takes over what we watch."""
        self._begun = False
        self._timers.close(forget=not detached)
        self.connections.end()
        for _, triggers in self._own.values():
            for trigger in triggers:
                if isinstance(trigger, Sockets | Paths):
                    if detached:
                        trigger.release()
                    else:
                        trigger.disarm()
        self._own.clear()
        self._of_target.clear()

    def _add(self, unit: Unit, sections: _Sections) -> None:
        made: list[Trigger] = []
        for section in sections:
            if isinstance(section, TimerSection):
                made.append(self._timers.add(unit.name, unit.target_of(section), section))
        assert self._sockets is not None
        assert self._paths is not None
        if (path := unit.document.path) is not None:
            made.append(Paths(unit.name, unit.target_of(path), path, self._paths))
        for target in dict.fromkeys(unit.target_of(one) for one in unit.document.socket):
            group = tuple(one for one in unit.document.socket if unit.target_of(one) == target)
            key = unit.name if target == unit.target_of(unit.document.socket[0]) else f"{unit.name}+{target}"
            made.append(Sockets(key, target, group, self._sockets))
        self._own[unit.name] = (sections, made)
        for trigger in made:
            self._of_target.setdefault(trigger.target, []).append(trigger)

    def _remove(self, name: str) -> None:
        for trigger in self._own.pop(name, ((), []))[1]:
            if isinstance(trigger, Sockets) and name in self._register.runners:
                trigger.release()  # what its new file still names goes on without a gap
            else:
                trigger.disarm()
            self._of_target[trigger.target].remove(trigger)
            if not self._of_target[trigger.target]:
                del self._of_target[trigger.target]
            if isinstance(trigger, Timer):
                self._timers.remove(trigger)

    def _arm(self, runner: Runner) -> None:
        for trigger in self._own.get(runner.name, ((), []))[1]:
            if self._should_work(runner):
                trigger.arm(self._state_of(trigger.target))
            else:
                trigger.disarm()

    def _should_work(self, runner: Runner) -> bool:
        if not self._begun or runner.vanished or runner.standing.disabled or not runner.standing.desired:
            return False
        return runner.unit.has_process or runner.state.is_up

    def _hold_again(self) -> None:
        """The holder was killed: we still have everything."""
        for _, triggers in self._own.values():
            for trigger in triggers:
                if isinstance(trigger, Sockets):
                    try:
                        trigger.hold()
                    except ApplianceError as exc:
                        self._register.trouble(trigger.name, exc.message)

    def _drop_strays(self, holder: Holder) -> None:
        """Sockets of units that went while no daemon lived."""
        try:
            known = {f"socket/{one.name}" for _, made in self._own.values() for one in made}
            for key in holder.keys():  # noqa: SIM118 (it is no dict)
                if key.startswith("socket/") and key not in known:
                    holder.drop(key)
        except ApplianceError as exc:
            self._register.trouble("", exc.message)

    def _is_called(self, name: str) -> bool:
        runner = self._register.runners.get(name)
        return runner is not None and bool(runner.standing.called)

    def _state_of(self, name: str) -> str:
        runner = self._register.runners.get(name)
        return runner.state.value if runner is not None else ""
