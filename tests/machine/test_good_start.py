"""A good start gives the tries back; a root that rots is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio
from trio.testing import MockClock

from appliance.machine import GoodStart, Scrub


class House:
    """Scripted readiness, and what was done."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.well = True
        self.kept: list[float] = []
        self.said: list[dict[str, str]] = []

    async def wait_ready(self) -> None:
        await self.ready.wait()
        if not self.well:
            self.ready = trio.Event()

    def good(self, settle: float = 60.0) -> GoodStart:
        return GoodStart(
            wait_ready=self.wait_ready, is_ready=lambda: self.well, settle=lambda: settle,
            keep=lambda: self.kept.append(1.0), publish=lambda *names, **data: self.said.append(data),
        )  # fmt: skip


async def live(house: House, service: GoodStart, acts: Callable[[trio.Event], None], seconds: float) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: service.run(stopping=stopping, task_status=task_status))
        acts(stopping)
        await trio.sleep(seconds)
        stopping.set()


async def test_after_the_settle_time_the_tries_come_back_once(autojump_clock: MockClock) -> None:
    house = House()
    await live(house, house.good(), lambda stopping: house.ready.set(), 500.0)
    assert len(house.kept) == 1


async def test_what_is_not_ready_gets_nothing_back(autojump_clock: MockClock) -> None:
    house = House()
    await live(house, house.good(), lambda stopping: None, 500.0)
    assert not house.kept


async def test_what_fell_ill_in_between_is_not_good(autojump_clock: MockClock) -> None:
    house = House()
    house.well = False
    service = house.good()
    await live(house, service, lambda stopping: house.ready.set(), 90.0)
    assert not service.settled.is_set()
    assert not house.kept


async def test_an_end_that_was_asked_for_is_no_failed_start(autojump_clock: MockClock) -> None:
    house = House()
    await live(house, house.good(), lambda stopping: house.ready.set(), 5.0)
    assert len(house.kept) == 1


async def test_a_root_is_read_to_its_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    root, said = tmp_path / "root", list[dict[str, str]]()
    root.write_bytes(b"x" * (3 << 20))
    scrub = Scrub(begin=trio.sleep_forever, publish=lambda *names, **data: said.append(data), root=str(root))
    await scrub._read_through()
    assert said == [{"state": "verified", "reason": f"{3 << 20} bytes"}]
    root.unlink()
    await scrub._read_through()
    assert said[-1]["state"] == "failed"
    assert "cannot read" in scrub.bad
