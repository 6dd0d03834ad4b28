"""THE WIRING: builds each object once, lists every service, and turns what the process is asked for into their acts.

Newcomers start here, then ``lives``, which runs ``Node.main`` under trio until it ends in one of three ways: stopped
(units too), switched (units live on, we exec the launcher in the same pid), or given up.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from appliance import settings as settings_file
from appliance.doors import control_door, etcd_doors
from appliance.errors import ApplianceError, ConflictError
from appliance.external import Embedded
from appliance.host import bundle as host_bundle
from appliance.host import clock, known_texts, process_self
from appliance.host.bundle import Bundle
from appliance.host.disk import FileDisk
from appliance.host.layout import Layout
from appliance.host.notify import Notifier
from appliance.host.processes import Processes
from appliance.host.signals import HANGUP, INTERRUPT, Signals
from appliance.host.signals import name as signal_name
from appliance.host.sockets import Listener
from appliance.keeping import OURS, StoreKeeper
from appliance.late_rooms import OnUse, last, late
from appliance.settings import LoadedSettings, Settings
from appliance.store import Store
from appliance.supervisor import EventBus, Main, Restart, Service, State, Subscription, Supervisor
from appliance.telling import differences, say, tell_fault
from appliance.units import Units
from appliance.update import settle

if TYPE_CHECKING:
    from appliance.api import Api, NodePicture, SettingsPicture, Subjects
    from appliance.etcdapi import EtcdApi
    from appliance.own_image import OwnImage
    from appliance.update import Bundles, Update

EXIT_FORCED = 1
EXIT_GAVE_UP = 8
UNITS_GRACE_SECONDS = 600.0  # units have their own grace; this is for a bug in the code that counts it
UNITS_FIRST_SECONDS = 1.0  # so long other rooms let them go before at most
AT_LAST_SECONDS = 10.0  # so long what nobody waits for lets everything else go before
QUIET_STATES = {"waiting", "starting", "stopping"}


class Goal(enum.Enum):
    """How this life is to end."""

    STOP = "stop"  # units too
    SWITCH = "switch"  # units live on


@dataclass(frozen=True, kw_only=True)
class Reloaded:
    """What became of reading the settings anew."""

    changed: tuple[str, ...]  # "update.channel: stable -> beta"
    restart_needed: tuple[str, ...]  # of those, what counts only from the next start on
    units: Any  # the plan that the unit files asked for; None when they could not be read
    problems: tuple[str, ...]  # what could not be done


class Node:
    """All parts of one life, and what is asked of them together. Also the update's HealthSource."""

    def __init__(
        self,
        layout: Layout,
        config_file: str | None,
        loaded: LoadedSettings,
        bundle: Bundle,
        notifier: Notifier,
        signals: Signals,
        machine: OwnImage | None = None,
    ) -> None:
        self.layout = layout
        self.config_file = config_file
        self.bundle = bundle
        self.notifier = notifier
        self.signals = signals
        self.machine = machine
        self.settings: Settings = loaded.require()  # in force
        self.loaded = loaded  # where those came from
        self.latest = loaded  # as last read, good or not
        self.loaded_time = clock.wall_seconds()
        self.started = clock.wall_seconds()
        self.started_monotonic = clock.monotonic_seconds()
        self.goal: Goal | None = None
        self._forced = False
        self._units_told = trio.Event()
        self._end_asked = trio.Event()
        self._hangup = trio.Event()
        self.told = trio.Event()  # set when it was said how the start went
        self._reloading = trio.Lock()
        self.bus = EventBus()
        self.processes = Processes(bundle.spawn_program)
        kept = self.settings.store
        data = settle(layout, version=bundle.version, trial=bundle.trial, say=say)
        self.store = Store(FileDisk(data), publish=self.publish, retention=kept.retention(), quota=kept.quota)
        self.external = self.settings.store.external_store()  # in its place, when that is wanted
        keeper = StoreKeeper(self.external or Embedded(self.store), lambda: self.supervisor.wait_outcome("store"))
        self.units = Units(
            layout=layout,
            settings=self.settings.units,
            processes=self.processes,
            keeper=keeper,
            bus=self.publish,
        )
        self.keeper = keeper
        self.supervisor = Supervisor(self._services(), publish=self.publish, on_fault=tell_fault)

    # Rooms that nobody needs for the units to be up: loaded by the services that use them, after the first start.

    @cached_property
    def update(self) -> Update:
        """Other versions of ourselves."""
        from appliance.update import Product, Update

        own = self.machine.own if self.machine is not None else None
        return Update(
            layout=self.layout, settings=self.settings.update, bundle=self.bundle, processes=self.processes,
            keeper=self.keeper, health=self, switch=self.switch, publish=self.publish,
            slots=own.slots if own is not None else None, product=Product(kind="os" if own is not None else "binary"),
        )  # fmt: skip

    @cached_property
    def bundles(self) -> Bundles:
        """Of unit files."""
        from appliance.update import Bundles

        return Bundles(
            layout=self.layout, settings=lambda: self.settings.update.bundle, bundle=self.bundle,
            processes=self.processes, keeper=self.keeper, units=self.units, publish=self.publish,
        )  # fmt: skip

    @cached_property
    def etcd(self) -> EtcdApi:
        """The store's other door."""
        from appliance.etcdapi import EtcdApi, identity_of

        urls = (f"unix://{self.layout.etcd_socket}",)
        identity = identity_of(self.settings.node.name, client_urls=urls)
        return EtcdApi(self.store, identity, unix_path=self.layout.etcd_socket, reserved=OURS)

    @cached_property
    def api(self) -> Api:
        """The control socket and the status endpoint."""
        from appliance.api import Api

        return Api(self.subjects)

    def _late(
        self, main: Callable[[], Callable[..., Awaitable[None]]], doors: Callable[[], Iterable[Listener]] | None = None
    ) -> Main:
        """Loading a room holds up the units for a moment: not before they are on their way."""
        return late(main, self.units.wait_begun, UNITS_FIRST_SECONDS, doors)

    def _control_door(self) -> Iterator[Listener]:
        return control_door(self.layout)

    def _services(self) -> list[Service]:
        needs_processes = frozenset({"processes"})
        patient = Restart(first_delay=0.2, delay_max=10.0)
        # A version on trial is not ready before all of it is: what is loaded last may be what is wrong with it.
        as_last = self._late if self.bundle.trial else lambda main: last(main, self.told.wait)
        etcdapi = Service(
            name="etcdapi",
            main=late(lambda: self._run_etcd, self.told.wait, AT_LAST_SECONDS, self._etcd_doors),
            needs=frozenset({"store"}),
            restart=patient,
            essential=False,
        )
        return [
            Service(name="processes", main=self.processes.run, restart=Restart(first_delay=0.1, delay_max=5.0)),
            Service(name="store", main=self.external.run if self.external else self.store.run, start_timeout=600.0),
            Service(
                name="units",  # does not need the store: trouble there never stops a unit (law 2)
                main=self._run_units,
                needs=needs_processes,
                restart=patient,
                start_timeout=120.0,
                stop_grace=UNITS_GRACE_SECONDS,
            ),
            Service(
                name="update", main=as_last(lambda: self.update.run), needs=needs_processes, start_timeout=120.0
            ),
            Service(
                name="bundles", main=as_last(lambda: self.bundles.run), needs=frozenset({"units"}), essential=False
            ),
            Service(name="api-control", main=self._late(lambda: self.api.control, self._control_door), restart=patient),
            Service(name="api-status", main=self._late(lambda: self.api.status), restart=patient, essential=False),
            *([] if self.external else [etcdapi]),
            Service(name="settings", main=self._run_settings, restart=patient, essential=False),
            Service(name="parent", main=self._run_parent, restart=patient, essential=False),
            *self._machine_services(),
        ]

    def _machine_services(self) -> list[Service]:
        if self.machine is None:
            return []
        return self.machine.services(
            settings=lambda: self.settings, subjects=lambda: self.subjects, bus=self.bus, publish=self.publish,
            stop=lambda reason: self.end(Goal.STOP, reason), supervisor=lambda: self.supervisor, told=self.told.wait,
        )  # fmt: skip

    @cached_property
    def subjects(self) -> Subjects:
        """What the API tells of, and may ask."""
        from appliance.api import Subjects

        face = None
        if self.external:
            from appliance.external import ExternalFace

            face = ExternalFace(self.external)
        return Subjects(
            control_socket=self.layout.control_socket,
            node=self.picture,
            status_settings=lambda: self.settings.status,
            settings=self.settings_picture,
            settings_document=lambda: settings_file.as_document(self.settings),
            supervisor=self.supervisor,
            bus=self.bus,
            units=self.units,
            store=face or self.store,
            look_at_store=face.look if face else None,
            attach=(lambda operations: None) if self.external else lambda operations: self.etcd.attach(operations),
            update=OnUse(lambda: self.update),
            bundles=OnUse(lambda: self.bundles),
            findings=lambda: self.latest.findings,
            reload=self.reload,
            shutdown=lambda: self.end(Goal.STOP, "shutdown was asked for"),
            end_machine=self.end_machine,
        )

    # What is so.

    def picture(self) -> NodePicture:
        """Who runs here."""
        from appliance.api import NodePicture

        return NodePicture(
            name=self.settings.node.name,
            version=self.bundle.version,
            pid=process_self.pid(),
            slot=self.update.slot if self.bundle.slot == "none" and "update" in vars(self) else self.bundle.slot,
            trial=self.bundle.trial and not self.update.blessed,
            started=self.started,
            root=self.layout.root,
            uptime_seconds=clock.monotonic_seconds() - self.started_monotonic,
            note="; ".join(filter(None, (self.bundle.note, self.machine.note if self.machine is not None else ""))),
        )

    def settings_picture(self) -> SettingsPicture:
        """Which settings are in force, and what is wrong with the file as it stands."""
        from appliance.api import SettingsPicture

        file = self.config_file or self.layout.settings_file
        return SettingsPicture(file=file, loaded=self.loaded_time, problem=self.latest.problem)

    def services_ready(self) -> tuple[bool, tuple[str, ...]]:
        """HealthSource."""
        return self.supervisor.essential_ready()

    def unit_health(self) -> Mapping[str, bool]:
        """HealthSource."""
        return self.units.health()

    def publish(self, kind: str, subject: str, **data: str | int | float | bool | None) -> None:
        """To whoever listens, and what people care for to stderr."""
        self.bus.publish(kind, subject, **data)
        if data.get("state") in QUIET_STATES:
            return
        rest = {name: value for name, value in data.items() if name not in ("state", "reason", "message")}
        words = [str(data.get("state") or ""), str(data.get("message") or "")]
        words += [f"{name}={value}" for name, value in rest.items() if value not in ("", None)]
        if data.get("reason"):
            words.append(f"({data['reason']})")
        say(f"{kind} {subject}".strip() + f": {' '.join(filter(None, words))}")

    # What is asked.

    def end(self, goal: Goal, reason: str) -> None:
        """Begin the end. A stop wins over a switch that has not begun; what has begun goes on."""
        if self.goal is None:
            self.goal = goal
            say(f"{goal.value}: {reason}")
            self._end_asked.set()

    def end_machine(self, how: str, reason: str = "") -> None:
        """By "reboot" or "poweroff", after all has stopped in order. Raises ConflictError: it is not ours."""
        if self.machine is None:
            raise ConflictError(f"cannot {how}: another init runs this host; ask that one")
        self.machine.machine.how = self.machine.machine.ends[how]
        self.end(Goal.STOP, reason or f"{how} was asked for")

    async def switch(self) -> None:
        """For update: become what the slot record says now, units untouched. Returns; the end follows.

        Raises InputError when the settings as they stand would keep any version from starting.
        """
        settings_file.load(self.layout, self.config_file).require()
        if self.machine is not None:
            return self.end_machine("reboot")
        self.end(Goal.SWITCH, "another version takes over, units keep running")

    async def reload(self) -> Reloaded:
        """Read settings and unit files anew, and do what they ask. Raises InputError: then the old ones stay."""
        async with self._reloading:
            self.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self.notifier.ready(self._status_line())

    async def _reload(self) -> Reloaded:
        self.latest = settings_file.load(self.layout, self.config_file)
        if self.latest.value is None:
            self.publish("settings", self.settings_picture().file, state="refused", reason=self.latest.problem)
            self.latest.require()
        old, self.settings, self.loaded = self.settings, self.latest.require(), self.latest
        self.loaded_time = clock.wall_seconds()
        changed = differences(settings_file.as_document(old), settings_file.as_document(self.settings))
        file = self.settings_picture().file
        self.publish("settings", file, state="loaded", reason="; ".join(changed) or "nothing changed")
        if old.update != self.settings.update:
            self.update.reconfigure(self.settings.update)
            self.bundles.reconfigure()
        if self.machine is not None:
            self.machine.apply(self.layout, self.loaded, old)
        self.store.retain(self.settings.store.retention())
        self.store.quota = self.settings.store.quota
        problems: list[str] = []
        if old.store.listen != self.settings.store.listen and not self.external:
            await self.supervisor.restart("etcdapi", "settings changed")
        if old.status != self.settings.status:
            await self.supervisor.restart("api-status", "settings changed")
            await self.supervisor.wait_outcome("api-status")
            if self.supervisor.state("api-status") is not State.READY:
                problems.append(f"status endpoint: {self._reason('api-status')}")
        try:
            plan = await self.units.reload(dry_run=False)
        except ApplianceError as error:
            plan = None
            problems.append(f"unit files: {error}")
        live = (
            "node.", "status.", "store.compaction", "store.keep_", "store.listen.", "store.quota", "update.",
            "network.",
        )  # fmt: skip
        return Reloaded(
            changed=changed,
            restart_needed=tuple(line for line in changed if not line.startswith(live)),
            units=plan,
            problems=tuple(problems),
        )

    def _reason(self, service: str) -> str:
        return next(picture.reason for picture in self.supervisor.pictures() if picture.name == service)

    # What is done.

    async def main(self) -> int:
        """Live; returns the exit code. With goal SWITCH the caller goes on."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey_signals, nursery)
            nursery.start_soon(self._end_when_asked)
            await self.supervisor.run()
            nursery.cancel_scope.cancel()
        if self.supervisor.gave_up is not None:
            say(f"given up: {self.supervisor.gave_up.name}: {self.supervisor.gave_up.reason}; units keep running")
            return EXIT_GAVE_UP
        if self._forced:
            say("forced: units that were not down were killed")
            return EXIT_FORCED
        say("stopped" if self.goal is Goal.STOP else "all but the units are down")
        return 0

    async def _obey_signals(self, nursery: trio.Nursery) -> None:
        while True:
            number = await self.signals.wait()
            if self.goal is Goal.SWITCH:
                self.signals.put_back(number)  # for the next life
                return
            if number == HANGUP:
                self._hangup.set()
            elif number == INTERRUPT and self.machine is not None and self.goal is None:
                self.end_machine("reboot", "ctrl-alt-del")
            elif number == INTERRUPT and self.goal is not None:
                self._forced = True
                self._units_told.set()  # cancelled after being told to stop, they kill what is left
                nursery.cancel_scope.cancel()
            else:
                self.end(Goal.STOP, signal_name(number))

    async def _run_settings(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Reads the settings anew at each SIGHUP; a bug in that ends this service, not the node."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reload_at_hangups)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _reload_at_hangups(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup = trio.Event()
            try:
                outcome = await self.reload()
                for line in outcome.problems:
                    say(line)
            except ApplianceError as error:
                say(f"{error}\nthe settings in force stay")

    async def _end_when_asked(self) -> None:
        await self._end_asked.wait()
        if self.goal is Goal.STOP:
            host_bundle.dismiss_guard(self.bundle)  # first: it must not take our end for a crash
            self.notifier.stopping("stopping units and services")
            await self.supervisor.wait_outcome("units")  # only what was adopted can be stopped
        else:
            self.notifier.reloading()
        async with trio.open_nursery() as nursery:  # those that write to the store before it; the API tells how it goes
            nursery.start_soon(self.supervisor.stop, "update")
            nursery.start_soon(self.supervisor.stop, "units")
        await self.supervisor.stop_all()

    async def _run_units(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Units stop only when a person or init stops us; any other end of theirs leaves them to be adopted."""
        told = self._units_told = trio.Event()

        async def tell() -> None:
            await stopping.wait()
            if self.goal is None:  # what units need is lost: cancelled, they stay as they are until the next life
                nursery.cancel_scope.cancel()
                return
            if self.goal is Goal.SWITCH:
                self.units.detach()
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            await self.units.run(stopping=told, task_status=task_status)
            nursery.cancel_scope.cancel()

    def _etcd_doors(self) -> Iterator[Listener]:
        self._etcd_settings = self.settings.store.listen  # of this life: they may change before it is loaded
        return etcd_doors(self.layout, self._etcd_settings)

    async def _run_etcd(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[None], listeners: Sequence[Listener]
    ) -> None:
        self.etcd.listen = self._etcd_settings.listeners()
        await self.etcd.run(stopping=stopping, task_status=task_status, listeners=listeners)

    async def _run_parent(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Tells whoever started us how we are: on stderr, and by sd_notify."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, self.bus.subscribe())
            nursery.start_soon(self._pat_watchdog)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _announce(self, events: Subscription) -> None:
        await self.supervisor.wait_settled()
        if self.goal is None:
            process_self.settle_garbage()
            known_texts.forget()
            line = self._status_line()
            self.notifier.ready(line)
            say(f"{line}; status page: {self._status_page()}")
        self.told.set()
        async for event in events:
            if event.kind == "service" and self.goal is None and line != (line := self._status_line()):
                self.notifier.status(line)
                say(line)

    def _status_line(self) -> str:
        ready, reasons = self.supervisor.essential_ready()
        return "ready" if ready else f"not ready: {'; '.join(reasons)}"

    def _status_page(self) -> str:
        if self.settings.status.listen == "off":
            return "off"
        address = self.api.status_address
        return f"http://{address}/" if address else "not listening, see `appliance status`"

    async def _pat_watchdog(self) -> None:
        while self.notifier.watchdog_seconds is not None:
            self.notifier.alive()
            await trio.sleep(self.notifier.watchdog_seconds / 2)
