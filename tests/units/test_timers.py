# ruff: noqa: ASYNC110, ASYNC240 (a test may look at real files)
"""Timers: in real time where a second is enough, by clocks of our own where it takes days; and over a kill -9."""

from __future__ import annotations

import contextlib
import ctypes
import json
import struct
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from appliance.host.poller import Poller
from appliance.host.wallclock import WallClock
from appliance.units.alarms import Alarms
from appliance.units.timer_memory import TimerFiles
from appliance.units.timers import Clocks, Timer, Timers, Wall
from appliance.units.trigger_sections import TimerSection
from units.stage import Stage
from units.test_adoption import run_and_kill

START = datetime(2027, 3, 27, 12, tzinfo=UTC).timestamp()
ONESHOT = 'type = "oneshot"'


class PretendedWall:
    """A wall clock on trio's clock, which tests can set. The same contract as the real one: see below."""

    def __init__(self, start: float) -> None:
        self.on_ring: Callable[[], None] = lambda: None
        self.on_jump: Callable[[], None] = lambda: None
        self._offset = start - trio.current_time()
        self._due: float | None = None
        self._changed = trio.Event()

    def seconds(self) -> float:
        return trio.current_time() + self._offset

    def ring_at(self, seconds: float | None) -> None:
        self._due = seconds
        self._changed.set()

    def close(self) -> None:
        self.ring_at(None)

    def set_to(self, seconds: float) -> None:
        armed = self._due is not None
        self._offset = seconds - trio.current_time()
        self._changed.set()
        if armed:
            self.on_jump()

    async def run(self) -> None:
        while True:
            self._changed = trio.Event()
            due = float("inf") if self._due is None else self._due - self._offset
            with trio.move_on_at(due):
                await self._changed.wait()
            if self._due is not None and self._due <= self.seconds():
                self._due = None
                self.on_ring()


class World:
    """Timers whose units run for as long as they are told."""

    def __init__(self, directory: Path, *, start: float = START, boot: str = "b1") -> None:
        self.wall = PretendedWall(start)
        self.alarms = Alarms()
        self.states: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.troubles: list[str] = []
        self.takes = 0.0
        self.dead = False  # nothing starts
        self.refuses = False  # and it is said at once
        self.made: list[Timer] = []
        self.directory = directory
        self.boot = boot
        self.timers = self._timers()

    def _timers(self) -> Timers:
        return Timers(
            clocks=Clocks(wall=self.wall, alarms=self.alarms, running=trio.current_time, boot_id=self.boot),
            files=TimerFiles(str(self.directory / "run"), str(self.directory / "state")),
            call=self._call,
            is_called=lambda name: not self.refuses,
            trouble=lambda name, message: self.troubles.append(message),
            host="host",
        )

    def _call(self, name: str, reason: str, told: object = None) -> None:
        self.calls.append((name, self.clock()))
        if not self.dead and not self.refuses:
            self.nursery.start_soon(self._live, name)

    async def _live(self, name: str) -> None:
        for state, seconds in (("starting", self.takes), ("stopped", 0.0)):
            self.states[name] = state
            for timer in self.made:
                if timer.target == name:
                    timer.turned(state)
            await trio.sleep(seconds)

    def clock(self) -> str:
        return datetime.fromtimestamp(round(self.wall.seconds()), UTC).strftime("%d %H:%M:%S")

    def add(self, name: str = "job", **section: object) -> Timer:
        timer = self.timers.add(name, name, TimerSection(**section))  # type: ignore[arg-type]
        self.made.append(timer)
        timer.arm(self.states.get(name, "stopped"))
        return timer

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.wall.run)
            self.nursery.start_soon(self.alarms.run)
            yield self
            self.nursery.cancel_scope.cancel()

    @property
    def times(self) -> list[str]:
        return [when for _, when in self.calls]


# -- the contract of the wall clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "pretended"])
async def test_a_wall_clock_rings_at_its_time_and_at_once_for_the_past_and_never_for_none(kind: str) -> None:
    rung: list[float] = []
    bell = trio.Event()
    poller = Poller()
    async with trio.open_nursery() as nursery:
        if kind == "real":
            wall: Wall = WallClock(poller)
            nursery.start_soon(poller.run)
        else:
            wall = pretended = PretendedWall(START)
            nursery.start_soon(pretended.run)

        def ring() -> None:
            rung.append(wall.seconds())
            bell.set()

        wall.on_ring = ring
        with trio.fail_after(30):
            due = wall.seconds() + 0.2
            for wanted in (wall.seconds() + 0.1, due):  # the second one counts
                wall.ring_at(wanted)
            await bell.wait()
            assert 0 <= rung[-1] - due < 20
            bell = trio.Event()
            wall.ring_at(wall.seconds() - 1000)
            await bell.wait()
            bell = trio.Event()
            wall.ring_at(wall.seconds() + 0.05)
            wall.ring_at(None)
            with trio.move_on_after(0.3):
                await bell.wait()
                raise AssertionError("it rang")
        wall.close()
        wall.close()
        nursery.cancel_scope.cancel()
    assert len(rung) == 2


