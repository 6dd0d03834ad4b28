"""What a machine of our own image needs for as long as it runs, and its end: services for the supervisor."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import UnavailableError
from appliance.host import failpoint, kernel_modules, power
from appliance.host.power import End
from appliance.machine.network import Network
from appliance.machine.starting import Started
from appliance.supervisor import Restart, Service

_GRACE_SECONDS = 10.0
_FEEDS_PER_TIMEOUT = 4


class Machine:
    """``how`` says what becomes of the machine when the appliance has stopped in order."""

    def __init__(self, started: Started, *, say: Callable[[str], None]) -> None:
        self.started = started
        self.how = End.POWER_OFF
        self._say = say
        self._watchdog = power.inherited_watchdog()
        power.keep_ctrl_alt_del()

    ends = {"reboot": End.REBOOT, "poweroff": End.POWER_OFF}  # noqa: RUF012

    def services(self, *, press: Callable[[], None], network: Network) -> list[Service]:
        """``press``: somebody pressed the power button."""
        patient = Restart(first_delay=1.0, delay_max=30.0)

        async def button(*, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
            await self._watch_button(press, stopping, task_status)

        found = [
            Service(name="hardware", main=self._load_modules, restart=patient, essential=False, start_timeout=120.0),
            Service(name="power-button", main=button, needs=frozenset({"hardware"}), restart=patient, essential=False),
        ]
        found.append(Service(name="network", main=network.run, restart=patient, essential=False))
        if self._watchdog is not None:
            found.append(Service(name="watchdog", main=self._feed, restart=Restart(first_delay=0.1, delay_max=1.0)))
        return found

    def end(self, *, given_up: bool = False) -> None:
        """After everything of ours has stopped; ``given_up``: it cannot go on, a restart may. Never returns."""
        if given_up:
            self.how = End.REBOOT
        power.end_processes(_GRACE_SECONDS)
        for trouble in power.unmount_all():
            self._say(trouble)
        self._say(f"{self.how.name.lower().replace('_', ' ')}")
        power.end_machine(self.how)

    async def _load_modules(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Drivers for what the initramfs had no need of; nothing waits for them but who needs them."""
        for trouble in await trio.to_thread.run_sync(_load_for_hardware):
            self._say(trouble)
        task_status.started()
        await stopping.wait()

    async def _feed(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Goes on while stopping, too: an end that hangs is cut off by the hardware, counted from our last word."""
        watchdog = self._watchdog
        assert watchdog is not None
        watchdog.feed()
        task_status.started()
        while not stopping.is_set():
            with trio.move_on_after(watchdog.timeout_seconds / _FEEDS_PER_TIMEOUT):
                await stopping.wait()
            failpoint.reach("watchdog-fed")
            watchdog.feed()

    async def _watch_button(
        self, press: Callable[[], None], stopping: trio.Event, task_status: trio.TaskStatus[None]
    ) -> None:
        descriptors = power.open_power_buttons()
        async with trio.open_nursery() as nursery:
            for descriptor in descriptors:
                nursery.start_soon(self._wait_pressed, descriptor, press)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _wait_pressed(self, descriptor: int, press: Callable[[], None]) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                if power.power_pressed(descriptor):
                    self._say("the power button was pressed")
                    press()
        except OSError as exc:  # the device is gone
            raise UnavailableError(f"cannot watch the power button: {exc.strerror}") from exc
        finally:
            power.close(descriptor)


def _load_for_hardware() -> tuple[str, ...]:
    index = kernel_modules.read_index()
    return kernel_modules.load(index, index.for_hardware(kernel_modules.modaliases()))
