"""The disk is full, read only, or cannot be read back, from any operation of an update on: said, and later it works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from appliance.errors import ApplianceError, ConflictError
from appliance.host import files
from appliance.update.record import SlotRecord, pick
from appliance.update.slots import Slots
from tests.sim.power import PowerMachine


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inline(act: Callable[..., Any], *words: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return act(*words)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def machine_of(place: Path) -> PowerMachine:
    machine = PowerMachine(place)
    machine.settings = replace(machine.settings, health=replace(machine.settings.health, deadline=0.5, tries=3))
    return machine


def record_of(machine: PowerMachine) -> SlotRecord:
    record = Slots(machine.calls, machine.layout.slots).load()
    assert record is not None
    return record


def said(machine: PowerMachine) -> str:
    """All that a person sees: status, explain, history."""
    update = machine.update
    assert update is not None
    gates = [gate.reason for gate in update.explain() if not gate.open]
    return " | ".join([update.picture().reason, *gates, *(entry.reason for entry in update.history())])


async def lives(machine: PowerMachine, *asks: str) -> None:
    """Until nothing changes any more: with such a disk an update may wait for a better one."""
    for _ in range(6):
        if await machine.boot(*asks) == "idle":
            return
        asks = ()
    raise AssertionError(f"it never rests: {machine.started}")


@pytest.mark.parametrize("fault", ["No space left on device", "Read-only file system", "Input/output error"])
async def test_a_disk_that_takes_nothing_from_any_operation_on(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], autojump_clock: trio.testing.MockClock
) -> None:
    counts, number = Counter[str](), 0
    whole = machine_of(tmp_path)
    await whole.live("")
    for number in range(1, whole.calls.calls - whole.base_calls + 1):
        machine = machine_of(tmp_path)
        before = record_of(machine)
        machine.calls.broken_from, machine.calls.broken = machine.calls.calls + number, fault
        await lives(machine, "")
        running = machine.started[-1]
        assert running in ("1.0", "2.0")
        after = record_of(machine)
        slots = Slots(machine.calls, machine.layout.slots)
        assert slots.load() is not None
        assert any(slots.holds(name) for name in ("a", "b") if after.entry(name).blessed)  # type: ignore[arg-type]
        if running == "1.0":
            assert fault in said(machine), (number, said(machine))
        if after == before:
            counts["nothing changed"] += 1
        machine.calls.broken_from = 0  # room again
        await machine.live()
        if machine.started[-1] == "1.0":
            assert machine.update is not None
            denied = "2.0" in machine.update.picture().denied
            counts["2.0 denied" if denied else "asked again"] += 1
            assert not denied, (number, machine.outcomes)
            await machine.live("")
        else:
            counts["went on by itself"] += 1
        assert machine.started[-1] == "2.0", (number, machine.started, machine.outcomes)
        assert pick(record_of(machine)) == "b"
    with capsys.disabled():
        print(f"\n{fault}: from each of {number} operations on, {dict(counts)}, 0 bad")


async def test_what_cannot_be_read_back_is_not_armed(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    machine = machine_of(tmp_path)
    machine.calls.unreadable = f"{machine.layout.slots}/b/appliance.tmp"
    await machine.live("")
    assert machine.started == ["1.0"]
    assert "Input/output error" in said(machine)
    assert machine.outcomes == [("2.0", "failed")]
    assert not machine.calls.exists(f"{machine.layout.slots}/b/appliance")
    assert record_of(machine).b.version == ""
    machine.calls.unreadable = ""
    await machine.live("")
    assert machine.started[-1] == "2.0"


async def test_a_disk_that_is_full_before_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    machine = machine_of(tmp_path)
    monkeypatch.setattr(files, "free_bytes", lambda path: 1 << 20)
    await machine.live("")
    assert machine.asked == ["refresh"]
    assert "1 MiB are free" in said(machine)
    monkeypatch.undo()
    assert record_of(machine).b.version == ""


async def test_two_who_ask_at_once(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """One update is made; the other is told which one is under way."""
    machine = machine_of(tmp_path)
    told: list[ApplianceError] = []
    asks = machine._ask

    async def ask(words: tuple[str, ...], force: bool, stopping: trio.Event) -> None:
        assert machine.update is not None
        await machine.update.wait_resting()
        await machine.update.apply("2.0")
        while machine.update.picture().state not in ("clearing", "writing", "verifying"):
            await trio.lowlevel.checkpoint()
        try:
            await machine.update.apply("2.0")
        except ConflictError as exc:
            told.append(exc)
        await asks((), force, stopping)

    machine._ask = ask  # type: ignore[method-assign]
    await machine.boot()
    machine._ask = asks  # type: ignore[method-assign]
    await machine.live()
    assert machine.outcomes == [("2.0", "blessed")]
    assert [one.message[:40] for one in told] == ["cannot apply: an update to 2.0 is at cle"]


def test_two_workers_at_once(tmp_path: Path) -> None:
    """Of two processes one works below a directory; the other says who is in its way."""
    from appliance.host.layout import Layout
    from appliance.update import Task, work

    layout = Layout(str(tmp_path))
    held = files.lock(layout.update + "/lock")
    try:
        answer = work(Task(layout=layout, verb="refresh", channel="alpha", repository="http://127.0.0.1:1/"))
    finally:
        held.release()
    assert answer["kind"] == "conflict"
    answer = work(Task(layout=layout, verb="refresh", channel="alpha", repository="http://127.0.0.1:1/"))
    assert answer["kind"] != "conflict"
