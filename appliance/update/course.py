"""The course of an update, up to the switch: check, fetch, pass the gates, write to the other slot, arm.

The order on the disk is that of ``slots``. Each state is kept before anything is done in it; ``verdict`` goes on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import trio

from appliance.errors import (
    ApplianceError,
    ConflictError,
    InputError,
    NotFoundError,
    NotYetError,
    UnavailableError,
    UntrustedError,
)
from appliance.host import clock, files
from appliance.host.slots import disk_bytes
from appliance.update.choosing import Choice, choose, choose_asked
from appliance.update.data_schema import ask_back
from appliance.update.explain import ROOM_BYTES_SPARE
from appliance.update.lot import host_lot
from appliance.update.offer import Offer, download_path, parse_offer
from appliance.update.policy import parse_policy
from appliance.update.record import other
from appliance.update.rollout import Goal, Phase, Rollout
from appliance.update.settings import UpdateSettings
from appliance.update.transport import taken_from
from appliance.update.verdict import Verdict
from appliance.update.version import parse_version

_GUARD_SPARE_SECONDS = 60  # the guard waits longer than we do: it is for those who hang


class Course(Verdict):
    """One task uses it: ``begin`` once, then ``pursue`` for each goal. Everybody may read it."""

    def _settings_here(self) -> UpdateSettings:
        return taken_from(replace(self.settings, channel=cast(Any, self.channel)), self.state.goal.source)

    async def pursue(self, goal: Goal) -> ApplianceError | None:
        """Do what was asked, as far as it goes; the error is recorded already. A switch does not return."""
        began = clock.wall_seconds()
        self.state = Rollout(goal=goal, from_version=self.version, began=began)  # whoever asked looks for its id
        self.gates.forget_waiting()
        try:
            await self._work(goal)
            self.last_error, self.failures = "", 0
        except NotYetError as exc:
            if goal.automatic and self.state.phase is Phase.DOWNLOADED:
                self.last_error, self.failures = "", 0  # it waits, with all that it needs; nothing went wrong
                return exc
            return await self._failed(goal, exc)
        except ApplianceError as exc:
            return await self._failed(goal, exc)
        return None

    async def _failed(self, goal: Goal, exc: ApplianceError) -> ApplianceError:
        wished = not goal.automatic and goal.version and self.state.phase is Phase.CHECKING
        if wished and isinstance(exc, NotFoundError | ConflictError):
            await self._record("failed", exc.message, exc.kind)  # a wish that cannot be is no fault that lasts
            self.state = Rollout()
            await self._keep_quietly()
            await self.gates.settle()
            return exc
        self.last_error = exc.message
        self.failures += 1
        if not isinstance(exc, NotYetError):
            self.last_failure = clock.timestamp(clock.wall_seconds())
            self.errors[exc.kind] = self.errors.get(exc.kind, 0) + 1
        if goal.verb != "check" or isinstance(exc, UntrustedError):
            outcome = "failed"
            if isinstance(exc, UntrustedError):
                outcome = "refused"
            elif isinstance(exc, NotYetError):
                outcome, self.last_error, self.failures = "not yet", "", 0
            await self._record(outcome, exc.message, exc.kind)
        if self.state.phase not in (Phase.ARMED, Phase.SWITCHING):  # else the record is written: we go on with it
            self.state = Rollout()
            await self._keep_quietly()
            await self.gates.settle()
        return exc

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
            await self.gates.settle()
            if goal.verb != "check" and not goal.automatic:
                await self._record("nothing new", self.choice.reason if self.choice else "")
            return None
        file = await self._download(offer)
        if goal.verb == "download":
            await self._record("downloaded", file)
            return None
        await self.gates.go_through(goal, offer.version)
        await self._put_into_slot(offer, file)
        return await self._switch_to_armed()

    async def _check(self, goal: Goal) -> Offer | None:
        await self._enter(Phase.CHECKING)
        quick = "quick" if goal.automatic and not goal.version else ""  # a person's question is asked in full
        answer = await self._ground.ask_worker(self._settings_here(), "refresh", quick)
        self.checks += 1
        offers = [parse_offer(value) for value in answer.get("offers", ())]
        self.last_check, self.clock_problem = clock.timestamp(clock.wall_seconds()), str(answer.get("clock", ""))
        if repaired := str(answer.get("repaired", "")):
            self._publish("repaired", reason=repaired)
        now = max(clock.wall_seconds(), float(answer.get("time", 0)))
        self.gates.know_time(float(answer.get("time", 0)))
        denied = self.slots.record.denied if self.slots.record else ()
        running, channel, policy = self.version, self.channel, parse_policy(answer.get("policy"))
        if goal.version:
            offer = choose_asked(
                offers, goal.version, running=running, denied=denied, channel=channel, force=goal.force, policy=policy
            )  # fmt: skip
            step = parse_version(offer.version) != parse_version(goal.version)
            self.choice = Choice(offer, "", toward=goal.version if step else "")
        else:
            switched = self.memory.switched
            self.choice = choose(
                offers, running=running, denied=denied, channel=channel, policy=policy, now=now,
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
        directory = self.downloads
        have = min(offer.length, disk_bytes(download_path(directory, offer) + ".partial"))
        self._need_room(self.product.directory(self._layout), offer.length * 2 - have)
        files.remove(self.product.progress(self._layout))
        with self.slots.lent():
            answer = await self._ground.ask_worker(self._settings_here(), "download", offer.path)
        file = download_path(directory, offer)
        if answer.get("file") != file:
            raise InputError(f"cannot use the download: the worker names {answer.get('file')!r}, not {file}")
        await self._enter(Phase.DOWNLOADED, fetched=int(answer.get("fetched", 0)))
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
        if self.slots.not_from_disk:
            self._publish("verified", version=offer.version, reason=self.slots.not_from_disk)
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

    async def _roll_back_by_hand(self, goal: Goal) -> None:
        record, running = self.slots.record, self.running
        if record is None or running is None or not record.entry(other(running)).blessed:
            raise ConflictError("cannot roll back: the other slot holds no blessed version")
        good, mine = record.entry(other(running)), record.entry(running)
        if not await trio.to_thread.run_sync(self.slots.holds, other(running)):
            raise UnavailableError(f"cannot roll back: {self.slots.file(other(running))} is damaged or gone")
        offer = Offer(path="", version=good.version, sha256=good.sha256, length=1)
        self.state = Rollout(
            goal=goal, offer=offer, slot=running, from_version=mine.version, began=clock.wall_seconds()
        )  # fmt: skip
        if not self.product.is_bundle:
            ask_back(self._layout)
        await self._enter(Phase.ROLLING_BACK, reason="a person asked for it")
        await self._go_back(running)
