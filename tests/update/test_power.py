"""The power goes at every single operation of an update, on every disk that this may leave; then again on the way back.

Each disk is started by the launcher's own C code; the update then ends by itself. It prints how many disks these were.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from appliance.host import clock
from appliance.update import record as records
from appliance.update.record import other, pick
from appliance.update.rollout import Phase, Rollout
from appliance.update.slots import Slots
from tests.sim.left import disks_left
from tests.sim.power import PowerMachine
from tests.sim.slotcalls import PowerLost, SimSlotCalls
from tests.update.machine import offer

NESTED = 2  # second cuts for each disk that a first one left
TRIES = 2  # as many as there are cuts: a trial that ended with the machine is no verdict
DENIED = 12  # so many that a copy of the record is longer than a sector


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here blocks; and a clock that jumps must not jump while a thread is at work."""

    async def inline(act: Callable[..., Any], *words: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return act(*words)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    monkeypatch.setattr(records, "parse_copy", lru_cache(1024)(records.parse_copy))  # a tenth of the time
    monkeypatch.setattr(clock, "boot_id", lambda: f"boot {Power.boots}")


Act = Callable[[PowerMachine], Awaitable[None]]


async def apply(machine: PowerMachine) -> None:
    await machine.live("")


async def apply_3(machine: PowerMachine) -> None:
    await machine.live("3.0")


async def roll_back(machine: PowerMachine) -> None:
    """One life in which a person asks for it."""
    asks = machine._ask

    async def ask(*_: object) -> None:
        assert machine.update is not None
        await machine.update.wait_resting()
        await machine.update.rollback()

    machine._ask = ask  # type: ignore[method-assign]
    try:
        await machine.boot()
    finally:
        machine._ask = asks  # type: ignore[method-assign]
    await machine.live()


async def start(machine: PowerMachine) -> None:
    await machine.live()


@dataclass
class Story:
    """What is under way when the power goes, and how it ends: ``ends`` when it was begun, else ``stays``."""

    act: Act
    ends: str
    stays: str = "1.0"
    denied: tuple[str, ...] = ()
    crashing: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    before: Act | None = None
    floors: bool = False
    drop: str = ""  # a person has put this file in place of the one that init starts
    empty: bool = False  # the very first start


STORIES = {
    "a good version": Story(apply, "2.0"),
    "a version that cannot start": Story(apply, "1.0", denied=("2.0",), crashing={"2.0"}),
    "a version that never gets well": Story(apply, "1.0", denied=("2.0",), sick={"2.0"}),
    "a rollback by hand": Story(roll_back, "1.0", stays="2.0", denied=("2.0",), before=apply),
    "a way of two steps": Story(apply_3, "3.0", floors=True),
    "the first start": Story(start, "1.0", empty=True),
    "a dropped file": Story(start, "9.0", stays="9.0", before=apply, drop="9.0"),
}


class Power:
    """Cuts it and counts."""

    boots = 0

    def __init__(self, place: Path, story: Story) -> None:
        self.place, self.story = place, story
        self.counts: Counter[str] = Counter()
        self.rng = random.Random(1)
        self._number = 0

    def machine(self, calls: SimSlotCalls | None = None, values: dict[str, bytes] | None = None) -> PowerMachine:
        story = self.story
        Power.boots += 1
        made = PowerMachine(self.place)
        made.settings = replace(
            made.settings, health=replace(made.settings.health, deadline=0.5, settle=0.1, tries=TRIES)
        )
        made.crashing, made.health.sick = set(story.crashing), set(story.sick)
        if story.floors:
            made.shelf = [offer("2.0"), offer("3.0", "2.0")]
        if calls is not None:
            made.origin, made.base = self.origin, self.origin_base
            made.take(calls, values)
        return made

    async def prepared(self) -> PowerMachine:
        """Just before it all begins: a copy of the same disk each time."""
        self.origin, self.origin_base = "1.0", "c" * 64
        machine = self.machine()
        if self.story.empty:
            machine.take(SimSlotCalls())
        else:
            slots = Slots(machine.calls, machine.layout.slots)
            record = slots.load()
            assert record is not None
            denied = tuple((f"0.{number}", f"{number:064x}") for number in range(DENIED))
            slots.put(replace(record, sequence=98, denied=denied))
        if self.story.before is not None:
            await self.story.before(machine)
        if self.story.drop:
            self.origin, self.origin_base = self.story.drop, "d" * 64
        (disk,) = disks_left(machine.calls)
        return self.machine(disk, machine.keeper.values)

    async def frozen(self, machine: PowerMachine, act: Act, cut_at: int) -> bool:
        """Whether the power went."""
        machine.calls.freeze, machine.calls.cut_at = True, machine.calls.calls + cut_at
        try:
            await act(machine)
        except PowerLost:
            return True
        return False


async def at_cut(power: Power, cut: int, *, forgotten: str = "") -> PowerMachine | None:
    machine = await power.prepared()
    if forgotten:
        setattr(machine.calls, forgotten, machine.calls.change)
    return machine if await power.frozen(machine, power.story.act, cut) else None


async def comes_back(power: Power, machine: PowerMachine) -> None:
    """It starts, ends by itself, and an update that was not begun can be begun."""
    story = power.story
    await machine.live()
    power.counts[f"first started {machine.started[0]}"] += 1
    if machine.started[-1] != story.ends or (story.denied and not denied_of(machine)):
        assert machine.started[-1] == story.stays, machine.started  # cut before anybody could know
        power.counts["not begun"] += 1
        await story.act(machine)
    else:
        power.counts["ended by itself"] += 1
    assert machine.started[-1] == story.ends, (machine.started, machine.outcomes)
    assert denied_of(machine) == story.denied
    assert machine.update is not None
    assert machine.update._course.state == Rollout(Phase.IDLE)
    slots = Slots(machine.calls, machine.layout.slots)
    record = slots.load()
    assert record is not None
    running = pick(record)
    assert running is not None
    assert slots.holds(running)
    back = record.entry(other(running))
    assert not back.blessed or slots.holds(other(running)), "the way back is gone"
    assert story.ends == "1.0" or back.blessed
    for name in ("a", "b"):
        assert not machine.calls.exists(f"{machine.layout.slots}/{name}/appliance.tmp")


def denied_of(machine: PowerMachine) -> tuple[str, ...]:
    assert machine.update is not None
    return tuple(one for one in machine.update.picture().denied if not one.startswith("0."))


@pytest.mark.parametrize("name", STORIES)
async def test_the_power_goes_at_every_operation(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    power = Power(tmp_path, STORIES[name])
    cut = 0
    while (broken := await at_cut(power, cut + 1)) is not None:
        cut += 1
        for disk in disks_left(broken.calls, seed=cut):
            power.counts["disks"] += 1
            (left,) = disks_left(disk)
            try:
                await comes_back(power, power.machine(disk, broken.keeper.values))
            except BaseException as exc:
                raise AssertionError(f"{name}, cut {cut}: {exc!r}") from exc
            operations = disk.calls
            for _ in range(NESTED):
                await again(power, left, broken.keeper.values, power.rng.randint(1, max(1, operations)), cut)
    with capsys.disabled():
        print(f"\n{name}: {cut} operations, {dict(power.counts)}, 0 bad")
    assert cut > 10


def some(power: Power, disks: Iterable[SimSlotCalls], most: int) -> list[SimSlotCalls]:
    found = list(disks)
    return power.rng.sample(found, min(most, len(found)))


async def again(power: Power, left: SimSlotCalls, values: dict[str, bytes], second: int, cut: int) -> None:
    """The power goes once more while the machine comes back."""
    (copy,) = disks_left(left)
    machine = power.machine(copy, values)
    if not await power.frozen(machine, start, second):
        return
    for disk in some(power, disks_left(machine.calls, seed=second), 2):
        power.counts["disks, cut twice"] += 1
        try:
            await comes_back(power, power.machine(disk, machine.keeper.values))
        except BaseException as exc:
            raise AssertionError(f"cut {cut}, then {second}: {exc!r}") from exc


@pytest.mark.parametrize("forgotten", ["sync", "sync_directory"])
async def test_a_sync_that_was_forgotten_is_found(
    forgotten: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Else what is above could not fail."""
    power = Power(tmp_path, STORIES["a good version"])
    bad = cut = 0
    while not bad and (broken := await at_cut(power, cut + 1, forgotten=forgotten)) is not None:
        cut += 1
        for disk in some(power, disks_left(broken.calls, seed=cut), 20):
            try:
                await comes_back(power, power.machine(disk, broken.keeper.values))
            except AssertionError:
                bad += 1
                break
    assert bad
