"""Where an update stands: the state that is kept before each step, and what the history says. The course stands on it.

Nothing here decides; ``verdict`` and ``course`` do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from appliance.errors import ApplianceError
from appliance.host import clock
from appliance.host.bundle import Bundle
from appliance.host.failpoint import reach
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.update.asking import AskWorker
from appliance.update.choosing import Choice
from appliance.update.gatekeeping import Gatekeeper
from appliance.update.health import HealthSource
from appliance.update.memory import Memory
from appliance.update.picture import HistoryEntry
from appliance.update.product import OURS, Product
from appliance.update.proving import Proving
from appliance.update.record import SlotName
from appliance.update.rollout import Phase, Rollout
from appliance.update.settings import UpdateSettings
from appliance.update.slots import Slots

NO_VERSION = "0"  # of a bundle before its first


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a course is given. ``switch`` is for what is replaced by another process: it does not come back.

    ``take_over`` is for a bundle: what its slots say now is made so, we live on.
    """

    layout: Layout
    bundle: Bundle
    processes: Processes
    memory: Memory
    health: HealthSource
    publish: Callable[..., None]
    ask_worker: AskWorker
    slots: Slots
    switch: Callable[[], Awaitable[None]]
    take_over: Callable[[], Awaitable[None]] | None = None
    product: Product = OURS
    gates: Gatekeeper


class Standing:
    """The state, and what everybody may read of it."""

    def __init__(self, ground: Ground, settings: UpdateSettings) -> None:
        self.settings = settings
        self.product = ground.product
        self.memory = ground.memory
        self.slots = ground.slots
        self.gates = ground.gates
        self.slots_problem = "the slots were not looked at yet"
        self.running: SlotName | None = None
        self.state = Rollout()
        self.begun = False  # what a start has to go on with is known
        self.proving: Proving | None = None
        self.choice: Choice | None = None
        self.last_error = ""
        self.clock_problem = ""
        self.stepped = False  # this start ended a trial: there may be a next step at once
        self.failures = 0
        self.last_check = ""
        self.last_failure = ""  # when
        self.checks = 0  # answered, since we started
        self.errors: dict[str, int] = {}  # per kind, since we started
        self.started = 0.0
        self._ground = ground
        self._layout = ground.layout
        self._bundle = ground.bundle
        self._health = ground.health

    @property
    def version(self) -> str:
        """What runs: of a bundle, the version that ``current`` leads to."""
        if not self.product.is_bundle:
            return self._bundle.version
        entry = self.slots.record.entry(self.running) if self.slots.record and self.running else None
        return entry.version if entry is not None and entry.version else NO_VERSION

    @property
    def channel(self) -> str:
        """The settings', or the one that a person chose since."""
        return self.memory.switched.channel_for(self.settings.channel)

    @property
    def downloads(self) -> str:
        """Where fetched files lie."""
        return self.product.directory(self._layout) + "/download"

    def reach(self, place: str) -> None:
        """A failpoint of this product."""
        reach(f"{self.product.word}.{place}")

    async def _enter(self, phase: Phase, **changes: object) -> None:
        """The next state, durable before anything is done in it. Raises UnavailableError when the store cannot."""
        self.reach(f"{_word(self.state.phase)}.leave")
        self.state = self.state.to(phase, **changes)
        if phase not in (Phase.CHECKING, Phase.AVAILABLE) or not self.state.goal.automatic:
            await self.memory.keep(self.state)
        self._announce()
        self.reach(f"{_word(phase)}.enter")

    async def _enter_anyway(self, phase: Phase, **changes: object) -> None:
        """Once the record is written the store's trouble stops nothing."""
        self.reach(f"{_word(self.state.phase)}.leave")
        self.state = self.state.to(phase, **changes)
        await self._keep_quietly()
        self._announce()
        self.reach(f"{_word(phase)}.enter")

    def _announce(self) -> None:
        if self.state.phase in (Phase.IDLE, Phase.BLESSED):
            return  # the history's entry says it
        version = self.state.offer.version if self.state.offer else ""
        self._publish(self.state.phase.value, version=version, reason=self.state.reason)

    def _publish(self, what: str, **data: str) -> None:
        named = {"product": self.product.name} if self.product.is_bundle else {}
        self._ground.publish("update", what, **named, **data)

    async def _keep_quietly(self) -> None:
        try:
            await self.memory.keep(self.state)
        except ApplianceError as exc:
            self.memory.problem = exc.message

    async def _record(self, outcome: str, reason: str, kind: str = "") -> None:
        state, now = self.state, clock.wall_seconds()
        entry = HistoryEntry(
            id=state.goal.id, time=clock.timestamp(now),
            from_version="" if (since := state.from_version or self.version) == NO_VERSION else since,
            to_version=state.offer.version if state.offer else state.goal.version,
            outcome=outcome, reason=reason, kind=kind,
            size=state.offer.length if state.offer and state.offer.path else 0, fetched=state.fetched,
            seconds=round(max(0.0, now - state.began), 1) if state.began else 0.0,
            by="itself" if state.goal.automatic else "a person",
        )  # fmt: skip
        if self.memory.has(entry.id, outcome):
            return  # we were killed between saying so and going on
        await self.memory.add(entry)
        self._publish(outcome, version=entry.to_version, reason=reason)


def _word(phase: Phase) -> str:
    return phase.value.replace(" ", "-")
