"""What is more to do where we are the init of our own OS image: settings that always count, the machine's services.

On any other host nothing of this is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from appliance import settings as settings_file
from appliance.errors import ApplianceError, ConflictError, InputError
from appliance.host import clock, files, machine_state, mounts, terminal
from appliance.host.layout import Layout
from appliance.late_rooms import late
from appliance.machine import BootFacts, Machine, Network, TimeKeeper, start_machine
from appliance.own_slots import OwnSlots
from appliance.settings import LoadedSettings, Settings
from appliance.supervisor import EventBus, Restart, Service, Supervisor
from appliance.telling import said_lately, say
from appliance.version import built_seconds

if TYPE_CHECKING:
    from appliance.api import Subjects
    from appliance.console import Acts, ScreenPicture

_BAD = ("failed", "backoff", "refused", "denied", "rolled back")
_ERRORS_SHOWN = 2
_SCREEN_LAST_SECONDS = 10.0
_LOG_LINES = 40


def take(facts: BootFacts) -> OwnImage:
    """Make the machine one that we can run on."""
    return OwnImage(Machine(start_machine(facts, say=say, built=built_seconds()), say=say))


class OwnImage:
    """The machine for as long as the process lives; services are made anew for each life of the node."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.own = OwnSlots(machine.started.facts, Layout())
        self.network: Network | None = None

    @property
    def note(self) -> str:
        """What people should know of how the machine came up."""
        started = self.machine.started
        lost = f"the state is only in memory: {started.emergency}" if started.emergency else ""
        return "; ".join([*filter(None, [lost, self.own.note]), *started.troubles])

    # Settings: a first process may not end because of a typing error.

    def settle(self, layout: Layout, loaded: LoadedSettings) -> LoadedSettings:
        """Those of the files; or those that counted last; or the defaults. The findings stay those of the files."""
        if loaded.value is not None:
            self._keep(layout, loaded)
            return loaded
        say(f"{loaded.problem}: the settings that counted last are used")
        try:
            kept = settings_file.load_texts(json.loads(files.read_text(_kept_file(layout))))
            value = kept.require()
        except (ApplianceError, ValueError, TypeError) as error:
            say(f"cannot use what was kept of them: {error}: every setting has its default")
            value = settings_file.load_texts(()).require()
        return replace(loaded, value=value)

    def _keep(self, layout: Layout, loaded: LoadedSettings) -> None:
        text = json.dumps(loaded.texts)
        try:
            if not files.exists(_kept_file(layout)) or files.read_text(_kept_file(layout)) != text:
                files.write_atomic(_kept_file(layout), text.encode(), mode=0o600)
        except ApplianceError as error:
            say(f"{error}: a mistake in the settings will lead to the defaults")

    def apply(self, layout: Layout, loaded: LoadedSettings, old: Settings | None) -> None:
        """What of them is the machine's: at the start, and after each reload that was taken."""
        new = loaded.require()
        if old is not None:
            self._keep(layout, loaded)
        if old is None or old.node.name != new.node.name:
            try:
                machine_state.set_host_name(new.node.name)
                files.write_atomic("/run/appliance/hostname", f"{new.node.name}\n".encode(), durable=False)
            except ApplianceError as error:
                say(str(error))
        if old is not None and old.network != new.network and self.network is not None:
            self.network.reconfigure()

    # Services.

    def services(
        self, *, settings: Callable[[], Settings], subjects: Callable[[], Subjects], bus: EventBus,
        publish: Callable[..., None], stop: Callable[[str], None], supervisor: Callable[[], Supervisor],
        told: Callable[[], Awaitable[object]],
    ) -> list[Service]:  # fmt: skip
        """``stop``: end the life of the node, units too, for that reason. ``told``: until the start was told of."""

        def press() -> None:
            self.machine.how = self.machine.ends["poweroff"]
            stop("power button")

        self.network = Network(lambda: settings().network, publish=publish)
        found = self.machine.services(press=press, network=self.network)
        found += self.own.services(supervisor=supervisor, bus=bus, settings=settings, publish=publish)
        if settings().machine.console == "status":
            found.append(self._console(settings, subjects, bus, told))
        keeper = TimeKeeper(lambda: settings().machine.ntp, publish=publish)
        patient = Restart(first_delay=1.0, delay_max=60.0)
        return [*found, Service(name="clock", main=keeper.run, restart=patient, essential=False)]

    def _console(
        self, settings: Callable[[], Settings], subjects: Callable[[], Subjects], bus: EventBus,
        told: Callable[[], Awaitable[object]],
    ) -> Service:  # fmt: skip
        from appliance.console import Console

        names = terminal.console_names()
        wanted = tuple(f"/dev/{name}" for name in dict.fromkeys((*(() if "tty1" in names else ("tty1",)), *names)))
        console = Console(
            wanted, picture=lambda: self._picture(subjects(), bus), acts=self._acts(settings, subjects, bus),
            lines=said_lately, subscribe=lambda: bus.subscribe(size_max=1),
        )  # fmt: skip
        patient = Restart(first_delay=1.0, delay_max=60.0)
        main = late(lambda: console.run, told, _SCREEN_LAST_SECONDS)  # the first screen shows every room
        return Service(name="console", main=main, restart=patient, essential=False)

    def _picture(self, subjects: Subjects, bus: EventBus) -> ScreenPicture:
        from appliance.api import status_picture
        from appliance.console import ScreenPicture

        started = self.machine.started
        return ScreenPicture(
            status=status_picture(subjects), network=tuple(self._network_texts()), emergency=started.emergency,
            troubles=tuple(started.troubles), errors=tuple(_errors(bus)),
        )  # fmt: skip

    def _network_texts(self) -> Iterator[str]:
        try:
            pictures = self.network.pictures() if self.network is not None else ()
        except ApplianceError as error:
            yield error.message
            return
        for one in pictures:
            asked = f"asks for an address ({one.dhcp})" if one.dhcp and one.dhcp != "bound" else "no address"
            yield f"{one.name} {', '.join(one.addresses) or ('no cable' if not one.carrier else asked)}"

    # The recovery console.

    def _acts(
        self, settings: Callable[[], Settings], subjects: Callable[[], Subjects], bus: EventBus
    ) -> Acts:
        from appliance.console import Acts, rows_of, unit_rows

        async def logs(unit: str) -> str:
            if not unit:
                return "\n".join(said_lately()[-_LOG_LINES:])
            lines = subjects().need_units().logs(unit, lines=_LOG_LINES, since=None, follow=False)
            return "\n".join([str(getattr(line, "text", line)) async for line in lines])

        async def rollback() -> str:
            await subjects().need_update().rollback()
            return "the version before comes back, by a restart"

        def end(how: str) -> str:
            act = subjects().end_machine
            assert act is not None
            act(how)
            return f"{how}: units and services stop in order"

        return Acts(
            password_hash=lambda: settings().machine.recovery_password_hash or "",
            status=lambda: "\n".join(rows_of(self._picture(subjects(), bus))),
            units=lambda: "\n".join(unit_rows(self._picture(subjects(), bus).status["units"], 1000)),
            network=lambda: "\n".join(self._network_texts()),
            logs=logs, rollback=rollback, reset_settings=lambda: _reset_settings(Layout()),
            mount_writable=self._mount_writable, end=end,
        )  # fmt: skip

    def _mount_writable(self) -> str:
        if self.machine.started.emergency:
            raise ConflictError("cannot make the state writable: it is not mounted; a restart tries again")
        there = mounts.mounted_at("/var")
        if there is None:
            raise ConflictError("cannot make the state writable: it is not mounted")
        flags = mounts.REMOUNT | mounts.NO_SUID | mounts.NO_DEVICES
        mounts.mount(there.source, "/var", there.kind, flags, "errors=remount-ro")
        return "the state is mounted for writing"


def _kept_file(layout: Layout) -> str:
    return f"{layout.state}/settings.last.json"


def _reset_settings(layout: Layout) -> str:
    moved = []
    for path in (layout.settings_file, layout.settings_fragments):
        if files.exists(path):
            aside = f"{path}.{int(clock.wall_seconds())}"
            files.rename(path, aside)
            moved.append(aside)
    if not moved:
        raise InputError("cannot reset the settings: there are none")
    return f"kept as {', '.join(moved)}; `reboot` starts with defaults"


def _errors(bus: EventBus) -> Iterator[str]:
    left = _ERRORS_SHOWN
    for event in reversed(bus.history()):
        data: Any = event.data
        if left and data.get("state") in _BAD:
            left -= 1
            what = f"{event.kind} {event.subject}".strip()
            reason = data.get("reason") or data.get("message") or data["state"]
            yield f"{clock.timestamp(event.time)[11:19]} {what}: {reason}"