async def test_a_real_clock_that_is_set_is_noticed_without_looking() -> None:
    jumped = trio.Event()
    poller = Poller()
    wall = WallClock(poller)
    wall.on_jump = jumped.set
    wall.ring_at(wall.seconds() + 3600)
    # adjtimex(2) with ADJ_SETOFFSET: a microsecond to and fro, which nobody else will miss.
    for seconds, micros in ((0, 1), (-1, 999_999)):
        if ctypes.CDLL(None).adjtimex(struct.pack("=I68xqq120x", 0x0100, seconds, micros)) < 0:
            wall.close()
            pytest.skip("we may not set the clock of this host")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        with trio.fail_after(30):
            await jumped.wait()
        nursery.cancel_scope.cancel()
    wall.close()


# -- days, on clocks of our own ---------------------------------------------------------------------------------------


async def test_a_calendar_through_the_night_without_half_past_two(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path).running() as world:
        world.add("a", calendar=("02:30 Europe/Berlin", "Mon 12:00 UTC"))
        world.add("b", calendar="*:30", timezone="Europe/Berlin", jitter=60.0, jitter_fixed=True)
        await trio.sleep(72 * 3600)
    assert [when for name, when in world.calls if name == "a"] == [
        "28 01:00:00",
        "29 00:30:00",
        "29 12:00:00",
        "30 00:30:00",
    ]
    minutes = {when[-5:] for name, when in world.calls if name == "b"}
    assert len(minutes) == 1, "a fixed jitter is the same each time"
    assert minutes != {"30:00"}
    assert len([when for name, when in world.calls if name == "b"]) == 72


async def test_times_that_count_from_something(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with World(tmp_path).running() as world:
        world.takes = 60.0
        world.add("every", every=900.0)
        world.add("active", on_active=100.0)
        world.add("again", on_active=100.0, on_unit_active=600.0)
        world.add("after", on_active=100.0, on_inactive=600.0)
        world.add("never", on_unit_active=10.0)
        world.add("startup", on_startup=30.0)
        await trio.sleep(2000)
    found: dict[str, list[str]] = {}
    for name, when in world.calls:
        found.setdefault(name, []).append(when)
    # "World" tells every timer of every end, so what follows an end is only looked at for the first.
    assert found == {
        "every": ["27 12:15:00", "27 12:30:00"],
        "active": ["27 12:01:40"],
        "again": ["27 12:01:40", "27 12:11:40", "27 12:21:40", "27 12:31:40"],
        "after": ["27 12:01:40", "27 12:12:40", "27 12:23:40"],
        "startup": ["27 12:00:30"],
    }


async def test_what_falls_due_during_a_run_is_one_run_after_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path).running() as world:
        world.takes = 35 * 60.0
        world.add(calendar="*:0/10")
        await trio.sleep(2 * 3600)
    assert world.times[:3] == ["27 12:10:00", "27 12:45:00", "27 13:20:00"]


