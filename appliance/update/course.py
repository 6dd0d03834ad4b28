"""The course of an update: every step of it, the state that is kept before each, and what a starting process does.

The order on the disk is that of ``slots``; what comes first after a start is decided by ``rollout.decide_start``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import trio

from appliance.errors import ApplianceError, InputError, UnavailableError, UntrustedError
from appliance.host import clock, files
from appliance.host.bundle import Bundle, dismiss_guard
from appliance.host.failpoint import reach
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.host.slots import disk_bytes
from appliance.update.asking import AskWorker
from appliance.update.choosing import Choice, choose, choose_asked
from appliance.update.explain import ROOM_BYTES_SPARE
from appliance.update.health import HealthSource
from appliance.update.lot import host_lot
from appliance.update.memory import Memory
from appliance.update.offer import Offer, download_path, parse_offer
from appliance.update.picture import HistoryEntry
from appliance.update.policy import parse_policy
from appliance.update.progress import PROGRESS_FILE
from appliance.update.proving import Proving
from appliance.update.record import SlotName, SlotRecord, other
from appliance.update.rollout import Facts, Goal, Next, Phase, Rollout, decide_start
from appliance.update.seeding import find_place
from appliance.update.settings import UpdateSettings
from appliance.update.slots import Slots
from appliance.update.transport import taken_from
from appliance.update.version import parse_version

_GUARD_SPARE_SECONDS = 60  # the guard waits longer than we do: it is for those who hang
_STORE_SECONDS = 10.0  # to open or to fail is waited for anyway; this is for a store that fails and tries again
_SWITCH_RETRY_SECONDS = 10.0


class Course:
    """One task uses it: ``begin`` once, then ``pursue`` for each goal. Everybody may read it."""

    def __init__(
        self,
        *,
        layout: Layout,
        settings: UpdateSettings,
        bundle: Bundle,
        processes: Processes,
        memory: Memory,
        health: HealthSource,
        switch: Callable[[], Awaitable[None]],
        publish: Callable[..., None],
        ask_worker: AskWorker,
        slots: Slots,
    ) -> None:
        self.settings = settings
        self.memory = memory
        self.slots = slots
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
        self.started = 0.0
        self._layout = layout
        self._bundle = bundle
        self._processes = processes
        self._health = health
        self._switch = switch
        self._publish = publish
        self._ask_worker = ask_worker

    @property
    def channel(self) -> str:
        """The settings', or the one that a person chose since."""
        return self.memory.switched.channel_for(self.settings.channel)

    def _settings_here(self) -> UpdateSettings:
        return taken_from(replace(self.settings, channel=cast(Any, self.channel)), self.state.goal.source)

    async def pursue(self, goal: Goal) -> ApplianceError | None:
        """Do what was asked, as far as it goes; the error is recorded already. A switch does not return."""
        self.state = Rollout(goal=goal, from_version=self._bundle.version)  # whoever asked looks for its id
        try:
            await self._work(goal)
            self.last_error, self.failures = "", 0
        except ApplianceError as exc:
            self.last_error = exc.message
            self.failures += 1
            if goal.verb != "check" or isinstance(exc, UntrustedError):
                await self._record("refused" if isinstance(exc, UntrustedError) else "failed", exc.message, exc.kind)
            if self.state.phase not in (Phase.ARMED, Phase.SWITCHING):  # else the record is written: we go on with it
                self.state = Rollout()
                await self._keep_quietly()
            return exc
        return None

    async def _work(self, goal: Goal) -> None:
        if goal.verb == "rollback":
            return await self._roll_back_by_hand(goal)
        if self.slots_problem and goal.verb == "apply":
            await self._look_at_slots()
            if self.slots_problem:
                raise UnavailableError(f"cannot apply an update: {self.slots_problem}")
        offer = await self._check(goal)
        if offer is None or goal.verb == "check":
            self.state = replace(self.state, phase=Phase.IDLE)
            if goal.verb != "check" and not goal.automatic:
                await self._record("nothing new", self.choice.reason if self.choice else "")
            return None
        file = await self._download(offer)
        if goal.verb == "download":
            await self._record("downloaded", file)
            return None
        await self._put_into_slot(offer, file)
        return await self._switch_to_armed()

    async def _enter(self, phase: Phase, **changes: object) -> None:
        """The next state, durable before anything is done in it. Raises UnavailableError when the store cannot."""
        reach(f"update.{_word(self.state.phase)}.leave")
        self.state = self.state.to(phase, **changes)
        if phase not in (Phase.CHECKING, Phase.AVAILABLE) or not self.state.goal.automatic:
            await self.memory.keep(self.state)
        self._announce()
        reach(f"update.{_word(phase)}.enter")

    async def _enter_anyway(self, phase: Phase, **changes: object) -> None:
        """Once the record is written the store's trouble stops nothing."""
        reach(f"update.{_word(self.state.phase)}.leave")
        self.state = self.state.to(phase, **changes)
        await self._keep_quietly()
        self._announce()
        reach(f"update.{_word(phase)}.enter")

    def _announce(self) -> None:
        if self.state.phase in (Phase.IDLE, Phase.BLESSED):
            return  # the history's entry says it
        version = self.state.offer.version if self.state.offer else ""
        self._publish("update", self.state.phase.value, version=version, reason=self.state.reason)

    async def _keep_quietly(self) -> None:
        try:
            await self.memory.keep(self.state)
        except ApplianceError as exc:
            self.memory.problem = exc.message

    async def _record(self, outcome: str, reason: str, kind: str = "") -> None:
        state = self.state
        entry = HistoryEntry(
            id=state.goal.id, time=clock.timestamp(clock.wall_seconds()),
            from_version=state.from_version or self._bundle.version,
            to_version=state.offer.version if state.offer else state.goal.version,
            outcome=outcome, reason=reason, kind=kind,
        )  # fmt: skip
        if self.memory.has(entry.id, outcome):
            return  # we were killed between saying so and going on
        await self.memory.add(entry)
        self._publish("update", outcome, version=entry.to_version, reason=reason)

    # --- check, download, write, switch ---

    async def _check(self, goal: Goal) -> Offer | None:
        await self._enter(Phase.CHECKING)
        quick = "quick" if goal.automatic and not goal.version else ""  # a person's question is asked in full
        answer = await self._ask_worker(self._settings_here(), "refresh", quick)
        offers = [parse_offer(value) for value in answer.get("offers", ())]
        self.last_check, self.clock_problem = clock.timestamp(clock.wall_seconds()), str(answer.get("clock", ""))
        denied = self.slots.record.denied if self.slots.record else ()
        running, channel, policy = self._bundle.version, self.channel, parse_policy(answer.get("policy"))
        if goal.version:
            offer = choose_asked(
                offers, goal.version, running=running, denied=denied, channel=channel, force=goal.force, policy=policy
            )  # fmt: skip
            step = parse_version(offer.version) != parse_version(goal.version)
            self.choice = Choice(offer, "", toward=goal.version if step else "")
        else:
            switched = self.memory.switched
            self.choice = choose(
                offers, running=running, denied=denied, channel=channel, policy=policy,
                now=max(clock.wall_seconds(), float(answer.get("time", 0))),
                seed=host_lot(self._layout.wave_lot), wariness=self.settings.wariness,
                downgrade=switched.allow_downgrade and switched.counts(self.settings.channel),
                switched=switched.counts(self.settings.channel),
            )  # fmt: skip
            if self.choice.refused:
                raise UntrustedError(self.choice.reason)
        if self.choice.offer is not None:
            await self._enter(Phase.AVAILABLE, offer=self.choice.offer)
        return self.choice.offer

    async def _download(self, offer: Offer) -> str:
        await self._enter(Phase.DOWNLOADING)
        directory = self._layout.update + "/download"
        have = min(offer.length, disk_bytes(download_path(directory, offer) + ".partial"))
        self._need_room(self._layout.update, offer.length * 2 - have)
        files.remove(self._layout.run + PROGRESS_FILE)
        answer = await self._ask_worker(self._settings_here(), "download", offer.path)
        file = download_path(directory, offer)
        if answer.get("file") != file:
            raise InputError(f"cannot use the download: the worker names {answer.get('file')!r}, not {file}")
        await self._enter(Phase.DOWNLOADED)
        return file

    def _need_room(self, path: str, size: int) -> None:
        files.make_directory(path)
        free = files.free_bytes(path)
        if free < size + ROOM_BYTES_SPARE:
            raise UnavailableError(
                f"cannot update: {free >> 20} MiB are free at {path}, {(size + ROOM_BYTES_SPARE) >> 20} MiB are needed",
                where=path,
            )

    async def _put_into_slot(self, offer: Offer, file: str) -> None:
        assert self.running is not None
        name = other(self.running)
        slot = self.slots.slot(name)
        await self._enter(Phase.CLEARING, slot=name)
        await trio.to_thread.run_sync(slot.clear)
        await self._enter(Phase.WRITING)
        await trio.to_thread.run_sync(slot.write, file)
        await self._enter(Phase.VERIFYING)
        await trio.to_thread.run_sync(lambda: slot.verify(sha256=offer.sha256, length=offer.length))
        limits = self.settings.health
        well = tuple(sorted(name for name, is_well in self._health.unit_health().items() if is_well))
        # Kept before the record says so: a trial that does not know which units were well would prove nothing.
        await self.memory.keep(replace(self.state, healthy_units=well))
        self.state = replace(self.state, healthy_units=well)
        await trio.to_thread.run_sync(
            lambda: slot.arm(
                version=offer.version, sha256=offer.sha256, tries=limits.tries,
                deadline=int(limits.deadline) + _GUARD_SPARE_SECONDS,
            )
        )  # fmt: skip
        await self._enter_anyway(Phase.ARMED)
        files.remove(file)

    async def _switch_again(self) -> None:
        """As ``_switch_to_armed``, if it can be counted: else an unwilling launcher would be asked for ever."""
        try:
            await self.memory.keep(self.state)
        except ApplianceError as exc:
            version = self.state.offer.version if self.state.offer else "the new version"
            raise UnavailableError(f"{version} waits for the next start: {exc.message}") from exc
        await self._switch_to_armed()

    async def _switch_to_armed(self) -> None:
        await self._enter_anyway(Phase.SWITCHING, switches=self.state.switches + 1)
        await self._leave_to_launcher()

    async def _leave_to_launcher(self) -> None:
        while True:
            try:
                await self._switch()
            except ApplianceError as exc:  # settings that would keep any version from starting
                self.last_error = exc.message
                await trio.sleep(_SWITCH_RETRY_SECONDS)
            else:
                await trio.sleep_forever()  # the app is replacing this process

    async def _roll_back_by_hand(self, goal: Goal) -> None:
        record, running = self.slots.record, self.running
        assert record is not None
        assert running is not None
        good, mine = record.entry(other(running)), record.entry(running)
        if not await trio.to_thread.run_sync(self.slots.holds, other(running)):
            raise UnavailableError(f"cannot roll back: {self.slots.file(other(running))} is damaged or gone")
        offer = Offer(path="", version=good.version, sha256=good.sha256, length=1)
        self.state = Rollout(goal=goal, offer=offer, slot=running, from_version=mine.version)
        await self._enter(Phase.ROLLING_BACK, reason="a person asked for it")
        await self._condemn(running)
        await self._leave_to_launcher()

    # --- after a start ---

    async def begin(self) -> None:
        """Find out where we are, and go on with what was under way. A switch does not return."""
        await self._look_at_slots()
        kept = await self.memory.load()
        deadline = trio.current_time() + _STORE_SECONDS
        while not self.memory.loaded and trio.current_time() < deadline:
            await trio.sleep(0.2)  # the store starts beside us
            kept = await self.memory.load()
        self.begun = True
        facts = Facts(self.running, self._bundle.trial, self.slots.record)
        what = decide_start(kept, facts)
        self.state = kept if kept.phase is not Phase.IDLE else Rollout()
        try:
            await self._go_on(what, kept)
        except ApplianceError as exc:
            self.last_error = exc.message
            if what not in (Next.PROVE, Next.CONDEMN_SELF):
                self.state = Rollout()

    async def _go_on(self, what: Next, kept: Rollout) -> None:
        running = self.running
        match what:
            case Next.REST:
                self.state = Rollout()
            case Next.BEGIN:
                self.state, goal = Rollout(), kept.goal
                if self.memory.has(goal.id):  # it was over, and we were killed before that was kept
                    return await self._keep_quietly()
                if kept.offer is not None and not goal.automatic and not goal.version:
                    goal = replace(goal, version=kept.offer.version)
                await self.pursue(replace(goal, onward=False))
            case Next.PROVE:
                assert running is not None
                await self._prove(running)
            case Next.BLESSED:
                assert running is not None
                await self._finish_blessing(running)
            case Next.SWITCH:
                assert running is not None
                self.state = self._as_if(Phase.SWITCHING, other(running), kept)
                await self._switch_again()
            case Next.CONDEMN_OTHER:
                assert running is not None
                self.state = self._as_if(Phase.SWITCHING, other(running), kept)
                bad = (self.slots.record or SlotRecord()).entry(other(running))
                reason = kept.reason or (
                    f"{bad.version} used up its {self.settings.health.tries} starts without proving itself"
                    if bad.tries == 0 else f"the launcher did not start {bad.version}"
                )  # fmt: skip
                await self._enter_anyway(Phase.ROLLING_BACK, reason=reason)
                await self._condemn(other(running))
                await self._finish_rollback()
            case Next.ROLLED_BACK:
                await self._finish_rollback()
            case Next.CONDEMN_SELF:
                assert running is not None
                await self._condemn(running)
                await self._leave_to_launcher()

    def _as_if(self, phase: Phase, slot: SlotName, kept: Rollout) -> Rollout:
        """The state of that slot's trial, from what was kept if it is about that, else from the record alone."""
        entry = (self.slots.record or SlotRecord()).entry(slot)
        if kept.offer is not None and kept.offer.sha256 == entry.sha256:
            return replace(kept, phase=phase, slot=slot)
        offer = Offer(path="", version=entry.version, sha256=entry.sha256, length=1)
        from_version = (self.slots.record or SlotRecord()).entry(other(slot)).version
        return Rollout(phase, replace(kept.goal, verb="apply"), offer, slot, from_version, switches=kept.switches)

    async def _look_at_slots(self) -> None:
        place = await find_place(self.slots, self._bundle, self.memory)
        self.running, self.slots_problem = place.running, place.problem
        if place.lost:
            self._publish("update", "repaired", reason=place.lost)

    # --- the trial ---

    async def _prove(self, running: SlotName) -> None:
        self.state = replace(self._as_if(Phase.SWITCHING, running, self.state), switches=0)
        await self._enter_anyway(Phase.TRIAL)
        self.proving = Proving(self._health, self._processes, self.settings.health, started=self.started)
        failure = await self.proving.prove(self._healthy_before, lambda: self._bless(running))
        self.proving = None
        if failure:
            await self._enter_anyway(Phase.ROLLING_BACK, reason=failure)
            await self._condemn(running)
            await self._leave_to_launcher()
        reach("update.bless.record")
        await self._enter_anyway(Phase.BLESSED)
        await self._finish_blessing(running)

    async def _healthy_before(self) -> tuple[Sequence[str], str]:
        if not self.memory.loaded:  # which units were well before is in the store
            kept = await self.memory.load()
            if not self.memory.loaded:
                return (), f"the store does not answer: {self.memory.problem}"
            self.state = replace(self.state, healthy_units=kept.healthy_units, goal=kept.goal)
        return self.state.healthy_units, ""

    async def _bless(self, running: SlotName) -> None:
        await trio.to_thread.run_sync(self.slots.slot(running).bless)

    async def _finish_blessing(self, running: SlotName) -> None:
        dismiss_guard(self._bundle)
        await trio.to_thread.run_sync(self.slots.point_current, running)
        await self.memory.end_downgrade()
        self.stepped, goal = True, self.state.goal
        onward = self._is_step(goal)
        self.state = replace(self.state, phase=Phase.BLESSED)
        if onward:  # whoever asked waits for the last step
            self.state = replace(self.state, goal=replace(goal, id=""))
        await self._record("blessed", f"a step on the way to {goal.version}" if onward else "")
        if onward:
            await self._enter_anyway(Phase.IDLE, goal=replace(goal, onward=True), offer=None)
            await self.pursue(goal)
        else:
            await self._enter_anyway(Phase.IDLE)
            self.state = Rollout()

    def _is_step(self, goal: Goal) -> bool:
        """Whether a person asked for a newer version than this, which was only needed first."""
        if goal.verb != "apply" or goal.automatic or goal.force or not goal.version:
            return False
        return parse_version(self._bundle.version) < parse_version(goal.version)

    async def _condemn(self, slot: SlotName) -> None:
        reach("update.condemn.before")
        try:
            await trio.to_thread.run_sync(self.slots.slot(slot).condemn)
            await self.memory.keep_denied(self.slots.record.denied if self.slots.record else ())
        except ApplianceError as exc:  # its tries run out by themselves
            self.slots_problem = exc.message
        reach("update.condemn.after")

    async def _finish_rollback(self) -> None:
        """We are the version that was gone back to."""
        bad = self.state.offer.version if self.state.offer else "the new version"
        denied = dict((self.slots.record or SlotRecord()).denied)
        unsaid = "it did not live until it could say why" if bad in denied else "another version was put in its place"
        await self._record("rolled back", self.state.reason or f"{bad}: {unsaid}")
        self.last_error = ""
        self.state = replace(self.state, phase=Phase.ROLLING_BACK)
        await self._enter_anyway(Phase.IDLE)
        self.state = Rollout()


def _word(phase: Phase) -> str:
    return phase.value.replace(" ", "-")

