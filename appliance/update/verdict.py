"""What follows a switch: the trial, the blessing or the way back, in whatever process finds itself there.

What comes first after a start is decided by ``rollout.decide_start``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from appliance.errors import ApplianceError, UnavailableError
from appliance.host import clock
from appliance.host.bundle import dismiss_guard
from appliance.update.offer import Offer
from appliance.update.proving import Proving
from appliance.update.record import SlotName, SlotRecord, other
from appliance.update.rollout import CUTS_MAX, Facts, Goal, Next, Phase, Rollout, decide_start, was_cut_off
from appliance.update.seeding import find_place
from appliance.update.standing import Standing
from appliance.update.version import parse_version

_STORE_SECONDS = 10.0  # to open or to fail is waited for anyway; this is for a store that fails and tries again
_SWITCH_RETRY_SECONDS = 10.0


class Verdict(Standing):
    """The second half of a course."""

    async def pursue(self, goal: Goal) -> ApplianceError | None:
        """Do what was asked (``course``)."""
        raise NotImplementedError

    async def _leave(self) -> None:
        """Become what the slots say. Comes back only for a bundle, which is taken over beside us."""
        take_over = self._ground.take_over
        while True:
            try:
                await (take_over or self._ground.switch)()
            except ApplianceError as exc:  # settings that would keep any version from starting, or a full disk
                self.last_error = exc.message
                await trio.sleep(_SWITCH_RETRY_SECONDS)
                continue
            if take_over is not None:
                break
            await trio.sleep_forever()  # the app is replacing this process
        self.running = self.slots.running_slot(self._bundle)

    # --- after a start ---

    async def begin(self) -> None:
        """Find out where we are, and go on with what was under way. A switch does not return."""
        await self._look_at_slots()
        kept = await self.memory.load()
        deadline = trio.current_time() + _STORE_SECONDS
        while not self.memory.loaded and trio.current_time() < deadline:
            await trio.sleep(0.2)  # the store starts beside us
            kept = await self.memory.load()
        await self.gates.remember()
        self.begun = True
        facts = Facts(self.running, self._bundle.trial, self.slots.record, self._boot())
        what = decide_start(kept, facts)
        self.state = kept if kept.phase is not Phase.IDLE else Rollout()
        try:
            await self._go_on(what, kept)
        except ApplianceError as exc:
            self.last_error = exc.message
            if what not in (Next.PROVE, Next.CONDEMN_SELF):
                self.state = Rollout()
        if self.state.phase in (Phase.IDLE, Phase.DOWNLOADED):
            await self.gates.settle()  # a lock that was held for a switch is given back

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
                if self.slots.beside and not await self._prove_again(running, kept):
                    return
                await self._prove(running)
            case Next.BLESSED:
                assert running is not None
                await self._finish_blessing(running)
            case Next.SWITCH:
                assert running is not None
                self.state = self._as_if(Phase.SWITCHING, other(running), kept)
                await self._switch_again()
            case Next.TRY_AGAIN:
                assert running is not None
                await self._try_again(other(running), kept)
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
                if self._ground.take_over is not None:
                    await self._ground.take_over()
                await self._finish_rollback()
            case Next.CONDEMN_SELF:
                assert running is not None
                await self._go_back(running)

    def _boot(self) -> str:
        """Its name by the kernel. Of our own OS image every try is a boot, and the boot loader counts them."""
        return "" if self.product.kind == "os" else clock.boot_id()

    async def _try_again(self, slot: SlotName, kept: Rollout) -> None:
        """Its tries are spent, and the last one ended with the machine: one more."""
        record = self.slots.record or SlotRecord()
        entry = record.entry(slot)
        await self._count_cut(slot, kept)
        await trio.to_thread.run_sync(
            lambda: self.slots.slot(slot).arm(
                version=entry.version, sha256=entry.sha256, tries=1, deadline=record.deadline
            )
        )  # fmt: skip
        await self._switch_to_armed()

    async def _count_cut(self, slot: SlotName, kept: Rollout) -> None:
        """Kept before anything follows from it: else a version that takes the machine down would be tried for ever."""
        self.state = replace(self._as_if(Phase.SWITCHING, slot, kept), cuts=kept.cuts + 1)
        version = self.state.offer.version if self.state.offer else ""
        try:
            await self.memory.keep(self.state)
        except ApplianceError as exc:
            raise UnavailableError(f"{version} waits for the next start: {exc.message}") from exc
        again = f"it is tried once more, {self.state.cuts} of {CUTS_MAX} times"
        self._publish("interrupted", version=version, reason=f"the machine went down in its trial; {again}")

    async def _prove_again(self, running: SlotName, kept: Rollout) -> bool:
        """A bundle's trial that we did not live through; False: it was the last one."""
        entry = (self.slots.record or SlotRecord()).entry(running)
        if not entry.tries and kept.phase is Phase.TRIAL and was_cut_off(kept, self._boot()):
            await self._count_cut(running, kept)
            return True
        if not entry.tries and kept.phase is not Phase.SWITCHING:
            self.state = self._as_if(Phase.SWITCHING, running, kept)
            await self._enter_anyway(Phase.ROLLING_BACK, reason=f"{entry.version} used up its trials: we died in each")
            await self._go_back(running)
            return False
        if kept.phase is not Phase.TRIAL and self._ground.take_over is not None:
            await self._ground.take_over()  # we were killed before all of it was taken over
        else:
            await trio.to_thread.run_sync(self.slots.spend, running)
        return True

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
            self._publish("repaired", reason=place.lost)

    # --- the switch ---

    async def _switch_again(self) -> None:
        """As ``_switch_to_armed``, if it can be counted: else an unwilling launcher would be asked for ever."""
        try:
            await self.memory.keep(self.state)
        except ApplianceError as exc:
            version = self.state.offer.version if self.state.offer else "the new version"
            raise UnavailableError(f"{version} waits for the next start: {exc.message}") from exc
        await self._switch_to_armed()

    async def _switch_to_armed(self) -> None:
        await self._enter_anyway(Phase.SWITCHING, switches=self.state.switches + 1, boot=self._boot())
        await self._leave()
        assert self.running is not None
        await self._prove(self.running)

    # --- the trial ---

    async def _prove(self, running: SlotName) -> None:
        self.state = replace(self._as_if(Phase.SWITCHING, running, self.state), switches=0)
        await self._enter_anyway(Phase.TRIAL, boot=self._boot())
        started = trio.current_time() if self.product.is_bundle else self.started
        self.proving = Proving(self._health, self._ground.processes, self.settings.health, started=started)
        failure = await self.proving.prove(self._healthy_before, lambda: self._bless(running))
        self.proving = None
        if failure:
            await self._enter_anyway(Phase.ROLLING_BACK, reason=failure)
            return await self._go_back(running)
        self.reach("bless.record")
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
        if not self.product.is_bundle:
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
            await self.gates.settle()
            await self.pursue(goal)
        else:
            await self._enter_anyway(Phase.IDLE)
            self.state = Rollout()
            await self.gates.settle()

    def _is_step(self, goal: Goal) -> bool:
        """Whether a person asked for a newer version than this, which was only needed first."""
        if goal.verb != "apply" or goal.automatic or goal.force or not goal.version:
            return False
        return parse_version(self.version) < parse_version(goal.version)

    # --- the way back ---

    async def _go_back(self, running: SlotName) -> None:
        """From the slot that runs to the other one."""
        await self._condemn(running)
        await self._leave()
        await self._finish_rollback()

    async def _condemn(self, slot: SlotName) -> None:
        self.reach("condemn.before")
        try:
            await trio.to_thread.run_sync(self.slots.slot(slot).condemn)
            await self.memory.keep_denied(self.slots.record.denied if self.slots.record else ())
        except ApplianceError as exc:  # its tries run out by themselves
            self.slots_problem = exc.message
        self.reach("condemn.after")

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
        await self.gates.settle()