async def test_a_clock_that_is_set(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with World(tmp_path).running() as world:
        world.add(calendar="18:00")
        await trio.sleep(3600)
        world.wall.set_to(START + 12 * 3600)  # over the time: it is due at once, and once
        await trio.sleep(60)
        assert world.times == ["28 00:00:00"]
        world.wall.set_to(START)  # and back: the day has its 18:00 again
        await trio.sleep(24 * 3600)
    assert world.times == ["28 00:00:00", "27 18:00:00"]


async def test_accuracy_gathers_wake_ups(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with World(tmp_path).running() as world:
        for second in range(10):
            world.add(f"t{second}", calendar=f"13:00:{second:02}", accuracy=30.0)
        await trio.sleep(2 * 3600)
    assert len(world.calls) == 10
    assert set(world.times) == {"27 13:00:30"}


async def test_a_persistent_one_makes_up_for_what_was_missed_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def days(start: float, boot: str, hours: float) -> list[tuple[str, str]]:
        async with World(tmp_path, start=start, boot=boot).running() as world:
            world.add("kept", calendar="18:00", persistent=True)
            world.add("plain", calendar="18:00")
            await trio.sleep(hours * 3600)
            world.timers.close(forget=True)
        return world.calls

    assert await days(START, "b1", 1) == [], "a new timer has missed nothing"
    assert await days(START + 30 * 3600, "b2", 0.5) == [("kept", "28 18:00:00")]  # at once
    assert await days(START + 31 * 3600, "b3", 1) == [], "made up for already"
    assert await days(START + 100 * 3600, "b4", 3) == [
        ("kept", "31 16:00:00"), ("kept", "31 18:00:00"), ("plain", "31 18:00:00"),
    ]  # fmt: skip


async def test_a_killed_daemon_s_successor_goes_on_with_the_same_times(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path).running() as world:
        world.add("every", every=900.0)
        world.add("cal", calendar="13:00")
        await trio.sleep(600)
    assert world.calls == []
    await trio.sleep(600)  # nobody is there
    async with World(tmp_path, start=START + 4200).running() as world:
        world.add("every", every=900.0)
        world.add("cal", calendar="13:00")
        await trio.sleep(10)
    assert sorted(world.calls) == [("cal", "27 13:10:00"), ("every", "27 13:10:00")]


async def test_killed_between_the_call_and_the_start_it_calls_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path).running() as world:
        world.dead = True
        world.add(calendar="13:00", persistent=True)
        await trio.sleep(3601)
        assert len(world.calls) == 1
    for expected in (1, 0):
        async with World(tmp_path, start=START + 3605).running() as world:
            world.add(calendar="13:00", persistent=True)
            await trio.sleep(10)
        assert len(world.calls) == expected


async def test_a_unit_that_cannot_be_called_is_called_again_at_the_next_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with World(tmp_path).running() as world:
        world.refuses = True
        world.add("hourly", calendar="*:00")
        world.add("every", every=1800.0)
        await trio.sleep(2 * 3600 + 1)
    assert sorted(world.calls) == [
        ("every", "27 12:30:00"), ("every", "27 13:00:00"), ("every", "27 13:30:00"), ("every", "27 14:00:00"),
        ("hourly", "27 13:00:00"), ("hourly", "27 14:00:00"),
    ]  # fmt: skip


def test_memory_that_is_garbage_is_as_none(tmp_path: Path) -> None:
    kept = TimerFiles(str(tmp_path), str(tmp_path))
    for text in (
        "",
        "{",
        "[]",
        '{"boot": "b", "active": "x"}',
        '{"last": true}',
        "[" * 4000,
        '{"last": NaN, "boot": "c"}',
    ):
        (tmp_path / "t.json").write_text(text)
        assert kept.read("t", "b") is None
        assert kept.last_run("t") is None or text.startswith('{"last": NaN')


# -- the real thing ---------------------------------------------------------------------------------------------------


async def test_it_runs_when_it_should_and_says_when_it_will(stage: Stage) -> None:
    stage.shell("tick", "echo ran", service=ONESHOT, more='[timer]\ncalendar = "*:*:*"')
    stage.shell("slow", "echo ran; sleep infinity", more='[timer]\nevery = "200ms"')
    stage.shell("job", "echo ran", service=ONESHOT)
    stage.write("job.timer", '[timer]\non_active = "300ms"\n')
    stage.shell("late", "echo ran", service=ONESHOT, more='[timer]\ncalendar = "2099-01-01"')
    async with stage.running() as units:
        for name in ("tick", "slow", "job"):
            await stage.log(units, name, "ran")
        assert units.picture("late").state == "stopped"
        (trigger,) = units.picture("late").triggers
        assert trigger.next == datetime(2099, 1, 1).timestamp()  # in the host's zone
        (of_job,) = units.picture("job").triggers
        assert (of_job.name, of_job.unit) == ("job.timer", "job")
        await stage.until(lambda: units.picture("job").triggers[0].state == "elapsed")
        await stage.until(lambda: units.picture("slow").state == "ready")
        assert units.picture("slow").triggers[0].state == "running"
        await units.stop("tick")
        with trio.fail_after(30):
            while units.picture("tick").triggers[0].state != "off":
                await trio.sleep(0.01)
        seen = len([line async for line in units.logs("tick")])
        await trio.sleep(1.5)
        assert len([line async for line in units.logs("tick")]) == seen
        stage.shell("late", "echo ran", service=ONESHOT, more='[timer]\ncalendar = "*:*:*"')
        await units.reload()
        await stage.log(units, "late", "ran")
        await units.stop("job.timer")
        with trio.fail_after(30):
            while units.picture("job").triggers[0].state != "off":
                await trio.sleep(0.01)


async def test_over_a_kill_minus_nine_nothing_is_lost(stage: Stage) -> None:
    stage.shell("beat", "echo ran", service=ONESHOT, more='[timer]\nevery = "1h"')
    stage.shell("due", "echo ran", service=ONESHOT, more='[timer]\non_active = "3s"\npersistent = true')
    stage.shell("up", "exec sleep infinity")
    run_and_kill(stage, ["up ready"])
    before = json.loads(Path(stage.layout.run, "timers", "beat.json").read_text())
    async with stage.running() as units:
        await stage.log(units, "due", "ran")
        after = json.loads(Path(stage.layout.run, "timers", "beat.json").read_text())
        assert after["active"] == before["active"]
        (trigger,) = units.picture("beat").triggers
        assert trigger.next == pytest.approx(before["active_wall"] + 3600, abs=5)
    assert not list(Path(stage.layout.run, "timers").iterdir()), "an orderly stop forgets"
