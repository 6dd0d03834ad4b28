"""The gates on a simulated machine, with a clock that is set; FleetLock with a real server."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from appliance.errors import InputError, NotFoundError, UnavailableError
from appliance.host import terminals
from appliance.host.terminals import Terminal
from appliance.update import agent
from appliance.update.cluster_lock import Claim
from appliance.update.fleetlock import FleetLock
from appliance.update.gatekeeping import Doorway
from appliance.update.picture import Gate
from appliance.update.settings import LockSettings, WindowSettings
from tests.update.fleet_server import Fleet, serve_fleet
from tests.update.machine import Machine, offer

SUNDAY = datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()
SATURDAY_NIGHT = WindowSettings(days=("sat",), start="02:00", length=7200.0, time_zone="UTC")


class World:
    """What the doorway shows: a clock, people."""

    def __init__(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = machine
        self.time = SUNDAY
        self.people: tuple[Terminal, ...] = ()
        self.told: list[str] = []
        self.lock = FleetLock()
        machine.settings = replace(machine.settings, strategy="immediate", interval=1.0)
        original = agent.Doorway

        def doorway(**given: object) -> Doorway:
            return original(
                **{
                    **given, "wall": lambda: self.time, "people": lambda: self.people, "tell": self.tell,
                    "lock": self.lock, "ends_machine": False,
                }  # type: ignore[arg-type]
            )  # fmt: skip

        monkeypatch.setattr(agent, "Doorway", doorway)

    def tell(self, people: Sequence[Terminal], text: str) -> int:
        self.told.append(text)
        return len(people)

    async def until_waiting(self, gate: str) -> agent.Update:
        """A life in which an automatic update comes to that gate; it ends there."""
        assert await self.boot_until(lambda update: update.picture().waiting.startswith(gate + ":")) == "idle"
        assert self.machine.update is not None
        return self.machine.update

    async def boot_until(self, condition: object) -> str:
        machine = self.machine

        async def ask(asks: object, force: object, stopping: trio.Event) -> None:
            while not condition(machine.update):  # type: ignore[operator]  # noqa: ASYNC110
                await trio.sleep(0.01)
            stopping.set()

        kept, machine._ask = machine._ask, ask  # type: ignore[method-assign, assignment]
        try:
            return await machine.boot()
        finally:
            machine._ask = kept  # type: ignore[method-assign]

    async def until_blessed(self, version: str) -> None:
        def is_blessed(update: agent.Update) -> bool:
            return any((one.to_version, one.outcome) == (version, "blessed") for one in update.history())

        for _ in range(6):
            if await self.boot_until(is_blessed) == "idle":
                return
        raise AssertionError(self.machine.started)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(Machine(tmp_path), monkeypatch)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with serve_fleet() as fleet:
        yield fleet


def untouched(machine: Machine) -> bool:
    """Nothing was written to the other slot."""
    from appliance.update.slots import Slots

    record = Slots(machine.calls, machine.layout.slots).load()
    return record is not None and not record.b.version


def gate(update: agent.Update, name: str) -> Gate:
    return {one.name: one for one in update.explain()}[name]


async def test_a_window_is_waited_for_with_everything_ready(world: World) -> None:
    world.machine.settings = replace(world.machine.settings, strategy="window", window=(SATURDAY_NIGHT,))
    update = await world.until_waiting("window")
    picture = update.picture()
    assert (picture.state, picture.version, picture.opens) == ("downloaded", "1.0", "2026-11-28T02:00:00Z")
    assert (gate(update, "window").open, gate(update, "window").opens) == (False, "2026-11-28T02:00:00Z")
    assert gate(update, "channel").open
    assert untouched(world.machine)
    # Still in the next life; then the window opens.
    await world.until_waiting("window")
    world.time = datetime(2026, 11, 28, 3, 59, 59, tzinfo=UTC).timestamp()
    await world.until_blessed("2.0")


async def test_what_is_shown_of_windows_gates_and_faults(world: World) -> None:
    machine = world.machine
    machine.settings = replace(machine.settings, strategy="window", window=(SATURDAY_NIGHT,))
    update = await world.until_waiting("window")
    picture = update.picture()
    assert picture.window is not None
    assert (picture.window.open, picture.window.opens) == (False, "2026-11-28T02:00:00Z")
    assert {one.name for one in picture.gates if not one.open} == {"window"}
    assert (picture.checks, picture.errors, picture.last_error, picture.last_failure) == (1, {}, "", "")
    world.time = datetime(2026, 11, 28, 2, 30, tzinfo=UTC).timestamp()
    shown = update.picture().window
    assert shown is not None
    assert (shown.open, shown.until, shown.opens) == (True, "2026-11-28T04:00:00Z", "")


async def test_a_fault_is_a_gate_with_the_time_of_the_next_attempt(world: World) -> None:
    machine = world.machine

    async def fail(settings: object, verb: str, path: str) -> dict[str, object]:
        raise UnavailableError("cannot fetch http://x/: no route")

    machine.ask_worker = fail  # type: ignore[method-assign, assignment]
    assert await world.boot_until(lambda update: update.picture().failures >= 2) == "idle"
    assert machine.update is not None
    picture, shut = machine.update.picture(), gate(machine.update, "attempt")
    assert (shut.open, shut.reason) == (False, "failed 2 times in a row, lastly: cannot fetch http://x/: no route")
    assert shut.opens == picture.next_check != ""
    assert (picture.last_error, picture.errors) == ("cannot fetch http://x/: no route", {"unavailable": 2})
    assert picture.last_failure


async def test_services_hold_back_no_switch_only_a_trial(world: World) -> None:
    machine = world.machine
    machine.health.sick = {"1.0"}
    machine.settings = replace(machine.settings, strategy="window", window=(SATURDAY_NIGHT,))
    shown = gate(await world.until_waiting("window"), "services")
    assert (shown.open, shown.reason) == (True, "store is backoff; that would count on trial only")


async def test_a_person_is_told_not_yet_and_may_insist(world: World) -> None:
    world.machine.settings = replace(
        world.machine.settings, strategy="window", window=(SATURDAY_NIGHT,), interval=3600.0
    )
    await world.machine.live("")
    assert world.machine.update is not None
    (entry,) = [one for one in world.machine.update.history() if one.by == "a person"]
    assert (entry.outcome, entry.kind) == ("not yet", "not-yet")
    assert "2026-11-28T02:00:00Z" in entry.reason

    async def insist(asks: object, force: object, stopping: trio.Event) -> None:
        assert world.machine.update is not None
        await world.machine.update.wait_resting()
        await world.machine.update.apply(now=True)
        await trio.sleep_forever()

    kept, world.machine._ask = world.machine._ask, insist  # type: ignore[method-assign, assignment]
    assert await world.machine.boot() == "switched"
    world.machine._ask = kept  # type: ignore[method-assign]
    await world.until_blessed("2.0")


async def test_holds_last_over_restarts_and_end_by_themselves(world: World) -> None:
    machine = world.machine
    machine.settings = replace(machine.settings, strategy="manual")
    assert await machine.boot() == "idle"
    assert machine.update is not None
    with pytest.raises(InputError, match="--why"):
        await machine.update.hold("2h", " ")
    await machine.update.hold("2h", "the fair is on", "anna")
    machine.settings = replace(machine.settings, strategy="immediate")
    update = await world.until_waiting("hold")
    assert gate(update, "hold").opens == "2026-11-22T14:00:00Z"
    assert "the fair is on" in update.picture().waiting
    (hold,) = update.picture().holds
    assert (hold.name, hold.source) == ("anna", "person")
    with pytest.raises(NotFoundError):
        await update.unhold("bert")
    world.time += 2 * 3600
    await world.until_blessed("2.0")


async def test_unhold_lets_it_go_at_once(world: World) -> None:
    machine = world.machine
    machine.settings = replace(machine.settings, strategy="manual")
    await machine.boot()
    assert machine.update is not None
    await machine.update.hold("", "later")
    machine.settings = replace(machine.settings, strategy="immediate", interval=1.0)
    asked = False

    def waits(update: agent.Update) -> bool:
        nonlocal asked
        asked = asked or bool(update.picture().waiting)
        return asked

    await world.boot_until(waits)
    machine.settings = replace(machine.settings, interval=86400.0)

    async def release(asks: object, force: object, stopping: trio.Event) -> None:
        assert machine.update is not None
        while not machine.update.picture().waiting:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await machine.update.unhold()
        await trio.sleep_forever()

    kept, machine._ask = machine._ask, release  # type: ignore[method-assign, assignment]
    assert await machine.boot() == "switched"
    machine._ask = kept  # type: ignore[method-assign]


async def test_a_unit_holds_by_a_file(world: World) -> None:
    place = Path(world.machine.layout.run) / "update-hold.d"
    place.mkdir(parents=True)
    (place / "backup").write_text("the backup runs\nfor = 90m\n")
    os.utime(place / "backup", (SUNDAY - 60, SUNDAY - 60))
    update = await world.until_waiting("hold")
    assert gate(update, "hold").opens == "2026-11-22T13:29:00Z"
    assert "the backup runs" in gate(update, "hold").reason
    (place / "backup").unlink()
    await world.until_blessed("2.0")


async def test_people_on_terminals_are_warned_and_given_time(world: World) -> None:
    world.machine.settings = replace(world.machine.settings, user_grace=300.0)
    world.people = (Terminal("/dev/pts/7", "anna"),)
    update = await world.until_waiting("users")
    assert gate(update, "users").opens == "2026-11-22T12:05:00Z"
    (said,) = world.told
    assert "2.0 in 5m" in said
    world.people = ()  # they went
    await world.until_blessed("2.0")


async def test_never_more_than_n_switches_a_day_then_a_person(world: World) -> None:
    machine = world.machine
    machine.settings = replace(machine.settings, switches_a_day=3)
    for number in range(3):
        machine.shelf.append(offer(f"{number + 3}.0"))
        await world.until_blessed(f"{number + 3}.0")
    machine.shelf.append(offer("9.0"))
    update = await world.until_waiting("loop")
    assert gate(update, "loop").opens == ""
    assert "3 switches within a day" in gate(update, "loop").reason
    world.time += 3 * 86400  # not by itself, though the day is over
    await world.until_waiting("loop")
    machine.settings = replace(machine.settings, interval=3600.0)
    await machine.live("")  # a person may, and begins anew
    assert machine.started[-1] == "9.0"
    machine.settings = replace(machine.settings, interval=1.0)
    machine.shelf.append(offer("10.0"))
    await world.until_blessed("10.0")


def locked(world: World, fleet: Fleet) -> None:
    lock = LockSettings(url=fleet.url, id="me", timeout=30.0)
    world.machine.settings = replace(world.machine.settings, strategy="lock", lock=lock)


async def test_the_lock_is_taken_kept_through_the_trial_and_given_back(world: World, fleet: Fleet) -> None:
    locked(world, fleet)
    seen: list[set[str]] = []
    launch = world.machine.launch

    def look_and_launch() -> object:
        seen.append(set(fleet.held()))
        return launch()

    world.machine.launch = look_and_launch  # type: ignore[method-assign, assignment]
    await world.until_blessed("2.0")
    assert seen == [set(), {"me"}]
    assert await world.boot_until(lambda _: not fleet.held()) == "idle"
    # As Zincati does: what an earlier life of this host may have held is given back first.
    assert fleet.requests[:2] == [("/v1/steady-state", "me"), ("/v1/pre-reboot", "me")]
    assert fleet.requests[-1] == ("/v1/steady-state", "me")


async def test_the_lock_is_given_back_after_a_rollback(world: World, fleet: Fleet) -> None:
    locked(world, fleet)
    world.machine.health.sick = {"2.0"}

    def is_back(update: agent.Update) -> bool:
        return any(one.outcome == "rolled back" for one in update.history()) and not fleet.held()

    for _ in range(6):
        if await world.boot_until(is_back) == "idle":
            break
    assert world.machine.started == ["1.0", "2.0", "1.0"]
    assert fleet.held() == set()


async def test_a_lock_that_others_hold_is_waited_for(world: World, fleet: Fleet) -> None:
    locked(world, fleet)
    fleet.holders["default"] = {"other"}
    update = await world.until_waiting("lock")
    assert "all 1 semaphore slots currently locked (failed_lock)" in gate(update, "lock").reason
    assert gate(update, "lock").opens
    assert untouched(world.machine)
    fleet.holders["default"].clear()
    await world.until_blessed("2.0")


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_whatever_is_not_200_is_no(world: World, fleet: Fleet, status: int) -> None:
    locked(world, fleet)
    fleet.say = status
    await world.until_waiting("lock")
    assert untouched(world.machine)
    fleet.say = 0
    await world.until_blessed("2.0")


async def test_the_window_is_looked_at_again_after_the_lock(world: World, fleet: Fleet) -> None:
    locked(world, fleet)
    world.machine.settings = replace(world.machine.settings, window=(SATURDAY_NIGHT,))
    world.time = datetime(2026, 11, 28, 3, 59, 59, tzinfo=UTC).timestamp()
    take = world.lock.take

    async def slowly(claim: Claim) -> None:
        await take(claim)
        world.time += 3600

    world.lock.take = slowly  # type: ignore[method-assign]
    update = await world.until_waiting("window")
    assert gate(update, "window").opens == "2026-12-05T02:00:00Z"
    assert untouched(world.machine)
    assert await world.boot_until(lambda _: not fleet.held()) == "idle"


async def test_killed_between_lock_and_switch_it_is_given_back(world: World, fleet: Fleet) -> None:
    """Granted, and the power is cut before anything else: the next life withdraws, as the version is gone."""
    locked(world, fleet)
    changes = world.machine.calls.change

    def cut(what: str = "") -> None:
        if fleet.held() and not world.machine.calls.cut_at:
            world.machine.calls.cut_at = world.machine.calls.calls + 1
        changes(what)

    world.machine.calls.change = cut  # type: ignore[method-assign]
    assert await world.boot_until(lambda _: False) == "power lost"
    world.machine.calls.change = changes  # type: ignore[method-assign]
    assert fleet.held() == {"me"}
    world.machine.shelf.clear()
    assert await world.boot_until(lambda _: not fleet.held()) == "idle"


async def test_giving_back_is_tried_until_the_server_lives_again(world: World, fleet: Fleet) -> None:
    locked(world, fleet)

    def blessed(update: agent.Update) -> bool:
        fleet.say = 503 if fleet.held() else 0
        return any(one.outcome == "blessed" for one in update.history())

    for _ in range(6):
        if await world.boot_until(blessed) == "idle":
            break
    assert fleet.held() == {"me"}
    asked = len(fleet.requests)

    def tried_twice_more(update: agent.Update) -> bool:
        if len(fleet.requests) >= asked + 2:
            fleet.say = 0
        return not fleet.held()

    assert await world.boot_until(tried_twice_more) == "idle"


async def test_a_server_that_hangs_or_is_not_there(fleet: Fleet) -> None:
    fleet.hang = threading.Event()
    claim = Claim(url=fleet.url, group="default", id="me", timeout=0.2)
    with pytest.raises(UnavailableError, match=r"no answer in 0\.2 s"):
        await FleetLock().take(claim)
    fleet.hang.set()
    with pytest.raises(UnavailableError, match="cannot give the lock back"):
        await FleetLock().give_back(replace(claim, url="http://127.0.0.1:1", timeout=30.0))


def test_a_terminal_gets_the_word() -> None:
    leader, follower = pty.openpty()
    try:
        name = os.ttyname(follower)
        assert terminals.tell([Terminal(name, "x"), Terminal("/dev/pts/nobody", "y")], "hello\nthere") == 1
        assert b"hello" in os.read(leader, 1000)
    finally:
        os.close(leader)
        os.close(follower)
    for one in terminals.logged_in():
        assert one.device.startswith("/dev/")


def test_utmp_is_read_as_glibc_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = terminals._ENTRY.pack(
        7, os.getpid(), b"null", b"ts/0", b"anna", b"host", 1, 2, 3, b"\0" * 16
    )  # fmt: skip
    assert len(entry) == 384
    (tmp_path / "utmp").write_bytes(entry + b"\0" * 384 + entry[:100])
    monkeypatch.setattr(terminals, "_UTMP", str(tmp_path / "utmp"))
    assert list(terminals._by_utmp()) == [Terminal("/dev/null", "anna")]
