"""The two root partitions of our own image, put together with what runs: for the update, and for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.slots import RealSlotCalls
from appliance.machine import BootFacts, GoodStart, Scrub
from appliance.settings import Settings
from appliance.supervisor import EventBus, Restart, Service, Supervisor
from appliance.update import OsSlots


class OwnSlots:
    """``slots`` is what the update writes."""

    def __init__(self, facts: BootFacts, layout: Layout) -> None:
        self.scrub: Scrub | None = None
        self.slots = OsSlots(
            RealSlotCalls(),
            f"{layout.state}/os",  # not where the launcher would look for slots
            running="b" if facts.slot == "b" else "a",
            running_entry=facts.entry,
            devices={"a": f"/dev/{facts.root_a}", "b": f"/dev/{facts.root_b}"},
            esp_device=f"/dev/{facts.esp}",
        )

    @property
    def note(self) -> str:
        """What is wrong with the root that runs."""
        return self.scrub.bad if self.scrub is not None else ""

    def of_bundle(self, bundle: Bundle) -> Bundle:
        """The launcher knows nothing of partitions."""
        return replace(bundle, slot=self.slots.running, trial=self.slots.trial)

    def services(
        self, *, supervisor: Callable[[], Supervisor], bus: EventBus, settings: Callable[[], Settings],
        publish: Callable[..., None],
    ) -> list[Service]:  # fmt: skip
        """For the supervisor."""

        async def wait_ready() -> None:
            events = bus.subscribe()
            while not supervisor().essential_ready()[0]:
                async for event in events:
                    if event.kind == "service":
                        break

        good = GoodStart(
            wait_ready=wait_ready, is_ready=lambda: supervisor().essential_ready()[0],
            settle=lambda: settings().update.health.settle, keep=self.slots.keep_trying, publish=publish,
        )  # fmt: skip
        self.scrub = Scrub(begin=good.settled.wait, publish=publish)
        patient = Restart(first_delay=1.0, delay_max=60.0)
        return [
            Service(name="good-start", main=good.run, restart=patient, essential=False),
            Service(name="root-scrub", main=self.scrub.run, restart=patient, essential=False),
        ]
