"""The update service: checks by itself, and does what a person asks.

One task does all the work (``course``), so no two updates ever run at once; whoever asks sends it a request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import trio

from appliance.errors import ApplianceError, ConflictError, InputError, NotFoundError, UnavailableError
from appliance.host import clock, entropy, files
from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.host.slots import RealSlotCalls
from appliance.schema import format_duration, parse_duration
from appliance.update.asking import AskWorker, worker_of
from appliance.update.course import Course
from appliance.update.explain import Stands, View, explain
from appliance.update.gatekeeping import Doorway, Gatekeeper, Shut
from appliance.update.health import HealthSource
from appliance.update.holds import make_hold
from appliance.update.lot import lock_identity
from appliance.update.memory import Keeper, Memory
from appliance.update.picture import (
    Gate,
    HistoryEntry,
    HoldPicture,
    OfferPicture,
    UpdatePicture,
    WindowPicture,
    picture_progress,
    picture_slots,
)
from appliance.update.policy import format_time
from appliance.update.product import OURS, Product
from appliance.update.progress import read_progress
from appliance.update.record import SlotRecord, other
from appliance.update.rollout import Goal, Phase
from appliance.update.schedule import first_delay, next_delay
from appliance.update.settings import CHANNELS, UpdateSettings, without_secret
from appliance.update.slots import Slots
from appliance.update.standing import NO_VERSION, Ground
from appliance.update.switched import Switched
from appliance.update.windows import DAY_SECONDS, open_until, opens_at

_BUSY = {
    Phase.CLEARING, Phase.WRITING, Phase.VERIFYING, Phase.ARMED, Phase.SWITCHING, Phase.TRIAL, Phase.ROLLING_BACK,
}  # fmt: skip

_SPREAD_SECONDS = 2.0


@dataclass(eq=False)
class _Request:
    goal: Goal
    done: trio.Event = field(default_factory=trio.Event)
    error: ApplianceError | None = None


class Update:
    """The service. ``ask_worker`` is for tests.

    On our own OS image ``slots`` are OsSlots, ``product`` is Product("appliance", "os"), ``switch`` restarts the
    machine. Of a bundle ``take_over`` makes what its slots say so, and ``switch`` is not called.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        settings: UpdateSettings,
        bundle: Bundle,
        processes: Processes,
        keeper: Keeper,
        health: HealthSource,
        switch: Callable[[], Awaitable[None]],
        publish: Callable[..., None],
        ask_worker: AskWorker | None = None,
        slots: Slots | None = None,
        product: Product = OURS,
        take_over: Callable[[], Awaitable[None]] | None = None,
        trust_root: str = "",
        doorway: Doorway | None = None,
    ) -> None:
        self._layout = layout
        self._bundle = bundle
        self._health = health
        self._next_check = ""
        self._resting = trio.Event()  # set while it waits for requests or the next check: nothing is under way
        self._product = product
        memory = Memory(keeper, product.keys)
        self._gates = Gatekeeper(
            memory, lambda: self._course.settings,
            doorway or Doorway(
                identity=lambda: lock_identity(layout, product), holds_directory=product.holds(layout),
                ends_machine=product.kind == "os", product=product.name, publish=publish,
            ),
        )  # fmt: skip
        self._trust_root = trust_root or layout.trust_root
        downloads = product.directory(layout) + "/download"
        ground = Ground(
            layout=layout, bundle=bundle, processes=processes, memory=memory, health=health,
            switch=switch, publish=publish, product=product, take_over=take_over, gates=self._gates,
            ask_worker=ask_worker or worker_of(layout, bundle, processes, product, trust_root),
            slots=slots or Slots(RealSlotCalls(), product.slots(layout), downloads=downloads),
        )  # fmt: skip
        self._course = Course(ground, settings)
        self._requests_send, self._requests = trio.open_memory_channel[_Request | None](8)

    # --- what others ask ---

    def reconfigure(self, settings: UpdateSettings) -> None:
        """New settings after a reload; they count from the next check on."""
        course = self._course
        changed = (settings.repository, settings.channel) != (course.settings.repository, course.settings.channel)
        course.settings = settings
        if changed:
            course.choice = None
        with contextlib.suppress(trio.WouldBlock):  # it is busy with requests and will look at the settings anyway
            self._requests_send.send_nowait(None)

    async def check(self) -> UpdatePicture:
        """Ask the repository; returns when it answered. Raises what it refused."""
        return await self._ask(Goal(entropy.token(8), "check", automatic=False), wait=True)

    async def download(self, version: str = "") -> UpdatePicture:
        """Check and fetch; returns when it is here. Raises what went wrong."""
        return await self._ask(Goal(entropy.token(8), "download", version, automatic=False), wait=True)

    async def apply(
        self, version: str = "", *, force: bool = False, source: str = "", now: bool = False
    ) -> UpdatePicture:
        """Begin to check, fetch, write, switch; returns at once, ``request`` is the id to look for in the history.

        ``source``: a directory or an exported file to take it from, without any network. ``now``: although the window
        is shut, or somebody holds updates back.
        """
        if force and not version:
            raise InputError("cannot force an update: say which version")
        if not self._bundle.frozen and not self._product.is_bundle:
            raise UnavailableError("cannot apply an update: it runs from source, not from a built binary")
        return await self._ask(
            Goal(entropy.token(8), "apply", version, force, False, source=source, now=now), wait=False
        )

    async def channel(self, channel: str = "", *, allow_downgrade: bool = False) -> UpdatePicture:
        """Take that channel from now on (empty: the settings'), and ask what it offers; returns when it answered.

        Nothing older is taken, unless ``allow_downgrade``: then the channel's newest is, once. What the settings name
        later counts again. Raises InputError; NotFoundError: the repository has no such channel.
        """
        course = self._course
        settings = course.settings.channel
        if channel and channel not in CHANNELS:
            raise InputError(f'cannot switch to channel "{channel}": allowed are {", ".join(CHANNELS)}')
        if course.state.phase in _BUSY:
            raise ConflictError(f"cannot switch channels: an update is at {course.state.phase.value}")
        if not course.memory.loaded:
            raise UnavailableError(f"cannot switch channels: {course.memory.problem or 'the store was not read yet'}")
        before = course.memory.switched
        await course.memory.keep_channel(Switched(channel or settings, settings, allow_downgrade))
        course.choice = None
        if self._off_reason():
            return self.picture()
        try:
            return await self.check()
        except NotFoundError:
            await course.memory.keep_channel(before)
            raise

    async def rollback(self) -> UpdatePicture:
        """Begin to go back to the version in the other slot; returns at once, as ``apply`` does."""
        record, running = self._course.slots.record, self._course.running
        if record is None or running is None or not record.entry(other(running)).blessed:
            raise ConflictError("cannot roll back: the other slot holds no blessed version")
        return await self._ask(Goal(entropy.token(8), "rollback", automatic=False), wait=False)

    async def hold(self, duration: str = "", why: str = "", name: str = "") -> UpdatePicture:
        """Hold updates back for that long (a day), with a reason that everybody can see; durable when it returns."""
        seconds = parse_duration(duration) if duration else DAY_SECONDS
        await self._gates.hold(make_hold(name or "person", why, seconds, self._gates.time_here()))
        return self.picture()

    async def unhold(self, name: str = "") -> UpdatePicture:
        """End that hold, or all of people's. Raises NotFoundError."""
        if not await self._gates.unhold(name):
            raise NotFoundError(f"cannot unhold: nobody holds updates back{f' as {name}' if name else ''}")
        self._look_again()
        return self.picture()

    def _look_again(self) -> None:
        """A gate may have opened."""
        if self._course.gates.waiting is not None:
            with contextlib.suppress(trio.WouldBlock):
                self._requests_send.send_nowait(_Request(Goal(entropy.token(8))))

    async def _ask(self, goal: Goal, *, wait: bool) -> UpdatePicture:
        if goal.verb != "rollback" and (off := self._off_reason(goal.source)):
            raise UnavailableError(f"cannot {goal.verb} an update: {off}")
        if self._course.state.phase in _BUSY:
            version = self._course.state.offer.version if self._course.state.offer else ""
            raise ConflictError(f"cannot {goal.verb}: an update to {version} is at {self._course.state.phase.value}")
        request = _Request(goal)
        try:
            self._requests_send.send_nowait(request)
        except trio.WouldBlock:
            raise ConflictError(f"cannot {goal.verb}: too many requests wait already") from None
        if wait:
            await request.done.wait()
            if request.error is not None:
                raise request.error
        return replace(self.picture(), request=goal.id, request_version=goal.version)

    async def wait_resting(self) -> None:
        """Until nothing is under way; what a start found to go on with is done then."""
        await self._resting.wait()

    def _stands(self, shut: Shut | None, open_reason: str) -> Stands:
        if shut is None:
            return Stands(open_reason=open_reason)
        return Stands(reason=shut.reason, opens=shut.opens)

    @property
    def blessed(self) -> bool:
        """Whether the version that runs has proved itself, as far as the slots say."""
        record, running = self._course.slots.record, self._course.running
        return record is not None and running is not None and record.entry(running).blessed

    @property
    def slot(self) -> str:
        """The one that holds what runs, or "none"; of a dropped file, too, once it was taken into a slot."""
        return self._course.running or "none"

    def history(self) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        return self._course.memory.entries

    def picture(self) -> UpdatePicture:
        """``update status``."""
        course = self._course
        record = course.slots.record or SlotRecord()
        state, settings = course.state, course.settings
        offer = state.offer or (course.choice.offer if course.choice else None)
        if offer is not None and state.phase is Phase.IDLE and offer.version == course.version:
            offer = None  # it runs since that check
        off, said = self._off_reason(), course.choice.reason if course.choice else ""
        progress = None
        if offer is not None and state.phase is Phase.DOWNLOADING:
            progress = picture_progress(read_progress(self._product.progress(self._layout)))
        received = progress.present_bytes if progress else 0
        return UpdatePicture(
            enabled=not off,
            reason=off or course.last_error or course.slots_problem or said,
            state=state.phase.value if course.begun else "starting",
            version="" if course.version == NO_VERSION else course.version,
            slot=self.slot,
            trial=state.phase is Phase.TRIAL,
            repository=without_secret(settings.repository),
            channel=course.channel,
            strategy=settings.strategy,
            request=state.goal.id if state.phase is not Phase.IDLE else "",
            request_version=state.goal.version if state.phase is not Phase.IDLE else "",
            available=None if offer is None else OfferPicture(
                version=offer.version, size=offer.length, notes=offer.notes
            ),
            received_bytes=received,
            progress=progress,
            failures=course.failures,
            last_error=course.last_error,
            last_failure=course.last_failure,
            checks=course.checks,
            errors=dict(course.errors),
            slots=picture_slots(record, course.running, course.slots.describe),
            denied=tuple(version for version, _ in record.denied),
            health=course.proving.missing if course.proving else (),
            waiting=f"{waiting.gate}: {waiting.reason}" if (waiting := self._gates.waiting) else "",
            opens=format_time(waiting.opens) if waiting and waiting.opens else "",
            holds=tuple(
                HoldPicture(name=one.name, why=one.why, until=format_time(one.until), source=one.source)
                for one in self._gates.holds()
            ),
            window=self._window_picture(),
            gates=self.explain(),
            product=self._product.name,
            last_check=course.last_check,
            next_check=self._next_check,
            recent=course.memory.entries[:5],
        )  # fmt: skip

    def _window_picture(self) -> WindowPicture | None:
        windows, now = self._course.settings.windows(), self._gates.time_here()
        if not windows:
            return None
        until, opens = open_until(windows, now), opens_at(windows, now)
        return WindowPicture(
            open=until is not None, until=format_time(until) if until is not None else "",
            opens=format_time(opens) if until is None and opens is not None else "",
        )  # fmt: skip

    def explain(self) -> tuple[Gate, ...]:
        """Every gate and how it stands."""
        course = self._course
        try:
            free = files.free_bytes(self._layout.state)
        except ApplianceError:
            free = 0
        return explain(
            View(
                settings=course.settings, trust_root=self._trust_root,
                has_trust_root=files.exists(self._trust_root), slots_problem=course.slots_problem,
                store_problem=course.memory.problem, choice=course.choice, last_error=course.last_error,
                failures=course.failures, next_check=self._next_check,
                denied=tuple(version for version, _ in (course.slots.record or SlotRecord()).denied), free_bytes=free,
                on_trial=course.state.phase is Phase.TRIAL, channel=course.channel, clock_problem=course.clock_problem,
                trial_missing=course.proving.missing if course.proving else (),
                services_missing=self._services_missing(),
                **self._gates_stand(),
            )
        )  # fmt: skip

    def _gates_stand(self) -> dict[str, Stands]:
        gates, settings = self._gates, self._course.settings
        choice = self._course.choice
        version = choice.offer.version if choice and choice.offer else ""
        windows = settings.windows()
        until = open_until(windows, gates.time_here())
        lock = (
            f"{settings.lock.url}, group {settings.lock.group}" if settings.strategy == "lock" else "none is asked for"
        )
        grace = f"people on terminals are given {format_duration(gates.grace())}" if gates.grace() else ""
        return {
            "hold": self._stands(gates.hold_gate(), "nobody holds updates back"),
            "window": self._stands(
                gates.window_gate(), f"open until {format_time(until)}" if until else "no window is waited for"
            ),
            "loop": self._stands(gates.loop_gate(), f"at most {settings.switches_a_day} switches a day by itself"),
            "users": self._stands(
                gates.users_gate(version),
                grace or "nobody is waited for",
            ),
            "lock": self._stands(gates.lock_gate(), "held by us" if gates.holds_lock else lock),
        }  # fmt: skip

    def _off_reason(self, source: str = "") -> str:
        if not self._course.settings.repository and not source:
            return "no repository is set ([update] repository)"
        if not files.exists(self._trust_root):
            return f"there is no trust root {self._trust_root}"
        return ""

    def _services_missing(self) -> tuple[str, ...]:
        ready, missing = self._health.services_ready()
        return () if ready else missing or ("not every essential service is ready",)

    # --- the service ---

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Go on where we stopped, then serve requests and the clock until ``stopping``."""
        self._course.started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._gates.run)
            nursery.start_soon(self._serve)
            task_status.started()
            await stopping.wait()
            nursery.cancel_scope.cancel()  # an update under way is gone on with by the next process

    async def _serve(self) -> None:
        await self._course.begin()
        delay = first_delay(self._course.settings.interval, entropy.uniform(0, 1), stepped=self._course.stepped)
        while True:
            request = await self._wait_request(delay)
            if request is None:  # the settings changed
                delay = first_delay(self._course.settings.interval, entropy.uniform(0, 1))
                continue
            request.error = await self._course.pursue(request.goal)
            request.done.set()
            delay = next_delay(self._course.settings.interval, self._course.failures, entropy.uniform(0, 1))
            waiting = self._gates.waiting
            if waiting is not None and waiting.opens is not None:  # hosts that share a window do not begin at once
                opens = max(0.0, waiting.opens - self._gates.time_here()) + entropy.uniform(0.05, _SPREAD_SECONDS)
                delay = min(delay, opens)

    async def _wait_request(self, delay: float) -> _Request | None:
        frozen = self._bundle.frozen or self._product.is_bundle
        automatic = frozen and not self._off_reason() and self._course.settings.strategy != "manual"
        self._next_check = clock.timestamp(clock.wall_seconds() + delay) if automatic else ""
        self._resting.set()
        with trio.move_on_after(delay if automatic else float("inf")):
            request = await self._requests.receive()
            self._resting = trio.Event()
            return request
        self._resting = trio.Event()
        return _Request(Goal(entropy.token(8)))
